"""A sleep that others may shorten, without a wake-up lost between looking and lying down."""

import asyncio
from math import inf


class Alarm:
    """For one sleeper. `ring_in` counts from the sleeper's last `set`, whether it sleeps already or not."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._at = inf
        self._sleeper: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self) -> None:
        """Forget what rang before: the sleeper is about to look for itself."""
        self._at = inf

    @property
    def is_quiet(self) -> bool:
        """Whether nothing rang since `set`."""
        return self._at == inf

    def ring_in(self, in_s: float) -> None:
        """End the sleep in `in_s` seconds at the latest."""
        at = self._loop.time() + in_s
        if at < self._at:
            self._at = at
            self._arm()

    async def sleep(self, at_most_s: float) -> None:
        """Sleep until it rings, or `at_most_s` seconds."""
        self._sleeper = self._loop.create_future()
        self._at = min(self._at, self._loop.time() + at_most_s)
        self._arm()
        try:
            await self._sleeper
        finally:
            self._sleeper = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _arm(self) -> None:
        if self._sleeper is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._at, self._ring, self._sleeper)

    @staticmethod
    def _ring(sleeper: asyncio.Future[None]) -> None:
        if not sleeper.done():
            sleeper.set_result(None)
