"""Proxies to measure: buffer, flusher and the way upstream, as the service builds them, without a front.

All in this process. What keeps proxies apart, or brings them together, is their buffers: each a file of its
own, or a store of its own in a Redis, or one store for all.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

from proxy.bench.measure import portions
from proxy.bench.visits import Visits
from proxy.buffer import Buffer, Portion
from proxy.buffer.bench import BENCH_KEY
from proxy.engines import open_engine
from proxy.flusher import Flusher
from proxy.lanes import QueueId
from proxy.metrics import Metrics
from proxy.settings import Settings, UpstreamSettings, parse_buffer_url
from proxy.upstream import Upstream

_AT_ONCE = 100
"""Queues that one append fills."""

_READY_POSTS = 2_000
_NOW_MS = 1_750_000_000_000.0
"""When the made-up visits were, which nothing here depends on."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """How many proxies there are, each with which share of the limit, on one store or each on its own."""

    proxies: int = 1
    rate_share: float = 1.0
    share_store: bool = False


@asynccontextmanager
async def opened(
    fleet: Fleet, settings: Settings, upstream_url: str, folder: Path, backlog: int
) -> AsyncIterator[Sequence[Buffer]]:
    """Run the proxies, each with so many queues of one event that are due at once.

    Gives their buffers. `folder`: where files go. Raises StartRefused, and in a group what a task died of.
    """
    async with AsyncExitStack() as rooms:
        buffers: list[Buffer] = []
        flushers: list[Flusher] = []
        name = f"bench-budget-{secrets.token_hex(4)}"
        for number in range(fleet.proxies):
            store = name if fleet.share_store else f"{name}-{number + 1}"
            of_one = _settings(settings, fleet, upstream_url, folder / f"{store}.db")
            metrics = Metrics()
            # In a Redis that is used, nothing may be touched, let alone delivered to a stand-in.
            engine = await open_engine(of_one, metrics, apart=store)
            rooms.push_async_callback(engine.buffer.close)
            buffers.append(engine.buffer)
            upstream = await rooms.enter_async_context(
                Upstream(upstream_url, timeout_s=of_one.delivery.timeout_s)
            )
            flushers.append(
                Flusher(
                    engine.buffer,
                    upstream,
                    metrics,
                    in_flight=of_one.delivery.in_flight,
                    timeout_s=of_one.delivery.timeout_s,
                    lease_s=of_one.delivery.lease_s,
                    max_age_s=of_one.delivery.max_age_s,
                )
            )
        for buffer in buffers[:1] if fleet.share_store else buffers:
            await _fill(buffer, backlog)
        async with asyncio.TaskGroup() as tasks:
            for flusher in flushers:
                tasks.create_task(flusher.run(), name="flusher")
            try:
                yield buffers
            finally:
                for flusher in flushers:
                    flusher.stop()


async def held(buffers: Sequence[Buffer]) -> int:
    """The least that one of these holds."""
    of_each = [(await buffer.figures()).get(BENCH_KEY) for buffer in buffers]
    return min(0 if of is None else of.books.held for of in of_each)


def _settings(settings: Settings, fleet: Fleet, upstream_url: str, file: Path) -> Settings:
    """Those of the operator, but for what the case says; the key is no unknown one, and nothing lingers."""
    delivery = {"linger_s": 0.0, "limit_per_s": 100, "rate_share": fleet.rate_share}
    buffer = settings.buffer
    if not buffer.url.is_redis:
        buffer = buffer.model_copy(update={"url": parse_buffer_url(f"sqlite:///{file}")})
    return settings.model_copy(
        update={
            "front": settings.front.model_copy(update={"public_keys": (BENCH_KEY,)}),
            "delivery": settings.delivery.model_copy(update=delivery),
            "upstream": UpstreamSettings(url=upstream_url),
            "buffer": buffer,
        }
    )


async def _fill(buffer: Buffer, queues: int) -> None:
    """One event in each of so many queues."""
    filling = _one_each(queues)
    while some := list(islice(filling, _AT_ONCE)):
        await buffer.append(BENCH_KEY, some)


def _one_each(queues: int) -> Iterator[Portion]:
    ready = cycle(list(islice(portions(Visits(_NOW_MS, events=1).posts()), _READY_POSTS)))
    for number in range(queues):
        yield replace(next(ready), queue=QueueId(number.to_bytes(16, "big")))
