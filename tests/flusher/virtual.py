"""One public key in virtual time: queues, the real gate, the real verdict, an upstream that is a function.

What a buffer does is here in its simplest form (lists and numbers), so that a hundred thousand deliveries
take seconds and depend on nothing but what they are about: who is tried when, and what becomes of it.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, nsmallest
from math import ceil, inf
from operator import attrgetter

from proxy import gate
from proxy.buffer import ALL_IS_WELL, Outlook
from proxy.flusher.values import Case, Verdict
from proxy.flusher.verdict import judge
from proxy.gate import Evidence, Feedback, Outcome
from proxy.wire.answers import Answer, NoAnswer

LEASE_MS = 30_000
MAX_AGE_MS = 72 * 3_600_000
LOOKED_THROUGH = 50
START_MS = 1_700_000_000_000

_due_ms = attrgetter("due_ms")

Upstream = Callable[[Sequence[str], int], Answer | NoAnswer]
"""The answer to a request of these events that reaches it at this time."""


@dataclass(slots=True)
class Queue:
    name: bytes
    events: list[str]
    accepted_ms: int
    due_ms: float = 0
    leased: bool = False
    attempts: int = 0
    outlook: Outlook = ALL_IS_WELL


@dataclass(slots=True)
class Delivery:
    queue: Queue
    claimed_ms: int
    evidence: Evidence
    batch: list[str]
    answer: Answer | NoAnswer | None = None
    others: bool = False


@dataclass
class Key:
    """`confirmed`: upstream took something of it before. Times are virtual milliseconds."""

    upstream: Upstream
    latency_ms: tuple[int, int] = (20, 200)
    in_flight: int = 64
    rate_per_s: float = 100.0
    confirmed: bool = True
    seed: int = 0

    now_ms: int = START_MS
    queues: list[Queue] = field(default_factory=list)
    delivered: list[str] = field(default_factory=list)
    dead: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[int, list[str]]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    pauses: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.gate = gate.opened(self.rate_per_s, 1.0)
        self._coming: list[tuple[int, int, str, Delivery]] = []
        self._number = 0
        self._flying = 0

    def add(self, *events: str, accepted_ms: int | None = None) -> Queue:
        name = hashlib.sha256(b"%d" % len(self.queues)).digest()[:12]
        queue = Queue(name, list(events), accepted_ms or self.now_ms, self.now_ms)
        self.queues.append(queue)
        return queue

    def seen_to_take(self, times: int = 1) -> None:
        """Upstream took other events of the key, a while ago."""
        for _ in range(times):
            feedback = Feedback(Outcome.TAKEN)
            gate.settle(self.gate, feedback, b"another one.", self.now_ms, self.now_ms)
            self.now_ms += 10

    @property
    def held(self) -> int:
        return sum(len(queue.events) for queue in self.queues)

    def run(self, *, for_s: float = inf) -> None:
        """Until nothing is held, or for so long."""
        end_ms = self.now_ms + for_s * 1000
        while any(queue.events for queue in self.queues) and self.now_ms < end_ms:
            idle_ms = self._claim()
            has_slot = self._flying < self.in_flight
            if idle_ms == 0 and has_slot:
                continue
            next_ms = self._coming[0][0] if self._coming else inf
            if has_slot:
                next_ms = min(next_ms, self.now_ms + idle_ms)
            self.now_ms = int(max(self.now_ms, min(next_ms, end_ms)))
            while self._coming and self._coming[0][0] <= self.now_ms:
                _, _, what, delivery = heappop(self._coming)
                self._arrive(delivery) if what == "arrives" else self._settle(delivery)

    def _claim(self) -> int:
        """Milliseconds to wait; 0: a delivery began, or there is no slot."""
        if self._flying >= self.in_flight:
            return 0
        ready = [queue for queue in self.queues if queue.events and not queue.leased]
        if not ready:
            return 60_000
        chosen = min(ready, key=_due_ms)
        if chosen.due_ms > self.now_ms:
            return ceil(chosen.due_ms - self.now_ms)
        if gate.wants_untroubled(self.gate):
            due = [
                queue
                for queue in nsmallest(LOOKED_THROUGH, ready, key=_due_ms)
                if queue.due_ms <= self.now_ms
            ]
            chosen = next((q for q in due if q.outlook.trouble is None and not q.attempts), chosen)
        view = gate.view(self.gate, self.now_ms)
        if view.paused is not None:
            self.pauses.add(view.paused)
        if wait_ms := gate.claim(self.gate, self.now_ms, LEASE_MS):
            return wait_ms
        chosen.leased = True
        delivery = Delivery(
            chosen,
            self.now_ms,
            gate.evidence(self.gate, chosen.name),
            chosen.events[: chosen.outlook.max_events],
            others=any(queue.events for queue in self.queues if queue is not chosen),
        )
        self._flying += 1
        self._at(self.now_ms + self.chance.randint(*self.latency_ms) // 2, "arrives", delivery)
        return 0

    def _at(self, when_ms: int, what: str, delivery: Delivery) -> None:
        self._number += 1
        heappush(self._coming, (when_ms, self._number, what, delivery))

    def _arrive(self, delivery: Delivery) -> None:
        self.requests.append((self.now_ms, delivery.batch))
        delivery.answer = self.upstream(delivery.batch, self.now_ms)
        self._at(self.now_ms + self.chance.randint(*self.latency_ms) // 2, "settles", delivery)

    def _settle(self, delivery: Delivery) -> None:
        queue, batch = delivery.queue, delivery.batch
        assert delivery.answer is not None
        verdict = judge(delivery.answer, self.case(delivery), self.chance.uniform(-1, 1))
        self.verdicts.append(verdict)
        for at, event in enumerate(batch):
            if at in verdict.dead:
                self.dead[event] = verdict.dead[at].reason
            elif at not in verdict.again:
                self.delivered.append(event)
        queue.events = [batch[at] for at in sorted(verdict.again)] + queue.events[len(batch) :]
        queue.attempts = 0 if len(verdict.again) < len(batch) else queue.attempts + verdict.failed
        if verdict.outlook is not None:
            queue.outlook = verdict.outlook
        if not queue.events:
            queue.attempts, queue.outlook = 0, ALL_IS_WELL
        queue.leased = False
        queue.due_ms = self.now_ms + 1000 * (verdict.wait_s or 0)
        rate = delivery.answer.rate if isinstance(delivery.answer, Answer) else None
        feedback = Feedback(verdict.outcome, rate, delivery.claimed_ms)
        gate.settle(self.gate, feedback, queue.name, delivery.claimed_ms, self.now_ms)
        self.confirmed |= verdict.outcome is Outcome.TAKEN
        self._flying -= 1

    def case(self, delivery: Delivery) -> Case:
        return Case(
            len(delivery.batch),
            delivery.queue.attempts,
            len(delivery.batch) if delivery.claimed_ms - delivery.queue.accepted_ms > MAX_AGE_MS else 0,
            delivery.claimed_ms,
            self.now_ms,
            delivery.queue.outlook,
            delivery.evidence,
            self.confirmed,
            delivery.others,
        )
