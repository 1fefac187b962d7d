"""The engines that the contract's suite runs on."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

import pytest

from proxy.buffer import Buffer, Terms
from proxy.buffer.sqlite import SqliteBuffer
from proxy.clock import StoreClock

TERMS = Terms(linger_s=1.0, lease_s=30.0, limit_per_s=1_000_000.0, dedup_window_s=600.0)
"""As by default, but for a rate that no test meets by accident."""


class Engine(Protocol):
    """One store of one engine, whose clock stands still but for `advance`."""

    async def opened(self, terms: Terms = TERMS) -> Buffer:
        """The buffer on this store, on a process's first start or on a later one."""

    def advance(self, seconds: float) -> None:
        """Move the store's clock; back, too."""

    def now_ms(self) -> int: ...


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


ENGINES = {"sqlite": SqliteEngine}


@pytest.fixture(params=ENGINES)
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    made = ENGINES[request.param](tmp_path)
    yield made
    await made.close()


@pytest.fixture
async def buffer(engine: Engine) -> Buffer:
    return await engine.opened()
