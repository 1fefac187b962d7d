"""Where a run takes place: a world with a store and an upstream in it, and the program made to live there."""

import random
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import structlog

from proxy.sandbox.window import Limit
from tests.simulation.evidence import Evidence
from tests.simulation.loop import World
from tests.simulation.process import Surroundings
from tests.simulation.redis_storage import RedisStorage
from tests.simulation.sqlite_storage import SqliteStorage
from tests.simulation.storage import Storage
from tests.simulation.trouble import Trouble
from tests.simulation.upstream import SimulatedUpstream

ENGINES = ("sqlite", "redis", "cluster", "valkey")

MEMORY = Path("/dev/shm")
"""Where files cost no disk: nothing that the simulation ends is lost by a machine's crash."""


@contextmanager
def staged(
    engine: str, chance: Random, limit: Limit, trouble: Trouble, *, background: bool = False
) -> Generator[Surroundings]:
    """All that processes live by. `background`: whether a shared engine's own tasks run."""
    world = World(chance)
    evidence = Evidence(world)
    with (
        tempfile.TemporaryDirectory(prefix="simulation-", dir=MEMORY if MEMORY.is_dir() else None) as folder,
        _the_program_on(world, evidence, chance),
    ):
        upstream = SimulatedUpstream(chance, limit.opened(), evidence)
        storage: Storage
        if engine == "sqlite":
            storage = SqliteStorage(Path(folder), evidence, chance, trouble)
        else:
            storage = RedisStorage(engine, evidence, chance, trouble, background=background)
        try:
            yield Surroundings(world, storage, upstream, evidence, chance, trouble)
        finally:
            world.close()
            storage.close()


@contextmanager
def _the_program_on(world: World, evidence: Evidence, chance: Random) -> Generator[None]:
    """Give the program this world's time of day, chance, and trace for a log.

    Its stopwatch shows what chance says: a group of transactions ends where their statements took too long.
    """
    stopwatch_s = 0.0

    def look_at_stopwatch() -> float:
        nonlocal stopwatch_s
        stopwatch_s += chance.uniform(0, 0.002)
        return stopwatch_s

    def into_trace(_logger: Any, level: str, entry: Any) -> Any:
        said = entry.pop("event")
        evidence.note(f"log, {level}: {said} {entry or ''}")
        raise structlog.DropEvent

    before = random.getstate()
    random.seed(chance.random())  # the flusher's jitter, and that of tenacity
    structlog.configure(processors=[into_trace])
    try:
        with (
            patch("proxy.front.ingest.wall_ms", lambda: int(world.wall_s() * 1000)),
            patch("proxy.buffer.sqlite.writer.perf_counter", look_at_stopwatch),
        ):
            yield
    finally:
        structlog.reset_defaults()
        random.setstate(before)
