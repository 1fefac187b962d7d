"""The ingest route: take the budget, read, judge, strike, record, answer, in this order.

Nothing waits between the last byte of a body and its entry in the record, so the record's order is the order
of the decisions.
"""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.utils import formatdate
from typing import Final

from aiohttp import web

from proxy.sandbox import answers, outcome
from proxy.sandbox.answers import Answer
from proxy.sandbox.delivery import deliver
from proxy.sandbox.faults import Fault, Programme, What
from proxy.sandbox.outcome import Outcome, Rules, Violation, ViolationKind
from proxy.sandbox.record import Entry, Record
from proxy.sandbox.sabotage import falsify
from proxy.sandbox.schema import BODY_BYTES_MAX
from proxy.sandbox.transcript import Transcript
from proxy.sandbox.window import Window

_ROUTE: Final = re.compile(r"/api/i/v1/([^/?#]+)/events")
_PUBLIC_KEY: Final = re.compile(r"pk_[A-Za-z0-9_-]{1,64}")
_UNANSWERED: Final = frozenset({What.HANG, What.HANG_BEFORE, What.RESET, What.RESET_BEFORE})
_MADE_UP_VISITOR: Final = "5a0dbe00-0000-4000-8000-000000000000"
"""Whom `swap` accuses where the record knows no other visitor."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request, read."""

    public_key: str
    received_at: float
    """Unix seconds at which its headers were complete."""
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    """None: larger than `BODY_BYTES_MAX`, and not read to its end."""


class Ingest:
    """Answers the ingest route and keeps the record."""

    def __init__(
        self,
        *,
        window: Window,
        rules: Rules,
        programme: Programme,
        record: Record,
        transcript: Transcript | None,
        clock: Callable[[], float],
    ) -> None:
        """Hold what a request needs. `clock` gives Unix seconds."""
        self._window = window
        self._rules = rules
        self._programme = programme
        self._record = record
        self._transcript = transcript
        self._clock = clock
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Drop every request that a fault keeps waiting."""
        self._stopping.set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request that is not a control's. One exact path exists."""
        route = _ROUTE.fullmatch(request.raw_path)
        if route is None or request.method != "POST":
            self._record.stats.elsewhere += 1
            return web.json_response(answers.refused(404, "Not found").body, status=404)
        received_at = self._clock()
        self._record.arrive(route[1], received_at)
        allowance = self._window.take(route[1], received_at)
        arrival = Arrival(route[1], received_at, _headers(request), await _body(request))

        answer, fault = await self._settle(arrival, granted=allowance.granted)
        headers = {
            **allowance.headers,
            **answer.headers,
            # The server's own Date would not follow the clock, and Reset is to be read against it.
            "Date": formatdate(self._clock(), usegmt=True),
        }
        return await deliver(request, answer, headers, fault, self._stopping)

    async def _settle(self, arrival: Arrival, *, granted: bool) -> tuple[Answer, Fault | None]:
        """Decide the request and record it. Gives what to answer, and the fault that struck it."""
        decided = self._judge(arrival) if granted else outcome.limited(self._rules)
        fault: Fault | None = None
        failure = self._file_failure() or self._full(len(decided.events))
        if failure is None:
            if granted:
                takes = bool(decided.taken)
                fault = self._programme.next(arrival.public_key, arrival.received_at, takes=takes)
            else:
                self._record.stats.limited += 1
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
        status = None if fault is not None and fault.what in _UNANSWERED else decided.answer.status
        self._record.stats.count(status, len(decided.taken), decided.violations)
        told = falsify(fault.what if fault else None, decided.events, decided.taken)
        entry = Entry(
            seq=self._record.last_seq + 1,
            received_at=arrival.received_at,
            public_key=arrival.public_key,
            headers=arrival.headers,
            body_bytes=BODY_BYTES_MAX + 1 if arrival.body is None else len(arrival.body),
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


def _headers(request: web.Request) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.decode("utf-8", "surrogateescape").lower(), value.decode("utf-8", "surrogateescape"))
        for name, value in request.raw_headers
    )


async def _body(request: web.Request) -> bytes | None:
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return None
