"""A real Redis in virtual time: a script is done in one step of the world, and the way to it is unreliable.

Redis itself never dies here: what is lost with a process is what its engine keeps in memory, and what was on
its way. A script that gets no answer was not done, or done, or is done later; and one whose answer was lost
is sent again, whatever was done in between.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from random import Random
from typing import Any, TypeVar

from proxy.buffer import Buffer, BufferUnavailable, KeyFigures, Lease, Terms
from proxy.buffer.redis import RedisBuffer
from proxy.buffer.redis.link import Argument, Link
from proxy.buffer.redis.scripts import Script
from proxy.buffer.redis.store import RedisClock
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey
from tests.redis_servers import shared
from tests.simulation.evidence import Evidence, Met
from tests.simulation.loop import World
from tests.simulation.storage import Life, Storage, check_books
from tests.simulation.trouble import Trouble
from tests.simulation.watched import Leases, WatchedBuffer
from tests.sync_link import SyncLink

T = TypeVar("T")

RECOUNTED = 0.02
"""The share of the scripts after which the books are recounted, and at every kill and every start."""

_BELATED_S = 5.0
"""How long a script may be under way that its sender has given up."""

_TELLS_TIME = b"moment(ARGV[1])"

_KEY_AT = len(b"outlit:{")


class RedisStorage(Storage):
    """A deployment that is emptied for the run."""

    def __init__(
        self, kind: str, evidence: Evidence, chance: Random, trouble: Trouble, *, background: bool
    ) -> None:
        self.deployment = shared(kind)
        self.deployment.flush()
        self.evidence = evidence
        self.world: World = evidence.world
        self.chance = chance
        self.trouble = trouble
        self.background = background
        self.leases = SharedLeases()
        self.clock_number = 0
        self._ahead_ms = 0
        self._lease_ms = 0
        self.link = SyncLink(self.deployment)
        """The link of those who look on."""

    def life(self) -> "RedisLife":
        return RedisLife(self)

    def close(self) -> None:
        self.link.hang_up()

    def now_ms(self) -> int:
        """The time of day of the machine that Redis runs on."""
        return int(self.world.wall_s() * 1000) + self._ahead_ms

    def set_clock(self, ahead_s: float) -> None:
        self._ahead_ms += int(ahead_s * 1000)
        self.clock_number += 1
        self.leases.clock_was_set(self.now_ms(), self._lease_ms)

    def opened(self, terms: Terms) -> None:
        """A process with these terms has come up."""
        self._lease_ms = int(terms.lease_s * 1000)

    async def recounted(self, engine: Buffer) -> Mapping[PublicKey, KeyFigures]:
        check_books(await engine.figures(recount=True))  # while others write
        return self.recount()

    def recount(self) -> Mapping[PublicKey, KeyFigures]:
        """Count all that is held, within this step. Raises Broken where the books say otherwise."""
        self.evidence.met[Met.RECOUNT] += 1
        figures = _at_once(self._figures)
        check_books(figures)
        return figures

    async def _figures(self) -> Mapping[PublicKey, KeyFigures]:
        looker = await RedisBuffer.opened(self.link, Terms(), clock=RedisClock(self.now_ms), background=False)
        return await looker.figures(recount=True)

    def done(self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], answer: Any) -> None:
        """Redis has done a script, whether or not anybody hears of it."""
        match script.name, answer:
            case "claim", [b"lease", queue, *_]:
                key = PublicKey(keys[0][_KEY_AT : keys[0].index(b"}")].decode())
                token = args[1]
                assert isinstance(token, bytes)
                now_ms = self.now_ms()
                lease = Lease(key, QueueId(queue), token)
                self.leases.given(lease, now_ms, now_ms + self._lease_ms)
            case "settle", [b"settled", *_]:
                key = PublicKey(keys[0][_KEY_AT : keys[0].index(b"}")].decode())
                queue, token = args[1:3]
                assert isinstance(queue, bytes)
                assert isinstance(token, bytes)
                self.leases.ended(Lease(key, QueueId(queue), token))
        if self.chance.random() < RECOUNTED:
            self.recount()


class SharedLeases(Leases):
    """The leases of several processes, seen where they are given and end: that may be told more than once."""

    def __init__(self) -> None:
        super().__init__()
        self._settled: set[tuple[QueueId, bytes]] = set()

    def ended(self, lease: Lease) -> None:
        if (lease.queue, lease.token) not in self._settled:
            super().ended(lease)
            self._settled.add((lease.queue, lease.token))


class RedisLife(Life):
    """One process's link and engine."""

    def __init__(self, storage: RedisStorage) -> None:
        self._storage = storage
        self._inner = SyncLink(storage.deployment)

    async def opened(self, terms: Terms) -> Buffer:
        storage = self._storage
        storage.opened(terms)
        storage.recount()
        link = UnreliableLink(self._inner, storage)
        clock = RedisClock(storage.now_ms)
        return await RedisBuffer.opened(link, terms, clock=clock, background=storage.background)

    def around(self, engine: Buffer, terms: Terms) -> Buffer:
        storage = self._storage
        return WatchedBuffer(
            engine, storage.evidence, storage.now_ms, lambda: storage.clock_number, None, terms.lease_s
        )

    def kill(self) -> None:
        self._storage.recount()

    def end(self) -> None:
        self._inner.hang_up()


class UnreliableLink(Link):
    """The link as the engine sees it."""

    def __init__(self, inner: SyncLink, storage: RedisStorage) -> None:
        self._inner = inner
        self._storage = storage
        self._trouble = storage.trouble
        self._chance = storage.chance

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        trouble, evidence = self._trouble, self._storage.evidence

        async def done(by: SyncLink) -> Any:
            given = args
            if (
                _TELLS_TIME in script.text
            ):  # Redis looks at its clock when it does a script, not when it is sent
                given = (self._storage.now_ms(), *args[1:])
            answer = await by.run(script, keys, given, kept=kept)
            self._storage.done(script, keys, args, answer)
            return answer

        await self._travel()
        if self._chance.random() < trouble.belated:
            evidence.met[Met.BELATED] += 1
            evidence.note(f"link: {script.name} is given up, and under way")
            in_s = self._chance.uniform(0, _BELATED_S)
            late = partial(done, self._storage.link)  # its sender's may be closed by then
            self._storage.world.outside.call_later(in_s, _at_once, late)
            raise BufferUnavailable("simulated: it is given up, and under way")
        if self._fails(trouble.deaf / 2):
            raise BufferUnavailable("simulated: the script was not done")
        answer = await done(self._inner)
        if self._chance.random() < trouble.resent:
            evidence.met[Met.RESENT] += 1
            evidence.note(f"link: {script.name} is sent again")
            await self._travel()
            answer = await done(self._inner)
        await self._travel()
        if self._fails(trouble.lost / 2):
            evidence.met[Met.LOST_SCRIPT] += 1
            evidence.note(f"link: the answer to {script.name} is lost")
            raise BufferUnavailable("simulated: the script's answer is lost")
        return answer

    async def ask(self, command: str, key: bytes, *args: Argument) -> Any:
        return await self._asked(lambda: self._inner.ask(command, key, *args))

    async def ask_each(self, commands: Sequence[tuple[str, bytes, *tuple[Argument, ...]]]) -> list[Any]:
        return await self._asked(lambda: self._inner.ask_each(commands))

    async def run_everywhere(self, script: Script, args: Sequence[Argument]) -> list[Any]:
        return await self._asked(lambda: self._inner.run_everywhere(script, args))

    async def info(self) -> list[dict[str, str]]:
        return await self._asked(self._inner.info)

    async def close(self) -> None:
        await self._inner.close()

    async def _asked(self, ask: Callable[[], Awaitable[T]]) -> T:
        await self._travel()
        if self._fails(self._trouble.deaf / 2):
            raise BufferUnavailable("simulated: the command was not done")
        answer = await ask()
        await self._travel()
        if self._fails(self._trouble.lost / 2):
            raise BufferUnavailable("simulated: the command's answer is lost")
        return answer

    def _fails(self, share: float) -> bool:
        return self._storage.world.now_s < self._trouble.away_until_s or self._chance.random() < share

    async def _travel(self) -> None:
        is_slow = self._chance.random() < self._trouble.slow
        most_s = self._trouble.slow_s if is_slow else self._trouble.quick_s / 4
        await asyncio.sleep(self._chance.uniform(0, most_s))


def _at_once(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run what waits for nothing, without a loop."""
    running = asyncio._get_running_loop()
    loop = asyncio.new_event_loop()
    asyncio._set_running_loop(None)
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close()
        asyncio._set_running_loop(running)
