"""Looking for events in the data itself: by uuid, and by whose they are. On any thread and connection."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.buffer.sqlite.dead_letters import list_letters
from proxy.buffer.sqlite.records import batches_with
from proxy.buffer.sqlite.runs import read_runs
from proxy.buffer.values import (
    HeldEvent,
    Traces,
    Which,
)
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

_OF_THESE_QUEUES = "queue_id IN (SELECT q.id FROM queue q JOIN key k ON k.id = q.key_id WHERE q.held > 0{})"


@dataclass(frozen=True, slots=True)
class Scope:
    """Where to look: in all of the buffer, or in one key, or queue."""

    key: PublicKey | None = None
    queue: QueueId | None = None

    def runs(self) -> tuple[str, tuple[object, ...]]:
        """A condition on runs."""
        if self.key is None and self.queue is None:
            return "true", ()
        sql = (" AND k.public_key = ?" if self.key is not None else "") + (
            " AND q.name = ?" if self.queue is not None else ""
        )
        return _OF_THESE_QUEUES.format(sql), tuple(of for of in (self.key, self.queue) if of is not None)


@dataclass(slots=True)
class Theirs:
    """Where somebody's events are: ids of runs by their queue's, and of dead letters."""

    runs: dict[int, list[int]] = field(default_factory=dict)
    letters: list[int] = field(default_factory=list)


def trace(execute: Callable[..., Any], uuid: bytes, scope: Scope, now_ms: int) -> Traces:
    """All that is known of a uuid."""
    keys = execute("SELECT id, public_key FROM key WHERE ?1 IS NULL OR public_key = ?1", (scope.key,))
    batches = [
        batch for key_id, name in keys for batch in batches_with(execute, key_id, PublicKey(name), uuid)
    ]
    return Traces(
        held=_held(execute, uuid, scope, now_ms),
        dead=list_letters(execute, Which(key=scope.key, queue=scope.queue, uuid=uuid), None, 100),
        batches=sorted(batches, key=lambda batch: batch.settled_at_ms, reverse=True),
    )


def _held(execute: Callable[..., Any], uuid: bytes, scope: Scope, now_ms: int) -> list[HeldEvent]:
    where, values = scope.runs()
    rows = execute(
        "SELECT k.public_key, q.name, run.accepted_ms, q.attempts, q.token IS NOT NULL, q.due_ms, run.uuids"
        " FROM run JOIN queue q ON q.id = queue_id JOIN key k ON k.id = q.key_id"
        f" WHERE {where} AND instr(uuids, ?) ORDER BY run.id DESC",
        (*values, uuid),
    )
    return [
        HeldEvent(
            PublicKey(name),
            QueueId(queue),
            accepted_ms,
            attempts,
            bool(leased) and due_ms > now_ms,
            (due_ms - now_ms) / 1000,
        )
        for name, queue, accepted_ms, attempts, leased, due_ms, uuids in rows
        if any(uuids[at : at + 16] == uuid for at in range(0, len(uuids), 16))
    ]


def find_theirs(
    execute: Callable[..., Any], is_theirs: Callable[[bytes, bytes], bool], scope: Scope
) -> Theirs:
    """The runs and dead letters in which an event is for which `is_theirs(lane header, text)`."""
    found = Theirs()
    headers: dict[bytes, bytes] = {}
    for run in read_runs(execute, *scope.runs()):
        header = headers.get(run.lane)
        if header is None:
            (header,) = execute(
                "SELECT header FROM lane WHERE queue_id = ? AND lane = ?", (run.queue_id, run.lane)
            ).fetchone()
            headers = {run.lane: header}  # neighbours share it; there may be millions
        if any(is_theirs(header, text) for text in run.texts()):
            found.runs.setdefault(run.queue_id, []).append(run.id)
    letters = execute(
        "SELECT d.id, d.header, d.text FROM dead_letter d JOIN key k ON k.id = d.key_id"
        " WHERE (?1 IS NULL OR k.public_key = ?1) AND (?2 IS NULL OR d.queue = ?2)",
        (scope.key, scope.queue),
    )
    found.letters = [id_ for id_, header, text in letters if is_theirs(header, text)]
    return found
