"""A flusher with the real buffer and the in-process sandbox, and a buffer that can be made to fail."""

import asyncio
import json
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest

from proxy.buffer import (
    MAX_BATCHES,
    Appended,
    Buffer,
    Head,
    Idle,
    KeyFigures,
    Lease,
    Portion,
    Settled,
    Settlement,
    Spent,
    Terms,
)
from proxy.buffer.sqlite import SqliteBuffer
from proxy.clock import StoreClock
from proxy.flusher import Flusher
from proxy.gate import View
from proxy.lanes import Lane, lane_id, visitor_queue
from proxy.ledger import Books
from proxy.metrics import Metrics
from proxy.sandbox import Fault, Sandbox, What
from proxy.upstream import Upstream
from proxy.wire.limits import PublicKey
from tests.around import BufferAround
from tests.sandbox.bodies import OTHER_VISITOR, VISITOR, event

T = TypeVar("T")

KEY = PublicKey("pk_one")
OTHER_KEY = PublicKey("pk_other")
VISITORS = (VISITOR, OTHER_VISITOR)

SPEED = 50
"""How much faster the store's clock runs: back-offs and pauses pass, and nobody waits long for them."""

TERMS = Terms(linger_s=0.5, lease_s=3_000.0, limit_per_s=2_000.0)
"""A lease that no test waits for: it ends where the clock is moved."""


class FaultyBuffer(BufferAround):
    """A buffer on a fast clock; what `before` and `after` hold for a verb is awaited, and may raise."""

    def __init__(self, inner: Buffer) -> None:
        super().__init__(inner)
        self.before: dict[str, Callable[..., Awaitable[None]]] = {}
        self.after: dict[str, Callable[..., Awaitable[None]]] = {}
        self.leases: list[Lease] = []
        self.settled: list[tuple[Lease, Settlement, Settled | Spent]] = []
        self.changed = asyncio.Condition()

    async def until(self, holds: Callable[["FaultyBuffer"], bool]) -> None:
        """Return when `holds` is true of this buffer; asked again after every lease and settle."""
        async with self.changed:
            await self.changed.wait_for(lambda: holds(self))

    async def _around(self, verb: str, do: Awaitable[T], *given: Any) -> T:
        try:
            if verb in self.before:
                await self.before[verb](*given)
        except BaseException:
            do.close()  # type: ignore[attr-defined]  # it is a coroutine that will not run
            raise
        answer = await do
        if verb in self.after:
            await self.after[verb](*given)
        return answer

    async def _note(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def append(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        return await self._around("append", self.inner.append(key, portions), key, portions)

    async def claim(self, key: PublicKey, token: bytes, *, early: bool = False) -> Lease | Idle:
        claimed = await self._around("claim", self.inner.claim(key, token, early=early), key)
        if isinstance(claimed, Idle):
            return replace(claimed, wait_s=claimed.wait_s / SPEED)
        self.leases.append(claimed)
        await self._note()
        return claimed

    async def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        return await self._around("read", self.inner.read(lease, max_events, max_bytes), lease)

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        outcome = await self._around("settle", self.inner.settle(lease, settlement), lease, settlement)
        if isinstance(outcome, Settled) and outcome.due_s is not None:
            outcome = replace(outcome, due_s=outcome.due_s / SPEED)
        self.settled.append((lease, settlement, outcome))
        await self._note()
        return outcome

    async def figures(self, *, recount: bool = False) -> Mapping[PublicKey, KeyFigures]:
        return await self._around("figures", self.inner.figures(recount=recount))

    async def keys_with_work(self) -> Sequence[PublicKey]:
        return await self._around("keys_with_work", self.inner.keys_with_work())

    def on_append(self, wake: Callable[[PublicKey, float], None]) -> None:
        self.inner.on_append(lambda key, in_s: wake(key, in_s / SPEED))


class Bench:
    """Buffer, sandbox and metrics, and a flusher between them while `flushing`."""

    def __init__(self, buffer: FaultyBuffer, sandbox: Sandbox, clock: StoreClock) -> None:
        self.buffer = buffer
        self.sandbox = sandbox
        self.clock = clock
        self.metrics = Metrics()
        self.numbers = iter(range(1_000_000))
        self.running: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def flushing(
        self,
        *,
        in_flight: int = 8,
        timeout_s: float = 5.0,
        lease_s: float = 30.0,
        max_age_s: float = 259_200.0,
        upstream: Any = None,
    ) -> AsyncIterator[Flusher]:
        """Run a flusher; at the end it is told to stop, and must."""
        async with Upstream(self.sandbox.url, timeout_s=timeout_s) as real:
            flusher = Flusher(
                self.buffer,
                upstream or real,
                self.metrics,
                in_flight=in_flight,
                timeout_s=timeout_s,
                lease_s=lease_s,
                max_age_s=max_age_s,
            )
            self.running = running = asyncio.create_task(flusher.run())
            try:
                async with asyncio.timeout(15):
                    yield flusher
                    flusher.stop()
                    await running
            finally:
                running.cancel()
                await asyncio.wait([running])

    def strike(self, what: What, *, requests: int = 1, **details: Any) -> None:
        self.sandbox.programme.add(Fault(what=what, requests=requests, **details), now=time.time())

    async def append(
        self,
        events: int = 1,
        visitor: str = VISITOR,
        key: PublicKey = KEY,
        session: str | None = None,
        origin: str | None = None,
    ) -> list[str]:
        """Append new events of a visitor as one request; their uuids, in order."""
        bodies = [event(number=next(self.numbers)) for _ in range(events)]
        fields = {"visitorId": visitor} | ({"sessionId": session} if session else {})
        header = Lane(json.dumps(fields).encode(), "192.0.2.1", "Mozilla/5.0", origin).header()
        uuids = [str(body["uuid"]) for body in bodies]
        portion = Portion(
            visitor_queue(visitor),
            lane_id(header),
            header,
            bytes.fromhex("".join(uuids).replace("-", "")),
            array("q", map(hash, uuids)),
            [json.dumps(body).encode() for body in bodies],
        )
        assert await self.buffer.append(key, [portion]) == Appended(events, 0)
        return uuids

    async def until_empty(self) -> None:
        """Return when all that was appended is settled."""
        while True:
            seen = len(self.buffer.settled)  # before looking: a settle may come while we look
            if not any(of.books.held for of in (await self.buffer.inner.figures()).values()):
                return
            await self.until_settled(beyond=seen)

    async def until_settled(self, *, beyond: int | None = None) -> None:
        """Return when there are more settles than `beyond`, or than now."""
        seen = len(self.buffer.settled) if beyond is None else beyond
        await self.buffer.until(lambda buffer: len(buffer.settled) > seen)

    def heal(self) -> None:
        """End all of the sandbox's faults."""
        self.sandbox.programme.clear()

    async def view(self, key: PublicKey = KEY) -> View:
        """The key's gate."""
        return (await self.buffer.inner.figures())[key].gate

    async def until_stopped(self) -> None:
        assert self.running is not None
        await asyncio.wait([self.running])

    def sent(self, visitor: str | None = None) -> list[list[str]]:
        """The uuids of every request that the sandbox got, of one visitor or of all."""
        return [
            [one["uuid"] for one in entry.events]  # type: ignore[index]
            for entry in self.sandbox.record.entries
            if visitor in (None, entry.envelope.get("visitorId"))
        ]

    def taken(self, visitor: str | None = None) -> list[str]:
        """The uuids of the events that the sandbox took, in order, repetitions too."""
        return [
            one["uuid"]  # type: ignore[index]
            for entry in self.sandbox.record.entries
            if visitor in (None, entry.envelope.get("visitorId"))
            for one in entry.taken_events
        ]

    async def announced(self) -> set[str]:
        """The uuids of all events that are listed as perhaps taken unseen."""
        return {
            str(UUID(bytes=batch.uuids[at : at + 16]))
            for batch in await self.buffer.ambiguous(limit=MAX_BATCHES)
            for at in range(0, len(batch.uuids), 16)
        }

    def count(self, metric: str, **labels: str) -> float:
        value = self.metrics.registry.get_sample_value(f"outlit_proxy_{metric}", labels)
        assert value is not None, metric
        return value

    async def books(self) -> Books:
        """Of all keys together, after the recount has found no difference."""
        figures = await self.buffer.inner.figures(recount=True)
        found = sum((of.books for of in figures.values()), Books())
        assert found.difference == 0
        return found


@pytest.fixture
async def open_bench(tmp_path: Path) -> AsyncIterator[Callable[..., Awaitable[Bench]]]:
    """Make the bench, with other terms or another limit of the sandbox where they are given."""
    opened: list[Bench] = []

    async def made(terms: Terms = TERMS, *, limit: int = 10_000) -> Bench:
        clock = StoreClock(monotonic=lambda: time.monotonic() * SPEED)
        inner = await SqliteBuffer.opened(tmp_path / "buffer.db", terms, sync_every_commit=False, clock=clock)
        sandbox = Sandbox(limit=limit)
        bench = Bench(FaultyBuffer(inner), sandbox, clock)
        opened.append(bench)
        await sandbox.start()
        return bench

    yield made
    for bench in opened:
        await bench.sandbox.stop()
        await bench.buffer.close()


@pytest.fixture
async def bench(open_bench: Callable[..., Awaitable[Bench]]) -> Bench:
    return await open_bench()
