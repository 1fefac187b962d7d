"""Redis, or a Valkey: alone, under Sentinels, as a Cluster."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from functools import partial
from typing import cast

import structlog

from proxy.buffer import BufferBroken, BufferFault, Terms
from proxy.buffer.bench import Bench
from proxy.buffer.redis import RedisBuffer
from proxy.buffer.redis import look as redis_look
from proxy.buffer.redis.apart import Apart, greeting_apart
from proxy.buffer.redis.bench import RedisBench, empty
from proxy.buffer.redis.link import Durability, Link, Misconfigured, open_link
from proxy.buffer.redis.survey import Survey, Unfit
from proxy.checklist import Checked, skipped
from proxy.engines.engine import Engine, StartRefused, bench_terms_of, terms_of
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


class OnRedis:
    """A server or several. See `Kind`."""

    def __init__(self, settings: Settings, target: Target) -> None:
        self._settings = settings
        self._target = target
        # The settings know which a Redis has.
        self._durability = cast(Durability, settings.buffer.durability)

    async def open(self, metrics: Metrics, apart: str) -> Engine:
        metrics.show_engine("redis", self._durability)
        terms = terms_of(self._settings)
        losses = _Losses(metrics)
        survey = self._survey(terms, metrics, losses)
        link = await self._fit_link(survey, apart)
        try:
            redis = await RedisBuffer.opened(link, terms, note_loss=losses.of_key, full=survey.full)
        except BufferFault as error:
            await link.close()
            raise StartRefused(str(error)) from error
        except BaseException:
            await link.close()
            raise
        shown = {
            "engine": "Redis",
            "url": str(self._target),
            "durability": self._durability,
            **survey.shown(),
        }
        if self._durability == "replica":
            shown["replicas"] = str(self._settings.buffer.replicas)

        def set_terms(terms: Terms) -> None:
            redis.set_terms(terms)
            survey.set_terms(terms)

        return Engine(redis, shown, set_terms, partial(survey.run, link))

    async def open_bench(self) -> Bench:
        terms = bench_terms_of(self._settings)
        return await RedisBench.opened(await self._bench_link(terms), terms, self._durability)

    async def clean_bench(self, queues: Iterable[QueueId]) -> None:
        link = await self._bench_link(terms_of(self._settings))
        try:
            await empty(link, queues)
        finally:
            await link.close()

    async def look(self, *, offline: bool) -> AsyncIterator[Checked]:
        if offline:
            yield skipped("redis", f"Redis at {self._target} is not asked (--offline)")
            return
        buffer = self._settings.buffer
        terms = terms_of(self._settings)
        async for checked in redis_look.look(
            self._target, terms, self._durability, buffer.replicas, buffer.wait_timeout_s
        ):
            yield checked

    async def _bench_link(self, terms: Terms) -> Link:
        metrics = Metrics()
        return await self._fit_link(self._survey(terms, metrics, _Losses(metrics)), apart="")

    def _survey(self, terms: Terms, metrics: Metrics, losses: "_Losses") -> Survey:
        def note_unsafe(reason: Unsafe, is_so: bool) -> None:  # noqa: FBT001  # the survey's signature
            metrics.buffer_unsafe[reason].set(is_so)

        return Survey(
            self._target,
            terms,
            self._durability,
            self._settings.buffer.replicas,
            note_unsafe=note_unsafe,
            note_loss=losses.of_all,
        )

    async def _fit_link(self, survey: Survey, apart: str) -> Link:
        """A link to a Redis that was found fit. Raises StartRefused."""
        link = await self._reached_link(survey, apart)
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

    async def _reached_link(self, survey: Survey, apart: str) -> Link:
        """A link as soon as there is one, within REACH_S. Raises StartRefused."""
        buffer = self._settings.buffer
        loop = asyncio.get_running_loop()
        until_s = loop.time() + REACH_S
        has_said = False
        while True:
            try:
                return await open_link(
                    self._target,
                    durability=self._durability,
                    replicas=buffer.replicas,
                    wait_timeout_s=buffer.wait_timeout_s,
                    greet=greeting_apart(survey.greet, apart) if apart else survey.greet,
                )
            except (BufferBroken, Misconfigured) as error:  # no waiting mends that
                raise StartRefused(str(error)) from error
            except BufferFault as error:
                if loop.time() > until_s:
                    raise StartRefused(f"{error} (tried for {REACH_S:g} s)") from error
                if not has_said:
                    structlog.get_logger("buffer").warning(
                        "the buffer cannot be reached yet", error=str(error), give_up_in_s=REACH_S
                    )
                    has_said = True
            await asyncio.sleep(_TRY_AGAIN_S)


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
