"""One run: a seed's plan carried out, faults and all, until all is delivered; then the promises checked.

A run goes through two times. In the first, processes are killed, frozen, stopped and started, the way to the
buffer is unreliable and weather passes over upstream. In the second nothing more goes wrong: clients are
answered, what is held is delivered, and it must all come to rest.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from random import Random

from proxy.buffer import MAX_BATCHES, MAX_LETTERS, Batch, Buffer, DeadLetter, KeyFigures, Which
from proxy.buffer.contract import MAX_WAIT_S
from proxy.wire.answers import ClientAnswer
from proxy.wire.limits import PublicKey
from tests.simulation.clients import ORIGINS, Author, Manners, Server, Tab, Visitor, post_all
from tests.simulation.evidence import Broken, Evidence, Met, Post
from tests.simulation.invariants import Calm, Leftovers, check_all, check_promptness, check_window
from tests.simulation.plan import Plan
from tests.simulation.process import Process, Surroundings
from tests.simulation.stage import ENGINES, staged
from tests.simulation.upstream import CALM, WORKS_S, drawn_weather

CLIENTS_END_S = 600.0
"""After the last fault every client that insists is answered within this time …"""

DRAINED_S = 1_800.0
"""… and then everything is delivered within this: the longest back-off, 360 s, a few times. Where the time of
day jumped back, a queue that backs off may wait as long as any queue ever can."""

CALM_MANNERS = Manners(posts=2, pause_s=0.5)
"""What each client posts once more when all has come to rest."""

TRAVELS_S = 0.01
"""The longest that a post is on its way to the proxy, or its answer back."""

KNOCKS = 5

ANSWERED_S = 5.0
"""Beside its linger, for a single post and no other: to be accepted and delivered, if in three requests."""

MOST_KILLS = 15

JUMP_AHEAD_S = 10.0
"""How far the time of day jumps ahead with a start: all of them together may not use up the dedup window."""

_LOOK_S = 20.0


@dataclass(frozen=True, slots=True)
class Run:
    """A finished run, its promises kept or one of them broken."""

    seed: int
    engine: str
    plan: Plan
    evidence: Evidence
    broken: Exception | None


def simulate(seed: int, engine: str = ENGINES[0]) -> Run:
    """Carry out the run of this seed on one of the engines."""
    chance = Random(seed)
    plan = Plan.drawn(chance)
    if engine != "sqlite":
        plan = plan.shared(Random(f"{seed} shared"))
    broken = None
    with staged(engine, chance, plan.limit, replace(plan.trouble), background=plan.background) as around:
        story = Story(plan, around)
        try:
            around.world.run(story.tell())
        except Exception as error:  # noqa: BLE001  # whatever it was, the seed has found it
            broken = _innermost(error)
        finally:
            story.end()
    return Run(seed, engine, plan, around.evidence, broken)


def _innermost(error: Exception) -> Exception:
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error


class Story:
    """What happens, in the world's own loop."""

    def __init__(self, plan: Plan, around: Surroundings) -> None:
        self._plan = plan
        self._around = around
        self._world = around.world
        self._evidence = around.evidence
        self._chance = around.chance
        self._upstream = around.upstream
        self._trouble = around.trouble
        self._sowing = replace(plan.sowing)
        self._keys = [PublicKey(f"pk_{number}") for number in range(plan.keys)]
        self._replicas: list[Process] = []
        self._troubled = True
        self._over = False

    async def tell(self) -> None:
        """All of it. Raises what went wrong."""
        self._replicas = [self._started() for _ in range(self._plan.replicas)]
        authors = list(self._authors())
        async with asyncio.TaskGroup() as tasks:
            living = [tasks.create_task(self._live_again(at)) for at in range(len(self._replicas))]
            clients = tasks.create_task(self._post(authors, self._manners))
            await self._let_trouble_pass()
            await _within(CLIENTS_END_S, self._resume(), "what the operator resumed is still paused")
            await self._come_to_rest(clients)
            calm = Calm(len(self._evidence.requests), self._evidence.world.now_s, await self._rate_per_s())
            await self._come_to_rest(tasks.create_task(self._post(authors, lambda: CALM_MANNERS)))
            for key in self._keys:
                await self._knock(self._tab(key), calm.rate_per_s)
            left = await self._leftovers()
            self._over = True
            for process in self._replicas:
                process.stop()
            await asyncio.wait(living)
        check_all(self._evidence, left, self._plan.limit.limit)
        check_window(self._evidence, calm)
        check_promptness(self._evidence, calm, self._plan)

    async def _come_to_rest(self, clients: "asyncio.Task[None]") -> None:
        await _within(CLIENTS_END_S, clients, "a client is not answered")
        drained_s = DRAINED_S + MAX_WAIT_S * self._plan.skews
        await _within(drained_s, self._drained(), "not everything is delivered")

    def end(self) -> None:
        """Leave no file open, whatever happened."""
        for process in self._replicas:
            if not process.ended.done():
                process.kill()

    # -- processes -------------------------------------------------------------------------------------

    def _started(self) -> Process:
        process = Process(self._plan.build, self._around)
        if self._plan.kill_steps and self._evidence.met[Met.KILL] < MOST_KILLS:
            dies_after = self._chance.expovariate(1 / self._plan.kill_steps)

            def step() -> None:
                if self._troubled and process.loop.steps > dies_after and not process.ended.done():
                    process.kill()

            process.loop.on_step = step
        return process

    def _one(self) -> Process:
        """One of the replicas."""
        return self._replicas[0] if len(self._replicas) == 1 else self._chance.choice(self._replicas)

    async def _live_again(self, at: int) -> None:
        """A supervisor: what ended is started again."""
        while True:
            await self._replicas[at].ended
            if self._over:
                return
            await asyncio.sleep(self._chance.choice((0.0, 0.5, 10.0)))
            if self._plan.skews:
                self._around.storage.set_clock(self._chance.choice((-3_600, -60, -1, 1, JUMP_AHEAD_S)))
            self._replicas[at] = self._started()

    # -- clients ---------------------------------------------------------------------------------------

    def _authors(self) -> Iterator[Author]:
        plan, chance = self._plan, self._chance
        for number in range(plan.visitors):
            visitor = Visitor(chance.choice(self._keys), number, self._sowing, chance)
            for _ in range(chance.randint(1, 3)):
                yield Tab(visitor, chance)
        for number in range(plan.servers):
            yield Server(chance.choice(self._keys), number, plan.posting, self._sowing, chance)

    def _tab(self, key: PublicKey) -> Tab:
        """Of a visitor of whom nobody heard before."""
        return Tab(Visitor(key, 0, self._sowing, self._chance), self._chance)

    def _manners(self) -> Manners:
        chance = self._chance
        posts = chance.randint(2, 8)
        return Manners(
            posts,
            pause_s=self._plan.troubled_s / posts * chance.uniform(0.01, 1),
            waits=chance.random() < 0.7,
            resends=chance.random() < 0.9,
        )

    async def _post(self, authors: Iterable[Author], manners: Callable[[], Manners]) -> None:
        async with asyncio.TaskGroup() as clients:
            for author in authors:
                clients.create_task(post_all(author, manners(), self._send, self._evidence, self._chance))

    async def _knock(self, author: Author, rate_per_s: float) -> None:
        """Post again and again, just when the flusher looks once more and finds that there is nothing to do.

        That is when the last lease would have ended.
        """
        claims, quick_s = self._evidence.claims, self._trouble.quick_s
        for _ in range(KNOCKS):
            looks_at_s = claims[-1].given_s + self._plan.build.terms.lease_s if claims else 0.0
            early_s = self._chance.uniform(-3 * quick_s, TRAVELS_S)
            await asyncio.sleep(max(0.0, looks_at_s - early_s - self._world.now_s))
            posts = len(self._evidence.posts)
            await post_all(author, Manners(1, quick_s / 10), self._send, self._evidence, self._chance)
            marks = [event["path"] for event in self._evidence.posts[posts].events]
            prompt_s = ANSWERED_S + 2 * self._plan.build.terms.linger_s + 3 / rate_per_s
            await _within(prompt_s, self._settled(marks), f"not prompt: a single post, {marks[0]}, waits")

    async def _settled(self, marks: Iterable[str]) -> None:
        while not all(mark in self._evidence.settled_at for mark in marks):
            self._evidence.settled.clear()
            await self._evidence.settled.wait()

    async def _send(self, post: Post) -> ClientAnswer:
        await asyncio.sleep(self._chance.uniform(0, TRAVELS_S))
        answer = await self._one().answer_to(post)
        await asyncio.sleep(self._chance.uniform(0, TRAVELS_S))
        return answer

    # -- trouble ---------------------------------------------------------------------------------------

    async def _let_trouble_pass(self) -> None:
        """Carry the plan's mishaps out, at moments of chance, and end when nothing goes wrong any more."""
        plan, chance = self._plan, self._chance
        if plan.slow_upstream:
            self._upstream.slow_s = 20.0
        mishaps: list[tuple[float, Callable[[], None]]] = [
            (chance.uniform(0, plan.troubled_s), mishap)
            for mishap, times in (
                (self._change_weather, int(plan.troubled_s / 8)),
                (self._freeze, plan.freezes),
                (self._stop, plan.stops),
                (self._buffer_goes_away, plan.buffer_outages),
                (self._replay, plan.replays),
                (self._purge, plan.purges),
                (self._pause, plan.pauses),
                (self._retry, plan.retries),
            )
            for _ in range(times)
        ]
        for at_s, mishap in sorted(mishaps, key=itemgetter(0)):
            await asyncio.sleep(at_s - self._world.now_s)
            mishap()
        await asyncio.sleep(plan.troubled_s - self._world.now_s)
        self._evidence.note("nothing goes wrong any more")
        self._troubled = False
        self._trouble.end()
        self._sowing.end()
        self._upstream.weather = CALM
        self._upstream.slow_s = WORKS_S

    def _change_weather(self) -> None:
        self._upstream.weather = drawn_weather(self._chance, self._keys, ORIGINS)

    def _freeze(self) -> None:
        for_s = self._chance.uniform(0.1, 1.5 * self._plan.build.terms.lease_s)
        self._evidence.met[Met.FREEZE] += 1
        self._evidence.note(f"the process is frozen for {for_s:.1f} s")
        self._one().loop.freeze(for_s)

    def _stop(self) -> None:
        process = self._one()
        if not process.ended.done():
            process.stop()

    def _buffer_goes_away(self) -> None:
        for_s = self._chance.uniform(1, 20)
        self._evidence.note(f"the buffer is away for {for_s:.1f} s")
        self._evidence.met[Met.OUTAGE] += 1
        self._trouble.away_until_s = self._world.now_s + for_s

    def _replay(self) -> None:
        self._evidence.met[Met.REPLAY] += 1
        self._evidence.note("the operator has dead letters replayed")
        which = Which(key=self._chance.choice(self._keys))
        self._one().operate(lambda buffer: buffer.replay(which))

    def _purge(self) -> None:
        self._evidence.met[Met.PURGE] += 1
        self._evidence.note("the operator has dead letters purged")
        which = Which(key=self._chance.choice(self._keys))
        self._one().operate(lambda buffer: buffer.purge(which))

    def _pause(self) -> None:
        self._evidence.met[Met.PAUSE] += 1
        key, for_s = self._chance.choice(self._keys), self._chance.uniform(1, 30)
        self._evidence.note(f"the operator pauses {key} for {for_s:.1f} s")
        self._one().operate(lambda buffer: buffer.pause(key))
        self._world.outside.call_later(for_s, lambda: self._one().operate(lambda buffer: buffer.resume(key)))

    def _retry(self) -> None:
        key = self._chance.choice(self._keys)
        self._evidence.retries.append((key, self._world.now_s))
        self._evidence.note(f"the operator has {key} tried again")
        self._one().operate(lambda buffer: buffer.retry(key))

    # -- the end ---------------------------------------------------------------------------------------

    async def _resume(self) -> None:
        """See that nothing is paused any more, whoever was to resume it and died."""
        while True:
            await self._up()
            paused = [key for key, of in (await self._figures()).items() if of.gate.by_operator]
            if not paused:
                return
            for key in paused:
                self._one().operate(partial(_resume, key=key))
            await asyncio.sleep(1)

    async def _drained(self) -> None:
        """Wait until nothing is held, nor any pause left over.

        Somebody goes on posting meanwhile: by what upstream takes of others it is known that what it refuses
        is bad.
        """
        neighbours = [self._tab(key) for key in self._keys]
        while True:
            for _ in range(3):  # nobody tells when the last event is gone: a buffer is not asked to
                await self._up()
                figures = await self._figures()
                if not any(of.books.held or of.gate.paused_for_s for of in figures.values()):
                    return
                await asyncio.sleep(_LOOK_S)
            for neighbour in neighbours:
                manners = Manners(1, 0.1, resends=False)
                await post_all(neighbour, manners, self._send, self._evidence, self._chance)

    async def _up(self) -> None:
        while not all(map(_is_up, self._replicas)):  # noqa: ASYNC110  # their supervisors say nothing
            await asyncio.sleep(1)

    async def _figures(self) -> Mapping[PublicKey, KeyFigures]:
        return await self._around.storage.recounted(self._buffer())

    async def _rate_per_s(self) -> float:
        """The lowest of the keys' rates: what trouble has taught them."""
        rates = [of.gate.rate_per_s for of in (await self._figures()).values()]
        return min(rates, default=self._plan.limit.limit)

    async def _leftovers(self) -> Leftovers:
        buffer = self._buffer()
        letters: list[DeadLetter] = []
        while page := await buffer.dead_letters(
            before_id=letters[-1].id if letters else None, limit=MAX_LETTERS
        ):
            letters += page
        figures = await self._figures()
        ambiguous: list[Batch] = []
        for key in figures:
            ambiguous += await buffer.ambiguous(key, limit=MAX_BATCHES)
        return Leftovers(figures, letters, ambiguous)

    def _buffer(self) -> Buffer:
        buffer = self._one().buffer
        if buffer is None:
            raise Broken("the process has not started")
        return buffer


async def _resume(buffer: Buffer, *, key: PublicKey) -> None:
    await buffer.resume(key)


def _is_up(process: Process) -> bool:
    return process.buffer is not None and not process.ended.done()


async def _within(seconds: float, done: Awaitable[object], failure: str) -> None:
    try:
        async with asyncio.timeout(seconds):
            await done
    except TimeoutError:
        raise Broken(f"{failure}, after {seconds:.0f} s without a fault") from None
