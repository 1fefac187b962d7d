"""What all verbs share: the deployment, the terms, the time, and what is known of the keys' bounds."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from proxy.buffer.contract import BufferFull
from proxy.buffer.redis import keys as names
from proxy.buffer.redis.facts import Fact, Facts
from proxy.buffer.redis.link import Argument, Link
from proxy.buffer.redis.scripts import load
from proxy.buffer.values import Terms
from proxy.wire.limits import PublicKey

_NOW = load("now")


class RedisClock:
    """The clock that the scripts go by: Redis's own, or the one that a test gives in Unix milliseconds."""

    def __init__(self, given_ms: Callable[[], int] | None = None) -> None:
        self._given_ms = given_ms
        self._ahead_ms = 0  # of this process's monotonic clock

    def argument(self) -> bytes:
        """The scripts' `clock`."""
        return b"0" if self._given_ms is None else b"%d" % self._given_ms()

    def now_ms(self) -> int:
        """About what it says now: for looks, never for what a script decides."""
        return self._ahead_ms + _monotonic_ms() if self._given_ms is None else self._given_ms()

    def learn(self, now_ms: int) -> None:
        """Note what Redis said just now."""
        self._ahead_ms = now_ms - _monotonic_ms()


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


@dataclass(slots=True)
class Store:
    """One process's view of the deployment. Nothing of it changes but `terms`, at a reload.

    `note_loss(key, events)`: Redis has gone back behind what it had answered, by so many events at least.
    `full()`: why nothing may be added now, None where it may.
    """

    link: Link
    terms: Terms
    clock: RedisClock
    note_loss: Callable[[PublicKey, int], None]
    full: Callable[[], str | None]
    facts: Facts = field(default_factory=Facts)

    def now_ms(self) -> int:
        """About the time on the store's clock: for looks, never for what a script decides."""
        return self.clock.now_ms()

    def of_gates(self) -> tuple[Argument, Argument]:
        """The scripts' limit per second and share of it: what the settings say of each gate."""
        return repr(float(self.terms.limit_per_s)), repr(float(self.terms.rate_share))

    def check_room(self) -> None:
        """Return if something may be added. Raises BufferFull."""
        if (why := self.full()) is not None:
            raise BufferFull(why)

    def learn(self, key: PublicKey, answer: Sequence[int], before: Fact, *, wrote: bool = True) -> None:
        """Note the facts that a script answered which was asked when `before` was known; and a loss."""
        lost = self.facts.learn(key, answer, before, wrote=wrote)
        if lost is not None:
            self.note_loss(key, lost)

    async def set_clock(self) -> None:
        """Ask Redis for the time."""
        self.clock.learn(await self.link.run(_NOW, (names.LAYOUT,), (self.clock.argument(),)))

    async def keys(self) -> Sequence[PublicKey]:
        """Every key that was ever appended to."""
        return sorted(PublicKey(key.decode("ascii")) for key in await self.link.ask("SMEMBERS", names.KNOWN))
