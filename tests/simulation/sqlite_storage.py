"""Files of the embedded engine: a kill leaves them as they are, and the next life starts from those."""

import asyncio
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random

from proxy.buffer import Buffer, KeyFigures, Terms
from proxy.buffer.sqlite import SqliteBuffer
from proxy.clock import StoreClock
from proxy.wire.limits import PublicKey
from tests.simulation.evidence import Evidence
from tests.simulation.storage import Life, Storage, check_books
from tests.simulation.trouble import Trouble
from tests.simulation.watched import Leases, WatchedBuffer

_DATABASE = "buffer.db"
_LEFT_BEHIND = tuple(f"{_DATABASE}{ending}" for ending in ("", "-wal", "-shm", ".lock"))
"""The files that outlive a process which was killed."""


class SqliteStorage(Storage):
    """A folder, another one after each kill."""

    def __init__(self, folder: Path, evidence: Evidence, chance: Random, trouble: Trouble) -> None:
        self.folder = folder / "first"
        self.folder.mkdir()
        self.evidence = evidence
        self.chance = chance
        self.trouble = trouble
        self.leases = Leases()
        self._skew_s = 0.0
        self._kills = 0

    def life(self) -> "SqliteLife":
        return SqliteLife(self)

    async def recounted(self, engine: Buffer) -> Mapping[PublicKey, KeyFigures]:
        figures = await engine.figures(recount=True)
        check_books(figures)
        return figures

    def set_clock(self, ahead_s: float) -> None:
        """It shows when a process starts: while it lives its clock never jumps."""
        self._skew_s += ahead_s

    def close(self) -> None:
        """Its folder goes with the run's."""

    def clock(self) -> StoreClock:
        """The store's clock of a process that starts now."""
        world = self.evidence.world
        return StoreClock(wall=lambda: world.wall_s() + self._skew_s, monotonic=lambda: world.now_s)

    def move_on(self) -> Path:
        """Leave the files to the next life as they are now, in another folder; the one of before."""
        self._kills += 1
        left = self.folder.with_name(f"after-kill-{self._kills}")
        left.mkdir()
        for name in _LEFT_BEHIND:
            if (self.folder / name).exists():
                shutil.copyfile(self.folder / name, left / name)
        before, self.folder = self.folder, left
        return before


class SqliteLife(Life):
    """One process's file."""

    def __init__(self, storage: SqliteStorage) -> None:
        self._storage = storage
        self._number = storage.evidence.lives
        self._engine: SqliteBuffer | None = None
        self._left: Path | None = None

    async def opened(self, terms: Terms) -> Buffer:
        storage = self._storage
        self._clock = storage.clock()
        self._engine = await SqliteBuffer.opened(
            storage.folder / _DATABASE, terms, clock=self._clock, inline=True
        )
        self._engine._writer._thread = Disk(storage.trouble, storage.chance)  # type: ignore[assignment]
        await storage.recounted(self._engine)
        return self._engine

    def around(self, engine: Buffer, terms: Terms) -> Buffer:
        leases, now_ms = self._storage.leases, self._clock.now_ms
        # A process starts with a clock of its own.
        leases.clock_was_set(now_ms(), int(terms.lease_s * 1000))
        return WatchedBuffer(
            engine, self._storage.evidence, now_ms, lambda: self._number, leases, terms.lease_s
        )

    def kill(self) -> None:
        self._left = self._storage.move_on()

    def end(self) -> None:
        if self._left is not None:
            if self._engine is not None:
                self._engine._lock.release()
            shutil.rmtree(self._left)


class Disk:
    """In the place of the thread that commits: a commit takes time, in which the process may die."""

    def __init__(self, trouble: Trouble, chance: Random) -> None:
        self._trouble = trouble
        self._chance = chance

    async def run(self, do: Callable[[], object]) -> None:
        """Do `do`, after a while, and say so after another."""
        await asyncio.sleep(self._commit_s())
        do()
        await asyncio.sleep(self._commit_s())

    def end(self) -> None:
        """There is no thread."""

    def _commit_s(self) -> float:
        slow = self._chance.random() < self._trouble.slow
        return self._chance.uniform(0, self._trouble.slow_s if slow else self._trouble.quick_s / 4)
