"""Clients under load. They number their events, and post again, unchanged, what was not answered.

Browsers have a queue each and change their session now and then; servers post for several users at once, so
that one post goes into several queues.
"""

import asyncio
import json
import threading
import time
import uuid
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple

import aiohttp

from tests.programs import Proxy, http, wait_for

KEY = "pk_faults"
USERS = 12
"""Of each server: they share at most 16 queues, and one post is for several of them."""
BACK_OFF_S = 0.05
PATIENCE_S = 8.0
"""Longer than the proxy holds a request while its buffer does not answer."""


class Mark(NamedTuple):
    """Whose event it is (of a server also which user's), and its place among theirs, rising from 0."""

    client: str
    user: str
    number: int


@dataclass(frozen=True, slots=True)
class Post:
    """One request of a client's: as it is sent the first time and every further time."""

    envelope: dict[str, Any]
    headers: dict[str, str]
    events: dict[Mark, dict[str, Any]]

    @property
    def content(self) -> dict[str, Any]:
        return {**self.envelope, "events": list(self.events.values())}

    @property
    def body(self) -> bytes:
        return json.dumps(self.content).encode()


@dataclass(slots=True)
class Client:
    """What one client has posted, and what became of it. Its `name` decides all that it will post."""

    name: str
    is_server: bool
    address: str
    event_bytes: int
    """About how much longer than an ordinary event each of its own is."""
    posts: list[Post] = field(default_factory=list)
    acknowledged: dict[Mark, float] = field(default_factory=dict)
    """When the answer came that said so, on the monotonic clock."""
    unanswered: list[Post] = field(default_factory=list)
    """What it goes on posting, in this order, before anything new."""
    posted_again: int = 0
    gave_up: int = 0
    """How often no answer at all had come after `PATIENCE_S`."""
    refusals: Counter[str] = field(default_factory=Counter)
    """The answers that said that nothing was kept, by their code."""
    _rng: Random = field(init=False)
    _numbers: Counter[str] = field(default_factory=Counter)  # of each user's next event
    _visitor: str = field(init=False)
    _session: str = field(init=False)

    def __post_init__(self) -> None:
        self._rng = Random(self.name)
        self._visitor = self._uuid()
        self._session = self._uuid()

    def next_post(self) -> Post:
        """What it posts next; also kept in `posts`."""
        headers = {"Content-Type": "application/json", "X-Forwarded-For": self.address}
        if self.is_server:
            headers["User-Agent"] = self.name
            envelope: dict[str, Any] = {"source": "server"}
            users = [f"user-{self._rng.randrange(USERS)}" for _ in range(self._rng.randint(2, 10))]
        else:
            if self._rng.random() < 0.2:
                self._session = self._uuid()
            headers |= {"User-Agent": f"Browser/{self.name}", "Origin": f"https://{self.name}.example"}
            envelope = {"source": "client", "visitorId": self._visitor, "sessionId": self._session}
            users = [""] * self._rng.randint(1, 5)
        post = Post(envelope, headers, dict(map(self._event, users)))
        self.posts.append(post)
        return post

    def note_kept(self, post: Post) -> None:
        """The answer said that all of it is kept."""
        self.unanswered.remove(post)
        self.acknowledged |= dict.fromkeys(post.events, time.monotonic())

    def _event(self, user: str) -> tuple[Mark, dict[str, Any]]:
        mark = Mark(self.name, user, self._numbers[user])
        self._numbers[user] += 1
        event: dict[str, Any] = {
            "type": "custom",
            "eventName": "step",
            "timestamp": 1_795_000_000_000 + mark.number,
            "url": f"server://{user}" if user else "https://www.example.com/",
            "path": "/",
            "properties": {**mark._asdict(), "padding": self._padding()},
        }
        if user:
            event["userId"] = user
        if not self.is_server:
            event["uuid"] = self._uuid()  # servers' old clients send none
        return mark, event

    def _padding(self) -> str:
        return b64encode(self._rng.randbytes(3 * self.event_bytes // 4)).decode()  # nothing compresses it

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))


def clients(browsers: int, servers: int, *, seed: int, event_bytes: int = 0) -> list[Client]:
    """So many of each. With the same `seed` they post the same, each in its own turn."""
    return [
        Client(
            f"browser-{seed}-{number}",
            is_server=False,
            address=f"198.51.{100 + number // 256}.{number % 256}",
            event_bytes=event_bytes,
        )
        for number in range(browsers)
    ] + [
        Client(
            f"server-{seed}-{number}", is_server=True, address=f"203.0.113.{number}", event_bytes=event_bytes
        )
        for number in range(servers)
    ]


def mark_of(event: dict[str, Any]) -> Mark:
    """The mark of an event as it arrived upstream."""
    properties = event["properties"]
    return Mark(properties["client"], properties["user"], properties["number"])


@contextmanager
def under_load(
    proxy: Proxy | Sequence[Proxy],
    posting: Sequence[Client],
    *,
    again: bool = True,
    hangs_up_within_s: float | None = None,
) -> Iterator[None]:
    """While the `with` lasts, `posting` clients post as fast as they are answered.

    Of several proxies each post, and each time that it is posted again, goes to any: to one that stands in
    the list at that moment, as behind a load balancer.

    `again`: what is not answered, or refused for now, is posted again, unchanged, until it is kept; after the
    `with` nothing is `unanswered`. Otherwise a client ends with the first post that was not kept.
    `hangs_up_within_s`: every other time a client waits no longer than that for its answer, or less.
    """
    load = _Load(proxy, posting, again=again, hangs_up_within_s=hangs_up_within_s)
    thread = threading.Thread(target=load.run, name="load")
    thread.start()
    try:
        yield
        load.enough = True
    finally:
        load.abandoned = not load.enough
        thread.join()
    if load.error is not None:
        raise load.error


def wait_until_all_are_refused(posting: Sequence[Client]) -> None:
    """Until each of the clients, under load, was once more told to come again later."""
    before = [client.refusals.total() for client in posting]
    wait_for(
        "every client to be refused",
        lambda: all(client.refusals.total() > n for client, n in zip(posting, before, strict=True)),
    )


def refusals(posting: Sequence[Client]) -> set[str]:
    """With which codes any of the clients was ever refused."""
    return set[str]().union(*(client.refusals for client in posting))


def post_once(proxy: Proxy, client: Client) -> None:
    """Post something new. Unless it was kept, it is what the client goes on posting."""
    post = client.next_post()
    client.unanswered.append(post)
    try:
        status, _ = http(_url(proxy), post.content, post.headers)
    except OSError:
        return
    if status == 200:
        client.note_kept(post)


def post_again(proxy: Proxy | Sequence[Proxy], posting: Sequence[Client]) -> None:
    """Post what was not answered again, unchanged, until it is; nothing new."""
    load = _Load(proxy, posting, again=True)
    load.enough = True
    load.run()
    if load.error is not None:
        raise load.error


def _url(proxy: Proxy) -> str:
    return f"{proxy.url}/api/i/v1/{KEY}/events"


class _Load:
    """The clients of one `under_load`, on an event loop of their own."""

    def __init__(
        self,
        proxy: Proxy | Sequence[Proxy],
        posting: Sequence[Client],
        *,
        again: bool,
        hangs_up_within_s: float | None = None,
    ) -> None:
        self._proxies = [proxy] if isinstance(proxy, Proxy) else proxy
        self._posting = posting
        self._again = again
        self._hangs_up_within_s = hangs_up_within_s
        self._rng = Random(0)
        # Set by the test's thread:
        self.enough = False
        self.abandoned = False
        # Set by the load's:
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._run())
        except BaseException as error:  # noqa: BLE001  # it is raised in the test
            self.error = error

    async def _run(self) -> None:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout()) as session,
            asyncio.TaskGroup() as tasks,
        ):
            for client in self._posting:
                tasks.create_task(self._go_on(client, session), name=client.name)

    async def _go_on(self, client: Client, session: aiohttp.ClientSession) -> None:
        while not self.abandoned:
            if not client.unanswered:
                if self.enough:
                    return
                client.unanswered.append(client.next_post())
            elif not self._again:
                return
            else:
                client.posted_again += 1
            if await self._is_kept(client, client.unanswered[0], session):
                client.note_kept(client.unanswered[0])
            else:
                await asyncio.sleep(BACK_OFF_S)

    async def _is_kept(self, client: Client, post: Post, session: aiohttp.ClientSession) -> bool:
        url = _url(self._rng.choice(self._proxies))
        patience_s = PATIENCE_S
        if self._hangs_up_within_s is not None and self._rng.random() < 0.5:
            patience_s = self._rng.uniform(0, self._hangs_up_within_s)
        try:
            async with (
                asyncio.timeout(patience_s),
                session.post(url, data=post.body, headers=post.headers) as response,
            ):
                answer = await response.json()
        except TimeoutError:
            client.gave_up += patience_s == PATIENCE_S
            return False
        except (aiohttp.ClientError, OSError):
            return False
        if response.status == 503:
            assert "Retry-After" in response.headers
            client.refusals[answer["code"]] += 1
            return False
        assert (response.status, answer) == (200, {"success": True, "processed": len(post.events)})
        return True
