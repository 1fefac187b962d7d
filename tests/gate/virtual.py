"""Senders with the real gate against an upstream that counts, in virtual time: minutes of it in a second.

A sender does what the flusher does: one driver claims whenever it has a slot free, sleeps as long as it is
told (and up to 10 ms longer), and every request that it was granted leaves at once. Upstream counts it when
it arrives, and says so in headers that are as they were then when they come back.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush
from random import Random

from proxy import gate
from proxy.gate import Feedback, Gate, Outcome
from proxy.sandbox.window import Allowance, Bucket, Kind, Limit, Window
from proxy.wire.rate_headers import RateHeaders

KEY = "pk_budget"
QUEUE = b"queue"
START_S = 1_800_000_000.0
LEASE_MS = 30_000
LATE_S = 0.010
"""How late a wake-up may be."""

Latency = Callable[[Random], float]
"""One way of a request or an answer, in seconds."""

Headers = Callable[[Allowance, float, Random], RateHeaders | None]
"""What an answer says, from what the window says and upstream's clock."""


def uniform(low_s: float, high_s: float) -> Latency:
    """One way of a round trip that takes `low_s` to `high_s`."""
    return lambda chance: chance.uniform(low_s, high_s) / 2


MIXED = uniform(0.020, 0.200)


def spiky(chance: Random) -> float:
    """One way of a line on which one packet in a hundred is lost."""
    return chance.uniform(1, 3) if chance.random() < 0.01 else chance.lognormvariate(math.log(0.033), 0.5)


def honest(allowance: Allowance, now: float, _: Random) -> RateHeaders:
    """What the sandbox's headers come to when they are read."""
    reset_in_s = max(0.0, float(allowance.reset_at - math.floor(now)))
    return RateHeaders(allowance.limit, allowance.remaining, allowance.reset_at, reset_in_s)


def silent(_: Allowance, __: float, ___: Random) -> None:
    """No headers."""


class _FirstRequestWindow(Window):
    """A second that begins with the first request after the last one ended, with Reset rounded up."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._ends = 0.0
        self._taken = 0

    def take(self, public_key: str, now: float) -> Allowance:
        del public_key  # there is one
        if not self._ends - 1 <= now < self._ends:
            self._ends, self._taken = now + 1, 0
        granted = self._taken < self._limit
        self._taken += granted
        return Allowance(granted, self._limit, max(0, self._limit - self._taken), math.ceil(self._ends))


@dataclass(frozen=True, slots=True)
class FromFirstRequest:
    """An adversary: it looks like a fixed window, and Reset is not its boundary."""

    limit: int = 100

    def opened(self) -> Window:
        """Give a window of which nothing is taken."""
        return _FirstRequestWindow(self.limit)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run is like."""

    limit: Limit | FromFirstRequest
    latency: Latency = MIXED
    headers: Headers = honest
    senders: int = 1
    """Processes, each with `in_flight` slots."""
    is_shared: bool = True
    """Whether the senders share one state, as replicas on one Redis do."""
    in_flight: int = 64
    most_per_s: float = 100.0
    share: float = 1.0
    stranger_per_s: float = 0.0
    idle_s: float = 0.0
    """Of each 2 × `idle_s` the first half has work, the second none; 0: always work."""
    changes: Sequence["Change"] = ()
    from_s: float = 30.0
    to_s: float = 180.0


@dataclass(slots=True)
class Tally:
    """Requests that upstream counted or refused between `from_s` and `to_s`, and what it would have
    counted."""

    possible: float = 0.0
    granted: int = 0
    limited: int = 0
    of_stranger: int = 0
    stranger_limited: int = 0
    learning: int = 0
    """429s before `from_s`."""
    grants: list[int] = field(default_factory=list)
    """Of each second of the whole run."""
    refusals: list[int] = field(default_factory=list)

    @property
    def used(self) -> float:
        """The part of what the stranger left that was used."""
        return self.granted / (self.possible - self.of_stranger)

    @property
    def refused(self) -> float:
        """The part of our requests that were 429s."""
        return self.limited / max(1, self.granted + self.limited)

    @property
    def stranger_refused(self) -> float:
        """The part of the stranger's requests that were 429s."""
        return self.stranger_limited / max(1, self.of_stranger + self.stranger_limited)

    def add(self, other: "Tally") -> None:
        """Add another run of the same setting."""
        self.possible += other.possible
        self.granted += other.granted
        self.limited += other.limited
        self.of_stranger += other.of_stranger
        self.stranger_limited += other.stranger_limited
        self.learning += other.learning


Change = tuple[float, Callable[["World"], None]]
"""At which second of a run what happens to its world."""


class World:
    """One run. Times are seconds since its beginning, clocks are Unix seconds."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting = setting
        self.now_s = 0.0
        self.limit = setting.limit.limit
        self.store_ahead_s = 0.0
        self.upstream_ahead_s = 0.0
        self.window: Window = setting.limit.opened()
        self.chance = Random(seed)
        self.tally = Tally()
        self._begin_s = START_S + self.chance.random()
        self.upstream_ahead_s = self.chance.random()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        gates = [gate.opened(setting.most_per_s, setting.share) for _ in range(setting.senders)]
        self.senders = [
            Sender(self, gates[0 if setting.is_shared else number]) for number in range(setting.senders)
        ]
        seconds = int(setting.to_s) + 1
        self.tally.grants, self.tally.refusals = [0] * seconds, [0] * seconds

    def run(self) -> Tally:
        """Run it to its end."""
        setting = self.setting
        for at_s, change in setting.changes:
            self.later(at_s, partial(change, self))
        for sender in self.senders:
            self.later(self.chance.random(), sender.drive)
        if setting.stranger_per_s:
            self.later(0.0, self._stranger)
        for second in range(int(setting.from_s), int(setting.to_s)):
            self.later(second + 0.5, self._count_possible)
        heap = self._heap
        while heap and heap[0][0] < setting.to_s:
            self.now_s, _, act = heappop(heap)
            act()
        return self.tally

    def later(self, after_s: float, act: Callable[[], None]) -> None:
        """Do something after so many seconds."""
        self._number += 1
        heappush(self._heap, (self.now_s + after_s, self._number, act))

    def store_ms(self) -> int:
        """The store's clock."""
        return int((self._begin_s + self.now_s + self.store_ahead_s) * 1000)

    def take(self) -> tuple[Allowance, RateHeaders | None]:
        """A request arrives."""
        now = self._begin_s + self.now_s + self.upstream_ahead_s
        allowance = self.window.take(KEY, now)
        return allowance, self.setting.headers(allowance, now, self.chance)

    def count(self, *, granted: bool) -> None:
        """Count what became of a request of ours."""
        second = int(self.now_s)
        (self.tally.grants if granted else self.tally.refusals)[second] += 1
        if self.now_s < self.setting.from_s:
            self.tally.learning += not granted
        elif granted:
            self.tally.granted += 1
        else:
            self.tally.limited += 1

    def has_work(self) -> bool:
        """Whether the backlog is not empty."""
        idle_s = self.setting.idle_s
        return not idle_s or self.now_s % (2 * idle_s) < idle_s

    def change_limit(self, limit: int) -> None:
        """Upstream allows so many from now on."""
        self.limit = limit
        if isinstance(self.window, Bucket) and isinstance(self.setting.limit, Limit):
            self.window.change(limit, self.setting.limit.burst)
        else:
            self.window.change(limit)

    def _count_possible(self) -> None:
        self.tally.possible += self.limit

    def _stranger(self) -> None:
        allowance = self.window.take(KEY, self._begin_s + self.now_s + self.upstream_ahead_s)
        if self.now_s >= self.setting.from_s:
            self.tally.of_stranger += allowance.granted
            self.tally.stranger_limited += not allowance.granted
        self.later(self.chance.expovariate(self.setting.stranger_per_s), self._stranger)


class Sender:
    """A process: a driver and its slots."""

    def __init__(self, world: World, of: Gate) -> None:
        self.gate = of
        self._world = world
        self._free = world.setting.in_flight
        self._sleeps = True
        self.granted = 0

    def drive(self) -> None:
        """Claim until there is no slot or no budget."""
        world = self._world
        self._sleeps = False
        while self._free:
            if not world.has_work():
                self._sleep(0.05)
                return
            now_ms = world.store_ms()
            before = copy(self.gate.budget)
            before.window = copy(before.window)
            wait_ms = gate.claim(self.gate, now_ms, LEASE_MS)
            if wait_ms:
                self.gate.budget = before  # as an engine that does not store what a wait changed
                self._sleep(wait_ms / 1000)
                return
            self._free -= 1
            latency = world.setting.latency
            world.later(latency(world.chance), partial(self._arrive, now_ms))

    def _sleep(self, for_s: float) -> None:
        self._sleeps = True
        self._world.later(for_s + self._world.chance.uniform(0, LATE_S), self.drive)

    def _arrive(self, sent_ms: int) -> None:
        world = self._world
        allowance, headers = world.take()
        world.count(granted=allowance.granted)
        self.granted += allowance.granted
        outcome = Outcome.TAKEN if allowance.granted else Outcome.RATE_LIMITED
        feedback = Feedback(outcome, headers, float(sent_ms))
        world.later(world.setting.latency(world.chance), partial(self._answer, feedback))

    def _answer(self, feedback: Feedback) -> None:
        world = self._world
        gate.settle(self.gate, feedback, QUEUE, int(feedback.sent_ms), world.store_ms())
        self._free += 1
        if not self._sleeps:
            self._sleeps = True
            world.later(0.0, self.drive)


def run(setting: Setting, seed: int) -> Tally:
    """One run."""
    return World(setting, seed).run()


KINDS: Mapping[str, Limit | FromFirstRequest] = {
    "fixed": Limit(window=Kind.FIXED),
    "sliding log": Limit(window=Kind.SLIDING_LOG),
    "sliding counter": Limit(window=Kind.SLIDING_COUNTER),
    "bucket 100": Limit(window=Kind.BUCKET),
    "bucket 10": Limit(window=Kind.BUCKET, burst=10),
    "first request": FromFirstRequest(),
}
"""The kinds of limit that upstream may have; the last is an adversary, and no promise is made for it."""
