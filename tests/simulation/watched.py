"""The buffer, watched from close by: what no client can see, and what every engine owes its workers.

That no queue has two leases at a time, that a spent token settles nothing, when rate tokens are taken, and
which events are settled for good. A verb was done at some moment between its being asked and its answer.
"""

import json
from collections.abc import Callable
from contextvars import ContextVar

from proxy.buffer import Buffer, BufferFault, Head, Idle, Lease, Settled, Settlement, Spent
from proxy.gate import Outcome
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey
from tests.around import BufferAround
from tests.simulation.evidence import Broken, Claim, Evidence, Met, Pause, named

present_claim: ContextVar[Claim] = ContextVar("present_claim")
"""Of the lease that a delivery's task holds; from its read on."""


class Leases:
    """The leases that are out, over all lives of the proxy."""

    def __init__(self) -> None:
        self._out: dict[tuple[PublicKey, QueueId], tuple[bytes, int]] = {}

    def clock_was_set(self, now_ms: int, lease_ms: int) -> None:
        """A process starts with a clock of its own: none of them ends further ahead than a lease lasts."""
        for queue, (token, ends_ms) in self._out.items():
            self._out[queue] = token, min(ends_ms, now_ms + lease_ms)

    def given(self, lease: Lease, now_ms: int, ends_ms: int) -> None:
        """Raises Broken where the queue is still leased. `ends_ms`: not before."""
        other = self._out.get((lease.key, lease.queue))
        if other is not None and now_ms < other[1]:
            raise Broken(
                f"two workers on one queue: {named(lease.queue)} of {lease.key} was leased"
                f" {other[1] - now_ms} ms before its last lease ended"
            )
        self._out[lease.key, lease.queue] = (lease.token, ends_ms)

    def ended(self, lease: Lease) -> None:
        """Raises Broken where the queue was another's by then."""
        if self._out.pop((lease.key, lease.queue), (b"", 0))[0] != lease.token:
            raise Broken(f"fencing: a spent token settled queue {named(lease.queue)} of {lease.key}")

    def forget(self, lease: Lease) -> None:
        """It may have ended unseen, and another may be given at any time."""
        if self._out.get((lease.key, lease.queue), (b"", 0))[0] == lease.token:
            del self._out[lease.key, lease.queue]


class WatchedBuffer(BufferAround):
    """One process's buffer.

    `now_ms`: the store's clock; `clock` numbers the times that it was set. `leases` None: they are watched
    where they are given, for the process does not know what became of those of which it heard nothing.
    """

    def __init__(
        self,
        inner: Buffer,
        evidence: Evidence,
        now_ms: Callable[[], int],
        clock: Callable[[], int],
        leases: Leases | None,
        lease_s: float,
    ) -> None:
        super().__init__(inner)
        self._evidence = evidence
        self._leases = leases
        self._now_ms = now_ms
        self._clock = clock
        self._lease_ms = int(lease_s * 1000)
        self._claims: dict[bytes, Claim] = {}  # by their tokens
        self._marks: dict[bytes, list[str]] = {}  # of a lease's head, by its token
        self._asked_ms: dict[bytes, int] = {}  # when a lease's settle was asked for first, by its token

    async def claim(self, key: PublicKey, token: bytes, *, early: bool = False) -> Lease | Idle:
        clock, asked_ms, asked_s = self._clock(), self._now_ms(), self._evidence.world.now_s
        claimed = await self.inner.claim(key, token, early=early)
        if isinstance(claimed, Lease):
            now_ms, now_s = self._now_ms(), self._evidence.world.now_s
            if self._leases is not None:
                self._leases.given(claimed, now_ms, asked_ms + self._lease_ms)
            claim = Claim(key, clock, claimed.others, asked_ms, now_ms, asked_s, now_s)
            self._claims[token] = claim
            if clock == self._clock():  # or the two moments are of different clocks
                self._evidence.claims.append(claim)
            self._evidence.met[Met.UNSETTLED] += claimed.expired > 0
            self._evidence.met[Met.SEARCH] += _is_search(claimed)
        return claimed

    async def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        present_claim.set(self._claims[lease.token])
        head = await self.inner.read(lease, max_events, max_bytes)
        if isinstance(head, Head):
            self._marks[lease.token] = [json.loads(text)["path"] for text in head.texts]
        else:
            self._evidence.met[Met.SPENT] += 1
        return head

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        asked_ms, clock = self._asked_ms.setdefault(lease.token, self._now_ms()), self._clock()
        asked_s = self._evidence.world.now_s
        try:
            outcome = await self.inner.settle(lease, settlement)
        except BufferFault:
            raise
        except BaseException:  # the process dies, or gives up
            if self._leases is not None:
                self._leases.forget(lease)
            raise
        if isinstance(outcome, Settled):
            if self._leases is not None:
                self._leases.ended(lease)
            if lease.token in self._marks:  # not where it was settled before, and is told once more
                self._note_done(lease, settlement)
                self._note_pause(lease.key, settlement, asked_ms, asked_s, clock)
            self._evidence.met[Met.AMBIGUOUS] += settlement.ambiguous
        else:
            self._evidence.met[Met.SPENT] += 1
        return outcome

    def _note_done(self, lease: Lease, settlement: Settlement) -> None:
        marks = self._marks.pop(lease.token, [])
        for at, mark in enumerate(marks[: settlement.taken]):
            if at not in settlement.again:
                self._evidence.settled_at.setdefault(mark, self._evidence.world.steps)
        self._evidence.settled.set()

    def _note_pause(
        self, key: PublicKey, settlement: Settlement, asked_ms: int, asked_s: float, clock: int
    ) -> None:
        said = settlement.feedback
        if said.outcome is Outcome.RATE_LIMITED and said.headers is not None and said.headers.retry_after_s:
            wait_ms = int(said.headers.retry_after_s * 1000)
            pause = Pause(key, clock, asked_ms, self._now_ms(), wait_ms, asked_s)
            self._evidence.pauses.append(pause)


def _is_search(lease: Lease) -> bool:
    trouble = lease.outlook.trouble
    return trouble is not None and trouble.suspects > 0
