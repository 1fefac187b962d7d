"""Which keys may still send something soon, and how much of each is on its way: what a drain goes by."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from proxy.buffer import KeyFigures
from proxy.wire.limits import PublicKey


class Prospects:
    """What the drivers and deliveries of a flusher say of their keys. On the event loop."""

    def __init__(self) -> None:
        self._idle_until: dict[PublicKey, float] = {}  # the loop's time, of keys that have nothing to claim
        self._sending: Counter[PublicKey] = Counter()

    @property
    def sending(self) -> Mapping[PublicKey, int]:
        """The events that are on their way, of each key that has any."""
        return +self._sending

    @contextmanager
    def on_their_way(self, key: PublicKey, events: int) -> Iterator[None]:
        """While so many events of a key are sent and settled."""
        self._sending[key] += events
        try:
            yield
        finally:
            self._sending[key] -= events

    def nothing_for(self, key: PublicKey, wait_s: float) -> None:
        """A claim has found nothing that may be sent before so many seconds."""
        self._idle_until[key] = asyncio.get_running_loop().time() + wait_s

    def something_in(self, key: PublicKey, in_s: float) -> None:
        """It may be different in so many seconds."""
        if key in self._idle_until:
            self._idle_until[key] = min(self._idle_until[key], asyncio.get_running_loop().time() + in_s)

    def waits_s(self, key: PublicKey) -> float:
        """How long there is nothing of a key that may be sent; 0 where that is not known."""
        until = self._idle_until.get(key)
        return 0.0 if until is None else max(0.0, until - asyncio.get_running_loop().time())

    def may_send(self, key: PublicKey, of: KeyFigures, within_s: float) -> bool:
        """Whether something that is held of a key and not on its way may be sent so soon."""
        if not of.books.held or of.gate.by_operator:
            return False
        return max(of.gate.paused_for_s, self.waits_s(key)) <= within_s
