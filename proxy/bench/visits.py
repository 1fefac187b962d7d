"""What the benchmarks post: made-up visits to one website, as a browser's client would send them.

Nothing in them may flatter what is measured. Each visitor has an address, a User-Agent and ids of its own;
half of the page views are of a few pages that all read, the others of pages that hardly anybody else does;
titles, campaigns and click ids differ; some titles are no ASCII. Visits overlap, so the posts of one visitor
lie far apart. An event's JSON has 350 bytes on average, from 210 to 590.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import uuid_utils

KEY = "pk_bench"
PATH = f"/api/i/v1/{KEY}/events"
DATA = (
    "visits of one site, overlapping; address, User-Agent and ids for each visitor; half of the page views\n"
    "are of 40 pages, the others distinct; titles, campaigns, click ids differ; 350 bytes an event on average"
)

_ORIGIN = "https://www.shop.example"
_CHROME = "Mozilla/5.0 ({}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{}.0.0.0 Safari/537.36"
_FIREFOX = "Mozilla/5.0 ({}; rv:{}.0) Gecko/20100101 Firefox/{}.0"
_SAFARI = "Mozilla/5.0 ({}) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{}.{} Safari/605.1.15"
_AGENTS = [
    *(
        form.format(system, version, version)
        for system in (
            "Windows NT 10.0; Win64; x64",
            "X11; Linux x86_64",
            "Macintosh; Intel Mac OS X 10_15_7",
        )
        for form in (_CHROME, _FIREFOX)
        for version in range(120, 145)
    ),
    *(
        _SAFARI.format(system, version, minor)
        for system in ("Macintosh; Intel Mac OS X 10_15_7", "iPhone; CPU iPhone OS 18_6 like Mac OS X")
        for version in range(16, 27)
        for minor in range(5)
    ),
]
_WORDS = (
    *(
        "autumn",
        "blue",
        "Café",
        "canvas",
        "classic",
        "cotton",
        "desk",
        "Größe",
        "green",
        "guide",
        "kit",
        "lamp",
    ),
    *("leather", "light", "linen", "mini", "natural", "oak", "organic", "outdoor", "red", "silver", "small"),
    *("steel", "summer", "travel", "walnut", "warm", "winter", "wool", "冬の"),
)
_CAMPAIGNS = [f"{word}-{year}" for word in _WORDS if word.isascii() for year in (24, 25, 26)]
_SOURCES = (("google", "cpc"), ("newsletter", "email"), ("instagram", "social"), ("partner", "referral"))
_REFERRERS = ("", "https://www.google.com/", "https://duckduckgo.com/", "https://t.co/a8Xk2Lm9Qr")


@dataclass(frozen=True, slots=True)
class Post:
    """One request of a client's."""

    headers: Mapping[str, str]
    body: bytes

    def request(self) -> bytes:
        """The whole request, as it goes over the wire."""
        lines = [f"POST {PATH} HTTP/1.1", "Host: t.example.com", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("ascii") + self.body


class Visits:
    """Visitors who each make the same number of posts of so many events, `at_once` of them at any time."""

    def __init__(self, now_ms: float, *, events: int, posts: int = 3, at_once: int = 500) -> None:
        self._now_ms = now_ms
        self._events = events
        self._posts = posts
        self._at_once = at_once
        self._rng = random.Random(1)
        self._pages = [self._page() for _ in range(40)]

    def posts(self) -> Iterator[Post]:
        """Posts without end."""
        there = [self._visit() for _ in range(self._at_once)]
        while True:
            # A visit that is over is replaced in its place by the next visitor's.
            at = self._rng.randrange(self._at_once)
            post = next(there[at], None)
            if post is None:
                there[at] = self._visit()
                post = next(there[at])
            yield post

    def of(self, visitors: int) -> Iterator[Post]:
        """All posts of so many visitors: everybody's first, then everybody's second, and so on."""
        there = [self._visit() for _ in range(visitors)]
        for _ in range(self._posts):
            for visit in there:
                yield next(visit)

    def _visit(self) -> Iterator[Post]:
        rng = self._rng
        envelope = {"source": "client", "visitorId": _uuid(), "sessionId": _uuid()}
        headers = {
            "Content-Type": "application/json",
            "X-Forwarded-For": f"198.18.{rng.randrange(256)}.{rng.randrange(1, 255)}",
            "User-Agent": rng.choice(_AGENTS),
            "Origin": _ORIGIN,
        }
        referrer = rng.choice(_REFERRERS)
        for _ in range(self._posts):
            events = []
            for _ in range(self._events):
                event = self._event(envelope["sessionId"], referrer)
                referrer = event["url"]
                events.append(event)
            yield Post(headers, orjson.dumps({**envelope, "events": events}))

    def _event(self, session: str, referrer: str) -> dict[str, Any]:
        rng = self._rng
        path, title = rng.choice(self._pages) if rng.random() < 0.5 else self._page()
        self._now_ms += 0.05
        event: dict[str, Any] = {
            "type": "pageview",
            "timestamp": int(self._now_ms),
            "url": f"{_ORIGIN}{path}",
            "path": path,
            "uuid": _uuid(),
            "referrer": referrer,
        }
        kind = rng.random()
        if kind < 0.6:
            event["title"] = title
            if kind < 0.15:
                source, medium = rng.choice(_SOURCES)
                campaign = rng.choice(_CAMPAIGNS)
                tags = f"utm_source={source}&utm_medium={medium}&utm_campaign={campaign}"
                event["url"] += f"?{tags}&gclid={rng.getrandbits(160):x}"
                event["utm"] = {"source": source, "medium": medium, "campaign": campaign}
        elif kind < 0.8:
            active_ms = rng.randrange(1_000, 90_000)
            event |= {"type": "engagement", "activeTimeMs": active_ms, "totalTimeMs": 2 * active_ms}
            event["sessionId"] = session
        elif kind < 0.95:
            price = rng.randrange(100, 20_000) / 100
            event |= {"type": "custom", "eventName": "added_to_cart"}
            event["properties"] = {"product": title, "price": price, "currency": "EUR", "count": 1}
        else:
            fields = {"name": rng.choice(_WORDS), "subject": title, "newsletter": "yes"}
            event |= {"type": "form", "formId": "contact", "formFields": fields}
        return event

    def _page(self) -> tuple[str, str]:
        """A page's path and title."""
        words = self._rng.choices(_WORDS, k=3)
        number = self._rng.randrange(100_000)
        slug = "-".join(word for word in words if word.isascii())
        return f"/{slug}-{number}", f"{' '.join(words)}, no. {number}"


def _uuid() -> str:
    return str(uuid_utils.uuid7())
