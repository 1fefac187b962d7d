"""The request limit: how many requests a public key may make, and what every answer says of it.

The service publishes the figure (100 requests a second) and three headers, not the kind of window it counts
in. A `Window` is one kind. Time is passed in, so a test moves it by hand.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a window says to one request."""

    granted: bool
    limit: int
    """Requests in one window."""
    remaining: int
    """Requests still free after this one, 0 to `limit`."""
    reset_at: int
    """Unix seconds, rounded up, at which the whole limit is free again."""

    @property
    def headers(self) -> dict[str, str]:
        """Give the three headers that every answer carries."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(self.reset_at),
        }


class Window(Protocol):
    """One way of counting requests. Every public key has a budget of its own."""

    def take(self, public_key: str, now: float) -> Allowance:
        """Count one request of `public_key` at `now`, Unix seconds, if its budget allows it.

        A request that is not granted takes nothing. `now` may stand still and may jump back.
        """


class FixedWindow:
    """Seconds of the Unix clock, each with the whole limit.

    Twice the limit may pass around the turn of a second, as with every fixed window.
    """

    def __init__(self, limit: int, window_s: int = 1) -> None:
        """Allow `limit` requests, at least 1, in every `window_s` whole seconds."""
        if limit < 1 or window_s < 1:
            raise ValueError(f"A window needs at least 1 request in 1 s, not {limit} in {window_s} s")
        self._limit = limit
        self._window_s = window_s
        # Of the present window alone: emptied at its end, so it holds no more keys than one window saw.
        self._number = 0
        self._taken: dict[str, int] = {}

    def take(self, public_key: str, now: float) -> Allowance:
        """Count one request. A clock that jumps back opens a window afresh instead of closing the key."""
        number = math.floor(now / self._window_s)
        if number != self._number:
            self._number = number
            self._taken.clear()
        taken = self._taken.get(public_key, 0)
        granted = taken < self._limit
        if granted:
            taken += 1
            self._taken[public_key] = taken
        return Allowance(granted, self._limit, self._limit - taken, (number + 1) * self._window_s)


WINDOWS: Final[Mapping[str, Callable[[int], Window]]] = {"fixed": FixedWindow}
"""Every kind of window by the name that the command line knows; each is made from its limit."""
