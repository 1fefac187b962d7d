"""Dead letters: events that were given up, kept within a bound of their own until somebody looks."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from proxy.buffer.contract import (
    MAX_LETTERS,
    BufferFull,
)
from proxy.buffer.sqlite.queues import Queues, most_bytes
from proxy.buffer.sqlite.runs import Run
from proxy.buffer.sqlite.store import Key, Store
from proxy.buffer.values import (
    DeadLetter,
    Death,
    Lease,
    Which,
)
from proxy.lanes import QueueId, lane_id
from proxy.ledger import Dead
from proxy.wire.limits import PublicKey

DEAD_OVERHEAD = 160
"""Bytes counted for a dead letter beside its texts."""

_BYTES = f"{DEAD_OVERHEAD} + length(header) + length(text)"


class DeadLetters:
    """The dead letters. Their bytes mirror the database, as in `Store`."""

    def __init__(self, store: Store, queues: Queues) -> None:
        self._store = store
        self._queues = queues
        self._bytes = 0
        self.remember()

    def remember(self) -> None:
        """Read again what is kept in memory beside the database."""
        self._bytes = self._store.number("SELECT total(dead_bytes) FROM key")

    def bury(
        self,
        key_id: int,
        lease: Lease,
        header: bytes,
        run: Run,
        deaths: Iterable[tuple[Death, int]],
        now_ms: int,
    ) -> None:
        """Write down events of a run, whose lane has this `header`: why, and their positions in it."""
        texts, places = run.texts(), run.first_places()
        trouble = lease.outlook.trouble
        first_tried_ms = lease.claimed_ms if trouble is None else trouble.since_ms
        bytes_ = 0
        for death, at in deaths:
            self._store.execute(
                "INSERT INTO dead_letter (key_id, queue, header, uuid, text, reason, message, attempts,"
                " first_tried_ms, died_ms, run_id, place) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key_id,
                    lease.queue,
                    header,
                    run.uuids[16 * at : 16 * at + 16],
                    texts[at],
                    death.reason,
                    death.message,
                    lease.attempts + 1,
                    first_tried_ms,
                    now_ms,
                    run.id,
                    places[at],
                ),
            )
            bytes_ += DEAD_OVERHEAD + len(header) + len(texts[at])
        self._count_bytes(key_id, bytes_)

    def bound(self) -> int:
        """Give up the oldest dead letters beyond the bound. Returns how many."""
        dropped = 0
        while self._bytes > self._store.terms.dead_max_bytes and self._drop(_OLDEST, ()):
            dropped += 1
        return dropped

    def replay(self, which: Which) -> tuple[int, list[tuple[PublicKey, float]]]:
        """Beside the number: which keys' queues became due by it, and in how many seconds."""
        now_ms = self._store.now_ms()
        where, values = _condition(which)
        letters = self._store.execute(
            "SELECT d.id, k.public_key, d.queue, d.header, d.uuid, d.text FROM dead_letter d"
            f" JOIN key k ON k.id = d.key_id WHERE {where}"
            " ORDER BY d.run_id, d.place LIMIT ?",
            (*values, MAX_LETTERS),
        ).fetchall()
        replayed = 0
        due: list[tuple[PublicKey, float]] = []
        for (name, queue, header), group in groupby(letters, key=lambda letter: letter[1:4]):
            offered = list(group)
            key = self._store.key(PublicKey(name))
            assert key is not None  # noqa: S101  # its letters were joined with its row
            try:
                alike = self._fitting(key, header, offered)
            except BufferFull:
                if not replayed:
                    raise
                break
            texts = [text for *_, text in alike]
            tail = self._queues.tail(key.id, queue, now_ms)
            uuids = b"".join([uuid for *_, uuid, _ in alike])
            added = self._queues.add(tail, lane_id(header), header, uuids, texts, now_ms)
            self._store.stored(key, added.stored_bytes)
            self._remove([id_ for id_, *_ in alike])
            replayed += len(alike)
            if added.due_ms is not None:
                due.append((PublicKey(name), (added.due_ms - now_ms) / 1000))
            if len(alike) < len(offered):
                break  # what did not fit must not be overtaken
        return replayed, due

    def _fitting(self, key: Key, header: bytes, letters: list[Any]) -> list[Any]:
        """As many of one lane's letters as there is room for, the first at least. Raises BufferFull."""
        while True:
            try:
                self._store.check_bytes(key, most_bytes(header, [text for *_, text in letters]))
            except BufferFull:
                if len(letters) == 1:
                    raise
                letters = letters[: len(letters) // 2]
            else:
                return letters

    def purge(self, which: Which) -> int:
        """Give up at most `MAX_LETTERS` of them, the oldest first."""
        where, values = _condition(which)
        return self._drop(
            f"SELECT d.id FROM dead_letter d JOIN key k ON k.id = d.key_id WHERE {where}"
            " ORDER BY d.id LIMIT ?",
            (*values, MAX_LETTERS),
        )

    def drop(self, ids: Sequence[int]) -> int:
        """Give up these, as far as they are still there."""
        return sum(self._drop("SELECT ?", (id_,)) for id_ in ids)

    def _drop(self, ids_sql: str, values: tuple[object, ...]) -> int:
        gone = self._delete(ids_sql, values)
        for key_id, _ in gone:
            self._store.execute(
                "UPDATE key SET dead = dead - 1, dropped = dropped + 1 WHERE id = ?", (key_id,)
            )
        return len(gone)

    def _remove(self, ids: Sequence[int]) -> None:
        """Take out letters whose events live on."""
        for id_ in ids:
            for key_id, _ in self._delete("SELECT ?", (id_,)):
                self._store.execute("UPDATE key SET dead = dead - 1 WHERE id = ?", (key_id,))

    def _delete(self, ids_sql: str, values: tuple[object, ...]) -> list[tuple[int, int]]:
        gone: list[tuple[int, int]] = self._store.execute(
            f"DELETE FROM dead_letter WHERE id IN ({ids_sql}) RETURNING key_id, {_BYTES}",
            values,
        ).fetchall()
        for key_id, bytes_ in gone:
            self._count_bytes(key_id, -bytes_)
        return gone

    def _count_bytes(self, key_id: int, bytes_: int) -> None:
        self._bytes += bytes_
        self._store.execute("UPDATE key SET dead_bytes = dead_bytes + ? WHERE id = ?", (bytes_, key_id))


_OLDEST = "SELECT min(id) FROM dead_letter"


def list_letters(
    execute: Callable[..., Any], which: Which, before_id: int | None, limit: int
) -> list[DeadLetter]:
    """The newest ones, on any connection."""
    where, values = _condition(which)
    rows = execute(
        "SELECT d.id, k.public_key, d.queue, d.header, d.uuid, d.text, d.reason, d.message, d.attempts,"
        f" d.first_tried_ms, d.died_ms FROM dead_letter d JOIN key k ON k.id = d.key_id WHERE {where}"
        " AND (? IS NULL OR d.id < ?) ORDER BY d.id DESC LIMIT ?",
        (*values, before_id, before_id, min(limit, MAX_LETTERS)),
    )
    return [
        DeadLetter(
            id_, PublicKey(name), QueueId(queue), header, uuid, text, Dead(reason), message, *tries_and_times
        )
        for id_, name, queue, header, uuid, text, reason, message, *tries_and_times in rows
    ]


def count_letters(execute: Callable[..., Any], which: Which) -> int:
    """How many there are, on any connection."""
    where, values = _condition(which)
    found = execute(
        f"SELECT count(*) FROM dead_letter d JOIN key k ON k.id = d.key_id WHERE {where}",
        values,
    )
    return int(found.fetchone()[0])


def _condition(which: Which) -> tuple[str, tuple[object, ...]]:
    """`which` as SQL over `dead_letter d JOIN key k`."""
    given = [
        (sql, value)
        for sql, value in (
            ("k.public_key = ?", which.key),
            ("d.id = ?", which.id),
            ("d.uuid = ?", which.uuid),
            ("d.queue = ?", which.queue),
            ("d.reason = ?", which.reason),
            ("d.died_ms >= ?", which.died_from_ms),
            ("d.died_ms < ?", which.died_before_ms),
            ("d.id <= ?", which.up_to_id),
        )
        if value is not None
    ]
    return " AND ".join(sql for sql, _ in given) or "true", tuple(value for _, value in given)
