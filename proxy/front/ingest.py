"""A posted body to its answer: read it, find lane and queues, keep it, say what became of each event."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import structlog
from msgspec import UNSET
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from proxy.buffer import (
    Appended,
    Buffer,
    BufferFull,
    BufferUnavailable,
    Event,
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
from proxy.wire.events import Reading
from proxy.wire.fields import Flaw
from proxy.wire.limits import REQUEST_BYTES, PublicKey
from proxy.wire.request import body_bytes

HOLD_S = 5.0
"""How long a request is held while the buffer does not answer, before its client is told to come again."""

_CODES = {"malformed": Code.MALFORMED_BODY, "events": Code.INVALID_EVENTS, "visitor": Code.INVALID_VISITOR}


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

    async def take(self, key: PublicKey, body: bytes, sender: Sender) -> ClientAnswer:
        """Keep what can be kept of a request, and say so. On 2xx the buffer holds what it counts."""
        envelope = read_envelope(body)
        if isinstance(envelope, Unusable):
            self._metrics.received.inc(envelope.events)
            self._metrics.rejected[Rejected.ENVELOPE].inc(envelope.events)
            flaw = envelope.flaw
            message = f"{'.'.join(map(str, flaw.path))}: {flaw.message}" if flaw.path else flaw.message
            return refused(_CODES[envelope.reason], message, flaw.path)
        posted = len(envelope.events)
        self._metrics.received.inc(posted)
        if posted > self._max_events:
            self._metrics.rejected[Rejected.TOO_MANY].inc(posted)
            return refused(
                Code.TOO_MANY_EVENTS, f"{posted} events; at most {self._max_events} in a request", ("events",)
            )
        received_ms = wall_ms()
        header = Lane(envelope.fields, sender.client_ip, sender.user_agent, sender.origin).header()
        lane = lane_id(header)
        events = self._sorted(envelope, QueueOf(envelope, lane), Entries(received_ms))
        self._count(envelope, events, received_ms)
        kept = 0
        if events.queues:
            portions = [Portion(queue, lane, header, held) for queue, held in events.queues.items()]
            outcome = await self._append(key, portions, posted - len(events.bad))
            if isinstance(outcome, ClientAnswer):
                return outcome
            kept = outcome.stored + outcome.duplicate
        return accepted(kept, events.bad, envelope.repairs)

    def _sorted(self, envelope: Envelope, queue_of: QueueOf, entries: Entries) -> _Sorted:
        events = _Sorted({}, [])
        fixed_bytes = body_bytes(envelope.fields, 0, 1)
        for index, reading in enumerate(envelope.events):
            if isinstance(reading, Flaw):
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
                events.bad.append((index, _TOO_LARGE))
                continue
            events.queues.setdefault(queue, []).append(entry)
        return events

    async def _append(
        self, key: PublicKey, portions: Sequence[Portion], events: int
    ) -> Appended | ClientAnswer:
        started = time.perf_counter()
        try:
            try:
                appended = await self._buffer.append(key, portions)
            except BufferUnavailable:
                appended = await self._append_again(key, portions)
        except QuotaExceeded as error:
            self._metrics.rejected[Rejected.QUOTA].inc(events)
            return refused(Code.QUOTA_EXCEEDED, str(error))
        except BufferFull as error:
            self._metrics.rejected[Rejected.BUFFER_FULL].inc(events)
            return refused(Code.BUFFER_FULL, f"{error}; nothing was kept: send it again later")
        except BufferUnavailable as error:
            self._metrics.rejected[Rejected.BUFFER_UNAVAILABLE].inc(events)
            self._log.warning("append failed", key=short_key(key), error=str(error))
            return refused(Code.BUFFER_UNAVAILABLE, "the buffer does not answer: send it again later")
        self._metrics.append_seconds.observe(time.perf_counter() - started)
        self._metrics.accepted.inc(appended.stored)
        self._metrics.duplicate.inc(appended.duplicate)
        return appended

    async def _append_again(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        """Hold the request while the buffer is away. What was stored unseen is found as a duplicate."""
        attempts = AsyncRetrying(
            stop=stop_after_delay(HOLD_S),
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


_TOO_LARGE = Flaw((), f"with its envelope larger than one upstream request can be ({REQUEST_BYTES} bytes)")
_UNKNOWN_TYPE = Flaw(("type",), "unknown, and this proxy is set to refuse that")
_UNKNOWN_FIELDS = Flaw((), "has unknown fields, and this proxy is set to refuse that")
