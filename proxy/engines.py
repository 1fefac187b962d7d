"""Which engine the settings name, and how it is opened: the only module that names one.

An embedded file is opened or refused at once. So is a Redis that says what must be changed first; one that
does not answer may be starting beside us, and is tried for some seconds before the start is refused with one
line. Whoever supervises the process starts it again. (Staying up without a buffer was rejected: a rollout
with a wrong address would replace what works.)
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import structlog

from proxy.buffer import Buffer, BufferBroken, BufferFault, Quota, Terms
from proxy.buffer.bench import Bench
from proxy.buffer.redis import RedisBuffer
from proxy.buffer.redis import look as redis_look
from proxy.buffer.redis.apart import Apart, greeting_apart
from proxy.buffer.redis.bench import RedisBench, empty
from proxy.buffer.redis.link import Durability, Link, Misconfigured, open_link
from proxy.buffer.redis.survey import Survey, Unfit
from proxy.buffer.sqlite import OpenRefused, SqliteBuffer
from proxy.buffer.sqlite import look as sqlite_look
from proxy.buffer.sqlite.bench import SqliteBench
from proxy.checklist import Checked, skipped
from proxy.lanes import QueueId
from proxy.ledger import Unsafe
from proxy.log import short_key
from proxy.metrics import Metrics
from proxy.settings import Settings
from proxy.settings.redis_url import Target
from proxy.wire.limits import PublicKey

REACH_S = 10.0
"""How long a Redis that cannot be reached is tried at the start: it may be starting too, or failing over."""

_TRY_AGAIN_S = 0.5

_ONE_LOSS_S = 60.0
"""Traces of a loss that are found within this time of each other are of one loss."""

_TOLD_KEYS = 10
"""Keys of one loss that get a line each; the counter has them all."""

_NO_LIMIT_PER_S = 1_000_000.0
"""Requests per second a key that no benchmark reaches."""


class StartRefused(Exception):
    """The process cannot start; the message is one line with the remedy."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A buffer, and what goes with it.

    `shown`: what it is, for the line at the start. `watch`: to be run beside it for ever, None where there is
    nothing to watch; raises BufferBroken where the process must end. `survey`: who looks at a Redis.
    """

    buffer: Buffer
    shown: Mapping[str, object]
    watch: Callable[[], Coroutine[Any, Any, None]] | None = None
    survey: Survey | None = None

    def go_by(self, settings: Settings) -> None:
        """Take over what of these an open buffer can."""
        terms = _terms(settings)
        self.buffer.set_terms(terms)
        if self.survey is not None:
            self.survey.set_terms(terms)


async def open_engine(settings: Settings, metrics: Metrics, apart: str = "") -> Engine:
    """The engine of the settings. Raises StartRefused.

    `apart`: in a Redis, the name of a store of its own, which is taken out when the buffer is closed.
    """
    terms = _terms(settings)
    target = settings.buffer.target
    durability = settings.buffer.durability
    if target is None:
        path = settings.buffer.path
        metrics.show_engine("sqlite", durability, path.parent)
        try:
            buffer = await SqliteBuffer.opened(path, terms, sync_every_commit=durability == "always")
        except OpenRefused as error:
            raise StartRefused(str(error)) from error
        return Engine(buffer, {"engine": "SQLite", "path": str(path), "durability": durability})
    metrics.show_engine("redis", durability)
    losses = _Losses(metrics)
    survey = _survey(settings, target, terms, metrics, losses)
    link = await _fit_link(settings, target, survey, apart)
    try:
        redis = await RedisBuffer.opened(link, terms, note_loss=losses.of_key, full=survey.full)
    except BufferFault as error:
        await link.close()
        raise StartRefused(str(error)) from error
    except BaseException:
        await link.close()
        raise
    shown = {"engine": "Redis", "url": str(target), "durability": durability, **survey.shown()}
    if durability == "replica":
        shown["replicas"] = str(settings.buffer.replicas)
    return Engine(redis, shown, partial(survey.run, link), survey)


async def open_bench(settings: Settings) -> Bench:
    """The engine of the settings for benchmarks: all due at once, and no limit. Raises StartRefused."""
    terms = Terms(
        linger_s=0.0,
        lease_s=settings.delivery.lease_s,
        limit_per_s=_NO_LIMIT_PER_S,
        dedup_window_s=settings.buffer.dedup_window_s,
        max_bytes=settings.buffer.max_bytes,
        max_bytes_per_key=settings.buffer.max_bytes_per_key,
        dead_max_bytes=settings.dead.max_bytes,
    )
    durability = settings.buffer.durability
    target = settings.buffer.target
    if target is None:
        return await SqliteBench.opened(settings.buffer.path, terms, sync_every_commit=durability == "always")
    return await RedisBench.opened(await _bench_link(settings, target, terms), terms, durability)


async def clean_bench(settings: Settings, queues: Iterable[QueueId]) -> None:
    """Take out what a benchmark that was killed has left in the engine of the settings.

    Raises StartRefused, BufferUnavailable.
    """
    target = settings.buffer.target
    if target is None:
        return
    link = await _bench_link(settings, target, _terms(settings))
    try:
        await empty(link, queues)
    finally:
        await link.close()


async def look_at_buffer(settings: Settings, *, offline: bool) -> AsyncIterator[Checked]:
    """What `open_engine` would find. Nothing is opened for writing, made or changed.

    `offline`: a Redis is not asked.
    """
    terms = _terms(settings)
    target = settings.buffer.target
    if target is None:
        for checked in sqlite_look.look(settings.buffer.path, terms.max_bytes + terms.dead_max_bytes):
            yield checked
    elif offline:
        yield skipped("redis", f"Redis at {target} is not asked (--offline)")
    else:
        durability = _redis_durability(settings)
        async for checked in redis_look.look(
            target, terms, durability, settings.buffer.replicas, settings.buffer.wait_timeout_s
        ):
            yield checked


async def _bench_link(settings: Settings, target: Target, terms: Terms) -> Link:
    metrics = Metrics()
    survey = _survey(settings, target, terms, metrics, _Losses(metrics))
    return await _fit_link(settings, target, survey)


def _terms(settings: Settings) -> Terms:
    quota = settings.front.unknown_key_quota
    return Terms(
        linger_s=settings.delivery.linger_s,
        lease_s=settings.delivery.lease_s,
        limit_per_s=settings.delivery.limit_per_s,
        rate_share=settings.delivery.rate_share,
        dedup_window_s=settings.buffer.dedup_window_s,
        max_bytes=settings.buffer.max_bytes,
        max_bytes_per_key=settings.buffer.max_bytes_per_key,
        dead_max_bytes=settings.dead.max_bytes,
        # Where keys are listed no other comes as far as the buffer.
        quota=None if settings.front.public_keys else Quota(quota.queues, quota.keys),
    )


def _survey(settings: Settings, target: Target, terms: Terms, metrics: Metrics, losses: "_Losses") -> Survey:
    def note_unsafe(reason: Unsafe, is_so: bool) -> None:  # noqa: FBT001  # the survey's signature
        metrics.buffer_unsafe[reason].set(is_so)

    return Survey(
        target,
        terms,
        _redis_durability(settings),
        settings.buffer.replicas,
        note_unsafe=note_unsafe,
        note_loss=losses.of_all,
    )


async def _fit_link(settings: Settings, target: Target, survey: Survey, apart: str = "") -> Link:
    """A link to a Redis that was found fit. Raises StartRefused."""
    log = structlog.get_logger("buffer")
    loop = asyncio.get_running_loop()
    until = loop.time() + REACH_S
    has_said = False
    while True:
        try:
            link = await open_link(
                target,
                durability=_redis_durability(settings),
                replicas=settings.buffer.replicas,
                wait_timeout_s=settings.buffer.wait_timeout_s,
                greet=greeting_apart(survey.greet, apart) if apart else survey.greet,
            )
            break
        except (BufferBroken, Misconfigured) as error:  # no waiting mends that
            raise StartRefused(str(error)) from error
        except BufferFault as error:
            if loop.time() > until:
                raise StartRefused(f"{error} (tried for {REACH_S:g} s)") from error
            if not has_said:
                log.warning("the buffer cannot be reached yet", error=str(error), give_up_in_s=REACH_S)
                has_said = True
        await asyncio.sleep(_TRY_AGAIN_S)
    if apart:
        link = Apart(link, apart)
    try:
        await survey.begin(link)
    except Unfit as error:
        await link.close()
        raise StartRefused(str(error)) from error
    except BaseException:
        await link.close()
        raise
    return link


def _redis_durability(settings: Settings) -> Durability:
    return cast(Durability, settings.buffer.durability)  # the settings know which a Redis has


class _Losses:
    """Counts what Redis has lost: one loss, however many of its traces are found."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = structlog.get_logger("buffer")
        self._last_s: float | None = None
        self._told = 0

    def of_all(self) -> None:
        """Everything is lost; the survey has said so."""
        self._note()

    def of_key(self, key: PublicKey, events: int) -> None:
        """Redis no longer knows so many accepted events of a key: what of them was not delivered is lost."""
        self._note()
        self._metrics.buffer_lost_events.inc(events)
        if self._told < _TOLD_KEYS:
            self._told += 1
            self._log.error(
                "Redis has gone back behind what it had acknowledged: was it failed over, or emptied?",
                key=short_key(key),
                forgotten_events=events,
            )

    def _note(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if self._last_s is None or now_s - self._last_s > _ONE_LOSS_S:
            self._metrics.buffer_lost.inc()
            self._told = 0
        self._last_s = now_s
