"""What the senders post: the same meaning in ever another spelling, each event marked.

The mark stands in the event's `path`, so that an event tells by itself which post it came with, whatever
became of its request on the way.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from random import Random
from typing import Any
from uuid import UUID

from tests.attribution.lookalikes import (
    KEYS,
    Lane,
    Sender,
    sender,
    sibling,
    visitor_id,
)
from tests.attribution.spelling import Request, request
from tests.wire.spelling import spelt

TABS = 64
"""Who posts at once, each one post after the other."""

_VISITORS = 12
_USERS = ("u1", "u01", "U1")
_MANY = 130  # more than an upstream request holds


@dataclass(frozen=True, slots=True)
class Post:
    """Events, the lane that they must arrive in, and how they are posted.

    `again`: how a client that saw no answer posts the same events once more, from where it is by then.
    """

    key: str
    lane: Lane
    events: Sequence[dict[str, Any]]
    request: Request
    again: Request | None


def mark_of(event: Any) -> str:
    """What an event is known by."""
    return str(event["path"])


def user_of(event: Any) -> str:
    """Whom the event itself names."""
    return str(event.get("userId", ""))


def tabs_of(seed: int, posts: int) -> list[list[Post]]:
    """So many posts, in order for each of the `TABS` that make them. The same for the same seed."""
    random = Random(seed)
    numbers = count()
    tabs: list[list[Post]] = [[] for _ in range(TABS)]
    for tab in tabs:
        made = _tab(random, numbers)
        tab += [next(made) for _ in range(posts // TABS + 1)]
    return tabs


def _tab(random: Random, numbers: Iterator[int]) -> Iterator[Post]:
    """The posts of one tab: its sender turns into a sibling and back, a thing or two at a time."""
    start = _start(random)
    known = [start]
    while True:
        turn = random.random()
        if turn < 0.35:
            known.append(sibling(known[-1], random))
        elif turn < 0.7:
            known.append(random.choice(known[-4:]))
        elif turn < 0.75:
            known.append(start)
        yield _post(known[-1], next(numbers), random)


def _start(random: Random) -> Sender:
    key = random.choice(KEYS)
    if random.random() < 0.7:
        return sender(key, {"source": "client", "visitorId": visitor_id(random.randrange(_VISITORS))}, random)
    return sender(key, {"source": "server"}, random)


def _post(of: Sender, number: int, random: Random) -> Post:
    events = [
        _event(f"/{number}/{place}", of.lane, random)
        for place in range(_MANY if random.random() < 0.01 else random.choice((1, 1, 1, 2, 3)))
    ]
    plainly = random.random() < 0.5  # as most clients write
    text = json.dumps(events) if plainly else spelt(events, random)
    again = None
    if of.lane.visitor is not None and random.random() < 0.05:
        elsewhere = sibling(sibling(of, random), random)
        if elsewhere.lane.visitor == of.lane.visitor:
            again = request(elsewhere, text, random, plainly=plainly)
    return Post(of.key, of.lane, events, request(of, text, random, plainly=plainly), again)


def _event(mark: str, lane: Lane, random: Random) -> dict[str, Any]:
    event: dict[str, Any] = {"timestamp": 1_795_556_346_564, "url": "https://a.example/", "path": mark}
    kind = random.choice(("custom", "custom", "identify", "pageview", "pageview", "brand_new"))
    if lane.visitor is None and kind in ("pageview", "brand_new"):
        kind = "custom"  # of servers only the events of a user have an order
    event["type"] = kind
    if kind in ("custom", "identify"):
        event["userId"] = random.choice(_USERS)
    if kind == "custom":
        event |= {
            "eventName": "e",
            "properties": {"mark": mark, "cut": random.choice(("x", "x", "x", "\ud83d", 2**70))},
        }
    uuid = random.random()
    if uuid < 0.6:
        event["uuid"] = str(UUID(int=random.getrandbits(128), version=4))
    elif uuid < 0.7:  # the same one under other people's names
        event["uuid"] = f"0190a1b2-0000-7000-8000-{random.randrange(4):012d}"
    return event
