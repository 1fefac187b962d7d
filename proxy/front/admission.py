"""How much of clients' bodies may be in memory at once, over all requests."""

from threading import Lock
from types import TracebackType
from typing import Self

from prometheus_client import Gauge


class NoRoom(Exception):
    """The bodies in memory have reached their bound."""


class Room:
    """The bytes that all requests share. Threads take of them too: large bodies are inflated there."""

    __slots__ = ("_used_bytes", "lock", "max_bytes")

    def __init__(self, max_bytes: int, gauge: Gauge) -> None:
        self.max_bytes = max_bytes
        self._used_bytes = 0
        self.lock = Lock()
        gauge.set_function(lambda: self._used_bytes)  # asked at a scrape: no request pays for it

    def take(self, bytes_: int) -> None:
        """Take some of it, also less than nothing; hold the lock. Raises NoRoom, having taken nothing."""
        if bytes_ > 0 and self._used_bytes + bytes_ > self.max_bytes:
            raise NoRoom
        self._used_bytes += bytes_


class Body:
    """One request's share of the room: it grows with what has come, and is given back after the `with`."""

    __slots__ = ("_bytes", "_ended", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._bytes = 0
        self._ended = False

    def grow(self, bytes_: int) -> None:
        """Hold so many bytes more. Raises NoRoom, also in a thread that its request did not wait for."""
        with self._room.lock:
            if self._ended:
                raise NoRoom
            self._room.take(bytes_)
            self._bytes += bytes_

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._room.lock:
            self._ended = True
            self._room.take(-self._bytes)
