"""What every transaction stands on: the connection, the terms, and what is remembered beside the database.

Used on the writer's thread only, inside a transaction.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import apsw
import msgspec

from proxy import gate
from proxy.buffer.contract import BufferFull, Terms
from proxy.clock import StoreClock
from proxy.wire.limits import PublicKey

RUN_OVERHEAD = 120
"""Bytes counted for a run beside its body: its row, index entry, dedup ids and share of the queue's row."""

LANE_OVERHEAD = 60
"""Bytes counted for a lane beside its header."""

EVENT_OVERHEAD = 32
"""At most what a run's body has for an event beside its text: uuid, lengths, brackets."""

_PROBE_BYTES = 1_000
"""What a small request takes: with less room than that the buffer is full."""

_PROBE_PAGES = 16
"""Pages of the file that a small request may need."""

encode_run = msgspec.msgpack.Encoder().encode
decode_run = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode


@dataclass(slots=True)
class Key:
    """What is remembered of a key's row."""

    id: int
    succeeded: bool


class Store:
    """The database as the verbs see it.

    `stored_bytes` and the keys mirror the database and are read from it again after a rollback.
    """

    def __init__(self, connection: apsw.Connection, terms: Terms, clock: StoreClock) -> None:
        # Rows are typed by the schema, which mypy cannot see.
        self.execute: Callable[..., Any] = connection.execute
        self.terms = terms
        self.now_ms = clock.now_ms
        self.stored_bytes = 0
        self._keys: dict[PublicKey, Key] = {}
        self.remember()

    def remember(self) -> None:
        """Read again what is kept in memory beside the database."""
        self._keys.clear()
        self.stored_bytes = self.number("SELECT total(stored_bytes) FROM key")

    def one(self, sql: str, values: Iterable[object] = ()) -> Any:
        """The first row of a statement that always gives one."""
        found = self.execute(sql, tuple(values)).fetchone()
        assert found is not None  # noqa: S101  # by what the statement is
        return found

    def number(self, sql: str, *values: object) -> int:
        """The one number that a statement gives."""
        return int(self.one(sql, values)[0])

    def key(self, key: PublicKey) -> Key | None:
        """A key's row, None where it has none."""
        row = self._keys.get(key)
        if row is None:
            found = self.execute("SELECT id, succeeded FROM key WHERE public_key = ?", (key,)).fetchone()
            if found is None:
                return None
            row = self._keys[key] = Key(found[0], bool(found[1]))
        return row

    def gate(self, key_id: int) -> gate.Gate:
        """The gate of a key, under the limit that is set now."""
        (text,) = self.one("SELECT gate FROM key WHERE id = ?", (key_id,))
        return gate.with_limit(gate.load(text), self.terms.limit_per_s)

    def check_room(self) -> None:
        """Write something, so that a disk that cannot is found by who asks, not by a visitor's event."""
        if self.stored_bytes + _PROBE_BYTES > self.terms.max_bytes:
            raise BufferFull("the buffer holds buffer.max_bytes")
        most, used, free = (
            self.number(f"PRAGMA {name}") for name in ("max_page_count", "page_count", "freelist_count")
        )
        if used - free + _PROBE_PAGES > most:
            raise BufferFull("the buffer's file has reached its bound")
        self.execute("UPDATE seen_turn SET current = current")

    def keys_with_work(self) -> list[PublicKey]:
        """The keys that hold events."""
        return [
            PublicKey(name)
            for (name,) in self.execute(
                "SELECT public_key FROM key"
                " WHERE EXISTS (SELECT 1 FROM queue WHERE key_id = key.id AND held > 0)"
            )
        ]
