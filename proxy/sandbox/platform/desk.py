"""The Platform API's routes: travel, read, judge, strike, take effect, record, answer, travel, in this order.

Nothing waits between the last byte of a body and the effect, so the record's order is the order of effects.
"""

import json
import math
from typing import Final

from aiohttp import web

from proxy.sandbox import delivery
from proxy.sandbox.answers import Answer
from proxy.sandbox.platform.calls import Call
from proxy.sandbox.platform.incidents import CONNECTION_LIMIT, UNSAID, Asked, Happens, Incident
from proxy.sandbox.platform.judged import Arrival, Form, form_of, judged, violations_of
from proxy.sandbox.platform.keys import without_keys
from proxy.sandbox.platform.routes import parted, route_of
from proxy.sandbox.platform.verdict import Verdict
from proxy.sandbox.room import Room
from proxy.sandbox.schedule import Running
from proxy.sandbox.transcript import Transcript

_EXHAUSTED: Final = "Your plan has exhausted its included API calls for the current billing cycle."
_CONNECTED: Final = "Your plan has reached its limit of integration connections."


class Desk:
    """Answers the Platform API's routes and keeps its record."""

    def __init__(self, room: Room, transcript: Transcript | None) -> None:
        """Hold what a call needs. `transcript`: where every call is also written."""
        self._room = room
        self._calls = room.platform.calls
        self._transcript = transcript

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request below ``/api/`` that is none of the Ingest API's."""
        if await self._room.travels():
            return delivery.cut(request)
        received_at = self._room.clock()
        body = await delivery.body_of(request)
        path, query = parted(request.raw_path)
        arrival = Arrival(
            received_at=received_at,
            method=request.method,
            path=path,
            query=query,
            headers=delivery.headers_of(request),
            body=body,
            request_id=f"req_{self._calls.last_seq + 1:08d}",
        )
        answer, incident = await self._settle(arrival)
        return await self._room.send(request, answer, incident)

    async def _settle(self, arrival: Arrival) -> tuple[Answer, Incident | None]:
        """Decide the call, do it, record it. Gives what to answer, and the order that struck it."""
        failure = self._file_failure() or self._full()
        if failure is not None:
            return self._unrecorded(failure)
        form = form_of(arrival)
        verdict = judged(arrival, form, self._room.platform.workspace)
        asked = Asked(
            route=route_of(arrival.path),
            method=arrival.method,
            path=arrival.path,
            key=arrival.key_digest,
            tool=form.tool,
            admitted=verdict.admitted,
            succeeds=verdict.succeeds,
        )
        struck = self._room.platform.incidents.next(asked, arrival.received_at)
        executed = verdict.succeeds and (struck is None or struck.order.what.takes_effect)
        if executed and verdict.effect is not None:
            verdict.effect()
        answer = verdict.answer if struck is None else _struck(verdict, struck)
        await self._keep(arrival, form, answer, None if struck is None else struck.order, executed=executed)
        # If the file failed just now, the record has the call and the file has not: say so.
        failure = self._file_failure()
        if failure is not None:
            return self._unrecorded(failure)
        return answer, None if struck is None else struck.order

    async def _keep(
        self, arrival: Arrival, form: Form, answer: Answer, incident: Incident | None, *, executed: bool
    ) -> None:
        tells = incident is None or incident.manner.tells_status
        body = "" if form.document is None else json.dumps(form.document)
        call = Call(
            seq=self._calls.last_seq + 1,
            received_at=arrival.received_at,
            method=arrival.method,
            path=without_keys(arrival.path),
            query=without_keys(arrival.query),
            headers=tuple(
                (name, without_keys(value)) for name, value in arrival.headers if name != "authorization"
            ),
            key=arrival.key_digest,
            tool=None if form.tool is None else without_keys(form.tool),
            body=json.loads(without_keys(body)) if body else None,
            status=answer.status if tells else None,
            executed=executed,
            incident=None if incident is None else str(incident.what),
            violations=tuple(violations_of(arrival, body)),
        )
        self._calls.add(call)
        if self._transcript is not None:
            await self._transcript.append([call])

    def _full(self) -> str | None:
        if self._calls.has_room():
            return None
        return "The sandbox's record is full: DELETE /_sandbox/calls empties it"

    def _file_failure(self) -> str | None:
        return None if self._transcript is None else self._transcript.failure

    def _unrecorded(self, failure: str) -> tuple[Answer, None]:
        self._calls.stats.unrecorded += 1
        return Answer(500, {"error": failure}), None


def _struck(verdict: Verdict, struck: Running[Incident]) -> Answer:
    """Say what an order makes of the answer."""
    incident = struck.order
    match incident.what:
        case Happens.PLAN:
            return _exhausted(incident, struck.since)
        case Happens.ANSWER:
            status = 500 if incident.status is None else incident.status
            return Answer(status, {"error": f"Order: {status}"} if incident.body is UNSAID else incident.body)
        case _:
            return verdict.answer


def _exhausted(incident: Incident, since: float) -> Answer:
    """Refuse a call for its plan. `since`: Unix seconds, when the order began."""
    is_of_connections = incident.code == CONNECTION_LIMIT
    reset_at = None if incident.reset_at is UNSAID else incident.reset_at
    if incident.reset_in_s is not None:
        # Rounded up: who asks again then is not refused once more.
        reset_at = math.ceil((since + incident.reset_in_s) * 1000)
    body = {
        "error": incident.error or (_CONNECTED if is_of_connections else _EXHAUSTED),
        "code": incident.code or "api_limit_exceeded",
        "plan": incident.plan or "free",
        "feature": incident.feature or ("connections" if is_of_connections else "api_calls"),
        "resetAt": reset_at,
    }
    return Answer(incident.status or (403 if is_of_connections else 429), body)
