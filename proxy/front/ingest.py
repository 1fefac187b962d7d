"""A posted body to its answer: read it, find lane and queues, keep it, say what became of each event."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import structlog
from msgspec import UNSET
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from proxy.buffer import (
    Appended,
    Buffer,
    BufferFull,
    BufferUnavailable,
    Event,
    NeverFits,
    Portion,
    QuotaExceeded,
)
from proxy.clock import wall_ms
from proxy.front.entry import Entries
from proxy.lanes import Lane, QueueId, QueueOf, lane_id
from proxy.ledger import Rejected
from proxy.log import short_key
from proxy.metrics import REPAIRED, Metrics
from proxy.wire.answers import ClientAnswer, Code, accepted, refused
from proxy.wire.envelope import Envelope, Unusable, read_envelope
from proxy.wire.events import TOO_LARGE, Reading
from proxy.wire.fields import Flaw
from proxy.wire.limits import REQUEST_BYTES, PublicKey
from proxy.wire.request import body_bytes

HOLD_S = 5.0
"""How long a request is held while the buffer does not answer, before its client is told to come again."""

LARGE_BYTES = 64_000
"""Bodies from this size on are read, and inflated, on another thread: the worst of 10 MB take seconds, in
which the loop goes on; an ordinary one of this size takes a millisecond, ten times what the change costs."""

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


@dataclass(slots=True)
class _Sorted:
    """A request's events, sorted: what goes into which queue, and what is bad."""

    queues: dict[QueueId, list[Event]]
    bad: list[tuple[int, Flaw]]
    too_large: int = 0
    unknown: int = 0


@dataclass(frozen=True, slots=True)
class _Read:
    """A request that was read: what goes into the buffer, how many events that is, and what does not."""

    portions: Sequence[Portion]
    events: int
    bad: Sequence[tuple[int, Flaw]]
    repairs: Sequence[Flaw]


class Ingest:
    """Keeps what clients post. `take` may be called from many tasks at once."""

    def __init__(
        self, buffer: Buffer, metrics: Metrics, *, max_events: int, unknown: Literal["forward", "refuse"]
    ) -> None:
        self._buffer = buffer
        self._metrics = metrics
        self._max_events = max_events
        self._refuse_unknown = unknown == "refuse"
        self._log = structlog.get_logger("front")
        # One at a time, for they share the interpreter with the loop.
        self._reading = asyncio.Semaphore(1)

    async def take(self, key: PublicKey, body: bytes, sender: Sender) -> ClientAnswer:
        """Keep what can be kept of a request, and say so. On 2xx the buffer holds what it counts."""
        if len(body) < LARGE_BYTES:
            read = self._read(body, sender)
        else:
            async with self._reading:
                read = await asyncio.to_thread(self._read, body, sender)
        if isinstance(read, ClientAnswer):
            return read
        kept = 0
        if read.portions:
            outcome = await self._append(key, read.portions, read.events)
            if isinstance(outcome, ClientAnswer):
                return outcome
            kept = outcome.stored + outcome.duplicate
        return accepted(kept, read.bad, read.repairs)

    def _read(self, body: bytes, sender: Sender) -> _Read | ClientAnswer:
        envelope = read_envelope(body, self._max_events)
        if isinstance(envelope, Unusable):
            code, reason = _UNUSABLE[envelope.reason]
            self._metrics.received.inc(envelope.events)
            self._metrics.rejected[reason].inc(envelope.events)
            flaw = envelope.flaw
            message = f"{'.'.join(map(str, flaw.path))}: {flaw.message}" if flaw.path else flaw.message
            return refused(code, message, flaw.path)
        self._metrics.received.inc(len(envelope.events))
        received_ms = wall_ms()
        header = Lane(envelope.fields, sender.client_ip, sender.user_agent, sender.origin).header()
        lane = lane_id(header)
        events = self._sorted(envelope, QueueOf(envelope, lane), Entries(received_ms))
        self._count(envelope, events, received_ms)
        portions = [Portion(queue, lane, header, held) for queue, held in events.queues.items()]
        return _Read(portions, len(envelope.events) - len(events.bad), events.bad, envelope.repairs)

    def _sorted(self, envelope: Envelope, queue_of: QueueOf, entries: Entries) -> _Sorted:
        events = _Sorted({}, [])
        fixed_bytes = body_bytes(envelope.fields, 0, 1)
        for index, reading in enumerate(envelope.events):
            if isinstance(reading, Flaw):
                events.too_large += reading is TOO_LARGE
                events.bad.append((index, reading))
                continue
            if self._refuse_unknown and (reading.unknown_type or reading.unknown_fields):
                events.unknown += 1
                events.bad.append((index, _UNKNOWN_TYPE if reading.unknown_type else _UNKNOWN_FIELDS))
                continue
            queue = queue_of(reading)
            entry = entries.entry(queue, reading)
            if fixed_bytes + len(entry.text) > REQUEST_BYTES:
                events.too_large += 1
                events.bad.append((index, TOO_LARGE))
                continue
            events.queues.setdefault(queue, []).append(entry)
        return events

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
        except TimeoutError:
            self._metrics.rejected[Rejected.BUFFER_UNAVAILABLE].inc(events)
            self._log.warning("append failed", key=short_key(key), error=failure)
            return refused(Code.BUFFER_UNAVAILABLE, "the buffer does not answer: send it again later")
        self._metrics.append_seconds.observe(time.perf_counter() - started)
        self._metrics.accepted.inc(appended.stored)
        self._metrics.duplicate.inc(appended.duplicate)
        return appended

    async def _append_again(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        """Repeat it while the buffer is away, for ever. What was stored unseen is found as a duplicate."""
        attempts = AsyncRetrying(
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            retry=retry_if_exception_type(BufferUnavailable),
            before=lambda _state: self._metrics.buffer_retries.inc(),
            reraise=True,
        )
        return await attempts(self._buffer.append, key, portions)

    def _count(self, envelope: Envelope, events: _Sorted, received_ms: int) -> None:
        metrics = self._metrics
        metrics.rejected[Rejected.TOO_LARGE].inc(events.too_large)
        metrics.rejected[Rejected.UNKNOWN].inc(events.unknown)
        metrics.rejected[Rejected.INVALID].inc(len(events.bad) - events.too_large - events.unknown)
        for repair in envelope.repairs:
            metrics.repaired[str(repair.path[0]) if repair.path[0] in REPAIRED else "other"].inc()
        readings = [reading for reading in envelope.events if isinstance(reading, Reading)]
        metrics.unknown_fields.inc(
            envelope.unknown_fields + sum(reading.unknown_fields for reading in readings)
        )
        metrics.unknown_types.inc(sum(reading.unknown_type for reading in readings))
        timestamp = readings[-1].event.timestamp if readings else UNSET
        if isinstance(timestamp, int | float) and abs(timestamp) < _END_OF_TIME_MS:
            metrics.event_age.observe((received_ms - timestamp) / 1000)


_END_OF_TIME_MS = 253_402_300_800_000
"""The year 10000. A timestamp beyond is kept and tells no age: some integers do not even fit a float."""


_UNKNOWN_TYPE = Flaw(("type",), "unknown, and this proxy is set to refuse that")
_UNKNOWN_FIELDS = Flaw((), "has unknown fields, and this proxy is set to refuse that")
