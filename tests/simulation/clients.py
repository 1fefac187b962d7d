"""Those who post: visitors with their tabs, servers, and how each of them behaves.

Each event carries a mark of its own in `path`, by which it is known again wherever it arrives.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol
from uuid import UUID

from proxy.front.ingest import Sender
from proxy.wire.answers import ClientAnswer
from proxy.wire.limits import PublicKey
from tests.simulation.evidence import Broken, Evidence, Post
from tests.simulation.loop import EPOCH_S
from tests.simulation.upstream import NAMED, REFUSED_TRAIT, UNNAMED

PATIENCE_S = 10.0
"""How long a client waits for an answer, as the real ones do."""

USER_AGENTS = ("Firefox/140", "Firefox/141", None)
ORIGINS = ("https://www.example.com", "https://shop.example.com", None)

_COME_AGAIN = frozenset({408, 429, 500, 503})

Send = Callable[[Post], Awaitable[ClientAnswer]]
"""Carries a post to whatever process there is. Raises ConnectionError."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A post before it has its events: `orders` says in which sequence each of them must arrive."""

    key: PublicKey
    sender: Sender
    envelope: dict[str, Any]
    events: list[dict[str, Any]]
    orders: list[object]


@dataclass(slots=True)
class Sowing:
    """How many of the events are bad: a share that upstream names when it refuses them, and one unnamed."""

    named: float = 0.02
    unnamed: float = 0.0
    envelopes: float = 0.1
    """Of those who log in: under an envelope that is refused from then on."""

    def end(self) -> None:
        """From now on every new event is good."""
        self.named = self.unnamed = self.envelopes = 0.0

    def referrer(self, chance: Random) -> str | None:
        """What makes the next event a bad one, if anything."""
        draw = chance.random()
        if draw < self.named:
            return NAMED
        return UNNAMED if draw < self.named + self.unnamed else None


class Author(Protocol):
    """Who has something to post."""

    def write(self, marks: Iterator[str]) -> Draft:
        """The next post."""


@dataclass(frozen=True, slots=True)
class Manners:
    """How a client posts: `waits` for one post's answer before the next; `resends` what was not answered."""

    posts: int
    pause_s: float
    waits: bool = True
    resends: bool = True


class Visitor:
    """A visitor of a site, on the move: what its tabs have in common."""

    def __init__(self, key: PublicKey, number: int, sowing: Sowing, chance: Random) -> None:
        self.key = key
        self.sowing = sowing
        self.id = _uuid(chance)
        self.identity: dict[str, Any] = {}
        self.client_ip = ""
        self._number = number
        self._chance = chance
        self.move()

    def move(self) -> None:
        """Come from another address."""
        self.client_ip = f"203.0.113.{self._chance.randrange(256)}"

    def log_in(self) -> None:
        """Be known from now on; some in a way that upstream refuses for ever."""
        trait = REFUSED_TRAIT if self._chance.random() < self.sowing.envelopes else "plan"
        self.identity = {"userId": f"user {self._number}", "traits": {trait: True}}


class Tab:
    """One tab of a visitor's browser, or of one of their browsers: a session of its own."""

    def __init__(self, visitor: Visitor, chance: Random) -> None:
        self._visitor = visitor
        self._session = _uuid(chance)
        self._user_agent = chance.choice(USER_AGENTS)
        self._origin = chance.choice(ORIGINS)
        self._has_uuids = chance.random() < 0.6
        self._chance = chance

    def write(self, marks: Iterator[str]) -> Draft:
        visitor, chance = self._visitor, self._chance
        if chance.random() < 0.1:
            visitor.move()
        if chance.random() < 0.05:
            visitor.log_in()
        if chance.random() < 0.05:
            self._user_agent = chance.choice(USER_AGENTS)
        if chance.random() < 0.05:
            self._origin = chance.choice(ORIGINS)
        envelope: dict[str, Any] = {"source": "client", "visitorId": visitor.id}
        if chance.random() < 0.05:
            envelope["visitorId"] = visitor.id.upper()
        if chance.random() < 0.95:  # the last post of a session has none
            envelope["sessionId"] = self._session
        if visitor.identity:
            envelope["userIdentity"] = visitor.identity
        events = [
            _event(next(marks), visitor.sowing, chance, has_uuid=self._has_uuids)
            for _ in range(chance.choice((1, 1, 2, 3, 5, 12)))
        ]
        if len(events) > 1 and self._has_uuids and chance.random() < 0.05:
            events[-1]["uuid"] = events[0]["uuid"]  # another event under the same uuid is no duplicate
        sender = Sender(visitor.client_ip, self._user_agent, self._origin)
        return Draft(visitor.key, sender, envelope, events, [("visitor", visitor.id)] * len(events))


@dataclass(frozen=True, slots=True)
class Posting:
    """What servers post: the sizes of their posts in events, a choice for each, and the largest event."""

    sizes: Sequence[Sequence[int]]
    largest_bytes: int


ORDINARY = Posting(((1, 3), (5, 30), (40, 130, 250)), 200)
HEAVY = Posting(((5, 40),), 60_000)
"""Forty of such events are more than one upstream request can carry."""

SMALL = Posting(((1, 3), (5, 30)), 0)


class Server:
    """A server that posts for its users: each event says whose it is, or the envelope says it of all."""

    def __init__(self, key: PublicKey, number: int, posting: Posting, sowing: Sowing, chance: Random) -> None:
        self._key = key
        self._sowing = sowing
        self._number = number
        self._user_agent = chance.choice(("node", None))
        self._identity: dict[str, Any] = chance.choice(
            (
                {},
                {},
                {"userIdentity": {"email": f"user.{number}@example.com"}},
                {"customerIdentity": {"customerId": f"customer {number}"}},
            )
        )
        self._users = [f"user {number}.{user}" for user in range(chance.randint(1, 40))]
        self._has_uuids = chance.random() < 0.3
        self._sizes = chance.choice(posting.sizes)
        self._largest_bytes = posting.largest_bytes
        self._chance = chance

    def write(self, marks: Iterator[str]) -> Draft:
        chance = self._chance
        # Where the envelope names one user, the address is not part of what must keep its order.
        host = chance.randrange(3) if self._identity else 0
        events: list[dict[str, Any]] = []
        orders: list[object] = []
        for _ in range(chance.choice(self._sizes)):
            user = chance.choice(self._users)
            event = _event(next(marks), self._sowing, chance, has_uuid=self._has_uuids)
            event |= {"type": "custom", "eventName": "done", "userId": user}
            event["properties"] = {"of": "x" * chance.randint(0, self._largest_bytes)}
            events.append(event)
            orders.append(("server", self._number) if self._identity else user)
        sender = Sender(f"198.51.100.{10 * self._number + host}", self._user_agent, None)
        return Draft(self._key, sender, {"source": "server", **self._identity}, events, orders)


def _event(mark: str, sowing: Sowing, chance: Random, *, has_uuid: bool) -> dict[str, Any]:
    event: dict[str, Any] = {"type": "pageview", "url": "https://www.example.com/", "path": mark}
    if has_uuid:
        event["uuid"] = _uuid(chance)
    if not has_uuid or chance.random() < 0.9:  # with neither, a retry cannot be told from a second click
        event["timestamp"] = int(EPOCH_S * 1000) + chance.randrange(1_000_000)
    if (referrer := sowing.referrer(chance)) is not None:
        event["referrer"] = referrer
    return event


def _uuid(chance: Random) -> str:
    return str(UUID(int=chance.getrandbits(128), version=4))


async def post_all(author: Author, manners: Manners, send: Send, evidence: Evidence, chance: Random) -> None:
    """Post what an author writes, and return when the last of it is answered or given up."""
    async with asyncio.TaskGroup() as under_way:
        for _ in range(manners.posts):
            await asyncio.sleep(chance.expovariate(1 / manners.pause_s))
            post = _written(author, evidence, chance)
            delivery = under_way.create_task(_deliver(post, manners, send, evidence, chance))
            if manners.waits:
                await delivery


def _written(author: Author, evidence: Evidence, chance: Random) -> Post:
    number = len(evidence.posts) + 1
    draft = author.write(f"/{number}/{event}" for event in range(10_000))
    posted: list[dict[str, Any]] = list(draft.events)
    flawed: set[int] = set()
    if chance.random() < 0.05:
        flawed.add(chance.randrange(len(posted) + 1))
        posted[min(flawed) : min(flawed)] = [
            {"type": "custom", "url": "https://www.example.com/", "path": "/"}
        ]
    body = json.dumps({**draft.envelope, "events": posted}).encode()
    post = Post(
        number,
        draft.key,
        draft.sender,
        draft.envelope,
        draft.events,
        draft.orders,
        frozenset(flawed),
        body,
    )
    evidence.posts.append(post)
    return post


async def _deliver(post: Post, manners: Manners, send: Send, evidence: Evidence, chance: Random) -> None:
    """Post it, unchanged, until it is answered."""
    while True:
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer = await send(post)
        except (ConnectionError, TimeoutError) as error:
            evidence.note(f"client: post {post.number}: {type(error).__name__}")
        else:
            evidence.note(f"client: post {post.number}: {answer.status}")
            if answer.status not in _COME_AGAIN:
                _check_answer(post, answer)
                post.answered_s = evidence.world.now_s
                return
        if not manners.resends:
            return
        await asyncio.sleep(chance.uniform(0.2, 5.0))


def _check_answer(post: Post, answer: ClientAnswer) -> None:
    """A client that is told less than what it posted, or more, drops or repeats the wrong events."""
    said = json.loads(answer.body)
    named = frozenset(error["index"] for error in said.get("errors", ()))
    if (answer.status, said["processed"], named) != (
        207 if post.flawed else 200,
        len(post.events),
        post.flawed,
    ):
        raise Broken(f"the answer to post {post.number} of {len(post.events)} events: {answer}")
