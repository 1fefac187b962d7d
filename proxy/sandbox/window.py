"""The request limit: how many requests a public key may make, and what every answer says of it.

The service publishes the figure (100 requests a second) and three headers, not the kind of window it counts
in. A `Window` is one kind, and says in the headers what servers of its kind say:

- ``fixed`` counts the requests of each second of the Unix clock. Reset: the end of that second.
- ``sliding-log`` keeps the moment of every request of the last second. Reset: when the oldest of them is a
  second old, which frees one request, not all.
- ``sliding-counter`` adds to the requests of this second those of the one before, as far as the last 1,000 ms
  still overlap with it. Reset: the end of this second, at which nothing is free that was not before.
- ``bucket`` holds tokens, which come evenly, up to a burst. Reset: when it is full again.

Remaining is what is free now, after this request, in whole requests; Limit is the requests a second, also of
a bucket, whose burst nothing tells. A refused request counts in none. Time is passed in, so a test moves it
by hand; wherever it jumps to, no key stays closed for longer than a window.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from proxy.sandbox.bounds import OrderError, bounded

LIMIT_PER_S: Final = 100
"""Requests a second and public key, as published."""
LIMIT_MAX: Final = 1_000_000
"""Requests a second, or of a burst: more than any machine makes."""
_WHOLE: Final = 1e-3
"""Of a request. Unix seconds as floats are good to 0.2 µs, and sums of fractions fall short of a whole."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a window says to one request."""

    granted: bool
    limit: int
    """Requests a second."""
    remaining: int
    """Requests still free after this one, 0 or more."""
    reset_at: int
    """Unix seconds, rounded up. Of what, differs from kind to kind."""

    @property
    def headers(self) -> dict[str, str]:
        """Give the three headers that every answer carries."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_at),
        }


class Kind(StrEnum):
    """The kinds of window."""

    FIXED = "fixed"
    SLIDING_LOG = "sliding-log"
    SLIDING_COUNTER = "sliding-counter"
    BUCKET = "bucket"


class Window(ABC):
    """One way of counting requests. Every public key has a budget of its own."""

    def __init__(self, limit: int) -> None:
        """Allow `limit` requests a second, 1 to `LIMIT_MAX`. Raises OrderError."""
        bounded("limit", limit, 1, LIMIT_MAX)
        self._limit = limit
        self._second = 0

    def change(self, limit: int) -> None:
        """Allow so many from now on; what was counted stays counted. Raises OrderError."""
        bounded("limit", limit, 1, LIMIT_MAX)
        self._limit = limit

    @abstractmethod
    def take(self, public_key: str, now: float) -> Allowance:
        """Count one request of `public_key` at `now`, Unix seconds, if its budget allows it.

        A request that is not granted takes nothing. `now` may stand still and may jump either way.
        """

    def _turns(self, now: float) -> bool:
        """Say whether another second has begun: time to forget the keys of which nothing counts any more."""
        second = math.floor(now)
        turned = second != self._second
        self._second = second
        return turned


class FixedWindow(Window):
    """Seconds of the Unix clock, each with the whole limit.

    Twice the limit may pass around the turn of a second, as with every fixed window.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        # Of the present second alone, so it holds no more keys than one second saw.
        self._taken: dict[str, int] = {}

    def take(self, public_key: str, now: float) -> Allowance:
        """Count one request. A clock that jumps opens a second afresh instead of closing the key."""
        if self._turns(now):
            self._taken.clear()
        taken = self._taken.get(public_key, 0)
        granted = taken < self._limit
        if granted:
            taken += 1
            self._taken[public_key] = taken
        return Allowance(granted, self._limit, max(0, self._limit - taken), math.floor(now) + 1)


class SlidingLog(Window):
    """The last second, whenever it began: never more than the limit in any second."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._logs: dict[str, deque[float]] = {}
        """When each counted request came, the oldest first; none is empty."""

    def take(self, public_key: str, now: float) -> Allowance:
        """Count one request. Of a clock that jumps back, what lies ahead of it is forgotten."""
        if self._turns(now):
            self._logs = {key: log for key, log in self._logs.items() if now - 1 < log[-1] <= now}
        log = self._logs.get(public_key, deque())
        while log and log[0] <= now - 1:
            log.popleft()
        while log and log[-1] > now:
            log.pop()
        granted = len(log) < self._limit
        if granted:
            log.append(now)
            self._logs[public_key] = log
        return Allowance(granted, self._limit, max(0, self._limit - len(log)), math.ceil(log[0] + 1))


@dataclass(slots=True)
class _Seconds:
    """Requests of the second numbered `number`, and of the one before it."""

    number: int
    this: int = 0
    last: int = 0


class SlidingCounter(Window):
    """Two counts instead of a log: as if the requests of the second before had come evenly."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._counts: dict[str, _Seconds] = {}

    def take(self, public_key: str, now: float) -> Allowance:
        """Count one request. A clock that jumps begins afresh."""
        number = math.floor(now)
        if self._turns(now):
            self._counts = {key: of for key, of in self._counts.items() if of.number in (number - 1, number)}
        counts = self._counts.setdefault(public_key, _Seconds(number))
        if counts.number == number - 1:
            counts.number, counts.this, counts.last = number, 0, counts.this
        free = self._limit - counts.this - counts.last * (number + 1 - now)
        granted = free >= 1 - _WHOLE
        if granted:
            counts.this += 1
            free -= 1
        return Allowance(granted, self._limit, max(0, math.floor(free + _WHOLE)), number + 1)


@dataclass(slots=True)
class _Filled:
    """A bucket's tokens as of `at`."""

    tokens: float
    at: float


class Bucket(Window):
    """Tokens that come evenly, `limit` a second, and can be saved up to `burst` of them."""

    def __init__(self, limit: int, burst: int | None = None) -> None:
        """Begin full. `burst`: 1 to `LIMIT_MAX`, as many as the limit where it is None. Raises OrderError."""
        super().__init__(limit)
        bounded("burst", burst, 1, LIMIT_MAX)
        self._burst = limit if burst is None else burst
        self._filled: dict[str, _Filled] = {}

    def change(self, limit: int, burst: int | None = None) -> None:
        """Allow so many from now on; tokens beyond the new burst are lost."""
        bounded("burst", burst, 1, LIMIT_MAX)
        super().change(limit)
        self._burst = limit if burst is None else burst

    def take(self, public_key: str, now: float) -> Allowance:
        """Count one request. A clock that jumps back brings and takes no tokens."""
        if self._turns(now):
            kept = (each for each in self._filled.items() if self._tokens(each[1], now) < self._burst)
            self._filled = dict(kept)
        filled = self._filled.setdefault(public_key, _Filled(self._burst, now))
        tokens = self._tokens(filled, now)
        granted = tokens >= 1 - _WHOLE
        filled.tokens = tokens = tokens - 1 if granted else tokens
        filled.at = now
        full_at = now + (self._burst - tokens) / self._limit
        return Allowance(granted, self._limit, max(0, math.floor(tokens + _WHOLE)), math.ceil(full_at))

    def _tokens(self, filled: _Filled, now: float) -> float:
        return min(self._burst, filled.tokens + max(0.0, now - filled.at) * self._limit)


@dataclass(frozen=True, slots=True)
class Limit:
    """How requests are counted: a kind of window and its figures. Raises OrderError for what cannot be."""

    limit: int = LIMIT_PER_S
    """Requests a second and public key."""
    window: Kind = Kind.FIXED
    burst: int | None = None
    """Of a bucket alone: the tokens that it holds, None for as many as `limit`."""

    def __post_init__(self) -> None:
        """Refuse what could not be counted by."""
        bounded("limit", self.limit, 1, LIMIT_MAX)
        bounded("burst", self.burst, 1, LIMIT_MAX)
        if self.burst is not None and self.window is not Kind.BUCKET:
            raise OrderError(f"{self.window} has no burst: only a {Kind.BUCKET} has")

    def opened(self) -> Window:
        """Give a window of which nothing is taken."""
        if self.window is Kind.BUCKET:
            return Bucket(self.limit, self.burst)
        return WINDOWS[self.window](self.limit)

    def impose(self, window: Window) -> None:
        """Have a window of this kind count by these figures from now on."""
        if isinstance(window, Bucket):
            window.change(self.limit, self.burst)
        else:
            window.change(self.limit)


WINDOWS: Final[Mapping[Kind, type[FixedWindow | SlidingLog | SlidingCounter | Bucket]]] = {
    Kind.FIXED: FixedWindow,
    Kind.SLIDING_LOG: SlidingLog,
    Kind.SLIDING_COUNTER: SlidingCounter,
    Kind.BUCKET: Bucket,
}
"""Every kind of window; each is made from its limit."""
