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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from proxy.buffer import Buffer, BufferUnavailable, Idle, Lease, Settled, Settlement, Spent
from proxy.flusher.alarm import Alarm
from proxy.flusher.batch import Batch, LaneFault, batch_of
from proxy.flusher.slots import Slots
from proxy.flusher.verdict import Verdict, judge
from proxy.ledger import Dropped
from proxy.log import short_key
from proxy.metrics import Metrics
from proxy.settings import SETTLE_S
from proxy.upstream import Upstream
from proxy.wire.answers import Answer, NoAnswer
from proxy.wire.limits import REQUEST_BYTES, PublicKey

_T = TypeVar("_T")

_RETRY_S = 0.25
"""Between two tries of an operation that the buffer did not answer."""

_LANE_FAULT_WAIT_S = 3600.0
"""A queue whose head fails the lane check waits this long: it needs a person."""

_DRAIN_LOOK_S = 0.1


class Flusher:
    """Delivers what is due until it is told to `stop`. `run` ends when all in flight is settled."""

    def __init__(
        self,
        buffer: Buffer,
        upstream: Upstream,
        metrics: Metrics,
        *,
        in_flight: int,
        timeout_s: float,
        lease_s: float,
    ) -> None:
        self._buffer = buffer
        self._upstream = upstream
        self._metrics = metrics
        self._patience_s = lease_s - timeout_s - SETTLE_S  # from claim to POST
        self._log = structlog.get_logger("flusher")
        self._slots = Slots(in_flight)
        self._alarms: dict[PublicKey, Alarm] = {}  # of the keys that have a driver
        self._stopping = asyncio.Event()
        self._settled = asyncio.Event()  # cleared while the buffer owes the answer to a settle
        self._settled.set()
        self._owed = 0
        self._upstream_well = self._buffer_well = True

    async def run(self) -> None:
        """Deliver until stopped. Raises what a delivery did not expect: the process must end then."""
        async with asyncio.TaskGroup() as self._tasks:
            self._buffer.on_append(self._wake)
            for key in await self._retried(self._buffer.keys_with_work):
                self._wake(key, 0.0)
            await self._stopping.wait()
            for alarm in self._alarms.values():
                alarm.ring_in(0.0)

    def stop(self) -> None:
        """Claim nothing more; what is in flight is finished."""
        self._stopping.set()

    async def drain(self) -> None:
        """Return when nothing is held any more: for a stop that leaves nothing behind."""
        # Other processes may empty a shared buffer too, so there is no event to wait for.
        while any(of.books.held for of in (await self._retried(self._buffer.figures)).values()):  # noqa: ASYNC110
            await asyncio.sleep(_DRAIN_LOOK_S)

    # -- a key -----------------------------------------------------------------------------------------

    def _wake(self, key: PublicKey, in_s: float) -> None:
        alarm = self._alarms.get(key)
        if alarm is not None:
            alarm.ring_in(in_s)
        elif not self._stopping.is_set():
            self._alarms[key] = Alarm()
            self._tasks.create_task(self._drive(key), name=f"drive {short_key(key)}")

    async def _drive(self, key: PublicKey) -> None:
        """Claim what is due of one key, in turn, until it is empty."""
        alarm = self._alarms[key]
        while await self._may_claim(key):
            alarm.set()
            asked_at = asyncio.get_running_loop().time()
            claimed = await self._claim(key)
            if isinstance(claimed, Lease):
                self._tasks.create_task(self._deliver(claimed, asked_at), name=f"deliver {short_key(key)}")
                continue
            self._slots.release(key)
            if claimed.empty and alarm.is_quiet:
                break
            await alarm.sleep(claimed.wait_s)
        del self._alarms[key]

    async def _may_claim(self, key: PublicKey) -> bool:
        """Wait for a slot, which the caller then has, while no settle is owed; False once stopping."""
        while not self._stopping.is_set():
            await self._slots.acquire(key)
            if self._settled.is_set() and not self._stopping.is_set():
                return True
            self._slots.release(key)
            await self._settled.wait()
        return False

    async def _claim(self, key: PublicKey) -> Lease | Idle:
        try:
            return await self._asked(lambda: self._buffer.claim(key, os.urandom(12)))
        except BufferUnavailable:
            return Idle(_RETRY_S)

    # -- a lease ---------------------------------------------------------------------------------------

    async def _deliver(self, lease: Lease, asked_at: float) -> None:
        with self._metrics.in_flight.track_inprogress():
            try:
                batch = await self._read(lease)
                if batch is None:
                    return
                if asyncio.get_running_loop().time() - asked_at > self._patience_s:
                    await self._end(lease, Settlement(0))
                    return
                answer = await self._post(lease, batch)
                verdict = judge(answer, batch.events, lease.attempts, random.uniform(-1, 1))  # jitter
                await self._settle(lease, batch, verdict)
            finally:
                self._slots.release(lease.key)

    async def _read(self, lease: Lease) -> Batch | None:
        head = await self._retried(lambda: self._buffer.read(lease, lease.max_events, REQUEST_BYTES))
        if isinstance(head, Spent):
            self._metrics.settle_spent.inc()
            return None
        try:
            return batch_of(head, lease.max_events)
        except LaneFault:
            self._metrics.lane_faults.inc()
            self._log.error("an event is not of its batch's lane; not sent", key=short_key(lease.key))
            await self._end(lease, Settlement(0, wait_s=_LANE_FAULT_WAIT_S))
            return None

    async def _post(self, lease: Lease, batch: Batch) -> Answer | NoAnswer:
        with self._metrics.upstream_seconds.time():
            answer = await self._upstream.post(lease.key, batch.lane, batch.body)
        self._note_health(answer)
        self._metrics.batch_events.observe(batch.events)
        if batch.underfull is not None:
            self._metrics.underfull[batch.underfull].inc()
        if isinstance(answer, Answer):
            self._metrics.rate_headers_malformed.inc(answer.rate.malformed)
            if answer.rate.remaining is not None:
                label = self._metrics.key_label(lease.key, succeeded=200 <= answer.status < 300)
                self._metrics.rate_limit_remaining.labels(label).set(answer.rate.remaining)
        return answer

    async def _settle(self, lease: Lease, batch: Batch, verdict: Verdict) -> None:
        self._count(lease, verdict)
        settlement = Settlement(
            batch.events,
            verdict.dead,
            verdict.again,
            verdict.wait_s,
            verdict.failed,
            verdict.feedback,
            verdict.answered,
            # What a lease held that ended by itself may have been taken before: its worker died, or was late.
            ambiguous=verdict.ambiguous or lease.unsettled,
        )
        outcome = await self._end(lease, settlement)
        if isinstance(outcome, Spent):
            # The lease ended first: its next holder sends the batch again and, if it can know, counts that.
            self._metrics.ambiguous.inc(outcome.ambiguous)
            return
        self._metrics.ambiguous.inc(settlement.ambiguous)
        self._metrics.delivered.inc(settlement.delivered)
        for death in verdict.dead.values():
            self._metrics.dead[death.reason].inc()
        self._metrics.dropped[Dropped.DEAD_EVICTED].inc(outcome.dropped)

    async def _end(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        """Settle, however long it takes, and have the driver look when the queue is due again.

        Until then nothing new is claimed: a buffer that cannot settle would give the same batch out again.
        """
        async with self._owing():
            outcome = await self._retried(lambda: self._buffer.settle(lease, settlement))
        if isinstance(outcome, Spent):
            self._metrics.settle_spent.inc()
        elif outcome.due_s is not None:
            self._wake(lease.key, outcome.due_s)
        return outcome

    def _count(self, lease: Lease, verdict: Verdict) -> None:
        self._metrics.upstream_requests[verdict.answered].inc()
        self._metrics.inconsistent.inc(verdict.inconsistent)
        if verdict.dead:
            self._log.warning(
                "events refused by upstream: dead letters",
                key=short_key(lease.key),
                events=len(verdict.dead),
            )

    def _note_health(self, answer: Answer | NoAnswer) -> None:
        """Say when upstream begins and ceases to fail; between the two the counters say how often."""
        well = isinstance(answer, Answer) and answer.status < 500  # server errors begin there
        if well != self._upstream_well:
            self._upstream_well = well
            if well:
                self._log.info("upstream answers again")
            else:
                what = answer.error if isinstance(answer, NoAnswer) else f"status {answer.status}"
                self._log.warning("upstream fails; events are held and tried again", error=what)

    # -- the buffer's answers --------------------------------------------------------------------------

    @asynccontextmanager
    async def _owing(self) -> AsyncIterator[None]:
        self._owed += 1
        try:
            yield
        finally:
            self._owed -= 1
            if not self._owed:
                self._settled.set()

    async def _retried(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask the buffer until it answers. All that is asked so may be asked again."""
        while True:
            try:
                return await self._asked(ask)
            except BufferUnavailable:
                if self._owed:
                    self._settled.clear()
                await asyncio.sleep(_RETRY_S)

    async def _asked(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask the buffer once, and say when it begins and ceases to fail; the counter says how often."""
        try:
            answer = await ask()
        except BufferUnavailable as error:
            self._metrics.buffer_retries.inc()
            if self._buffer_well:
                self._log.warning("the buffer does not answer; it is asked again", error=str(error))
            self._buffer_well = False
            raise
        if not self._buffer_well:
            self._log.info("the buffer answers again")
        self._buffer_well = True
        return answer
