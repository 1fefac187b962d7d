"""The verbs on the embedded database, each the body of one transaction on the writer's thread.

What each leaves behind: see the contract. Every figure in the books changes here, in the transaction that
changes the data.
"""

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import apsw
import msgspec

from proxy import gate
from proxy.buffer.contract import (
    FULL_BATCH,
    MAX_IDLE_S,
    MAX_WAIT_S,
    Appended,
    BufferFull,
    DeadLetter,
    Death,
    Event,
    Head,
    Held,
    Idle,
    Lease,
    Portion,
    Quota,
    QuotaExceeded,
    Settled,
    Settlement,
    Spent,
    Terms,
)
from proxy.clock import StoreClock
from proxy.lanes import LaneId, QueueId
from proxy.ledger import Dead
from proxy.wire.limits import PublicKey

RUN_OVERHEAD = 120
"""Bytes counted for a run beside its body: its row, index entry, dedup ids and share of the queue's row."""

LANE_OVERHEAD = 60
"""Bytes counted for a lane beside its header."""

DEAD_OVERHEAD = 120
"""Bytes counted for a dead letter beside its texts."""

EVENT_OVERHEAD = 32
"""At most what a run's body has for an event beside its text: uuid, lengths, brackets."""

_PROBE_BYTES = 1_000
"""What a small request takes: with less room than that the buffer is full."""

_PROBE_PAGES = 16
"""Pages of the file that a small request may need."""

_MAX_WAIT_MS = int(MAX_WAIT_S * 1000)

_RUN_BYTES = 250_000
"""A run's body is cut at this size: reading a batch then never loads much more than it sends."""

_encode_run = msgspec.msgpack.Encoder().encode
_decode_run = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode


@dataclass(slots=True)
class _Key:
    """What is remembered of a key's row. Guarded by the writer's thread."""

    id: int
    succeeded: bool


class Transactions:
    """The verbs' bodies. Called on the writer's thread only, inside a transaction."""

    def __init__(self, connection: apsw.Connection, terms: Terms, clock: StoreClock) -> None:
        # Rows are typed by the schema, which mypy cannot see.
        self._execute: Callable[..., Any] = connection.execute
        self._terms = terms
        self._clock = clock
        self._limit_per_s = terms.limit_per_s
        self._linger_ms = int(terms.linger_s * 1000)
        self._lease_ms = int(terms.lease_s * 1000)
        self._window_ms = int(terms.dedup_window_s * 1000)
        # What follows mirrors the database and is read from it again after a rollback.
        self._keys: dict[PublicKey, _Key] = {}
        self._stored_bytes = 0
        self._dead_bytes = 0
        self._turn = 0
        self._turned_ms = 0
        self.remember()

    def remember(self) -> None:
        """Read again what is kept in memory beside the database."""
        self._keys.clear()
        self._stored_bytes = self._number("SELECT total(stored_bytes) FROM key")
        self._dead_bytes = self._number(f"SELECT total({_DEAD_BYTES}) FROM dead_letter")  # noqa: S608  # ours
        self._turn, self._turned_ms = self._one("SELECT current, since_ms FROM seen_turn")

    def pull_back(self) -> None:
        """No due time lies further ahead than what set it can reach: the clock may have jumped back."""
        now_ms = self._clock.now_ms()
        self._execute(
            f"UPDATE queue SET due_ms = ?1 + {_REACH_MS} WHERE held > 0 AND due_ms > ?1 + {_REACH_MS}",  # noqa: S608  # ours
            (now_ms, self._lease_ms, _MAX_WAIT_MS, self._linger_ms),
        )
        self._turned_ms = min(self._turned_ms, now_ms)

    # -- append ----------------------------------------------------------------------------------------

    def append(self, key: PublicKey, portions: Sequence[Portion]) -> tuple[Appended, float | None]:
        """Beside the answer: in how many seconds a queue became due by this append, None if none did."""
        now_ms = self._clock.now_ms()
        self._turn_generations(now_ms)
        row = self._admit(key, portions)
        stored = offered = 0
        due_ms: int | None = None
        added_bytes = 0
        for portion in portions:
            offered += len(portion.events)
            queue_id, held, idle = self._queue(row.id, portion.queue, now_ms)
            fresh = self._unseen(queue_id, portion.events, now_ms)
            if not fresh:
                continue
            stored += len(fresh)
            added_bytes += self._store(queue_id, portion, [portion.events[i] for i in fresh], now_ms)
            after = held + len(fresh)
            became_due_ms = None
            if held == 0:
                became_due_ms = now_ms if after >= FULL_BATCH else now_ms + self._linger_ms
            elif after >= FULL_BATCH > held and idle:
                became_due_ms = now_ms
            if became_due_ms is None:
                self._execute(
                    "UPDATE queue SET held = ?, touched_ms = ? WHERE id = ?", (after, now_ms, queue_id)
                )
            else:
                self._execute(
                    "UPDATE queue SET held = ?, touched_ms = ?, due_ms = ? WHERE id = ?",
                    (after, now_ms, became_due_ms, queue_id),
                )
                due_ms = became_due_ms if due_ms is None else min(due_ms, became_due_ms)
        if stored:
            self._stored_bytes += added_bytes
            self._execute(
                "UPDATE key SET accepted = accepted + ?, stored_bytes = stored_bytes + ? WHERE id = ?",
                (stored, added_bytes, row.id),
            )
        return Appended(stored, offered - stored), None if due_ms is None else (due_ms - now_ms) / 1000

    def _admit(self, key: PublicKey, portions: Sequence[Portion]) -> _Key:
        """The key's row, made where it is new, if the bounds allow this request. Writes nothing before."""
        size = sum(map(_most_bytes, portions))
        if self._stored_bytes + size > self._terms.max_bytes:
            raise BufferFull("the buffer holds buffer.max_bytes")
        row = self._key(key)
        held_bytes = 0 if row is None else self._number("SELECT stored_bytes FROM key WHERE id = ?", row.id)
        if held_bytes + size > self._terms.max_bytes_per_key:
            raise BufferFull("this public key holds buffer.max_bytes_per_key")
        if self._terms.quota is not None and (row is None or not row.succeeded):
            self._admit_unconfirmed(row, portions, self._terms.quota)
        if row is None:
            fresh = gate.dump(gate.opened(self._limit_per_s))
            self._execute("INSERT INTO key (public_key, gate) VALUES (?, ?)", (key, fresh))
            row = self._key(key)
            assert row is not None  # noqa: S101  # it was just inserted
        return row

    def _admit_unconfirmed(self, row: _Key | None, portions: Sequence[Portion], quota: Quota) -> None:
        if row is None and self._number("SELECT count(*) FROM key WHERE NOT succeeded") >= quota.keys:
            raise QuotaExceeded("too many public keys that Outlit never confirmed hold events")
        asked = {portion.queue for portion in portions}
        waiting: set[bytes] = set()
        if row is not None:
            found = self._execute("SELECT name FROM queue WHERE key_id = ? AND held > 0", (row.id,))
            waiting = {name for (name,) in found}
        if not asked <= waiting and len(asked | waiting) > quota.queues:
            raise QuotaExceeded("this public key was never confirmed by Outlit and holds too many queues")

    def _queue(self, key_id: int, name: QueueId, now_ms: int) -> tuple[int, int, bool]:
        """The queue's id, events held, and whether its due time is one that an append may move."""
        found = self._execute(
            "SELECT id, held, token IS NULL AND NOT backing_off FROM queue WHERE key_id = ? AND name = ?",
            (key_id, name),
        ).fetchone()
        if found is not None:
            queue_id, held, idle = found
            return queue_id, held, bool(idle)
        (queue_id,) = self._one(
            "INSERT INTO queue (key_id, name, held, due_ms, max_events, touched_ms) VALUES (?, ?, 0, 0, ?, ?)"
            " RETURNING id",
            (key_id, name, FULL_BATCH, now_ms),
        )
        return queue_id, 0, True

    def _unseen(self, queue_id: int, events: Sequence[Event], now_ms: int) -> list[int]:
        """The positions of the events that were not seen in this queue within the window; they now are."""
        ids = [event.dedup_id for event in events]
        wanted = apsw.carray(array("q", ids))
        since_ms = now_ms - self._window_ms
        seen = {
            dedup_id
            for (dedup_id,) in self._execute(
                "SELECT dedup_id FROM seen_0 WHERE queue_id = ?1 AND at_ms > ?2"
                " AND dedup_id IN (SELECT value FROM carray(?3))"
                " UNION ALL SELECT dedup_id FROM seen_1 WHERE queue_id = ?1 AND at_ms > ?2"
                " AND dedup_id IN (SELECT value FROM carray(?3))",
                (queue_id, since_ms, wanted),
            )
        }
        fresh: list[int] = []
        for position, dedup_id in enumerate(ids):
            if dedup_id not in seen:
                seen.add(dedup_id)
                fresh.append(position)
        if fresh:
            self._execute(
                f"INSERT OR REPLACE INTO seen_{self._turn} SELECT ?, value, ? FROM carray(?)",  # noqa: S608  # 0 or 1
                (queue_id, now_ms, apsw.carray(array("q", [ids[position] for position in fresh]))),
            )
        return fresh

    def _turn_generations(self, now_ms: int) -> None:
        """Forget the older generation of dedup ids once all of it is outside the window."""
        if now_ms - self._turned_ms < self._window_ms:
            return
        self._turn = 1 - self._turn
        self._turned_ms = now_ms
        self._execute(f"DELETE FROM seen_{self._turn}")  # noqa: S608  # 0 or 1
        self._execute("UPDATE seen_turn SET current = ?, since_ms = ?", (self._turn, now_ms))
        self._execute("DELETE FROM queue WHERE held = 0 AND touched_ms < ?", (now_ms - self._window_ms,))

    def _store(self, queue_id: int, portion: Portion, events: Sequence[Event], now_ms: int) -> int:
        """Write the events as runs behind the queue's others. Returns the bytes counted for them."""
        runs = 0
        stored_bytes = 0
        pending: list[tuple[bytes, bytes]] = []
        pending_bytes = 0

        def write() -> None:
            nonlocal runs, stored_bytes, pending, pending_bytes
            body = _encode_run(pending)
            self._execute(
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
        (before,) = self._one(
            "INSERT INTO lane (queue_id, lane, header, runs) VALUES (?1, ?2, ?3, ?4)"
            " ON CONFLICT DO UPDATE SET runs = runs + ?4 RETURNING runs - ?4",
            (queue_id, portion.lane, portion.header, runs),
        )
        if before == 0:
            stored_bytes += LANE_OVERHEAD + len(portion.header)
        return stored_bytes

    # -- claim and read --------------------------------------------------------------------------------

    def claim(self, key: PublicKey, token: bytes) -> Lease | Idle:
        row = self._key(key)
        if row is None or (first := self._first_due(row.id)) is None:
            return Idle(MAX_IDLE_S, empty=True)
        now_ms = self._clock.now_ms()
        queue_id, name, due_ms, expired, attempts, max_events = first
        if due_ms > now_ms + max(self._linger_ms, self._lease_ms):
            # All of the key's queues back off, or the clock jumped back.
            self.pull_back()
            queue_id, name, due_ms, expired, attempts, max_events = self._first_due(row.id)
        if due_ms > now_ms:
            return Idle(min(MAX_IDLE_S, (due_ms - now_ms) / 1000))
        after = gate.claim(self._gate(row.id), now_ms)
        if isinstance(after, int):
            return Idle(min(MAX_IDLE_S, after / 1000))
        # A lease that ended by itself was a try that failed.
        attempts += expired
        self._execute(
            "UPDATE queue SET token = ?, due_ms = ?, attempts = ? WHERE id = ?",
            (token, now_ms + self._lease_ms, attempts, queue_id),
        )
        self._execute("UPDATE key SET gate = ? WHERE id = ?", (gate.dump(after), row.id))
        return Lease(key, QueueId(name), token, attempts, max_events)

    def _first_due(self, key_id: int) -> Any:
        return self._execute(
            "SELECT id, name, due_ms, token IS NOT NULL, attempts, max_events FROM queue"
            " WHERE key_id = ? AND held > 0 ORDER BY due_ms LIMIT 1",
            (key_id,),
        ).fetchone()

    def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        found = self._leased(lease)
        if found is None:
            return Spent()
        queue_id = found[0]
        events: list[Held] = []
        lane: LaneId | None = None
        used_bytes = 0
        more: Literal["none", "lane", "events", "bytes"] = "none"
        for run_lane, body in self._execute(
            "SELECT lane, body FROM run WHERE queue_id = ? ORDER BY id", (queue_id,)
        ):
            if lane is not None and run_lane != lane:
                more = "lane"
                break
            lane = LaneId(run_lane)
            for uuid, text in _decode_run(body):
                if len(events) == max_events:
                    more = "events"
                    break
                used_bytes += len(text) + 1  # the comma between two
                if events and used_bytes > max_bytes:
                    more = "bytes"
                    break
                events.append(Held(lane, uuid, text))
            if more != "none":
                break
        (header,) = self._one("SELECT header FROM lane WHERE queue_id = ? AND lane = ?", (queue_id, lane))
        return Head(header, events, more)

    # -- settle ----------------------------------------------------------------------------------------

    def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        found = self._leased(lease)
        if found is None:
            return Spent()
        queue_id, key_id, held = found
        now_ms = self._clock.now_ms()
        freed_bytes = self._take(queue_id, key_id, lease, settlement, now_ms)
        dropped = self._bound_dead_letters()
        left = held - settlement.taken + len(settlement.again)
        due_ms = self._end_lease(queue_id, left, settlement, now_ms)
        delivered, dead = settlement.delivered, len(settlement.dead)
        self._stored_bytes -= freed_bytes
        self._execute(
            "UPDATE key SET delivered = delivered + ?, dead = dead + ?, stored_bytes = stored_bytes - ?,"
            " succeeded = succeeded OR ?, gate = ? WHERE id = ?",
            (
                delivered,
                dead,
                freed_bytes,
                delivered > 0,
                gate.dump(gate.settle(self._gate(key_id), settlement.feedback, now_ms)),
                key_id,
            ),
        )
        if delivered and (row := self._keys.get(lease.key)) is not None:
            row.succeeded = True
        return Settled(left, max(0, due_ms - now_ms) / 1000 if left else None, dropped)

    def _take(self, queue_id: int, key_id: int, lease: Lease, settlement: Settlement, now_ms: int) -> int:
        """Take what is done off the queue's head. Returns the bytes that are no longer counted."""
        freed_bytes = 0
        position = 0
        emptied: dict[bytes, int] = {}
        for run_id, lane, events, body in self._execute(
            "SELECT id, lane, events, body FROM run WHERE queue_id = ? ORDER BY id LIMIT ?",
            (queue_id, settlement.taken),
        ).fetchall():
            if position >= settlement.taken:
                break
            batch = range(position, min(position + events, settlement.taken))
            position += events
            kept: list[tuple[bytes, bytes]] = []
            if len(batch) < events or any(at in settlement.again or at in settlement.dead for at in batch):
                run = list(enumerate(_decode_run(body), batch.start))
                kept = [event for at, event in run if at >= batch.stop or at in settlement.again]
                died = [(settlement.dead[at], event) for at, event in run if at in settlement.dead]
                self._bury(queue_id, key_id, lease, lane, died, now_ms)
            if not kept:
                self._execute("DELETE FROM run WHERE id = ?", (run_id,))
                freed_bytes += RUN_OVERHEAD + len(body)
                emptied[lane] = emptied.get(lane, 0) + 1
            elif len(kept) < events:
                rest = _encode_run(kept)
                self._execute("UPDATE run SET events = ?, body = ? WHERE id = ?", (len(kept), rest, run_id))
                freed_bytes += len(body) - len(rest)
        return freed_bytes + sum(self._leave_lane(queue_id, lane, runs) for lane, runs in emptied.items())

    def _leave_lane(self, queue_id: int, lane: bytes, runs: int) -> int:
        left, header_bytes = self._one(
            "UPDATE lane SET runs = runs - ? WHERE queue_id = ? AND lane = ? RETURNING runs, length(header)",
            (runs, queue_id, lane),
        )
        if left > 0:
            return 0
        self._execute("DELETE FROM lane WHERE queue_id = ? AND lane = ?", (queue_id, lane))
        return LANE_OVERHEAD + int(header_bytes)

    def _end_lease(self, queue_id: int, left: int, settlement: Settlement, now_ms: int) -> int:
        """Returns when the queue is due again; nothing of that counts where nothing is left."""
        due_ms = 0
        backs_off = False
        if left and settlement.wait_s is not None:
            due_ms, backs_off = now_ms + min(int(settlement.wait_s * 1000), _MAX_WAIT_MS), True
        elif left >= FULL_BATCH:
            due_ms = now_ms
        elif left:
            due_ms = self._linger_ms + self._number(
                "SELECT accepted_ms FROM run WHERE queue_id = ? ORDER BY id LIMIT 1", queue_id
            )
        progressed = len(settlement.again) < settlement.taken
        self._execute(
            "UPDATE queue SET token = NULL, held = ?, due_ms = ?, backing_off = ?,"
            " attempts = CASE WHEN ? THEN 0 ELSE attempts + ? END WHERE id = ?",
            (left, due_ms, backs_off, progressed, settlement.failed, queue_id),
        )
        return due_ms

    def _bury(
        self,
        queue_id: int,
        key_id: int,
        lease: Lease,
        lane: bytes,
        died: Sequence[tuple[Death, tuple[bytes, bytes]]],
        now_ms: int,
    ) -> None:
        if not died:
            return
        (header,) = self._one("SELECT header FROM lane WHERE queue_id = ? AND lane = ?", (queue_id, lane))
        for death, (uuid, text) in died:
            self._execute(
                "INSERT INTO dead_letter"
                " (key_id, queue, header, uuid, text, reason, message, attempts, died_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key_id,
                    lease.queue,
                    header,
                    uuid,
                    text,
                    death.reason,
                    death.message,
                    lease.attempts + 1,
                    now_ms,
                ),
            )
            self._dead_bytes += DEAD_OVERHEAD + len(header) + len(text)

    def _bound_dead_letters(self) -> int:
        """Give up the oldest dead letters beyond the bound. Returns how many."""
        dropped = 0
        while self._dead_bytes > self._terms.dead_max_bytes:
            oldest = self._execute(
                "DELETE FROM dead_letter WHERE id = (SELECT min(id) FROM dead_letter)"  # noqa: S608  # ours
                f" RETURNING key_id, {_DEAD_BYTES}"
            ).fetchone()
            if oldest is None:
                break
            key_id, bytes_ = oldest
            self._dead_bytes -= bytes_
            self._execute("UPDATE key SET dead = dead - 1, dropped = dropped + 1 WHERE id = ?", (key_id,))
            dropped += 1
        return dropped

    def check_room(self) -> None:
        """Write something, so that a disk that cannot is found by who asks, not by a visitor's event."""
        if self._stored_bytes + _PROBE_BYTES > self._terms.max_bytes:
            raise BufferFull("the buffer holds buffer.max_bytes")
        most, used, free = (
            self._number(f"PRAGMA {name}") for name in ("max_page_count", "page_count", "freelist_count")
        )
        if used - free + _PROBE_PAGES > most:
            raise BufferFull("the buffer's file has reached its bound")
        self._execute("UPDATE seen_turn SET current = current")

    # -- looking ---------------------------------------------------------------------------------------

    def dead_letters(self, key: PublicKey | None, limit: int) -> list[DeadLetter]:
        rows = self._execute(
            "SELECT d.id, k.public_key, d.queue, d.header, d.uuid, d.text, d.reason, d.message, d.attempts,"
            " d.died_ms FROM dead_letter d JOIN key k ON k.id = d.key_id"
            " WHERE ?1 IS NULL OR k.public_key = ?1 ORDER BY d.id DESC LIMIT ?2",
            (key, limit),
        )
        return [
            DeadLetter(
                id_, PublicKey(name), QueueId(queue), header, uuid, text, Dead(reason), message, tries, at
            )
            for id_, name, queue, header, uuid, text, reason, message, tries, at in rows
        ]

    def keys_with_work(self) -> list[PublicKey]:
        return [
            PublicKey(name)
            for (name,) in self._execute(
                "SELECT public_key FROM key"
                " WHERE EXISTS (SELECT 1 FROM queue WHERE key_id = key.id AND held > 0)"
            )
        ]

    # -- shared ----------------------------------------------------------------------------------------

    def _key(self, key: PublicKey) -> _Key | None:
        row = self._keys.get(key)
        if row is None:
            found = self._execute("SELECT id, succeeded FROM key WHERE public_key = ?", (key,)).fetchone()
            if found is None:
                return None
            row = self._keys[key] = _Key(found[0], bool(found[1]))
        return row

    def _gate(self, key_id: int) -> gate.Gate:
        (text,) = self._one("SELECT gate FROM key WHERE id = ?", (key_id,))
        return gate.with_limit(gate.load(text), self._limit_per_s)

    def _leased(self, lease: Lease) -> Any:
        """Id, key id and events held of the queue that `lease` still holds."""
        row = self._key(lease.key)
        if row is None:
            return None
        return self._execute(
            "SELECT id, key_id, held FROM queue WHERE key_id = ? AND name = ? AND token = ?",
            (row.id, lease.queue, lease.token),
        ).fetchone()

    def _one(self, sql: str, values: Iterable[object] = ()) -> Any:
        found = self._execute(sql, tuple(values)).fetchone()
        assert found is not None  # noqa: S101  # the statement always gives a row
        return found

    def _number(self, sql: str, *values: object) -> int:
        return int(self._one(sql, values)[0])


_REACH_MS = "CASE WHEN token IS NOT NULL THEN ?2 WHEN backing_off THEN ?3 ELSE ?4 END"

_DEAD_BYTES = f"{DEAD_OVERHEAD} + length(header) + length(text)"


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
