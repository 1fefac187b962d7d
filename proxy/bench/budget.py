"""How much of upstream's limit a proxy uses, and how often it is refused: the gate in real time.

The real buffer, flusher and HTTP client work off a backlog against a sandbox in another process, which counts
in one of its windows. A request takes 20 to 200 ms there and back, half of it before it counts: that is what
makes it hard, because a proxy knows late and inexactly what upstream has counted.
"""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from pathlib import Path

from proxy.bench.fleet import Fleet, held, opened
from proxy.bench.stand_in import Arrival, StandIn, standing_in
from proxy.buffer.bench import BENCH_KEY, BenchRefused
from proxy.settings import Settings

LIMIT_PER_S = 100
LOWERED_PER_S = 10
STRANGER_PER_S = 30.0
LATENCY = "20-200"
"""Milliseconds, there and back."""

ALLOWED = f"{LIMIT_PER_S} requests/s allowed; {LATENCY} ms"
"""What is the same in every case, in words."""

SEED = 1
"""Of latencies and of when a stranger comes."""

_BACK_SHARE = 0.9
"""A limit that was raised is in use again where its use is this much of it …"""

_BACK_OVER_S = 5
"""… on average over so many seconds."""

_SPARE_S = 15
"""Of backlog beyond what the case can send: starting, waiting for a whole second, a bucket that is full."""


class Window(StrEnum):
    """How the sandbox counts."""

    FIXED = "fixed"
    SLIDING_LOG = "sliding-log"
    SLIDING_COUNTER = "sliding-counter"
    BUCKET_100 = "bucket-100"
    BUCKET_10 = "bucket-10"

    @property
    def arguments(self) -> tuple[str, ...]:
        """What the sandbox is told to count so."""
        if self in (Window.BUCKET_100, Window.BUCKET_10):
            kind, _, burst = self.partition("-")
            return ("--window", kind, "--burst", burst)
        return ("--window", self)


class Scene(StrEnum):
    """Who uses the limit, and what it does meanwhile."""

    ALONE = "alone"
    STRANGER = "stranger"
    """Somebody else makes 30 requests a second with the same key, by chance."""
    THREE = "three"
    """Three proxies that know nothing of each other, and are told nothing of it."""
    THREE_SHARES = "three-shares"
    """The same, each told by `delivery.rate_share` that a third of the limit is its own."""
    REPLICAS = "replicas"
    """Three replicas on one Redis."""
    LOWERED = "lowered"
    """The limit falls to 10 and rises to 100 again."""

    @property
    def fleet(self) -> Fleet:
        match self:
            case Scene.THREE:
                return Fleet(proxies=3)
            case Scene.THREE_SHARES:
                return Fleet(proxies=3, rate_share=1 / 3)
            case Scene.REPLICAS:
                return Fleet(proxies=3, share_store=True)
            case _:
                return Fleet()


@dataclass(frozen=True, slots=True)
class Case:
    """One row."""

    window: Window
    scene: Scene

    def __str__(self) -> str:
        return f"{self.window}/{self.scene}"


@dataclass(frozen=True, slots=True)
class Usage:
    """What became of one case in the time that counts.

    `allowed`: requests that the window lets through; `strangers`: how many of them somebody else had.
    `granted`, `limited`: our own, and those of ours that were answered 429; `events`: in those granted.
    `back_in_use_s`: how long after the limit rose it was used again, None where it was not, or never rose.
    """

    case: str
    seconds: float
    allowed: int
    strangers: int
    granted: int
    limited: int
    events: int
    back_in_use_s: int | None = None

    @property
    def utilisation(self) -> float:
        """The share of what the window allowed, and the stranger left, that was used."""
        return self.granted / (self.allowed - self.strangers)

    @property
    def limited_share(self) -> float:
        """Of our requests, those that were answered 429."""
        return self.limited / max(1, self.granted + self.limited)


def cases(only: Sequence[str], *, on_redis: bool) -> Iterator[Case]:
    """The cases whose name, window or scene is among `only`, or all.

    Replicas need a store that they can share.
    """
    for scene in Scene:
        for window in Window:
            case = Case(window, scene)
            if only and not {str(case), str(window), str(scene)} & set(only):
                continue
            if scene is not Scene.REPLICAS or on_redis:
                yield case


def names() -> tuple[str, ...]:
    """What `only` may hold."""
    cases_of_all = (f"{window}/{scene}" for scene in Scene for window in Window)
    return (*map(str, Window), *map(str, Scene), *cases_of_all)


async def measure_usage(settings: Settings, case: Case, warm_up_s: float, seconds: int) -> Usage:
    """Run one case. Raises StartRefused, BenchRefused.

    `seconds` count after the warm-up. Where the limit is lowered that is for half of them, rounded up, and
    they come after it rose.
    """
    lowered_s = ceil(seconds / 2) if case.scene is Scene.LOWERED else 0
    counted_s = lowered_s + seconds
    backlog = ceil(LIMIT_PER_S * (warm_up_s + counted_s + _SPARE_S))
    sandbox = (*case.window.arguments, "--latency", LATENCY, "--seed", str(SEED))
    with tempfile.TemporaryDirectory(prefix="outlit-proxy-bench-") as folder:
        async with standing_in(sandbox) as stand_in:
            if case.scene is Scene.STRANGER:
                await stand_in.order("strangers", {"public_key": BENCH_KEY, "per_s": STRANGER_PER_S})
            async with opened(case.scene.fleet, settings, stand_in.url, Path(folder), backlog) as buffers:
                begins_at = ceil(time.time() + warm_up_s)
                if lowered_s:
                    await _lower(stand_in, begins_at, lowered_s)
                strangers = await _strangers_between(stand_in, begins_at, begins_at + counted_s)
                if not await held(buffers):
                    raise BenchRefused(f"{case}: the backlog was gone before the time was over")
            arrivals = await stand_in.arrivals()
    raised_at = begins_at + lowered_s
    counted = [each for each in arrivals if begins_at <= each.at < begins_at + counted_s]
    granted = [each for each in counted if each.status != 429]
    return Usage(
        case=str(case),
        seconds=counted_s,
        allowed=LOWERED_PER_S * lowered_s + LIMIT_PER_S * seconds,
        strangers=strangers,
        granted=len(granted),
        limited=len(counted) - len(granted),
        events=sum(each.events for each in granted),
        back_in_use_s=back_in_use_s(granted, raised_at, seconds) if lowered_s else None,
    )


async def _lower(stand_in: StandIn, at: float, seconds: int) -> None:
    after_s = max(0.0, at - time.time())
    await stand_in.order("limits", {"limit": LOWERED_PER_S, "after_s": after_s, "seconds": seconds})


async def _strangers_between(stand_in: StandIn, begins_at: float, ends_at: float) -> int:
    """Return at the end, with what strangers were granted in between."""
    await asyncio.sleep(begins_at - time.time())
    before = await stand_in.strangers_taken()
    await asyncio.sleep(ends_at - time.time())
    return await stand_in.strangers_taken() - before


def back_in_use_s(granted: Sequence[Arrival], raised_at: float, seconds: int) -> int | None:
    """The first whole second after `raised_at` from which the limit was in use for some time."""
    per_second = [0] * seconds
    for each in granted:
        if 0 <= (second := int(each.at - raised_at)) < seconds and each.at >= raised_at:
            per_second[second] += 1
    enough = _BACK_SHARE * LIMIT_PER_S * _BACK_OVER_S
    for second in range(seconds - _BACK_OVER_S + 1):
        if sum(per_second[second : second + _BACK_OVER_S]) >= enough:
            return second
    return None


def as_document(usage: Usage) -> Mapping[str, object]:
    """The figures of a row, for a script."""
    return {
        "case": usage.case,
        "seconds": usage.seconds,
        "allowed": usage.allowed,
        "strangers": usage.strangers,
        "granted": usage.granted,
        "limited": usage.limited,
        "events": usage.events,
        "utilisation": round(usage.utilisation, 5),
        "limited_share": round(usage.limited_share, 6),
        "back_in_use_s": usage.back_in_use_s,
    }
