"""The budget of every key at a moment: the limit as it was ordered, and who else takes from it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import merge
from random import Random

from proxy.sandbox.circumstances import LimitChange, Stranger
from proxy.sandbox.schedule import Running, Schedule
from proxy.sandbox.window import Allowance, Limit

_CATCH_UP_S = 10.0
"""What strangers did in a longer silence is not made up for: no window reaches back as far."""


@dataclass(slots=True)
class _Visits:
    """When a stranger comes next, Unix seconds, and the chance that says so."""

    at: float
    chance: Random


class Limiter:
    """Takes requests off their keys' budgets, those of strangers in between, each at its own moment.

    Nothing runs beside it: whoever takes or looks brings it up to date.
    """

    def __init__(self, limit: Limit, seed: int = 0) -> None:
        """Count by `limit` until another is ordered. `seed`: of when strangers come."""
        self.changes: Schedule[LimitChange] = Schedule()
        self.strangers: Schedule[Stranger] = Schedule()
        self.strangers_taken: Counter[str] = Counter()
        """Requests of strangers that were granted, by public key."""
        self.strangers_limited: Counter[str] = Counter()
        """Those that were not."""
        self._first = self._limit = limit
        self._window = limit.opened()
        self._seed = seed
        # Of the strangers that were met:
        self._visits: dict[Running[Stranger], _Visits] = {}
        self._met = 0
        self._caught_up_at = 0.0

    def take(self, public_key: str, now: float) -> Allowance:
        """Count one request of `public_key` at `now`, Unix seconds, if its budget allows it."""
        self.catch_up(now)
        return self._take(public_key, now)

    def limit(self, now: float) -> Limit:
        """Give the limit of `now`."""
        limit = self._first
        for change in self.changes.begun(now):
            limit = change.order.of(limit)
        return limit

    def catch_up(self, now: float) -> None:
        """Let strangers have come whose time was up to `now`. A time that comes again brings none again."""
        # As of the last time: who has left since then came until he left.
        there = self.strangers.running(self._caught_up_at)
        self._visits = {stranger: self._visits_of(stranger) for stranger in there}
        for at, public_key in merge(*(self._arrivals(stranger, now) for stranger in there)):
            granted = self._take(public_key, at).granted
            (self.strangers_taken if granted else self.strangers_limited)[public_key] += 1
        self._caught_up_at = now

    def _take(self, public_key: str, now: float) -> Allowance:
        limit = self.limit(now)
        if limit != self._limit:
            if limit.window is self._limit.window:
                limit.impose(self._window)
            else:
                self._window = limit.opened()
            self._limit = limit
        return self._window.take(public_key, now)

    def _visits_of(self, stranger: Running[Stranger]) -> _Visits:
        known = self._visits.get(stranger)
        if known is not None:
            return known
        self._met += 1
        chance = Random(f"{self._seed} {self._met}")
        return _Visits(stranger.since + chance.expovariate(stranger.order.per_s), chance)

    def _arrivals(self, stranger: Running[Stranger], now: float) -> Iterator[tuple[float, str]]:
        visits, per_s = self._visits[stranger], stranger.order.per_s
        if visits.at < now - _CATCH_UP_S:
            visits.at = now - _CATCH_UP_S + visits.chance.expovariate(per_s)
        until = now if stranger.until is None else min(now, stranger.until)
        while visits.at <= until:
            yield visits.at, stranger.order.public_key
            visits.at += visits.chance.expovariate(per_s)
