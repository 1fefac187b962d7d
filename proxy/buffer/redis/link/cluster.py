"""A Redis Cluster: each call goes to the node that has the slot of its keys.

Which node that is, any node says (CLUSTER SLOTS); who asks the wrong one is told so and nothing is done, so
the call may be sent on: MOVED and ASK name the node, TRYAGAIN and CLUSTERDOWN pass. All of it within the time
that an answer may take. Replicas are never asked.

Slots that are moved under load: a script whose keys lie apart for the moment gets TRYAGAIN until they have
all been moved, and its caller BufferUnavailable where that takes longer than an answer may.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine, Iterable, Sequence
from functools import partial
from itertools import chain
from typing import Any

from hiredis import ReplyError
from redis.crc import key_slot

from proxy.buffer.contract import BufferFault, BufferUnavailable
from proxy.buffer.redis.keys import LAYOUT
from proxy.buffer.redis.link import calls, errors
from proxy.buffer.redis.link.contract import Argument, Link
from proxy.buffer.redis.link.entrance import Address, Entrance
from proxy.buffer.redis.link.keeping import Keeping
from proxy.buffer.redis.link.server import Greet, Server
from proxy.buffer.redis.link.wire import ANSWER_S
from proxy.buffer.redis.scripts import Script

_SLOTS = 16_384
_LAYOUT_SLOT = key_slot(LAYOUT)

_PAUSE_S = 0.05
"""Between two tries where a slot or the cluster is not ready: some round trips."""

_ELSEWHERE = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN"})
"""Refusals of one node after which another, or the same a moment later, may be asked."""

_READS = frozenset({"GET", "HGET", "HGETALL", "HLEN", "HMGET", "LINDEX", "LLEN", "LRANGE", "ZCARD", "ZRANGE"})
"""What may be asked twice, whatever was answered."""

_ASKED_AT_ONCE = 3
"""Nodes asked at once for the slots: one that hangs holds nobody up."""


class ClusterLink(Link):
    """To be connected. `seeds`: where to ask for the other nodes."""

    def __init__(
        self,
        seeds: Sequence[tuple[str, int]],
        entrance: Entrance,
        keeping: Keeping,
        greet: Greet | None = None,
    ) -> None:
        self._seeds = seeds
        self._entrance = entrance
        self._keeping = keeping
        self._greet = greet
        self._loop = asyncio.get_running_loop()
        # What is known of the cluster: changed by its answers only, between two awaits.
        self._servers: dict[Address, Server] = {}
        self._owners: list[Server | None] = [None] * _SLOTS
        self._learning: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._closed = False

    async def connect(self) -> None:
        """Raises BufferUnavailable, or what the greeting raises."""
        await self._learn_slots()
        await (await self._owner(_LAYOUT_SLOT)).opened(kept=False)

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        packed = calls.by_name(script, keys, args)
        by_text = partial(calls.by_text, script, keys, args)
        return await self._do(key_slot(keys[0]), packed, script.name, by_text, kept=kept)

    async def ask(self, command: str, key: bytes, *args: Argument) -> Any:
        return await self._do(key_slot(key), calls.command(command, key, *args), command)

    async def ask_each(self, commands: Sequence[tuple[str, bytes, *tuple[Argument, ...]]]) -> list[Any]:
        packed = [calls.command(*command) for command in commands]
        slots = [key_slot(key) for _, key, *_ in commands]
        by_server: dict[Server, list[int]] = {}
        for number, slot in enumerate(slots):
            by_server.setdefault(await self._owner(slot), []).append(number)
        parts = await _all(
            server.ask_each([packed[n] for n in numbers]) for server, numbers in by_server.items()
        )
        answers: list[Any] = [None] * len(commands)
        for number, answer in zip(chain(*by_server.values()), chain(*parts), strict=True):
            answers[number] = answer
        # A slot of which something was refused: from there on one after another, so that its order is kept.
        redone: set[int] = set()
        for number, (slot, answer) in enumerate(zip(slots, answers, strict=True)):
            command = commands[number][0]
            if _is_elsewhere(answer):
                redone.add(slot)
            elif isinstance(answer, ReplyError):
                raise errors.refusal(answer, command, "a node of the cluster")
            if slot not in redone:
                continue
            if not _is_elsewhere(answer) and command.upper() not in _READS:
                raise BufferUnavailable(
                    f"{command} was done before what was to come first: its slot is being moved"
                )
            answers[number] = await self._do(slot, packed[number], command)
        return answers

    async def run_everywhere(self, script: Script, args: Sequence[Argument]) -> list[Any]:
        return await _all(self._run_on(server, script, args) for server in self._primaries())

    async def info(self) -> list[dict[str, str]]:
        told = await _all(server.ask("INFO") for server in self._primaries())
        return [calls.fields(text) for text in told]

    async def close(self) -> None:
        self._closed = True
        for server in [*self._servers.values()]:
            await server.quiet()
        if self._learning is not None:
            await asyncio.wait((self._learning,))
        await _all(server.close() for server in self._servers.values())
        if self._leaving:
            await asyncio.wait(self._leaving)

    async def _run_on(self, server: Server, script: Script, args: Sequence[Argument]) -> Any:
        answer: Any = None
        for packed in (calls.by_name(script, (), args), calls.by_text(script, (), args)):
            wire = server.free(kept=False) or await server.opened(kept=False)
            answer = await server.send(wire, packed)
            if not isinstance(answer, ReplyError):
                return answer
            if errors.code_of(answer) != "NOSCRIPT":
                break
        raise errors.refusal(answer, script.name, server.where)

    async def _do(
        self,
        slot: int,
        packed: bytes,
        name: str,
        by_text: Callable[[], bytes] | None = None,
        *,
        kept: bool = False,
    ) -> Any:
        """A call's answer. It is sent again only where a node has said that it did nothing."""
        if self._closed:
            raise BufferUnavailable("the buffer is closed")
        server = self._owners[slot] or await self._owner(slot)
        asking = False
        until: float | None = None
        while True:
            wire = server.free(kept=kept)
            if wire is None:
                try:
                    wire = await server.opened(kept=kept)
                except BufferFault:
                    # It is gone, and nothing was sent: perhaps another has taken its place.
                    await self._learn()
                    if self._owners[slot] in {None, server}:
                        raise
                    server, asking = await self._owner(slot), False
                    continue
            answer = await server.send(wire, packed, kept=kept, asking=asking)
            if not isinstance(answer, ReplyError):
                return answer
            code = errors.code_of(answer)
            if code == "NOSCRIPT" and by_text is not None:
                packed, by_text = by_text(), None
                continue
            if until is None:
                until = self._loop.time() + ANSWER_S
            if code not in _ELSEWHERE or self._loop.time() > until:
                raise errors.refusal(answer, name, wire.where)
            server, asking = await self._next(slot, code, str(answer), server)

    async def _next(self, slot: int, code: str, text: str, server: Server) -> tuple[Server, bool]:
        """Whom to ask after such a refusal, and whether to say that another node has sent us."""
        match code:
            case "MOVED":
                named = self._named(text, server)
                if named is server:
                    await asyncio.sleep(_PAUSE_S)
                self._own(slot, named)
                self._start_learning()
                return named, False
            case "ASK":
                return self._named(text, server), True
            case "CLUSTERDOWN":
                await asyncio.sleep(_PAUSE_S)
                await self._learn()
            case _:
                await asyncio.sleep(_PAUSE_S)
        return await self._owner(slot), False

    def _named(self, text: str, by: Server) -> Server:
        """The node of `MOVED slot host:port`. Without a host it is on that of the node that says so."""
        host, _, port = text.rpartition(" ")[2].rpartition(":")
        return self._server((_host(host, by), int(port)))

    async def _owner(self, slot: int) -> Server:
        """The node that has a slot. Raises BufferUnavailable."""
        owner = self._owners[slot]
        if owner is None:
            await self._learn()
            owner = self._owners[slot]
        if owner is None:
            raise BufferUnavailable(
                f"no node of the Redis Cluster has the slot {slot}: see redis-cli --cluster check"
            )
        return owner

    def _own(self, slot: int, server: Server) -> None:
        self._owners[slot] = server
        if slot == _LAYOUT_SLOT:
            for other in self._servers.values():
                other.greet = None
            server.greet = self._greet

    def _server(self, address: Address) -> Server:
        server = self._servers.get(address)
        if server is None:

            async def find() -> Address:
                return address

            server = self._servers[address] = Server(find, self._entrance, self._keeping)
        return server

    def _primaries(self) -> list[Server]:
        return list(dict.fromkeys(owner for owner in self._owners if owner is not None))

    # -- which node has which slot ---------------------------------------------------------------------

    async def _learn(self) -> None:
        """Return when the slots have been asked for, with or without success."""
        await asyncio.wait((self._start_learning(),))

    def _start_learning(self) -> "asyncio.Task[None]":
        if self._learning is None:
            self._learning = asyncio.create_task(self._learn_slots(), name="ask for the cluster's slots")
            self._learning.add_done_callback(self._learnt)
        return self._learning

    def _learnt(self, task: "asyncio.Task[None]") -> None:
        self._learning = None
        if not task.cancelled():
            task.exception()  # what was known stays; who needs more of it says what is wrong with that node

    async def _learn_slots(self) -> None:
        """Raises BufferUnavailable where no node says."""
        if self._closed:
            raise BufferUnavailable("the buffer is closed")
        known = self._primaries()
        random.shuffle(known)
        known += [server for seed in self._seeds if (server := self._server(seed)) not in known]
        fault: BufferFault | None = None
        for at in range(0, len(known), _ASKED_AT_ONCE):
            asking = {
                asyncio.create_task(server.ask("CLUSTER", "SLOTS")): server
                for server in known[at : at + _ASKED_AT_ONCE]
            }
            try:
                while asking:
                    done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                    for task in done:
                        server = asking.pop(task)
                        try:
                            self._take(task.result(), server)
                        except BufferFault as error:
                            fault = error
                        else:
                            return
            finally:
                for task in asking:
                    task.cancel()
        raise fault or BufferUnavailable("no node of the Redis Cluster is known")

    def _take(self, told: Any, by: Server) -> None:
        """Take over what a node told of the slots. Raises BufferUnavailable where it knows none."""
        if not told:
            raise BufferUnavailable(
                f"Redis at {by.where} is in a cluster that has no slots yet: finish making it"
            )
        owners: list[Server | None] = [None] * _SLOTS
        for first, last, primary, *_ in told:
            host = _host((primary[0] or b"").decode(), by)
            if self._entrance.tls is not None and len(primary) > 3:  # a certificate is for a name
                more = dict(zip(primary[3][::2], primary[3][1::2], strict=False))
                host = more.get(b"hostname", host.encode()).decode() or host
            owners[first : last + 1] = [self._server((host, primary[1]))] * (last + 1 - first)
        self._owners = owners
        layout = owners[_LAYOUT_SLOT]
        if layout is not None:
            self._own(_LAYOUT_SLOT, layout)
        for address, server in [*self._servers.items()]:
            if server not in owners and server is not by:
                del self._servers[address]
                task = asyncio.create_task(server.close(), name=f"leave Redis at {server.where}")
                self._leaving.add(task)
                task.add_done_callback(self._leaving.discard)


def _host(text: str, told_by: Server) -> str:
    """A node's host as another names it: empty or unknown means the other's own."""
    if text not in {"", "?"}:
        return text
    address = told_by.address
    return address[0] if isinstance(address, tuple) else ""


def _is_elsewhere(answer: Any) -> bool:
    return isinstance(answer, ReplyError) and errors.code_of(answer) in _ELSEWHERE


async def _all(coroutines: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """What they return, when the last one has; or the first error then."""
    ended = await asyncio.gather(*coroutines, return_exceptions=True)
    for each in ended:
        if isinstance(each, BaseException):
            raise each
    return list(ended)
