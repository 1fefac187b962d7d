"""A run from its first line to its verdict: stand-in, proxy and clients on one event loop.

In order: the stand-in listens, then the proxy; clients post for as long as was asked or until it is ended
early, while things go wrong upstream; they stop, each with all that it posted answered; the proxy delivers
what it holds; the books are recounted; the proxy stops, then the stand-in; then both sides are compared.
"""

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from itertools import count
from random import Random
from typing import Protocol

import aiohttp
from pydantic import SecretStr

from proxy.demo.client import Client, Tally, rings_within
from proxy.demo.comparison import Verdict, compare
from proxy.demo.evidence import gather, others_in
from proxy.demo.figures import Figures, Watch
from proxy.demo.marks import KEY, Marks
from proxy.demo.mishaps import THROUGHOUT, Mishap, calm, is_waiting, mishaps
from proxy.demo.traffic import Backend, Visitor
from proxy.sandbox import LIMIT_PER_S, Record, Sandbox
from proxy.service import Running, Service
from proxy.settings import (
    BufferSettings,
    BufferUrl,
    FrontSettings,
    ListenAddress,
    LogSettings,
    OpsSettings,
    Settings,
    UpstreamSettings,
)

_HANG_UP_S = 15.0
"""For the posts that are under way at the end: longer than a client waits for one answer."""
_DRAIN_S = 30.0
"""For what is held at the end, or as long as the run was: back-offs of the last mishap, then the backlog."""
_DRAIN_LOOK_S = 0.1
_ANSWERED_S = 0.5
"""In which what upstream has answered is settled, so that no wait begins after the operator ended them."""
_KNOWN_AFTER_S = 1.0
"""When a proxy has heard of another limit: what was on its way has been answered."""
_SPREAD_S = 1.5
"""In which all visitors arrive: not in one instant, which no site sees."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `run_s`: seconds of clients; `visitors`: at one time; `sabotage`: see `mishaps`."""

    run_s: float
    visitors: int
    sabotage: str | None
    front: ListenAddress
    ops: ListenAddress
    buffer_url: BufferUrl


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known when everything listens."""

    front_url: str
    ops_url: str
    buffer: BufferSettings
    limit_per_s: int
    servers: int
    plan: Plan


@dataclass(frozen=True, slots=True)
class Moment:
    """What is seen while it runs. `at` in Unix seconds; `beyond_limit`: as in `Outcome`."""

    at: float
    figures: Figures
    beyond_limit: int
    others: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `figures`: when the clients had stopped and the proxy had delivered what it held.

    `refused` events the front would not take, though each is valid. `beyond_limit`: 429 that no mishap gave;
    `as_limit_fell`: those that were given because the limit had just become another. `sabotage_missed`:
    sabotage was ordered and met no event.
    """

    verdict: Verdict
    figures: Figures
    refused: int
    unacknowledged: int
    sent_again: int
    busiest_second: int
    beyond_limit: int
    as_limit_fell: int
    drain_s: float
    sabotage_missed: bool


class Show(Protocol):
    """Who is told what happens."""

    every_s: float
    """How often a moment is wanted."""

    def opening(self, opening: Opening) -> None:
        """Everything listens."""

    def say(self, text: str) -> None:
        """Something happened that is told once."""

    def moment(self, moment: Moment) -> None:
        """How it stands now."""


async def demonstrate(plan: Plan, show: Show, end_early: asyncio.Event) -> Outcome:
    """Run the plan. Once `end_early` is set, clients stop as if their time were over.

    Raises what the service raises, in groups, and OSError where the stand-in finds no port.
    """
    stand_in = Sandbox(script=THROUGHOUT)
    await stand_in.start()
    try:
        run = _Run(plan, show, stand_in)
        stop = asyncio.Event()
        started: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        async with asyncio.TaskGroup() as tasks:
            # In a Redis that is used, nothing may be touched, let alone delivered to a stand-in.
            service = Service(run.settings, apart=f"demo-{secrets.token_hex(4)}")
            tasks.create_task(service.run(stop, started.set_result), name="service")
            await run.play(await started, end_early)
            stop.set()
        return run.outcome()
    finally:
        await stand_in.stop()


class _Run:
    """One run, and what it has learned so far."""

    def __init__(self, plan: Plan, show: Show, stand_in: Sandbox) -> None:
        token = secrets.token_hex(16)
        self.settings = _settings(plan, stand_in.url, token)
        self._plan = plan
        self._show = show
        self._token = token
        self._stand_in = stand_in
        self._marks = Marks(secrets.token_hex(4))
        self._rng = Random()
        self._streams = count(1)
        self._backends = (
            Backend(self._marks, "s1", self._rng, is_old=False, customer=None),
            Backend(self._marks, "s2", self._rng, is_old=True, customer=None),
            Backend(self._marks, "s3", self._rng, is_old=False, customer="acme"),
        )
        self._others = _Others(stand_in.record, self._marks)
        self._limited = _Limited(stand_in.record)
        self._tally = Tally()
        # Set by `play`:
        self._figures = Figures()
        self._drain_s = 0.0

    async def play(self, running: Running, end_early: asyncio.Event) -> None:
        """From the first post to the last recount."""
        self._show.opening(
            Opening(
                front_url=running.front_url,
                ops_url=running.ops_url,
                buffer=self.settings.buffer,
                limit_per_s=LIMIT_PER_S,
                servers=len(self._backends),
                plan=self._plan,
            )
        )
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            trust_env=False,  # whatever HTTP proxy the environment names is not on the way to ourselves
        ) as session:
            watch = Watch(session, running.ops_url, self._token)
            async with asyncio.TaskGroup() as tasks:
                showing = tasks.create_task(self._keep_showing(watch), name="show")
                await self._clients_come_and_go(session, running.front_url, watch, end_early)
                await self._drain(watch)
                showing.cancel()
            self._figures = await watch.figures(recount=True)
            self._show.moment(self._moment(self._figures))

    def outcome(self) -> Outcome:
        """Compare. To be asked when nothing arrives any more."""
        record, tally, figures = self._stand_in.record, self._tally, self._figures
        evidence = gather(record.entries, self._marks)
        return Outcome(
            verdict=compare(
                tally.acknowledged,
                tally.unacknowledged,
                evidence,
                ambiguous=figures.ambiguous,
                dead=figures.dead,
            ),
            figures=figures,
            refused=len(tally.refused),
            unacknowledged=len(tally.unacknowledged),
            sent_again=tally.sent_again,
            busiest_second=record.stats.busiest_second,
            beyond_limit=self._limited.beyond(time.time()),
            as_limit_fell=self._limited.as_it_fell,
            drain_s=self._drain_s,
            sabotage_missed=self._plan.sabotage is not None
            and is_waiting(self._stand_in.programme, self._plan.sabotage, time.time()),
        )

    async def _clients_come_and_go(
        self, session: aiohttp.ClientSession, front_url: str, watch: Watch, end_early: asyncio.Event
    ) -> None:
        client = Client(session, front_url, self._rng, self._tally)
        closing = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            visiting = (self._visits(client, closing) for _ in range(self._plan.visitors))
            serving = (client.talk(backend, closing) for backend in self._backends)
            talking = [tasks.create_task(each, name="client") for each in (*visiting, *serving)]
            tasks.create_task(self._let_go_wrong(client, watch, closing), name="mishaps")
            await rings_within(end_early, self._plan.run_s)
            closing.set()
            _, late = await asyncio.wait(talking, timeout=_HANG_UP_S)
            for task in late:
                task.cancel()

    async def _visits(self, client: Client, closing: asyncio.Event) -> None:
        """One visitor after the other."""
        await rings_within(closing, self._rng.uniform(0, _SPREAD_S))
        while not closing.is_set():
            await client.talk(self._visitor(), closing)

    def _visitor(self) -> Visitor:
        return Visitor(self._marks, f"v{next(self._streams)}", self._rng)

    async def _let_go_wrong(self, client: Client, watch: Watch, closing: asyncio.Event) -> None:
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as visiting:
            for mishap in mishaps(self._plan.run_s, self._plan.sabotage):
                wait_s = began + mishap.at_s - asyncio.get_running_loop().time()
                if await rings_within(closing, wait_s):
                    return
                self._show.say(mishap.said)
                self._strike(mishap)
                if mishap.planted is not None:
                    visitor = self._visitor()
                    visitor.plant(mishap.planted)
                    visiting.create_task(client.talk(visitor, closing), name="client")
                if mishap.retried:
                    await watch.retry(KEY)

    def _strike(self, mishap: Mishap) -> None:
        now = time.time()
        if mishap.fault is not None:
            self._stand_in.programme.add(mishap.fault, now=now)
        if mishap.limit is not None:
            self._stand_in.limiter.changes.add(mishap.limit, now=now)
            self._limited.falls(now + mishap.lasts_s)

    async def _drain(self, watch: Watch) -> None:
        """Wait until nothing is held, but not for ever."""
        self._show.say("the clients have stopped; what is held is delivered")
        if calm(self._stand_in.programme, time.time()):
            await asyncio.sleep(_ANSWERED_S)
        await watch.retry(KEY)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < max(_DRAIN_S, self._plan.run_s):
            if (await watch.figures()).held == 0:
                break
            await asyncio.sleep(_DRAIN_LOOK_S)
        self._drain_s = loop.time() - began

    async def _keep_showing(self, watch: Watch) -> None:
        while True:
            await asyncio.sleep(self._show.every_s)
            self._show.moment(self._moment(await watch.figures()))

    def _moment(self, figures: Figures) -> Moment:
        now = time.time()
        return Moment(now, figures, self._limited.beyond(now), self._others.count())


class _Others:
    """Counts the events of the record that are none of this run's, looking at each entry once."""

    def __init__(self, record: Record, marks: Marks) -> None:
        self._record = record
        self._marks = marks
        self._seen = 0
        self._count = 0

    def count(self) -> int:
        """How many there are by now."""
        self._count += others_in(self._record.since(self._seen), self._marks)
        self._seen = self._record.last_seq
        return self._count


class _Limited:
    """Counts requests beyond the limit, apart those that nobody could have known to be too many."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._before = 0
        self._falls_until = 0.0
        self.as_it_fell = 0

    def falls(self, until: float) -> None:
        """The limit is lower from now on, `until` some Unix seconds."""
        self._before = self._record.stats.limited
        self._falls_until = until + _KNOWN_AFTER_S

    def beyond(self, now: float) -> int:
        """How many there are by now but for those; to be asked now and then while the limit is lower."""
        if now <= self._falls_until:
            self.as_it_fell = self._record.stats.limited - self._before
        return self._record.stats.limited - self.as_it_fell


def _settings(plan: Plan, upstream_url: str, token: str) -> Settings:
    """The defaults, but for addresses, and for clients being believed whence they come."""
    trusted = [ip_network("127.0.0.0/8"), ip_network("::1/128")]
    with suppress(ValueError):  # of a name, or of every interface: these are reached by the loopback
        # Whoever connects to an address of this machine comes from the same address.
        trusted.append(ip_network(ip_address(plan.front.host)))
    return Settings(
        front=FrontSettings(listen=plan.front, trusted_proxies=tuple(trusted)),
        ops=OpsSettings(listen=plan.ops, token=SecretStr(token)),
        buffer=BufferSettings(url=plan.buffer_url),
        upstream=UpstreamSettings(url=upstream_url),
        log=LogSettings(level="warning"),
    )
