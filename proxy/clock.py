"""The embedded store's clock: the time of day at its start, moved on by a clock that never jumps.

Leases, back-offs and rate tokens are due times on this clock, so a change of the machine's time of day
while the process runs neither frees nor freezes them. A test moves it by `offset_ms`.
"""

import time
from collections.abc import Callable


class StoreClock:
    """Unix milliseconds that never go back while the process lives."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        self._origin_s = wall() - monotonic()
        self.offset_ms = 0

    def now_ms(self) -> int:
        """The time now, in Unix milliseconds."""
        return int((self._origin_s + self._monotonic()) * 1000) + self.offset_ms


def wall_ms() -> int:
    """The time of day in Unix milliseconds: what an event without a timestamp of its own gets."""
    return time.time_ns() // 1_000_000
