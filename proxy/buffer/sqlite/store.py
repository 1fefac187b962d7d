"""The database as the verbs use it: statements, and what is kept in memory beside it.

On the event loop only, inside a transaction of the writer's.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import apsw

from proxy import gate
from proxy.buffer.contract import (
    MAX_WAIT_S,
    BufferFull,
)
from proxy.buffer.values import Terms
from proxy.clock import StoreClock
from proxy.wire.limits import PublicKey

LANE_OVERHEAD = 60
"""Bytes counted for a lane beside its header."""

_PROBE_BYTES = 1_000
"""What a small request takes: with less room than that the buffer is full."""

_PROBE_PAGES = 16
"""Pages of the file that a small request may need."""


@dataclass(slots=True)
class Key:
    """What is remembered of a key's row; `accepted` and `added_bytes` are still to be written."""

    id: int
    succeeded: bool
    stored_bytes: int
    accepted: int = 0
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
        self._grown: dict[int, Key] = {}  # whose books have lines that are to be written before the commit
        self.remember()

    def remember(self) -> None:
        """Read again what is kept in memory beside the database."""
        self._keys.clear()
        self._grown.clear()
        self.stored_bytes = self.number("SELECT total(stored_bytes) FROM key")

    def flush(self) -> None:
        """Write what the transaction's appends added to the books: once for all of them."""
        for key in self._grown.values():
            self.execute(
                "UPDATE key SET accepted = accepted + ?, stored_bytes = stored_bytes + ? WHERE id = ?",
                (key.accepted, key.added_bytes, key.id),
            )
            key.accepted = key.added_bytes = 0
        self._grown.clear()

    def now_ms(self) -> int:
        """The time now. Where it jumped back, due times are pulled back after it."""
        now_ms = self._clock.now_ms()
        if now_ms < self._latest_ms:
            self.pull_back(now_ms)
        self._latest_ms = now_ms
        return now_ms

    def pull_back(self, now_ms: int) -> None:
        """No due time lies further ahead than what set it can reach."""
        lease_ms, linger_ms = (int(of_s * 1000) for of_s in (self.terms.lease_s, self.terms.linger_s))
        reach_ms = "CASE WHEN token IS NOT NULL THEN ?2 WHEN backing_off THEN ?3 ELSE ?4 END"
        self.execute(
            f"UPDATE queue SET due_ms = ?1 + {reach_ms} WHERE held > 0 AND due_ms > ?1 + {reach_ms}",
            (now_ms, lease_ms, int(MAX_WAIT_S * 1000), linger_ms),
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
        key.added_bytes += bytes_
        self._count_bytes(key, bytes_)
        self._grown[key.id] = key

    def stored(self, key: Key, bytes_: int) -> None:
        """Count bytes that a key's held events take more, or less."""
        self._count_bytes(key, bytes_)
        self.execute("UPDATE key SET stored_bytes = stored_bytes + ? WHERE id = ?", (bytes_, key.id))

    def _count_bytes(self, key: Key, bytes_: int) -> None:
        key.stored_bytes += bytes_
        self.stored_bytes += bytes_

    def gate(self, key_id: int) -> gate.Gate:
        """The gate of a key, under the limit that is set now."""
        (text,) = self.one("SELECT gate FROM key WHERE id = ?", (key_id,))
        return gate.with_limit(gate.load(text), self.terms.limit_per_s)

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
