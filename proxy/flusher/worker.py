"""The flusher: for each public key one driver that claims, and for each lease one delivery.

A delivery is: read, post, settle. It holds nothing that the buffer does not hold too: whatever ends it (a
crash, a cancellation, a lost answer of the buffer's) leaves a lease that ends by itself, after which the
same events are given out again under the same uuids.

A lease is trusted from before the claim was sent, and for as long as is needed to post and settle. So a
worker that was paused in between never posts beside the next holder of its queue.
"""

import asyncio
import os
import random
from dataclasses import dataclass
from itertools import takewhile
from math import ceil, inf

from proxy.buffer import Buffer, BufferUnavailable, Idle, Lease, Settled, Settlement, Spent
from proxy.flusher import asking
from proxy.flusher.alarm import Alarm
from proxy.flusher.asking import Asking
from proxy.flusher.batch import Batch, LaneFault, batch_of
from proxy.flusher.prospects import Prospects
from proxy.flusher.reports import Reports
from proxy.flusher.slots import Slots
from proxy.flusher.values import Case, Verdict
from proxy.flusher.verdict import judge
from proxy.gate import Feedback
from proxy.ledger import Answered
from proxy.log import short_key
from proxy.metrics import Metrics
from proxy.settings import SETTLE_S
from proxy.tap import Taps
from proxy.upstream import Upstream
from proxy.wire.answers import Answer, NoAnswer
from proxy.wire.limits import REQUEST_BYTES, PublicKey

_LANE_FAULT_WAIT_S = 3600.0
"""A queue whose head fails the lane check waits this long: it needs a person."""

_DRAIN_LOOK_S = 0.1


@dataclass(frozen=True, slots=True)
class _Granted:
    """A lease, and the event loop's times when it was asked for and when it came.

    `lease_s`: how long it lasts, at least.
    """

    lease: Lease
    asked_at: float
    came_at: float
    lease_s: float

    def at_least_ms(self, at: float) -> float:
        """The loop's time `at` on the store's clock, too early at most by the claim's way back."""
        return self.lease.claimed_ms + 1000 * (at - self.came_at)

    def at_most_ms(self, at: float) -> float:
        """The same, too late at most by the claim's way there."""
        return self.lease.claimed_ms + 1000 * (at - self.asked_at)


class Flusher:
    """Delivers what is due until it is told to `stop`. `run` ends when all in flight is settled.

    `in_flight` deliveries at once, whose leases last `lease_s` and whose POSTs `timeout_s`. What is older
    than `max_age_s` and cannot be delivered is given up.
    """

    def __init__(
        self,
        buffer: Buffer,
        upstream: Upstream,
        metrics: Metrics,
        *,
        in_flight: int,
        timeout_s: float,
        lease_s: float,
        max_age_s: float,
        taps: Taps | None = None,
    ) -> None:
        self._buffer = buffer
        self._upstream = upstream
        self._metrics = metrics
        self._slots = Slots(in_flight)
        self.prospects = Prospects()
        self.go_by(in_flight=in_flight, timeout_s=timeout_s, lease_s=lease_s, max_age_s=max_age_s)
        self._reports = Reports(metrics, taps or Taps())
        self._asking = Asking(metrics)
        self._alarms: dict[PublicKey, Alarm] = {}  # of the keys that have a driver
        self._draining = False
        self._stopping = asyncio.Event()

    def go_by(self, *, in_flight: int, timeout_s: float, lease_s: float, max_age_s: float) -> None:
        """Go by these from now on; what is in flight ends by those under which it began.

        To be called with the buffer's `set_terms`, in the same step: both must go by one length of a lease.
        """
        self._slots.resize(in_flight)
        self._timeout_s = timeout_s
        self._lease_s = lease_s
        self._max_age_ms = 1000 * max_age_s

    async def run(self) -> None:
        """Deliver until stopped. Raises what a delivery did not expect: the process must end then."""
        async with asyncio.TaskGroup() as self._tasks:
            self._buffer.on_append(self._wake_for_append)
            for key in await self._asking.until_answered(self._buffer.keys_with_work):
                self._wake(key, 0.0)
            await self._stopping.wait()
            for alarm in self._alarms.values():
                alarm.ring_in(0.0)

    def stop(self) -> None:
        """Claim nothing more; what is in flight is finished."""
        self._stopping.set()

    def linger(self, *, lingers: bool) -> None:
        """Whether events wait for company. Where not, all that is held leaves as fast as the gates allow.

        Pauses and back-offs are respected all the same.
        """
        self._draining = not lingers
        if self._draining:
            for key in self._alarms:
                self._wake(key, 0.0)

    async def drain(self, until: float = inf) -> None:
        """Return when nothing is held any more, or nothing of it can leave before `until` (the loop's time).

        From now on nothing lingers.
        """
        self.linger(lingers=False)
        while await self._may_empty(until):  # noqa: ASYNC110  # others may empty a shared buffer, too
            await asyncio.sleep(_DRAIN_LOOK_S)

    async def _may_empty(self, until: float) -> bool:
        figures = await self._asking.until_answered(self._buffer.figures)
        left_s = until - asyncio.get_running_loop().time()
        if left_s <= 0:
            return False
        may_send = [key for key, of in figures.items() if self.prospects.may_send(key, of, left_s)]
        for key in may_send:
            if key not in self._alarms:  # another process took it in
                self._wake(key, 0.0)
        return bool(may_send) or any(self._slots.holds(key) for key, of in figures.items() if of.books.held)

    # -- a key -----------------------------------------------------------------------------------------

    def _wake_for_append(self, key: PublicKey, in_s: float) -> None:
        self._wake(key, 0.0 if self._draining else in_s)

    def _wake(self, key: PublicKey, in_s: float) -> None:
        self.prospects.something_in(key, in_s)
        alarm = self._alarms.get(key)
        if alarm is not None:
            alarm.ring_in(in_s)
        elif not self._stopping.is_set():
            self._alarms[key] = Alarm()
            self._tasks.create_task(self._drive(key), name=f"drive {short_key(key)}")

    async def _drive(self, key: PublicKey) -> None:
        """Claim what is due of one key, in turn, until it is empty."""
        loop, alarm = asyncio.get_running_loop(), self._alarms[key]
        while await self._may_claim(key):
            alarm.set()
            asked_at, lease_s = loop.time(), self._lease_s
            claimed = await self._claim(key)
            if isinstance(claimed, Lease):
                # A reload may have changed it meanwhile, before or after the claim.
                granted = _Granted(claimed, asked_at, loop.time(), min(lease_s, self._lease_s))
                self._tasks.create_task(self._deliver(granted), name=f"deliver {short_key(key)}")
                continue
            self._slots.release(key)
            if claimed.stalled:
                self._reports.stalled(key)
                continue
            if claimed.empty and alarm.is_quiet:
                break
            if alarm.is_quiet and not claimed.empty:
                self.prospects.nothing_for(key, claimed.wait_s)
            await alarm.sleep(claimed.wait_s)
        del self._alarms[key]

    async def _may_claim(self, key: PublicKey) -> bool:
        """Wait for a slot, which the caller then has, while no settle is owed; False once stopping."""
        while not self._stopping.is_set():
            await self._slots.acquire(key)
            if not self._asking.owes and not self._stopping.is_set():
                return True
            self._slots.release(key)
            await self._asking.until_nothing_is_owed()
        return False

    async def _claim(self, key: PublicKey) -> Lease | Idle:
        token = os.urandom(12)
        try:
            return await self._asking.once(lambda: self._buffer.claim(key, token, early=self._draining))
        except BufferUnavailable:
            return Idle(asking.RETRY_S)

    # -- a lease ---------------------------------------------------------------------------------------

    async def _deliver(self, granted: _Granted) -> None:
        loop, lease = asyncio.get_running_loop(), granted.lease
        self._reports.leased(lease)
        with self._metrics.in_flight.track_inprogress():
            try:
                batch = await self._read(lease)
                if batch is None:
                    return
                sent_at = loop.time()
                if sent_at - granted.asked_at > granted.lease_s - self._timeout_s - SETTLE_S:
                    await self._end(lease, Settlement(0))
                    return
                with self.prospects.on_their_way(lease.key, batch.events):
                    answer = await self._post(lease, batch)
                    verdict = judge(answer, self._case(granted, batch), random.uniform(-1, 1))  # jitter
                    feedback = _feedback(answer, batch, verdict, granted.at_least_ms(sent_at))
                    await self._settle(lease, batch, verdict, feedback)
            finally:
                self._slots.release(lease.key)

    async def _read(self, lease: Lease) -> Batch | None:
        max_events = lease.outlook.max_events
        head = await self._asking.until_answered(lambda: self._buffer.read(lease, max_events, REQUEST_BYTES))
        if isinstance(head, Spent):
            self._metrics.settle_spent.inc()
            return None
        try:
            return batch_of(head, max_events, draining=self._draining)
        except LaneFault:
            self._reports.not_of_one_lane(lease)
            await self._end(lease, Settlement(0, wait_s=_LANE_FAULT_WAIT_S))
            return None

    async def _post(self, lease: Lease, batch: Batch) -> Answer | NoAnswer:
        with self._metrics.upstream_seconds.time():
            answer = await self._upstream.post(lease.key, batch.lane, batch.body)
        self._reports.posted(lease, batch, answer)
        return answer

    def _case(self, granted: _Granted, batch: Batch) -> Case:
        lease = granted.lease
        oldest_ms = lease.claimed_ms - self._max_age_ms
        aged = sum(1 for _ in takewhile(lambda accepted_ms: accepted_ms < oldest_ms, batch.accepted_ms))
        return Case(
            batch.events,
            lease.attempts,
            aged,
            lease.claimed_ms,
            # Too late rather than too early: only what was claimed after it is a proof.
            ceil(granted.at_most_ms(asyncio.get_running_loop().time())),
            lease.outlook,
            lease.evidence,
            lease.confirmed,
            lease.others,
        )

    async def _settle(self, lease: Lease, batch: Batch, verdict: Verdict, feedback: Feedback) -> None:
        self._reports.judged(lease, verdict)
        settlement = Settlement(
            batch.events,
            verdict.dead,
            verdict.again,
            verdict.wait_s,
            verdict.failed,
            verdict.outlook,
            feedback,
            verdict.answered,
            # What a lease held that ended by itself may have been taken before: its worker died, or was late.
            ambiguous=verdict.ambiguous or lease.unsettled > 0,
        )
        outcome = await self._end(lease, settlement)
        self._reports.settled(settlement, outcome)
        if not isinstance(outcome, Spent):
            self._reports.sampled(lease, batch, verdict)

    async def _end(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        """Settle, however long it takes, and have the driver look when the queue is due again."""
        async with self._asking.settling():
            outcome = await self._asking.until_answered(lambda: self._buffer.settle(lease, settlement))
        if isinstance(outcome, Spent):
            self._metrics.settle_spent.inc()
        elif outcome.due_s is not None:
            lingers = settlement.wait_s is None
            self._wake(lease.key, 0.0 if self._draining and lingers else outcome.due_s)
        return outcome


def _feedback(answer: Answer | NoAnswer, batch: Batch, verdict: Verdict, sent_ms: float) -> Feedback:
    return Feedback(
        verdict.outcome,
        answer.rate if isinstance(answer, Answer) else None,
        sent_ms,
        batch.lane.origin,
        given_up=verdict.answered is Answered.KEY_REFUSED and bool(verdict.dead),
    )
