"""The database as the verbs use it: statements, and what is kept in memory beside it.

On the event loop only, inside a transaction of the writer's.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import apsw
import msgspec

from proxy import gate
from proxy.buffer.contract import (
    MAX_WAIT_S,
    BufferFull,
)
from proxy.buffer.packing import Damaged
from proxy.buffer.values import Terms
from proxy.clock import StoreClock
from proxy.gate import Gate
from proxy.wire.limits import PublicKey

LANE_OVERHEAD = 60
"""Bytes counted for a lane beside its header."""

_PROBE_BYTES = 1_000
"""What a small request takes: with less room than that the buffer is full."""

_PROBE_PAGES = 16
"""Pages of the file that a small request may need."""


@dataclass(slots=True)
class Key:
    """What is remembered of a key's row, and what is still to be written to it with the commit.

    `gate` is read when it is first asked for. Of the books: what the transaction adds.
    """

    id: int
    succeeded: bool
    stored_bytes: int
    gate: Gate | None = None
    gate_changed: bool = False
    accepted: int = 0
    delivered: int = 0
    dead: int = 0
    added_bytes: int = 0


class Store:
    """The database as the verbs see it.

    `stored_bytes` and the keys mirror the database and are read from it again after a rollback.
    """

    def __init__(self, connection: apsw.Connection, terms: Terms, clock: StoreClock) -> None:
        # Rows are typed by the schema, which mypy cannot see.
        self.execute: Callable[..., Any] = connection.execute
        self.terms = terms
        self._clock = clock
        self._latest_ms = 0
        self.stored_bytes = 0
        self._keys: dict[PublicKey, Key] = {}
        self._changed: dict[int, Key] = {}  # what is to be written before the commit
        self.remember()

    def remember(self) -> None:
        """Read again what is kept in memory beside the database."""
        self._keys.clear()
        self._changed.clear()
        self.stored_bytes = self.number("SELECT total(stored_bytes) FROM key")

    def set_terms(self, terms: Terms) -> None:
        """Go by these from now on. Between two transactions: there is nothing to be written."""
        self.terms = terms
        for key in self._keys.values():
            key.gate = None  # read again, under these, when it is next asked for

    def flush(self) -> None:
        """Write what the transaction's verbs changed of each key: once for all of them."""
        for key in self._changed.values():
            self.execute(
                "UPDATE key SET accepted = accepted + ?, delivered = delivered + ?, dead = dead + ?,"
                " stored_bytes = stored_bytes + ?, gate = ifnull(?, gate) WHERE id = ?",
                (
                    key.accepted,
                    key.delivered,
                    key.dead,
                    key.added_bytes,
                    gate.dump(self.gate(key)) if key.gate_changed else None,
                    key.id,
                ),
            )
            key.accepted = key.delivered = key.dead = key.added_bytes = 0
            key.gate_changed = False
        self._changed.clear()

    def now_ms(self) -> int:
        """The time now. Where it jumped back, due times are pulled back after it."""
        now_ms = self._clock.now_ms()
        if now_ms < self._latest_ms:
            self.pull_back(now_ms)
        self._latest_ms = now_ms
        return now_ms

    def pull_back(self, now_ms: int) -> None:
        """No due time lies further ahead than what set it can reach."""
        reach_ms = "CASE WHEN token IS NOT NULL THEN ?2 WHEN backing_off THEN ?3 ELSE ?4 END"
        self.execute(
            f"UPDATE queue SET due_ms = ?1 + {reach_ms} WHERE held > 0 AND due_ms > ?1 + {reach_ms}",
            (now_ms, self.terms.lease_ms, int(MAX_WAIT_S * 1000), self.terms.linger_ms),
        )

    def one(self, sql: str, values: Iterable[object] = ()) -> Any:
        """The first row of a statement that always gives one."""
        found = self.execute(sql, tuple(values)).fetchone()
        assert found is not None  # noqa: S101  # by what the statement is
        return found

    def number(self, sql: str, *values: object) -> int:
        """The one number that a statement gives."""
        return int(self.one(sql, values)[0])

    # -- keys ------------------------------------------------------------------------------------------

    def key(self, key: PublicKey) -> Key | None:
        """A key's row, None where it has none."""
        row = self._keys.get(key)
        if row is None:
            found = self.execute(
                "SELECT id, succeeded, stored_bytes FROM key WHERE public_key = ?", (key,)
            ).fetchone()
            if found is None:
                return None
            row = self._keys[key] = Key(found[0], bool(found[1]), found[2])
        return row

    def accepted(self, key: Key, events: int, bytes_: int) -> None:
        """Write new events into a key's books, with the commit."""
        key.accepted += events
        self.stored(key, bytes_)

    def delivered(self, key: Key, events: int, dead: int) -> None:
        """Write into a key's books that upstream has taken so many events, and so many have died."""
        key.delivered += events
        key.dead += dead
        self._changed[key.id] = key
        if events and not key.succeeded:
            key.succeeded = True
            self.execute("UPDATE key SET succeeded = 1 WHERE id = ?", (key.id,))

    def stored(self, key: Key, bytes_: int) -> None:
        """Count bytes that a key's held events take more, or less."""
        key.stored_bytes += bytes_
        key.added_bytes += bytes_
        self.stored_bytes += bytes_
        self._changed[key.id] = key

    def gate(self, key: Key) -> Gate:
        """The gate of a key, under the settings of now. Who changes it says so with `gate_changed`."""
        if key.gate is None:
            (text,) = self.one("SELECT gate FROM key WHERE id = ?", (key.id,))
            key.gate = load_gate(text, self.terms)
        return key.gate

    def gate_changed(self, key: Key) -> None:
        """Have a key's gate written with the commit."""
        key.gate_changed = True
        self._changed[key.id] = key

    # -- lanes -----------------------------------------------------------------------------------------

    def enter_lane(self, queue_id: int, lane: bytes, header: bytes, runs: int) -> int:
        """Note that a queue has so many runs more of a lane. Returns the bytes counted for that."""
        (before,) = self.one(
            "INSERT INTO lane (queue_id, lane, header, runs) VALUES (?1, ?2, ?3, ?4)"
            " ON CONFLICT DO UPDATE SET runs = runs + ?4 RETURNING runs - ?4",
            (queue_id, lane, header, runs),
        )
        return 0 if before else LANE_OVERHEAD + len(header)

    def header(self, queue_id: int, lane: bytes) -> bytes:
        """The header of a lane of which the queue holds events."""
        (header,) = self.one("SELECT header FROM lane WHERE queue_id = ? AND lane = ?", (queue_id, lane))
        return bytes(header)

    def leave_lane(self, queue_id: int, lane: bytes, runs: int) -> int:
        """Note that so many of its runs are gone. Returns the bytes that are no longer counted."""
        left, header_bytes = self.one(
            "UPDATE lane SET runs = runs - ? WHERE queue_id = ? AND lane = ? RETURNING runs, length(header)",
            (runs, queue_id, lane),
        )
        if left > 0:
            return 0
        self.execute("DELETE FROM lane WHERE queue_id = ? AND lane = ?", (queue_id, lane))
        return LANE_OVERHEAD + int(header_bytes)

    # -- all of it -------------------------------------------------------------------------------------

    def check_bytes(self, key: Key | None, bytes_: int) -> None:
        """Raise BufferFull where so many bytes more are too many, for the key or in all."""
        if self.stored_bytes + bytes_ > self.terms.max_bytes:
            raise BufferFull("the buffer holds buffer.max_bytes")
        if (key.stored_bytes if key is not None else 0) + bytes_ > self.terms.max_bytes_per_key:
            raise BufferFull("this public key holds buffer.max_bytes_per_key")

    def check_room(self) -> None:
        """Write something, so that a disk that cannot is found by who asks, not by a visitor's event."""
        if self.stored_bytes + _PROBE_BYTES > self.terms.max_bytes:
            raise BufferFull("the buffer holds buffer.max_bytes")
        most, used, free = (
            self.number(f"PRAGMA {name}") for name in ("max_page_count", "page_count", "freelist_count")
        )
        if used - free + _PROBE_PAGES > most:
            raise BufferFull("the buffer's file has reached its bound")
        self.execute("UPDATE probe SET probed = probed + 1")  # a write that changes nothing writes nothing

    def keys_with_work(self) -> list[PublicKey]:
        """The keys that hold events."""
        return [
            PublicKey(name)
            for (name,) in self.execute(
                "SELECT public_key FROM key"
                " WHERE EXISTS (SELECT 1 FROM queue WHERE key_id = key.id AND held > 0)"
            )
        ]


def load_gate(text: bytes, terms: Terms) -> Gate:
    """A stored gate under these settings. Raises Damaged."""
    try:
        return gate.load(text, terms.limit_per_s, terms.rate_share)
    except msgspec.MsgspecError as error:
        raise Damaged(f"a key's gate cannot be read: {error}") from error
