"""What has been ordered, from when it is switched on until its time is over. Time is passed in."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from proxy.sandbox.bounds import OrderError
from proxy.sandbox.strike import Strike

AT_ONCE_MAX: Final = 100
"""Orders of one sort that are on or to come: every request looks through them."""


class Order(Protocol):
    """Anything that begins some time after it was ordered, and may end by itself."""

    @property
    def after_s(self) -> float:
        """Give how long after the order it begins."""

    @property
    def seconds(self) -> float | None:
        """Give how long it lasts from then, None: until it is cleared."""

    def document(self) -> Mapping[str, object]:
        """Give the order as the JSON object that `orders` reads."""


OrderT = TypeVar("OrderT", bound=Order)
StrikeT = TypeVar("StrikeT", bound=Strike)


@dataclass(slots=True, eq=False)
class Running(Generic[OrderT]):
    """An order that is on, or will be, and what is left of it."""

    order: OrderT
    since: float
    """Unix seconds."""
    until: float | None
    """Unix seconds."""
    left: int | None = None
    """Requests that a strike will still fall on."""
    met: int = 0
    """Requests that met a strike's conditions so far."""
    struck: int = 0
    """How many of these it fell on."""
    spared: int = 0
    """Requests that an allowance let pass."""

    def document(self) -> dict[str, object]:
        """Give the order and what is left of it as a JSON object."""
        return {**self.order.document(), "since": self.since, "until": self.until, "left": self.left}


class Schedule(Generic[OrderT]):
    """The orders of one sort, the first to begin first."""

    def __init__(self) -> None:
        """Begin with none."""
        self._running: list[Running[OrderT]] = []

    def add(self, *orders: OrderT, now: float) -> None:
        """Take `orders` in at `now`, Unix seconds: all, or, where that is too many, none (OrderError)."""
        self._expire(now)
        if len(self._running) + len(orders) > AT_ONCE_MAX:
            raise OrderError(
                f"At most {AT_ONCE_MAX} can be on, and {len(self._running)} are: DELETE switches them off"
            )
        for order in orders:
            since = now + order.after_s
            lasts_s = self._lasts_s(order)
            until = None if lasts_s is None else since + lasts_s
            self._running.append(Running(order, since, until, self._requests(order)))
        # Stable: of those that begin together the first ordered comes first.
        self._running.sort(key=lambda running: running.since)

    def running(self, now: float) -> tuple[Running[OrderT], ...]:
        """List what is on at `now`, and what is to come."""
        self._expire(now)
        return tuple(self._running)

    def begun(self, now: float) -> tuple[Running[OrderT], ...]:
        """List what is on at `now`."""
        self._expire(now)
        return tuple(running for running in self._running if running.since <= now)

    def clear(self) -> int:
        """Drop every order, and say how many there were."""
        cleared = len(self._running)
        self._running.clear()
        return cleared

    def _requests(self, order: OrderT) -> int | None:  # noqa: ARG002  # of strikes alone
        return None

    def _lasts_s(self, order: OrderT) -> float | None:
        return order.seconds

    def _expire(self, now: float) -> None:
        if any(running.until is not None and running.until <= now for running in self._running):
            self._running = [each for each in self._running if each.until is None or now < each.until]


class Strikes(Schedule[StrikeT]):
    """Orders that strike single requests: each every n-th that it could, and so many at most."""

    def _falls(self, running: Running[StrikeT]) -> bool:
        """Count a request that a strike could fall on, and say whether it does."""
        running.met += 1
        if running.met % running.order.every:
            return False
        running.struck += 1
        if running.left is not None:
            running.left -= 1
            if not running.left:
                self._running.remove(running)
        return True

    def _requests(self, order: StrikeT) -> int | None:
        return order.requests
