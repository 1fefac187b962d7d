"""One connection to Redis, shared by many callers: what is asked goes out at once and is answered in turn.

redis-py connects and logs in; from there on the wire is ours. Its own way, a connection a call, costs 24 µs
of processor time a call among 64 concurrent ones (with `Redis.execute_command` 45), this one 5: what is asked
in one turn of the loop is sent together (but for the first, which does not wait for it), answers that come
together are read together, and nothing waits for a free connection.

A caller that is cancelled leaves its place in the turn behind: its answer is read, and thrown away. So
answers cannot cross, and no connection is lost by it.

The watch: one timer a connection and not one a call. When the oldest answer is overdue, the connection is
dropped, with everything that is owed on it. Nothing is ever asked again here.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from hiredis import ProtocolError, Reader
from redis.asyncio.connection import AbstractConnection

from proxy.buffer.contract import BufferUnavailable
from proxy.buffer.redis.link import errors

ANSWER_S = 2.0
"""How long Redis has for an answer. It is slow at 0.01; longer than this it hangs, or the network does."""


class Wire(asyncio.Protocol):
    """Takes over a connection that redis-py has opened. To be closed.

    `behind`: what is to be sent behind each write that must be kept (see `Keeping`). `hung`: it was dropped
    because nothing came.
    """

    def __init__(self, connection: AbstractConnection, where: str, on_lost: Callable[["Wire"], None]) -> None:
        self.where = where
        self.behind = b""
        self.hung = False
        self._loop = asyncio.get_running_loop()
        self._reader = Reader()
        self._on_lost = on_lost
        # Calls whose answers are owed, oldest first: whose, how many, those that came, when they are overdue.
        self.owed: deque[tuple[asyncio.Future[list[Any]], int, list[Any], float]] = deque()
        # What is to be sent in one piece at the end of this turn of the loop; None before its first call.
        self._joined: list[bytes] | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._ending: BufferUnavailable | None = None
        self._closed = self._loop.create_future()
        # Kept as long as the transport lives: redis-py's writer would close it when it is collected.
        self._connection = connection
        writer = connection._writer  # noqa: SLF001 - the one thing that redis-py does not hand out
        if writer is None:
            raise errors.broken(where)
        self._transport = writer.transport
        self._transport.set_protocol(self)

    @property
    def is_over(self) -> bool:
        """Whether no answer can come on it any more."""
        return self._ending is not None

    def exchange(self, packed: bytes, answers: int, within_s: float = ANSWER_S) -> asyncio.Future[list[Any]]:
        """Send packed commands; the future has their answers, ReplyErrors among them.

        It fails with BufferUnavailable where they do not all come. May be cancelled.
        """
        future: asyncio.Future[list[Any]] = self._loop.create_future()
        if self._ending is not None:
            future.set_exception(BufferUnavailable(str(self._ending)))
            return future
        overdue_at = self._loop.time() + within_s
        self.owed.append((future, answers, [], overdue_at))
        if self._joined is None:
            self._transport.write(packed)
            self._joined = []
            self._loop.call_soon(self._write_joined)
        else:
            self._joined.append(packed)
        if self._watch is None:
            self._watch = self._loop.call_at(overdue_at, self._look)
        return future

    def data_received(self, data: bytes) -> None:
        reader, owed = self._reader, self.owed
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                if not owed:
                    self.drop(errors.broken(self.where, str(answer)))
                    return
                future, count, answers, _ = owed[0]
                answers.append(answer)
                if len(answers) == count:
                    owed.popleft()
                    if not future.done():
                        future.set_result(answers)
        except ProtocolError as error:
            self.drop(errors.broken(self.where, f"it does not speak Redis's protocol: {error}"))

    def eof_received(self) -> None:
        self._end(errors.broken(self.where))

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(errors.broken(self.where, str(exc or "")))
        self._connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001  # tells redis-py; untyped there
        if not self._closed.done():
            self._closed.set_result(None)

    def drop(self, why: BufferUnavailable) -> None:
        """Close it at once; whoever waits on it gets `why`."""
        self._end(why)
        self._transport.abort()

    async def close(self) -> None:
        """Close it when all that is owed was answered, or is overdue."""
        waiting = [future for future, *_ in self.owed if not future.done()]
        if waiting:
            await asyncio.wait(waiting)
        self.drop(BufferUnavailable("the buffer is closed"))
        await asyncio.shield(self._closed)

    def _write_joined(self) -> None:
        packed, self._joined = self._joined, None
        if packed and self._ending is None:
            self._transport.write(b"".join(packed))

    def _look(self) -> None:
        """Drop it if the oldest answer is overdue; look again when the now oldest will be."""
        self._watch = None
        if not self.owed:
            return
        overdue_at = self.owed[0][3]
        if self._loop.time() >= overdue_at:
            self.hung = True
            self.drop(errors.silent(self.where))
        else:
            self._watch = self._loop.call_at(overdue_at, self._look)

    def _end(self, why: BufferUnavailable) -> None:
        """No answer comes any more."""
        if self._ending is not None:
            return
        self._ending = why
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        for future, *_ in self.owed:
            if not future.done():
                future.set_exception(BufferUnavailable(str(why)))
        self.owed.clear()
        self._on_lost(self)
