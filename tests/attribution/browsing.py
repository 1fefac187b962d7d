"""The tabs at work: each posts one post after the other on its own connections, all of them at once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from random import Random

from yarl import URL

from proxy.sandbox import Fault, What
from tests.attribution.posts import Post
from tests.attribution.spelling import Request
from tests.stack import Reply, Stack, read_reply

_CALM, _ROUGH = 20, 3
"""Upstream requests in a row that are answered as they deserve, only late, and that are not: at most."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A post that was answered: both moments as numbers of one count, which orders all of them."""

    post: Post
    sent_at: int
    answered_at: int


async def browse(stack: Stack, tabs: Sequence[Sequence[Post]]) -> list[Posted]:
    """Post everything, and return when all of it was taken."""
    moments = count()

    async def one(tab: Sequence[Post]) -> list[Posted]:
        posted = []
        async with AsyncExitStack() as opened:
            connections = _Connections(stack.front_url, opened)
            for post in tab:
                sent_at = next(moments)
                await connections.take(post.request, len(post.events))
                posted.append(Posted(post, sent_at, next(moments)))
                if post.again is not None:
                    await connections.take(post.again, len(post.events))
        return posted

    async with asyncio.TaskGroup() as tasks:
        browsing = [tasks.create_task(one(tab)) for tab in tabs]
    return [posted for each in browsing for posted in each.result()]


class _Connections:
    """One tab's connections, one from each address that it posts from."""

    def __init__(self, url: str, opened: AsyncExitStack) -> None:
        self._url = URL(url)
        self._opened = opened
        self._by_peer: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def take(self, request: Request, events: int) -> None:
        """Post `request`, whose `events` must all be taken."""
        is_kept = request.peer in self._by_peer
        try:
            reply = await self._reply(request)
        except (asyncio.IncompleteReadError, ConnectionError):
            assert is_kept, "a new connection was closed without an answer"
            del self._by_peer[request.peer]  # idle for longer than the front keeps it
            reply = await self._reply(request)
        said = (reply.status, reply.json.get("processed"))
        assert said == (200, events), (request.raw, reply.body)

    async def _reply(self, request: Request) -> Reply:
        if request.peer not in self._by_peer:
            opening = asyncio.open_connection(self._url.host, self._url.port, local_addr=(request.peer, 0))
            self._by_peer[request.peer] = await opening
            self._opened.callback(self._by_peer[request.peer][1].close)
        reader, writer = self._by_peer[request.peer]
        writer.write(request.raw)
        return await read_reply(reader)


@asynccontextmanager
async def trouble(stack: Stack, random: Random) -> AsyncIterator[None]:
    """Upstream answers many requests late, badly or not at all: batches go again, and change places."""

    async def make() -> None:
        record = stack.sandbox.record
        while True:
            until = record.last_seq
            for fault in (_calm(random), _rough(random)):
                stack.fault(fault)
                until += fault.requests or 0
            await record.until(lambda record, until=until: record.last_seq >= until)  # type: ignore[misc]

    making = asyncio.create_task(make(), name="trouble")
    try:
        yield
    finally:
        making.cancel()
        await asyncio.gather(making, return_exceptions=True)
        stack.sandbox.programme.clear()


def _calm(random: Random) -> Fault:
    late_ms = random.choice((1, 2, 5, 30))
    return Fault(what=What.LATENCY, latency_ms=late_ms, requests=random.randint(1, _CALM))


def _rough(random: Random) -> Fault:
    what = random.choice(
        (What.STATUS, What.STATUS, What.RESET, What.RESET_BEFORE, What.HALF_ANSWER, What.REFUSE_INDICES)
    )
    late_ms, requests = random.choice((0, 0, 40)), random.randint(1, _ROUGH)
    if what is What.STATUS:
        # Few of 429, each of which stops a whole key until its window ends.
        status = random.choice((500, 502, 503, 408, 425, 429))
        return Fault(what=what, status=status, latency_ms=late_ms, requests=1 if status == 429 else requests)
    if what is What.REFUSE_INDICES:
        return Fault(what=what, indices=(random.randint(0, 1),), latency_ms=late_ms, requests=1)
    return Fault(what=what, latency_ms=late_ms, requests=requests)
