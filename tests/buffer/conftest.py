"""The engines that the contract's suite runs on."""

from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import pytest

from proxy.buffer import Buffer, Terms
from proxy.buffer.redis import RedisBuffer
from proxy.buffer.redis.link import Link, open_link
from proxy.buffer.redis.store import RedisClock
from proxy.buffer.sqlite import SqliteBuffer
from proxy.clock import StoreClock
from proxy.settings.redis_url import parse_target
from tests.redis_servers import shared
from tests.sync_link import SyncLink

TERMS = Terms(linger_s=1.0, lease_s=30.0, limit_per_s=1_000_000.0, dedup_window_s=600.0)
"""As by default, but for a rate that no test meets by accident."""


class Engine(Protocol):
    """One store of one engine, whose clock stands still but for `advance`."""

    async def opened(self, terms: Terms = TERMS) -> Buffer:
        """The buffer on this store, on a process's first start or on a later one."""

    def advance(self, seconds: float) -> None:
        """Move the store's clock; back, too."""

    def now_ms(self) -> int: ...

    async def close(self) -> None:
        """Close what was opened last, as a process does when it ends."""


class SqliteEngine:
    """`inline`: without a thread, which is quicker where verbs are asked one by one."""

    def __init__(self, folder: Path, *, inline: bool = False) -> None:
        self._inline = inline
        self.sync_every_commit = False
        self.path = folder / "buffer.db"
        self.clock = StoreClock(wall=lambda: 1_800_000_000.0, monotonic=lambda: 0.0)
        self._open: SqliteBuffer | None = None

    async def opened(self, terms: Terms = TERMS) -> SqliteBuffer:
        await self.close()
        self._open = await SqliteBuffer.opened(
            self.path,
            terms,
            sync_every_commit=self.sync_every_commit,
            clock=self.clock,
            inline=self._inline,
        )
        return self._open

    def advance(self, seconds: float) -> None:
        self.clock.offset_ms += round(seconds * 1000)

    def now_ms(self) -> int:
        return self.clock.now_ms()

    async def close(self) -> None:
        if self._open is not None:
            await self._open.close()
            self._open = None


class RedisEngine:
    """On this test process's deployment of that kind, which is emptied for it.

    `at_once`: without waiting for the network, which is quicker where verbs are asked one by one.
    """

    def __init__(self, _folder: Path, *, kind: str, at_once: bool = False) -> None:
        self._at_once = at_once
        self.deployment = shared(kind)
        self.deployment.flush()
        self._now_ms = 1_800_000_000_000
        self._open: RedisBuffer | None = None

    async def opened(self, terms: Terms = TERMS) -> RedisBuffer:
        await self.close()
        link = await self.linked()
        clock = RedisClock(self.now_ms)
        self._open = await RedisBuffer.opened(link, terms, clock=clock, background=False)
        return self._open

    async def linked(self) -> Link:
        """A link of its own, as a process has it."""
        if self._at_once:
            return SyncLink(self.deployment)
        return await open_link(parse_target(self.deployment.url))

    def advance(self, seconds: float) -> None:
        self._now_ms += round(seconds * 1000)

    def now_ms(self) -> int:
        return self._now_ms

    async def close(self) -> None:
        if self._open is not None:
            await self._open.close()
            self._open = None


ENGINES: Mapping[str, Callable[[Path], Engine]] = {
    "sqlite": SqliteEngine,
    **{kind: partial(RedisEngine, kind=kind) for kind in ("redis", "cluster", "valkey")},
}


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    made = ENGINES[request.param](tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def buffer(engine: Engine) -> Buffer:
    return await engine.opened()
