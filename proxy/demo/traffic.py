"""What generated visitors and servers say, as real clients would say it. No I/O; chance and time passed in.

A visitor is one browser: its page views, events, forms and engagement, in one or two tabs, anonymous at
first and identified half-way, always from one address with one User-Agent. A backend is a server's client
library: many users in one large request, no visitor. Some are of the newest clients and send uuids, some of
older ones and send none.

Each belongs to one caller, which posts what `flush` gives before it asks for more: only then is the order
of the events that of their numbers.
"""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from random import Random
from typing import Any
from uuid import UUID

from proxy.demo.comparison import Posted, Sender, canonical, content_of
from proxy.demo.marks import SECRET, Marks

_AGENTS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/141.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Version/26.0 Safari/605.1.15",
    "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) Mobile/15E148",
)
_ORIGINS = ("https://shop.example", "https://docs.shop.example")
_PAGES = ("", "pricing", "docs/start", "blog/2026/launch", "signup")
_NETWORKS = (IPv4Address("192.0.2.0"), IPv4Address("198.51.100.0"), IPv4Address("203.0.113.0"))
_NETWORK_V6 = IPv6Address("2001:db8::")


@dataclass(frozen=True, slots=True)
class Post:
    """One request of a client's, and each of its events as it has to arrive."""

    body: bytes
    headers: Mapping[str, str]
    events: tuple[Posted, ...]


class Visitor:
    """One visit of a browser."""

    def __init__(self, marks: Marks, name: str, rng: Random) -> None:
        """`name`: of its stream, as `Marks` wants it."""
        self._marks = marks
        self._name = name
        self._rng = rng
        self._visitor_id = _uuid(rng)
        self._sends_uuids = rng.random() < 0.6
        self._address = _address(rng)
        self._agent = rng.choice(_AGENTS)
        self._origin = rng.choice(_ORIGINS)
        self._identified_from = rng.randint(8, 30)
        # Of the visit so far:
        self._tabs = [_uuid(rng) for _ in range(rng.choice((1, 2)))]
        self._identity: dict[str, object] | None = None
        self._number = 0
        self._flushes_left = rng.randint(8, 16)
        self._hurried = 0
        self._event_name: str | None = None

    def plant(self, event_name: str) -> None:
        """Have the next event be one of this name."""
        self._event_name = event_name

    @property
    def has_left(self) -> bool:
        """Whether the visit is over."""
        return self._flushes_left <= 0

    def pause_s(self) -> float:
        """How long until the next flush: about a second, and now and then a burst of a few."""
        if self._hurried > 0:
            self._hurried -= 1
            return self._rng.uniform(0.02, 0.1)
        if self._rng.random() < 0.15:
            self._hurried = self._rng.randint(2, 5)
        return self._rng.uniform(0.4, 1.4)

    def flush(self, now_ms: int) -> Post:
        """What the browser posts next: one to eight events, of one tab."""
        self._flushes_left -= 1
        tab = self._rng.randrange(len(self._tabs))
        if self._rng.random() < 0.05:
            self._tabs[tab] = _uuid(self._rng)  # after a pause the client begins a new session
        envelope: dict[str, object] = {
            "source": "client",
            "visitorId": self._visitor_id,
            "sessionId": self._tabs[tab],
        }
        if self._identity is not None:
            envelope["userIdentity"] = self._identity
        events = [self._event(self._tabs[tab], now_ms) for _ in range(self._rng.choice((1, 2, 2, 3, 4, 8)))]
        if self._identity is None and self._number >= self._identified_from:
            events.append(self._identify(now_ms))
        headers = {
            "Content-Type": "application/json",
            "X-Forwarded-For": self._address,
            "User-Agent": self._agent,
            "Origin": self._origin,
            "Cookie": f"login={SECRET}{self._name}",
        }
        return _post(envelope, headers, events)

    def _event(self, session: str, now_ms: int) -> "_Told":
        marker = self._next_marker()
        page = self._rng.choice(_PAGES)
        event: dict[str, Any] = {
            "timestamp": now_ms,
            "url": f"{self._origin}/{page}",
            "path": f"/{page}",
            "referrer": "",
        }
        kind = self._rng.choice(("pageview", "pageview", "custom", "custom", "form", "engagement"))
        event_name, self._event_name = self._event_name or "added_to_cart", None
        match kind if event_name == "added_to_cart" else "custom":
            case "pageview":
                event |= {"type": "pageview", "title": f"Page {marker}", "utm": {"source": "demo"}}
            case "custom":
                # The lone surrogate is what a client leaves of an emoji that it cuts in two.
                properties = {"marker": marker, "price": 9.5, "n": 1, "yes": True, "cut": "\ud83d"}
                event |= {"type": "custom", "eventName": event_name, "properties": properties}
            case "form":
                fields = {"email": "ann@customer.example", "message": marker}
                event |= {"type": "form", "formId": "signup", "formFields": fields}
            case _:
                event["url"] += f"?m={marker}"
                times = {"activeTimeMs": self._rng.randint(1, 9_000), "totalTimeMs": 9_000}
                event |= {"type": "engagement", "sessionId": session, **times}
        return self._told(marker, event)

    def _identify(self, now_ms: int) -> "_Told":
        """Says who the visitor is: in this event now, in the envelope from the next post on."""
        marker = self._next_marker()
        who = {"email": f"{self._name}@customer.example", "userId": f"usr_{self._name}"}
        self._identity = {**who, "traits": {"plan": "pro", "seats": 3, "none": None}}
        event = {"type": "identify", "timestamp": now_ms, "url": f"{self._origin}/signup", "path": "/signup"}
        return self._told(marker, {**event, **who, "traits": {"marker": marker}})

    def _next_marker(self) -> str:
        self._number += 1
        return self._marks.marker(self._name, self._number)

    def _told(self, marker: str, event: dict[str, Any]) -> "_Told":
        posted = {**event, "uuid": _uuid(self._rng)} if self._sends_uuids else event
        if event["type"] == "form":
            fields = {**event["formFields"], "password": f"{SECRET}{marker}"}
            posted = {**posted, "formFields": fields}
        return _Told(marker, self._name, self._number, posted, event)


class Backend:
    """A server's client library, which posts its whole queue at once."""

    def __init__(self, marks: Marks, name: str, rng: Random, *, is_old: bool, customer: str | None) -> None:
        """`is_old`: of a client that sends no uuid and no User-Agent and hides the user in the properties.

        `customer`: the account to which all of its events belong, said in the envelope.
        """
        self._marks = marks
        self._name = name
        self._rng = rng
        self._is_old = is_old
        self._customer = customer
        self._address = _address(rng)
        # Events of each user so far:
        self._numbers: Counter[int] = Counter()

    def pause_s(self) -> float:
        """How long until the next flush."""
        return self._rng.uniform(1.5, 4.0)

    def flush(self, now_ms: int) -> Post:
        """What the server posts next: up to 300 events of up to 40 users."""
        envelope: dict[str, object] = {"source": "server"}
        if self._customer is not None:
            envelope["customerIdentity"] = {"customerId": self._customer, "customerTraits": {"seats": 12}}
        headers = {"Content-Type": "application/json", "X-Forwarded-For": self._address}
        if not self._is_old:
            headers["User-Agent"] = "node"
        count = self._rng.choice((20, 60, 120, 300))
        return _post(envelope, headers, [self._event(now_ms) for _ in range(count)])

    def _event(self, now_ms: int) -> "_Told":
        user = self._rng.randrange(40)
        self._numbers[user] += 1
        stream = f"{self._name}u{user}"
        marker = self._marks.marker(stream, self._numbers[user])
        user_id = f"usr|{stream}"
        event: dict[str, Any] = {
            "type": "custom",
            "timestamp": now_ms,
            "url": f"server://{user_id}",
            "path": "",
            "eventName": "used",
        }
        if self._is_old:
            hidden = {"__email": None, "__userId": user_id, "__fingerprint": None}
            event["properties"] = {"marker": marker, **hidden}
            return _Told(marker, stream, self._numbers[user], event, event)
        event |= {"userId": user_id, "properties": {"marker": marker}}
        return _Told(marker, stream, self._numbers[user], {**event, "uuid": _uuid(self._rng)}, event)


@dataclass(frozen=True, slots=True)
class _Told:
    """An event as it is posted and as it has to arrive (with any uuid, where none is posted)."""

    marker: str
    stream: str
    number: int
    posted: Mapping[str, Any]
    arriving: Mapping[str, Any]


def _post(envelope: Mapping[str, object], headers: Mapping[str, str], told: list[_Told]) -> Post:
    sender = Sender(
        canonical(envelope), headers["X-Forwarded-For"], headers.get("User-Agent"), headers.get("Origin")
    )
    return Post(
        json.dumps({**envelope, "events": [event.posted for event in told]}).encode("ascii"),
        headers,
        tuple(
            Posted(
                event.marker,
                event.stream,
                event.number,
                event.posted.get("uuid"),
                content_of(event.arriving),
                sender,
            )
            for event in told
        ),
    )


def _address(rng: Random) -> str:
    """An address that nobody has: of the networks that are set aside for documentation."""
    if rng.random() < 0.2:
        return str(_NETWORK_V6 + rng.getrandbits(64))
    return str(rng.choice(_NETWORKS) + rng.randint(1, 254))


def _uuid(rng: Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))
