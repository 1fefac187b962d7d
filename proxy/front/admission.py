"""How much of clients' bodies may be in memory at once, over all requests."""

from types import TracebackType
from typing import Self

from prometheus_client import Gauge


class NoRoom(Exception):
    """The bodies in memory have reached their bound."""


class Room:
    """The bytes that all requests share."""

    __slots__ = ("_gauge", "_max_bytes", "_used_bytes")

    def __init__(self, max_bytes: int, gauge: Gauge) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._gauge = gauge

    def take(self, bytes_: int) -> None:
        """Take some of it, also less than nothing. Raises NoRoom, having taken nothing."""
        if bytes_ > 0 and self._used_bytes + bytes_ > self._max_bytes:
            raise NoRoom
        self._used_bytes += bytes_
        self._gauge.set(self._used_bytes)


class Body:
    """One request's share of the room, given back at the end of the `with`."""

    __slots__ = ("_bytes", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0

    def grow_to(self, bytes_: int) -> None:
        """Hold at least `bytes_`. Raises NoRoom."""
        if bytes_ > self._bytes:
            self._room.take(bytes_ - self._bytes)
            self._bytes = bytes_

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._room.take(-self._bytes)
