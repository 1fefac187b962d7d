"""A posted body to its answer: read it, find lane and queues, keep it, say what became of each event."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import structlog
from msgspec import UNSET
from tenacity import AsyncRetrying, retry_if_exception, wait_random_exponential

from proxy.buffer import (
    Appended,
    Buffer,
    BufferBroken,
    BufferFull,
    BufferUnavailable,
    NeverFits,
    Portion,
    QuotaExceeded,
)
from proxy.clock import wall_ms
from proxy.front.portions import Sorted, sort
from proxy.front.samples import show_appended, show_bad, show_refused
from proxy.lanes import lane_header, lane_id
from proxy.ledger import Rejected
from proxy.log import short_key
from proxy.metrics import REPAIRED, Metrics
from proxy.tap import Taps
from proxy.wire.answers import ClientAnswer, Code, accepted, refused
from proxy.wire.columns import Columns
from proxy.wire.envelope import Envelope, Unusable, read_ordinary, read_tolerantly
from proxy.wire.events import Event, Reading
from proxy.wire.fields import Flaw
from proxy.wire.limits import REQUEST_BYTES, PublicKey

HOLD_S = 5.0
"""How long a request is held while the buffer does not answer, before its client is told to come again."""

LARGE_BYTES = 8_000
"""From this size on, what can cost far more than its size says is done on another thread: to inflate a body,
and to read one that is odd (20 ms for 4,000 things that are no events; 10 MB may take seconds)."""

ORDINARY_BYTES = 256_000
"""Up to this size a body is read on the loop as long as it proves ordinary: a server's batch of 900 events in
2 ms, the worst that could be made to pass for one in 17 ms. A thread would be no better: it takes turns with
the loop for the interpreter, which can cost 5 ms a turn."""

_UNUSABLE = {
    "malformed": (Code.MALFORMED_BODY, Rejected.ENVELOPE),
    "events": (Code.INVALID_EVENTS, Rejected.ENVELOPE),
    "visitor": (Code.INVALID_VISITOR, Rejected.ENVELOPE),
    "too_many": (Code.TOO_MANY_EVENTS, Rejected.TOO_MANY),
    "too_large": (Code.BODY_TOO_LARGE, Rejected.TOO_LARGE),
}


@dataclass(frozen=True, slots=True)
class Sender:
    """What a request's headers say that applies to each of its events, cleaned."""

    client_ip: str | None
    user_agent: str | None
    origin: str | None


class _Read(NamedTuple):
    """A request that was read: what goes into the buffer, how many events that is, and what does not."""

    portions: Sequence[Portion]
    events: int
    bad: Sequence[tuple[int, Flaw]]
    repairs: Sequence[Flaw]


class Ingest:
    """Keeps what clients post. `take` may be called from many tasks at once."""

    def __init__(
        self,
        buffer: Buffer,
        metrics: Metrics,
        *,
        max_events: int,
        unknown: Literal["forward", "refuse"],
        taps: Taps | None = None,
    ) -> None:
        self._buffer = buffer
        self._metrics = metrics
        self._taps = taps or Taps()
        self.go_by(max_events=max_events, unknown=unknown)
        self._log = structlog.get_logger("front")
        # One at a time of each, for they share the interpreter with the loop; and two, so that a large batch
        # does not wait behind what somebody made to be slow.
        self._reading_ordinary = asyncio.Semaphore(1)
        self._reading_odd = asyncio.Semaphore(1)

    def go_by(self, *, max_events: int, unknown: Literal["forward", "refuse"]) -> None:
        """Go by these from the next request on."""
        self._max_events = max_events
        self._refuse_unknown = unknown == "refuse"

    async def take(self, key: PublicKey, body: bytes, sender: Sender) -> ClientAnswer:
        """Keep what can be kept of a request, and say so. On 2xx the buffer holds what it counts."""
        read = await self._read(body, sender)
        if isinstance(read, ClientAnswer):
            if self._taps.open:
                show_refused(self._taps, key, read, ())
            return read
        if read.bad and self._taps.open:
            show_bad(self._taps, key, read.bad)
        kept = 0
        if read.portions:
            outcome = await self._append(key, read.portions, read.events)
            if self._taps.open:
                show_appended(self._taps, key, read.portions, outcome)
            if isinstance(outcome, ClientAnswer):
                return outcome
            kept = outcome.stored + outcome.duplicate
        return accepted(kept, read.bad, read.repairs)

    async def _read(self, body: bytes, sender: Sender) -> _Read | ClientAnswer:
        """Read it where it does not hold up others; see `LARGE_BYTES` and `ORDINARY_BYTES`."""
        read = None
        if len(body) <= ORDINARY_BYTES:
            read = self._read_ordinary(body, sender)
        elif len(body) <= REQUEST_BYTES:
            async with self._reading_ordinary:
                read = await asyncio.to_thread(self._read_ordinary, body, sender)
        if read is not None:
            return read
        if len(body) < LARGE_BYTES:
            return self._read_odd(body, sender)
        async with self._reading_odd:
            return await asyncio.to_thread(self._read_odd, body, sender)

    def _read_ordinary(self, body: bytes, sender: Sender) -> _Read | ClientAnswer | None:
        envelope = read_ordinary(body, self._max_events)
        return None if envelope is None else self._sorted(envelope, sender)

    def _read_odd(self, body: bytes, sender: Sender) -> _Read | ClientAnswer:
        return self._sorted(read_tolerantly(body, self._max_events), sender)

    def _sorted(self, envelope: Envelope | Unusable, sender: Sender) -> _Read | ClientAnswer:
        if isinstance(envelope, Unusable):
            code, reason = _UNUSABLE[envelope.reason]
            self._metrics.received.inc(envelope.events)
            self._metrics.rejected[reason].inc(envelope.events)
            flaw = envelope.flaw
            message = f"{'.'.join(map(str, flaw.path))}: {flaw.message}" if flaw.path else flaw.message
            return refused(code, message, flaw.path)
        received_ms = wall_ms()
        header = lane_header(envelope.fields, sender.client_ip, sender.user_agent, sender.origin)
        events = sort(envelope, lane_id(header), header, received_ms, refuse_unknown=self._refuse_unknown)
        self._count(envelope, events, received_ms)
        return _Read(events.portions, len(envelope.events) - len(events.bad), events.bad, envelope.repairs)

    async def _append(
        self, key: PublicKey, portions: Sequence[Portion], events: int
    ) -> Appended | ClientAnswer:
        """Append within `HOLD_S`, or refuse. What is stored later is found as a duplicate by a retry."""
        started = time.perf_counter()
        failure = "no answer"
        try:
            async with asyncio.timeout(HOLD_S):
                try:
                    appended = await self._buffer.append(key, portions)
                except BufferBroken:
                    raise
                except BufferUnavailable as error:
                    failure = str(error)
                    appended = await self._append_again(key, portions)
        except QuotaExceeded as error:
            self._metrics.rejected[Rejected.QUOTA].inc(events)
            return refused(Code.QUOTA_EXCEEDED, str(error))
        except NeverFits as error:
            self._metrics.rejected[Rejected.TOO_LARGE].inc(events)
            return refused(Code.BODY_TOO_LARGE, f"the request is {error}")
        except BufferFull as error:
            self._metrics.rejected[Rejected.BUFFER_FULL].inc(events)
            return refused(Code.BUFFER_FULL, f"{error}; nothing was kept: send it again later")
        except (TimeoutError, BufferBroken) as error:
            self._metrics.rejected[Rejected.BUFFER_UNAVAILABLE].inc(events)
            if not isinstance(error, BufferBroken):  # of which the process dies, and says so once
                self._log.warning("append failed", key=short_key(key), error=failure)
            return refused(Code.BUFFER_UNAVAILABLE, "the buffer does not answer: send it again later")
        self._metrics.append_seconds.observe(time.perf_counter() - started)
        self._metrics.accepted.inc(appended.stored)
        if appended.stored:
            self._metrics.last_accepted.set_to_current_time()
        if appended.duplicate:
            self._metrics.duplicate.inc(appended.duplicate)
        return appended

    async def _append_again(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        """Repeat it while the buffer is away, for ever. What was stored unseen is found as a duplicate."""
        attempts = AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            retry=retry_if_exception(
                lambda error: isinstance(error, BufferUnavailable) and not isinstance(error, BufferBroken)
            ),
            before=lambda _state: self._metrics.buffer_retries.inc(),
            reraise=True,
        )
        return await attempts(self._buffer.append, key, portions)

    def _count(self, envelope: Envelope, events: Sorted, received_ms: int) -> None:
        metrics = self._metrics
        metrics.received.inc(len(envelope.events))
        if events.bad:
            metrics.rejected[Rejected.TOO_LARGE].inc(events.too_large)
            metrics.rejected[Rejected.UNKNOWN].inc(events.unknown)
            metrics.rejected[Rejected.INVALID].inc(len(events.bad) - events.too_large - events.unknown)
        for repair in envelope.repairs:
            metrics.repaired[str(repair.path[0]) if repair.path[0] in REPAIRED else "other"].inc()
        if isinstance(envelope.events, Columns):  # in which nothing is unknown
            last: Event | None = envelope.events.events[-1]
        else:
            readings = [reading for reading in envelope.events if isinstance(reading, Reading)]
            metrics.unknown_fields.inc(
                envelope.unknown_fields + sum(reading.unknown_fields for reading in readings)
            )
            metrics.unknown_types.inc(sum(reading.unknown_type for reading in readings))
            last = readings[-1].event if readings else None
        timestamp = last.timestamp if last is not None else UNSET
        if isinstance(timestamp, int | float) and abs(timestamp) < _END_OF_TIME_MS:
            metrics.event_age.observe((received_ms - timestamp) / 1000)


_END_OF_TIME_MS = 253_402_300_800_000
"""The year 10000. A timestamp beyond is kept and tells no age: some integers do not even fit a float."""
