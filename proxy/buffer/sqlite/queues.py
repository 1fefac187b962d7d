"""A queue and its tail: what append and replay have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.buffer.contract import FULL_BATCH
from proxy.buffer.packing import RUN_BYTES, cuts, pack
from proxy.buffer.sqlite.runs import run_bytes
from proxy.buffer.sqlite.store import LANE_OVERHEAD, Store
from proxy.buffer.sqlite.tries import UNTRIED

_FORGET_EVERY_MS = 1_000
_FORGET_AT_ONCE = 400
"""Queues that one append deletes: some 0.5 ms."""


@dataclass(frozen=True, slots=True)
class Tail:
    """Where events are added to a queue. `idle`: its due time is one that an append may move."""

    queue_id: int
    held: int
    idle: bool


@dataclass(frozen=True, slots=True)
class Added:
    """The bytes counted for what was added, and when the queue is due now, None where that did not change."""

    stored_bytes: int
    due_ms: int | None


class Queues:
    """The queues' rows and the runs behind them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._forgotten_ms = 0
        self._next_run_id = 1
        self.remember()

    def remember(self) -> None:
        """Read again what is kept in memory beside the database."""
        newest = "SELECT max(id) AS id FROM run UNION ALL SELECT max(run_id) FROM dead_letter"
        self._next_run_id = 1 + self._store.number(f"SELECT ifnull(max(id), 0) FROM ({newest})")

    def tail(self, key_id: int, name: bytes, now_ms: int) -> Tail:
        """The tail of a queue, which is made where it is new."""
        found = self._store.execute(
            "SELECT id, held, token IS NULL AND NOT backing_off FROM queue WHERE key_id = ? AND name = ?",
            (key_id, name),
        ).fetchone()
        if found is not None:
            return Tail(found[0], found[1], bool(found[2]))
        (queue_id,) = self._store.one(
            "INSERT INTO queue (key_id, name, held, due_ms, max_events, touched_ms) VALUES (?, ?, 0, 0, ?, ?)"
            " RETURNING id",
            (key_id, name, UNTRIED.max_events, now_ms),
        )
        return Tail(queue_id, 0, True)

    def add(
        self, tail: Tail, lane: bytes, header: bytes, uuids: bytes, texts: Sequence[bytes], now_ms: int
    ) -> Added:
        """Add events of one lane behind a queue's others."""
        stored_bytes = runs = 0
        for start, end in cuts(texts):
            part = texts[start:end]
            part_uuids = uuids[16 * start : 16 * end]
            packed = pack(part_uuids, part)
            self._store.execute(
                "INSERT INTO run (id, queue_id, lane, accepted_ms, events, uuids, lengths, packed, body,"
                " checksum) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    self._next_run_id,
                    tail.queue_id,
                    lane,
                    now_ms,
                    len(part),
                    part_uuids,
                    *packed,
                ),
            )
            self._next_run_id += 1
            stored_bytes += run_bytes(len(part), len(packed.body))
            runs += 1
        stored_bytes += self._store.enter_lane(tail.queue_id, lane, header, runs)
        held = tail.held + len(texts)
        due_ms = self._moved_due_ms(tail, held, now_ms)
        if due_ms is None:
            self._store.execute(
                "UPDATE queue SET held = ?, touched_ms = ? WHERE id = ?", (held, now_ms, tail.queue_id)
            )
        else:
            self._store.execute(
                "UPDATE queue SET held = ?, touched_ms = ?, due_ms = ? WHERE id = ?",
                (held, now_ms, due_ms, tail.queue_id),
            )
        return Added(stored_bytes, due_ms)

    def forget(self, now_ms: int) -> None:
        """Now and then delete some of the queues that have been empty for longer than the dedup window."""
        if 0 <= now_ms - self._forgotten_ms < _FORGET_EVERY_MS:
            return
        self._store.execute(
            "DELETE FROM queue WHERE id IN"
            f" (SELECT id FROM queue WHERE held = 0 AND touched_ms < ? LIMIT {_FORGET_AT_ONCE})",
            (now_ms - self._store.terms.dedup_window_ms,),
        )
        if self._store.number("SELECT changes()") < _FORGET_AT_ONCE:
            self._forgotten_ms = now_ms

    def _moved_due_ms(self, tail: Tail, held: int, now_ms: int) -> int | None:
        """A lease, a back-off or a pause is never shortened by what is added."""
        if tail.held == 0:
            return now_ms if held >= FULL_BATCH else now_ms + self._store.terms.linger_ms
        if held >= FULL_BATCH > tail.held and tail.idle:
            return now_ms
        return None


def most_bytes(header: bytes, texts: Sequence[bytes]) -> int:
    """The most that adding these events can come to in bytes counted: nothing shrinks, the lane is new."""
    body_bytes = sum(map(len, texts))
    # Of two runs in a row that were cut at their bytes, both hold more than RUN_BYTES together.
    runs = 1 + len(texts) // FULL_BATCH + 2 * body_bytes // RUN_BYTES
    return run_bytes(len(texts), body_bytes) + (runs - 1) * run_bytes(0, 0) + LANE_OVERHEAD + len(header)
