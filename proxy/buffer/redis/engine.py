"""The engine on Redis: the contract on one deployment, shared by several processes.

Each verb that writes is one script, so it happens whole or not at all, the books with it. What a crash of a
process leaves is in Redis; a lost answer to an append is answered as a duplicate when it is asked again, to a
settle alike for some minutes, to a claim is a lease that ends by itself.

Three tasks of its own: a look at which keys are due (`active`), so that what another process stored is
delivered here too; the exchange of what the bounds over all keys need; a sweep of all keys now and then, for
`active` is only a hint. None of them is needed for what is promised.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from proxy.buffer.contract import Buffer, BufferBroken, BufferFull, BufferUnavailable
from proxy.buffer.redis import keys as key_names
from proxy.buffer.redis.appends import Appends
from proxy.buffer.redis.dead_letters import DeadLetters
from proxy.buffer.redis.deliveries import Deliveries
from proxy.buffer.redis.erasure import Erasure
from proxy.buffer.redis.figures import read_figures
from proxy.buffer.redis.link import Link
from proxy.buffer.redis.pauses import Pauses
from proxy.buffer.redis.roster import Roster
from proxy.buffer.redis.scripts import load
from proxy.buffer.redis.store import RedisClock, Store
from proxy.buffer.redis.traces import ambiguous, trace
from proxy.buffer.values import (
    ALL_LETTERS,
    Appended,
    Batch,
    DeadLetter,
    Erased,
    Head,
    Idle,
    KeyFigures,
    Lease,
    Portion,
    Settled,
    Settlement,
    Spent,
    Terms,
    Traces,
    Which,
)
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

ELECT, PROBE = load("elect"), load("probe")

_PROBE_BYTES = 1_000
"""What a small request takes: with less room than that the buffer is full."""

_LOOK_S = 1.0
"""Between two looks at which keys are due."""

_EXCHANGE_S = 5.0
"""Between two exchanges of what the bounds over all keys need."""

_SWEEP_S = 120.0
"""Between two sweeps of all keys, give or take a quarter."""


class RedisBuffer(Buffer):
    """Construct with `opened`; it must be closed, and closes its link."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._roster = Roster(store)
        self._appends = Appends(store, self._roster)
        self._letters = DeadLetters(store, self._roster)
        self._deliveries = Deliveries(store, self._letters)
        self._pauses = Pauses(store)
        self._erasure = Erasure(store, self._letters)
        self._wakers: list[Callable[[PublicKey, float], None]] = []
        self._failed: asyncio.Future[BufferBroken] = asyncio.get_running_loop().create_future()
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def opened(
        cls,
        link: Link,
        terms: Terms,
        *,
        note_loss: Callable[[PublicKey, int], None] = lambda _key, _events: None,
        full: Callable[[], str | None] = lambda: None,
        clock: RedisClock | None = None,
        background: bool = True,
    ) -> "RedisBuffer":
        """The engine on a deployment that was found fit.

        `note_loss(key, events)` is called where Redis has forgotten so many accepted events at least;
        `full()` says why nothing may be added now, None where it may.
        `background`: False for a simulation, in which nothing may happen by itself.
        """
        buffer = cls(Store(link, terms, clock or RedisClock(), note_loss, full))
        await buffer._store.set_clock()
        await buffer._roster.recall()
        if background:
            for work, every_s in (
                (buffer._look, _LOOK_S),
                (buffer._exchange, _EXCHANGE_S),
                (buffer._sweep, _SWEEP_S),
            ):
                task = asyncio.create_task(buffer._repeat(work, every_s), name=work.__name__)
                task.add_done_callback(buffer._note_end)
                buffer._tasks.append(task)
        return buffer

    # -- what is accepted and delivered ----------------------------------------------------------------

    async def append(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        appended, due_s = await self._appends.append(key, portions)
        if due_s is not None:
            self._wake(key, due_s)
        return appended

    async def claim(self, key: PublicKey, token: bytes, *, early: bool = False) -> Lease | Idle:
        claimed = await self._deliveries.claim(key, token, early=early)
        if isinstance(claimed, Idle):
            with suppress(BufferUnavailable):  # a hint only
                await self._roster.correct(key, None if claimed.empty else claimed.wait_s)
        return claimed

    async def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        return await self._deliveries.read(lease, max_events, max_bytes)

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        return await self._deliveries.settle(lease, settlement)

    async def keys_with_work(self) -> Sequence[PublicKey]:
        return await self._roster.holding()

    def on_append(self, wake: Callable[[PublicKey, float], None]) -> None:
        self._wakers.append(wake)

    def _wake(self, key: PublicKey, in_s: float) -> None:
        for waker in self._wakers:
            waker(key, in_s)

    # -- what the operator asks for --------------------------------------------------------------------

    async def pause(self, key: PublicKey) -> bool:
        return await self._pauses.pause(key)

    async def resume(self, key: PublicKey) -> bool:
        is_known = await self._pauses.resume(key)
        if is_known:
            await self._call(key)
        return is_known

    async def retry(self, key: PublicKey) -> int | None:
        waited = await self._pauses.retry(key)
        if waited is not None:
            await self._call(key)
        return waited

    async def _call(self, key: PublicKey) -> None:
        """Wake those who deliver a key, in this process and in the others."""
        self._wake(key, 0.0)
        await self._roster.hint(key, 0.0)

    async def dead_letters(
        self, which: Which = ALL_LETTERS, *, before_id: int | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        return await self._letters.newest(which, before_id, limit)

    async def count_dead(self, which: Which = ALL_LETTERS) -> int:
        return await self._letters.count(which)

    async def replay(self, which: Which) -> int:
        replayed, due = await self._letters.replay(which)
        for key, due_s in due:
            self._wake(key, due_s)
        return replayed

    async def purge(self, which: Which) -> int:
        return await self._letters.purge(which)

    async def erase(
        self,
        is_theirs: Callable[[bytes, bytes], bool],
        *,
        key: PublicKey | None = None,
        queue: QueueId | None = None,
    ) -> Erased:
        return await self._erasure.erase(is_theirs, key, queue)

    async def trace(
        self, uuid: bytes, *, key: PublicKey | None = None, queue: QueueId | None = None
    ) -> Traces:
        return await trace(self._store, uuid, key, queue)

    async def ambiguous(self, key: PublicKey | None = None, *, limit: int = 100) -> list[Batch]:
        return await ambiguous(self._store, key, limit)

    async def figures(self, *, recount: bool = False) -> Mapping[PublicKey, KeyFigures]:
        return await read_figures(self._store, recount=recount)

    async def may_recount(self, every_s: float) -> bool:
        word, *_ = await self._store.link.run(ELECT, (key_names.RECOUNT,), (int(every_s * 1000),))
        return bool(word == b"elected")

    # -- the engine itself -----------------------------------------------------------------------------

    def set_terms(self, terms: Terms) -> None:
        self._store.terms = terms

    async def check(self) -> None:
        await self._store.link.run_everywhere(PROBE, ())
        self._store.check_room()
        if self._store.facts.stored_bytes() + _PROBE_BYTES > self._store.terms.max_bytes:
            raise BufferFull("the buffer holds buffer.max_bytes")

    async def failed(self) -> BufferBroken:
        return await asyncio.shield(self._failed)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._appends.finish()
        await self._store.link.close()

    # -- what it does by itself ------------------------------------------------------------------------

    async def _look(self) -> None:
        """Wake those who deliver the keys that are due."""
        for key in await self._roster.due():
            self._wake(key, 0.0)

    async def _exchange(self) -> None:
        """Tell the other processes what this one knows of the keys' bounds, and hear what they know."""
        await self._store.set_clock()
        told = await self._store.link.ask("HGETALL", key_names.FACTS)
        news = self._store.facts.exchange(dict(zip(told[::2], told[1::2], strict=True)))
        if news:
            await self._store.link.ask("HSET", key_names.FACTS, *news)

    async def _sweep(self) -> None:
        """Wake those who deliver whatever key holds anything: hints may be missing."""
        for key in await self._roster.holding():
            self._wake(key, 0.0)

    async def _repeat(self, work: Callable[[], Awaitable[None]], every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s * random.uniform(0.75, 1.25))
            with suppress(BufferUnavailable):  # the flusher and the front say so, and count it
                await work()

    def _note_end(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_result(BufferBroken(f"{task.get_name()}: {error!r}"))
