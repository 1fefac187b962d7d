"""Which engine the settings name, and how it is opened: the only room that names one.

An embedded file is opened or refused at once. So is a Redis that says what must be changed first; one that
does not answer may be starting beside us, and is tried for some seconds before the start is refused with one
line. Whoever supervises the process starts it again. (Staying up without a buffer was rejected: a rollout
with a wrong address would replace what works.)
"""

from collections.abc import AsyncIterator, Iterable

from proxy.buffer.bench import Bench
from proxy.checklist import Checked
from proxy.engines.engine import Engine, Kind, StartRefused
from proxy.engines.on_sqlite import OnSqlite
from proxy.lanes import QueueId
from proxy.metrics import Metrics
from proxy.settings import Settings

__all__ = ["Engine", "StartRefused", "clean_bench", "look_at_buffer", "open_bench", "open_engine"]


async def open_engine(settings: Settings, metrics: Metrics, apart: str = "") -> Engine:
    """The engine of the settings. Raises StartRefused.

    `apart`: in a Redis, the name of a store of its own, which is taken out when the buffer is closed.
    """
    return await _kind(settings).open(metrics, apart)


async def open_bench(settings: Settings) -> Bench:
    """The engine of the settings for benchmarks: all due at once, and no limit. Raises StartRefused."""
    return await _kind(settings).open_bench()


async def clean_bench(settings: Settings, queues: Iterable[QueueId]) -> None:
    """Take out what a benchmark that was killed has left in the engine of the settings.

    Raises StartRefused, BufferUnavailable.
    """
    await _kind(settings).clean_bench(queues)


def look_at_buffer(settings: Settings, *, offline: bool) -> AsyncIterator[Checked]:
    """What `open_engine` would find. Nothing is opened for writing, made or changed.

    `offline`: a Redis is not asked.
    """
    return _kind(settings).look(offline=offline)


def _kind(settings: Settings) -> Kind:
    if settings.buffer.target is None:
        return OnSqlite(settings)
    from proxy.engines.on_redis import OnRedis  # noqa: PLC0415  # a third of all that is imported

    return OnRedis(settings, settings.buffer.target)
