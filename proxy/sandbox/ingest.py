"""The ingest route: travel, take the budget, read, judge, strike, record, answer, travel, in this order.

Nothing waits between the last byte of a body and its entry in the record, so the record's order is the order
of the decisions.
"""

import re
from dataclasses import dataclass, replace
from typing import Final

from aiohttp import web

from proxy.sandbox import answers, delivery, outcome
from proxy.sandbox.answers import Answer
from proxy.sandbox.conditions import Seen
from proxy.sandbox.faults import Fault, Stage, What
from proxy.sandbox.outcome import Outcome
from proxy.sandbox.record import Entry
from proxy.sandbox.room import Room
from proxy.sandbox.sabotage import falsify
from proxy.sandbox.schema import BODY_BYTES_MAX
from proxy.sandbox.transcript import Transcript
from proxy.sandbox.violations import Violation, ViolationKind

_ROUTE: Final = re.compile(r"/api/i/v1/([^/?#]+)/events")
_PUBLIC_KEY: Final = re.compile(r"pk_[A-Za-z0-9_-]{1,64}")
_MADE_UP_VISITOR: Final = "5a0dbe00-0000-4000-8000-000000000000"
"""Whom `swap` accuses where the record knows no other visitor."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, read."""

    public_key: str
    received_at: float
    """Unix seconds at which it counted: its headers were complete, and it had come half of its way."""
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    """None: larger than `BODY_BYTES_MAX`, and not read to its end."""
    body_bytes: int
    """Of the body, or of as much of it as was read; `BODY_BYTES_MAX` + 1 where it is larger."""


class Ingest:
    """Answers the ingest route and keeps its record."""

    def __init__(self, room: Room, transcript: Transcript | None) -> None:
        """Hold what a request needs. `transcript`: where every entry is also written."""
        self._room = room
        self._rules = room.rules
        self._programme = room.programme
        self._record = room.record
        self._transcript = transcript
        self._clock = room.clock

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request that is no other's. One exact path exists."""
        route = _ROUTE.fullmatch(request.raw_path)
        if route is None or request.method != "POST":
            self._record.stats.elsewhere += 1
            return web.json_response(text=answers.refused(404, "Not found").text, status=404)
        if await self._room.travels():
            return delivery.cut(request)
        received_at = self._clock()
        self._record.arrive(route[1], received_at)
        allowance = self._room.limiter.take(route[1], received_at)
        arrival = Arrival(route[1], received_at, delivery.headers_of(request), b"", 0)
        early = self._strikes(arrival, Stage.UNREAD) if allowance.granted else None
        if early is not None:
            return await self._break_early(request, arrival, early)
        body = await delivery.body_of(request)
        body_bytes = BODY_BYTES_MAX + 1 if body is None else len(body)
        arrival = replace(arrival, body=body, body_bytes=body_bytes)

        answer, fault = await self._settle(arrival, granted=allowance.granted)
        answer = replace(answer, headers={**allowance.headers, **answer.headers})
        return await self._room.send(request, answer, fault)

    def _strikes(self, arrival: Arrival, stage: Stage, decided: Outcome | None = None) -> Fault | None:
        """Say which fault strikes a request that has come to `stage`; `decided`: what it deserves."""
        visitor = None if decided is None else decided.envelope.get("visitorId")
        seen = Seen(
            public_key=arrival.public_key,
            origin=dict(arrival.headers).get("origin"),
            visitor=visitor if isinstance(visitor, str) else None,
            events=() if decided is None else decided.events,
            body_bytes=arrival.body_bytes,
            takes=decided is not None and bool(decided.taken),
        )
        return self._programme.next(seen, arrival.received_at, stage)

    async def _break_early(self, request: web.Request, arrival: Arrival, fault: Fault) -> web.Response:
        if fault.what is What.RESET_MIDWAY:
            arrival = replace(arrival, body_bytes=await delivery.half_of_the_body(request))
        await self._keep(arrival, outcome.unread(), fault)
        return delivery.reset(request)

    async def _settle(self, arrival: Arrival, *, granted: bool) -> tuple[Answer, Fault | None]:
        """Decide the request and record it. Gives what to answer, and the fault that struck it."""
        decided = self._judge(arrival) if granted else outcome.limited(self._rules)
        fault: Fault | None = None
        failure = self._file_failure() or self._full(len(decided.events))
        if failure is None:
            if not granted:
                self._record.stats.limited += 1
            fault = self._strikes(arrival, Stage.JUDGED if granted else Stage.LIMITED, decided)
            if fault is not None:
                decided = outcome.struck(decided, fault, self._rules)
            await self._keep(arrival, decided, fault)
            # If the file failed just now, the record has the request and the file has not: say so.
            failure = self._file_failure()
        if failure is None:
            return decided.answer, fault
        self._record.stats.unrecorded += 1
        return outcome.refused(500, failure, self._rules).answer, None

    def _judge(self, arrival: Arrival) -> Outcome:
        headers = dict(arrival.headers)
        if _PUBLIC_KEY.fullmatch(arrival.public_key) is None:
            judged = outcome.refused(403, "Invalid public key", self._rules)
        elif arrival.body is None:
            judged = outcome.refused(413, f"The body is larger than {BODY_BYTES_MAX} bytes", self._rules)
        elif headers.get("content-encoding", "identity") != "identity":
            judged = outcome.refused(400, "The body must not be compressed", self._rules)
        elif headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            judged = outcome.refused(400, "Content-Type must be application/json", self._rules)
        else:
            judged = outcome.judged(arrival.body, self._rules)
        if "cookie" not in headers:
            return judged
        cookie = Violation(ViolationKind.COOKIE, (), "Cookies were passed on")
        return replace(judged, violations=(*judged.violations, cookie))

    def _full(self, events: int) -> str | None:
        if self._record.has_room(events):
            return None
        return "The sandbox's record is full: DELETE /_sandbox/record empties it"

    def _file_failure(self) -> str | None:
        return None if self._transcript is None else self._transcript.failure

    async def _keep(self, arrival: Arrival, decided: Outcome, fault: Fault | None) -> None:
        """Count the request and record it, falsely if the fault is sabotage."""
        status = None if fault is not None and not fault.manner.tells_status else decided.answer.status
        self._record.stats.count(status, len(decided.taken), decided.violations)
        told = falsify(fault.what if fault else None, decided.events, decided.taken)
        entry = Entry(
            seq=self._record.last_seq + 1,
            received_at=arrival.received_at,
            public_key=arrival.public_key,
            headers=arrival.headers,
            body_bytes=arrival.body_bytes,
            envelope=decided.envelope,
            events=told.events,
            taken=told.taken,
            status=status,
            fault=None if fault is None else str(fault.what),
            violations=decided.violations,
        )
        entries = [entry, *self._misplaced(entry, told.misplaced)]
        for each in entries:
            self._record.add(each)
        if self._transcript is not None:
            await self._transcript.append(entries)

    def _misplaced(self, entry: Entry, events: tuple[object, ...]) -> list[Entry]:
        """Make up the request of another visitor in which `events` of this one are said to have come."""
        if not events:
            return []
        other = self._record.neighbour(entry.public_key, entry.envelope)
        envelope = {**entry.envelope, "visitorId": _MADE_UP_VISITOR} if other is None else other.envelope
        made_up = replace(entry, seq=entry.seq + 1, envelope=envelope, events=events, violations=())
        return [replace(made_up, taken=tuple(range(len(events))))]
