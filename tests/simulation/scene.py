"""A story that is told by hand: who posts what and when, and what passes over upstream meanwhile.

What is promised of every run is checked at its end, and no dead letter is thought of as somebody's bad luck.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any
from uuid import UUID

from proxy.buffer import MAX_BATCHES, MAX_LETTERS, Batch, Buffer, DeadLetter, KeyFigures, Terms
from proxy.front.ingest import Sender
from proxy.sandbox.window import Limit
from proxy.wire.answers import ClientAnswer
from proxy.wire.limits import PublicKey
from tests.simulation.clients import Draft, Manners, post_all
from tests.simulation.evidence import Broken, Evidence, Post, Request
from tests.simulation.invariants import Leftovers, check_all
from tests.simulation.loop import EPOCH_S
from tests.simulation.process import Build, Process, Surroundings
from tests.simulation.stage import staged
from tests.simulation.trouble import Trouble

KEY = PublicKey("pk_0")
OTHER_KEY = PublicKey("pk_1")
ORIGIN = "https://www.example.com"

LOOK_S = 1.0


@dataclass(slots=True)
class Scene:
    """One process on its store, before upstream. All of its verbs are for the story, in the world's loop."""

    around: Surroundings
    build: Build
    limit: Limit
    left: Leftovers | None = None
    process: Process = field(init=False)
    _over: bool = False

    @property
    def evidence(self) -> Evidence:
        return self.around.evidence

    @property
    def now_s(self) -> float:
        return self.around.world.now_s

    async def tell(self, story: "Story") -> None:
        """Carry the story out, and check what it came to."""
        self.process = Process(self.build, self.around)
        supervisor = asyncio.get_running_loop().create_task(self._live_again())
        await story(self)
        self.left = await self._leftovers()
        self._over = True
        self.process.stop()
        await supervisor
        check_all(self.evidence, self.left, self.limit.limit)

    async def _live_again(self) -> None:
        while True:
            await self.process.ended
            if self._over:
                return
            self.process = Process(self.build, self.around)

    def end(self) -> None:
        """Leave no file open, whatever happened."""
        if not self.process.ended.done():
            self.process.kill()

    # -- what happens ----------------------------------------------------------------------------------

    async def post(
        self,
        visitor: int,
        events: int = 1,
        *,
        key: PublicKey = KEY,
        origin: str | None = ORIGIN,
        bad: Mapping[int, str] | None = None,
    ) -> Post:
        """A visitor's post, acknowledged when this returns. `bad`: the referrers of some of its events."""
        number = len(self.evidence.posts)
        author = _Said(key, visitor, events, origin, bad or {})
        await post_all(author, Manners(1, 0.01), self._send, self.evidence, self.around.chance)
        return self.evidence.posts[number]

    async def _send(self, post: Post) -> ClientAnswer:
        return await self.process.answer_to(post)

    async def restart(self) -> None:
        """Stop the process, and wait for the next."""
        before = self.process
        before.stop()
        await before.ended
        while self.process is before:  # noqa: ASYNC110  # its supervisor says nothing
            await asyncio.sleep(0.01)
        await self.buffer()

    async def emptied(self, within_s: float) -> None:
        """Wait until nothing is held. Raises Broken."""
        try:
            async with asyncio.timeout(within_s):
                while any(of.books.held for of in (await self.figures()).values()):  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_S)
        except TimeoutError:
            raise Broken(f"not everything is delivered after {within_s} s") from None

    # -- what came of it -------------------------------------------------------------------------------

    async def buffer(self) -> Buffer:
        """That of the present process, once it has one."""
        while self.process.buffer is None:  # noqa: ASYNC110  # its supervisor says nothing
            await asyncio.sleep(0.01)
        return self.process.buffer

    async def figures(self) -> Mapping[PublicKey, KeyFigures]:
        return await (await self.buffer()).figures()

    async def operate(self, verb: Callable[[Buffer], Awaitable[object]]) -> None:
        """Have an operator's wish carried out."""
        await self.buffer()
        self.process.operate(verb)
        await asyncio.sleep(0.1)

    async def _leftovers(self) -> Leftovers:
        buffer = await self.buffer()
        letters: list[DeadLetter] = await buffer.dead_letters(limit=MAX_LETTERS)
        figures = await self.around.storage.recounted(buffer)
        ambiguous: list[Batch] = []
        for key in figures:
            ambiguous += await buffer.ambiguous(key, limit=MAX_BATCHES)
        return Leftovers(figures, letters, ambiguous)

    @property
    def letters(self) -> Sequence[DeadLetter]:
        """The dead letters at the end."""
        assert self.left is not None
        return self.left.letters

    def requests(self, key: PublicKey, from_s: float = 0.0, until_s: float = float("inf")) -> list[Request]:
        """The requests of a key that were sent in this time."""
        return [
            request
            for request in self.evidence.requests
            if request.key == key and from_s <= request.sent_s < until_s
        ]

    def delays_s(self, posts: Sequence[Post]) -> list[float]:
        """How long after its acknowledgement each of their events was taken, in order of arrival."""
        answered_s = {event["path"]: post.answered_s for post in posts for event in post.events}
        delays: dict[str, float] = {}
        for arrival in self.evidence.arrivals:
            mark = arrival.event["path"]
            if (since_s := answered_s.get(mark)) is not None:
                delays.setdefault(mark, arrival.at_s - since_s)
        assert len(delays) == len(answered_s), "not all of them were taken"
        return list(delays.values())

    def busiest_second(self, key: PublicKey) -> int:
        """The most requests that arrived in one second of the world's clock."""
        arrived = Counter(int(each.arrived_s) for each in self.requests(key) if each.arrived_s is not None)
        return max(arrived.values())


Story = Callable[[Scene], Awaitable[None]]


def play(story: Story, engine: str, *, limit: Limit | None = None, in_flight: int = 64) -> Scene:
    """Carry a story out on one of the engines. Raises Broken where a promise was."""
    limit = limit or Limit()
    with staged(engine, Random(1), limit, Trouble()) as around:
        scene = Scene(around, Build(Terms(limit_per_s=limit.limit), in_flight=in_flight), limit)
        try:
            around.world.run(scene.tell(story))
        finally:
            scene.end()
    return scene


@dataclass(frozen=True, slots=True)
class _Said:
    """The author of one post."""

    key: PublicKey
    visitor: int
    events: int
    origin: str | None
    bad: Mapping[int, str]

    def write(self, marks: Iterator[str]) -> Draft:
        visitor_id = str(UUID(int=self.visitor, version=4))
        events = [self._event(at, next(marks)) for at in range(self.events)]
        return Draft(
            self.key,
            Sender("203.0.113.7", "Firefox/140", self.origin),
            {"source": "client", "visitorId": visitor_id},
            events,
            [("visitor", visitor_id)] * self.events,
        )

    def _event(self, at: int, mark: str) -> dict[str, Any]:
        event: dict[str, Any] = {"type": "pageview", "url": "https://www.example.com/", "path": mark}
        event["timestamp"] = int(EPOCH_S * 1000) + at
        if at in self.bad:
            event["referrer"] = self.bad[at]
        return event
