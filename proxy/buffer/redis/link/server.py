"""One Redis server, and the few connections over which all calls of the process go to it."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from hiredis import ReplyError
from redis.exceptions import RedisError

from proxy.buffer.contract import BufferUnavailable
from proxy.buffer.redis.link import errors
from proxy.buffer.redis.link.calls import pack
from proxy.buffer.redis.link.contract import Argument
from proxy.buffer.redis.link.entrance import CONNECT_S, Address, Entrance, shown
from proxy.buffer.redis.link.keeping import Keeping
from proxy.buffer.redis.link.wire import ANSWER_S, Wire

Ask = Callable[..., Awaitable[Any]]
"""Ask one command on one connection: `await ask("GET", key)`. Raises BufferUnavailable."""

Greet = Callable[[Ask], Awaitable[None]]
"""What is asked on each new connection before it is used. Raises BufferFault to refuse it."""

Finds = Callable[[], Awaitable[Address]]
"""Where the server is now. Raises BufferUnavailable."""

_PLAIN = 2
"""Connections for calls that Redis answers at once. More than one, so that a large answer holds up others
less; not more, because calls that share one cost less (among 64: 4.3 µs a call on one, 4.9 on two, 5.7 on
four)."""

_HELD = 16
"""Connections for writes whose answer Redis holds back until they are kept. Each holds up what comes behind
it, for `buffer.wait_timeout` where the replicas are gone."""

_ASKING = pack(("ASKING",))


class Server:
    """To be closed. `greet`: None where there is nothing to look at first."""

    def __init__(
        self, finds: Finds, entrance: Entrance, keeping: Keeping, greet: Greet | None = None
    ) -> None:
        self._greet = greet
        self.address: Address | None = None
        self._finds = finds
        self._entrance = entrance
        self._keeping = keeping
        self._within_s = ANSWER_S + keeping.longest_s
        self._plain = _Wires(self._opened, _PLAIN, self.leave)
        self._held = _Wires(self._opened, _HELD, self.leave) if keeping.waits else self._plain
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def greet(self) -> Greet | None:
        """Set, it is for all connections: those that are open without it are left."""
        return self._greet

    @greet.setter
    def greet(self, greet: Greet | None) -> None:
        if greet is not None and greet is not self._greet:
            self.leave()
        self._greet = greet

    @property
    def where(self) -> str:
        """Its address as messages have it."""
        return "an address yet unknown" if self.address is None else shown(self.address)

    def free(self, *, kept: bool) -> Wire | None:
        """The connection to send the next call on, at once; none where none is open."""
        return (self._held if kept else self._plain).free()

    async def opened(self, *, kept: bool) -> Wire:
        """Wait for a connection where none is open. Nothing was sent where this raises.

        Raises BufferUnavailable, or what the greeting raises.
        """
        return await (self._held if kept else self._plain).opened()

    async def send(self, wire: Wire, packed: bytes, *, kept: bool = False, asking: bool = False) -> Any:
        """One packed command's answer, a ReplyError where it was refused. Raises BufferUnavailable.

        `kept`: return the answer of what was done only when it is kept. `asking`: a cluster's other node said
        to ask here.
        """
        if asking:
            packed = _ASKING + packed
        if not kept or not wire.behind:
            answers = await wire.exchange(packed, 2 if asking else 1)
            return answers[-1]
        *_, answer, word = await wire.exchange(packed + wire.behind, 3 if asking else 2, self._within_s)
        if not isinstance(answer, ReplyError):
            self._keeping.check(word, wire.where)
        return answer

    async def ask(self, *command: Argument) -> Any:
        """One command's answer. Raises BufferUnavailable."""
        wire = self.free(kept=False) or await self.opened(kept=False)
        return await _asked(wire, *command)

    async def ask_each(self, packed: list[bytes]) -> list[Any]:
        """The answers of packed commands, done in this order, ReplyErrors among them."""
        wire = self.free(kept=False) or await self.opened(kept=False)
        return await wire.exchange(b"".join(packed), len(packed))

    def leave(self) -> None:
        """Ask on no present connection any more. What is owed on them still comes; then they are closed."""
        for wire in [*self._plain.all, *self._held.all]:
            task = asyncio.create_task(wire.close(), name=f"leave Redis at {wire.where}")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        self._plain.all.clear()
        self._held.all.clear()

    async def quiet(self) -> None:
        """Return when nothing is owed, not even to a caller who asks again by what was answered."""
        while owed := [
            future
            for wire in {*self._plain.all, *self._held.all}
            for future, *_ in wire.owed
            if not future.done()
        ]:
            await asyncio.wait(owed)
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Close all connections; what is owed on them still comes."""
        self._closed = True
        await self._plain.open_no_more()
        await self._held.open_no_more()
        self.leave()
        await asyncio.gather(*self._leaving)

    async def _opened(self, on_lost: Callable[[Wire], None]) -> Wire:
        if self._closed:
            raise BufferUnavailable("the buffer is closed")
        address = await self._finds()
        if self.address not in {None, address}:
            self.leave()  # those lead to where it was before
        self.address = address
        where = shown(address)
        connection = self._entrance.connection(address)
        wire = None
        try:
            async with asyncio.timeout(CONNECT_S):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py left it so
                wire = Wire(connection, where, on_lost)
                greeted = None
                while (greet := self.greet) is not None and greet is not greeted:
                    await greet(partial(_asked, wire))
                    greeted = greet
                wire.behind = await self._keeping.behind(wire)
        except (RedisError, OSError, UnicodeError) as error:
            await _undo(connection, wire)
            raise errors.unreachable(error, where) from error
        except BaseException:
            await _undo(connection, wire)
            raise
        if wire.is_over:
            raise errors.broken(where)
        return wire


async def _undo(connection: Any, wire: Wire | None) -> None:
    if wire is None:
        await connection.disconnect(nowait=True)
    else:
        await wire.close()


async def _asked(wire: Wire, *command: Argument) -> Any:
    """One command's answer on one connection. Raises BufferUnavailable."""
    [answer] = await wire.exchange(pack(command), 1)
    if isinstance(answer, ReplyError):
        raise errors.refusal(answer, str(command[0]), wire.where)
    return answer


class _Wires:
    """Connections for calls of one kind, at most so many; another is opened where all are busy.

    One at a time: when Redis comes back, hundreds of callers do not connect at once, and while it is away
    they share one failure.
    """

    def __init__(
        self,
        open_one: Callable[[Callable[[Wire], None]], Awaitable[Wire]],
        most: int,
        on_hung: Callable[[], None],
    ) -> None:
        self.all: list[Wire] = []
        self._open_one = open_one
        self._most = most
        self._on_hung = on_hung
        self._opening: asyncio.Task[Wire] | None = None

    def free(self) -> Wire | None:
        """One on which nothing is owed, else the one on which the least is."""
        least: Wire | None = None
        for wire in self.all:
            if not wire.owed:
                return wire
            if least is None or len(wire.owed) < len(least.owed):
                least = wire
        if least is not None and self._opening is None and len(self.all) < self._most:
            self._start()
        return least

    async def opened(self) -> Wire:
        """The one that is being opened. A caller that is cancelled does not stop it."""
        opening = self._opening or self._start()
        await asyncio.wait((opening,))
        if opening.cancelled():
            raise BufferUnavailable("the buffer is closed")
        return opening.result()

    async def open_no_more(self) -> None:
        """Give up one that is being opened; who waits for it is told so."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait((self._opening,))

    def _start(self) -> asyncio.Task[Wire]:
        self._opening = asyncio.create_task(self._open(), name="open a connection to Redis")
        self._opening.add_done_callback(self._ended)
        return self._opening

    async def _open(self) -> Wire:
        wire = await self._open_one(self._lost)
        self.all.append(wire)
        return wire

    def _ended(self, opening: asyncio.Task[Wire]) -> None:
        self._opening = None
        if not opening.cancelled():
            opening.exception()  # who waits for it has it; where nobody does, the next call finds out itself

    def _lost(self, wire: Wire) -> None:
        if wire in self.all:
            self.all.remove(wire)
        if wire.hung:  # then the others would keep their callers waiting as long
            self._on_hung()
