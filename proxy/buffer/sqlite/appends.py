"""Append: a client's request into its queues, whole or not at all."""

from collections.abc import Sequence

from proxy import gate
from proxy.buffer.contract import (
    FULL_BATCH,
    Appended,
    BufferFull,
    Event,
    NeverFits,
    Portion,
    Quota,
    QuotaExceeded,
)
from proxy.buffer.sqlite.seen import Seen
from proxy.buffer.sqlite.store import EVENT_OVERHEAD, LANE_OVERHEAD, RUN_OVERHEAD, Key, Store, encode_run
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

_RUN_BYTES = 250_000
"""A run's body is cut at this size: reading a batch then never loads much more than it sends."""

_HOLDING_UNCONFIRMED = (
    "SELECT count(*) FROM key WHERE NOT succeeded"
    " AND EXISTS (SELECT 1 FROM queue WHERE key_id = key.id AND held > 0)"
)


class Appends:
    """The verb `append`."""

    def __init__(self, store: Store, seen: Seen) -> None:
        self._store = store
        self._seen = seen
        self._linger_ms = int(store.terms.linger_s * 1000)

    def append(self, key: PublicKey, portions: Sequence[Portion]) -> tuple[Appended, float | None]:
        """Beside the answer: in how many seconds a queue became due by this append, None if none did."""
        now_ms = self._store.now_ms()
        row = self._admit(key, portions)
        self._seen.turn(now_ms)
        stored = offered = 0
        due_ms: int | None = None
        added_bytes = 0
        for portion in portions:
            offered += len(portion.events)
            queue_id, held, idle = self._queue(row.id, portion.queue, now_ms)
            fresh = self._seen.unseen(queue_id, portion.events, now_ms)
            if not fresh:
                continue
            stored += len(fresh)
            added_bytes += self._write(queue_id, portion, [portion.events[i] for i in fresh], now_ms)
            after = held + len(fresh)
            became_due_ms = None
            if held == 0:
                became_due_ms = now_ms if after >= FULL_BATCH else now_ms + self._linger_ms
            elif after >= FULL_BATCH > held and idle:
                became_due_ms = now_ms
            if became_due_ms is None:
                self._store.execute(
                    "UPDATE queue SET held = ?, touched_ms = ? WHERE id = ?", (after, now_ms, queue_id)
                )
            else:
                self._store.execute(
                    "UPDATE queue SET held = ?, touched_ms = ?, due_ms = ? WHERE id = ?",
                    (after, now_ms, became_due_ms, queue_id),
                )
                due_ms = became_due_ms if due_ms is None else min(due_ms, became_due_ms)
        if stored:
            self._store.stored_bytes += added_bytes
            self._store.execute(
                "UPDATE key SET accepted = accepted + ?, stored_bytes = stored_bytes + ? WHERE id = ?",
                (stored, added_bytes, row.id),
            )
        return Appended(stored, offered - stored), None if due_ms is None else (due_ms - now_ms) / 1000

    def _admit(self, key: PublicKey, portions: Sequence[Portion]) -> Key:
        """The key's row, made where it is new, if the bounds allow this request; else nothing is written."""
        size = sum(map(_most_bytes, portions))
        if size > min(self._store.terms.max_bytes, self._store.terms.max_bytes_per_key):
            raise NeverFits("larger than buffer.max_bytes or buffer.max_bytes_per_key")
        if self._store.stored_bytes + size > self._store.terms.max_bytes:
            raise BufferFull("the buffer holds buffer.max_bytes")
        row = self._store.key(key)
        held_bytes = (
            0 if row is None else self._store.number("SELECT stored_bytes FROM key WHERE id = ?", row.id)
        )
        if held_bytes + size > self._store.terms.max_bytes_per_key:
            raise BufferFull("this public key holds buffer.max_bytes_per_key")
        if self._store.terms.quota is not None and (row is None or not row.succeeded):
            self._admit_unconfirmed(row, portions, self._store.terms.quota)
        if row is None:
            fresh = gate.dump(gate.opened(self._store.terms.limit_per_s))
            self._store.execute("INSERT INTO key (public_key, gate) VALUES (?, ?)", (key, fresh))
            row = self._store.key(key)
            assert row is not None  # noqa: S101  # it was just inserted
        return row

    def _admit_unconfirmed(self, row: Key | None, portions: Sequence[Portion], quota: Quota) -> None:
        asked = {portion.queue for portion in portions}
        waiting: set[bytes] = set()
        if row is not None:
            found = self._store.execute("SELECT name FROM queue WHERE key_id = ? AND held > 0", (row.id,))
            waiting = {name for (name,) in found}
        if not waiting and self._store.number(_HOLDING_UNCONFIRMED) >= quota.keys:
            raise QuotaExceeded("too many public keys that Outlit never confirmed hold events")
        if not asked <= waiting and len(asked | waiting) > quota.queues:
            raise QuotaExceeded("this public key was never confirmed by Outlit and holds too many queues")

    def _queue(self, key_id: int, name: QueueId, now_ms: int) -> tuple[int, int, bool]:
        """The queue's id, events held, and whether its due time is one that an append may move."""
        found = self._store.execute(
            "SELECT id, held, token IS NULL AND NOT backing_off FROM queue WHERE key_id = ? AND name = ?",
            (key_id, name),
        ).fetchone()
        if found is not None:
            queue_id, held, idle = found
            return queue_id, held, bool(idle)
        (queue_id,) = self._store.one(
            "INSERT INTO queue (key_id, name, held, due_ms, max_events, touched_ms) VALUES (?, ?, 0, 0, ?, ?)"
            " RETURNING id",
            (key_id, name, FULL_BATCH, now_ms),
        )
        return queue_id, 0, True

    def _write(self, queue_id: int, portion: Portion, events: Sequence[Event], now_ms: int) -> int:
        """Write the events as runs behind the queue's others. Returns the bytes counted for them."""
        runs = 0
        stored_bytes = 0
        pending: list[tuple[bytes, bytes]] = []
        pending_bytes = 0

        def write() -> None:
            nonlocal runs, stored_bytes, pending, pending_bytes
            body = encode_run(pending)
            self._store.execute(
                "INSERT INTO run (queue_id, lane, accepted_ms, events, body) VALUES (?, ?, ?, ?, ?)",
                (queue_id, portion.lane, now_ms, len(pending), body),
            )
            runs += 1
            stored_bytes += RUN_OVERHEAD + len(body)
            pending, pending_bytes = [], 0

        for event in events:
            if pending and (len(pending) == FULL_BATCH or pending_bytes + len(event.text) > _RUN_BYTES):
                write()
            pending.append((event.uuid, event.text))
            pending_bytes += len(event.text)
        write()
        (before,) = self._store.one(
            "INSERT INTO lane (queue_id, lane, header, runs) VALUES (?1, ?2, ?3, ?4)"
            " ON CONFLICT DO UPDATE SET runs = runs + ?4 RETURNING runs - ?4",
            (queue_id, portion.lane, portion.header, runs),
        )
        if before == 0:
            stored_bytes += LANE_OVERHEAD + len(portion.header)
        return stored_bytes


def _most_bytes(portion: Portion) -> int:
    """The most that a portion can come to in `stored_bytes`: none of it is a duplicate, its lane is new."""
    events_bytes = sum(len(event.text) for event in portion.events)
    # Of two runs in a row that were cut at their bytes, both hold more than _RUN_BYTES together.
    runs = 1 + len(portion.events) // FULL_BATCH + 2 * events_bytes // _RUN_BYTES
    return (
        RUN_OVERHEAD * runs
        + EVENT_OVERHEAD * len(portion.events)
        + events_bytes
        + LANE_OVERHEAD
        + len(portion.header)
    )
