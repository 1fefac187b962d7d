"""The slots of deliveries in flight, shared among public keys so that none can starve the others.

A quarter of them is kept for keys that have nothing in flight: upstream hanging for one key holds up that key
alone, and an event of another waits for no time-out but its own.
"""

import asyncio
from collections import Counter

from proxy.wire.limits import PublicKey

_SHARE_KEPT = 4
"""One slot in so many is kept for keys that have nothing in flight."""


class Slots:
    """A number of slots."""

    def __init__(self, slots: int) -> None:
        self._slots = self._free = slots
        self._kept = slots // _SHARE_KEPT
        self._held: Counter[PublicKey] = Counter()
        self._given_back = asyncio.Event()

    def resize(self, slots: int) -> None:
        """Have so many from now on. Where more are held, none is free until as many were given back."""
        self._free += slots - self._slots
        self._slots = slots
        self._kept = slots // _SHARE_KEPT
        self._given_back.set()

    def holds(self, key: PublicKey) -> bool:
        """Whether a key has one."""
        return key in self._held

    async def acquire(self, key: PublicKey) -> None:
        """Wait for a slot."""
        while self._free <= (self._kept if key in self._held else 0):
            self._given_back.clear()
            await self._given_back.wait()
        self._free -= 1
        self._held[key] += 1

    def release(self, key: PublicKey) -> None:
        """Give a slot back."""
        self._free += 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        self._given_back.set()
