"""Upstream, simulated: a strict window, refusals that lie in the events, and weather that passes over it.

An event is refused for what it is, whenever and however often it comes, as by the real one; all that chance
decides is what befalls a request. What was taken is written down at the moment of taking, which may come
long after its sender gave up.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from email.utils import formatdate
from enum import StrEnum
from random import Random
from typing import Any

from proxy.lanes import Lane
from proxy.sandbox.window import Allowance, FixedWindow
from proxy.upstream import Upstream
from proxy.wire.answers import Answer, NoAnswer
from proxy.wire.limits import PublicKey
from proxy.wire.rate_headers import read_rate_headers
from tests.simulation.evidence import Arrival, Evidence, Met, Request
from tests.simulation.watched import present_claim

REFUSED_REFERRER = "https://refused.example.com/"
"""An event with this referrer is refused for ever."""

REFUSED_TRAIT = "refused"
"""An envelope whose user has this trait is refused for ever."""


class Fate(StrEnum):
    """What befalls one request."""

    SERVED = "served"
    REFUSED_UNNAMED = "refused, nothing named"
    FAILED = "failed"
    LIMITED = "limited"
    HUNG = "hung"
    TAKEN_AND_HUNG = "taken and hung"
    RESET = "reset"
    TAKEN_AND_RESET = "taken and reset"
    UNREACHED = "unreached"


Weather = Mapping[Fate, float]

CALM: Weather = {Fate.SERVED: 1}
WEATHERS: Sequence[Weather] = (
    CALM,
    {Fate.SERVED: 8, Fate.FAILED: 1, Fate.RESET: 1, Fate.TAKEN_AND_RESET: 1},
    {Fate.SERVED: 3, Fate.TAKEN_AND_RESET: 2, Fate.TAKEN_AND_HUNG: 2, Fate.HUNG: 1, Fate.RESET: 1},
    {Fate.SERVED: 4, Fate.LIMITED: 1},
    {Fate.SERVED: 3, Fate.REFUSED_UNNAMED: 1},
    {Fate.FAILED: 9, Fate.SERVED: 1},
    {Fate.UNREACHED: 1},
    dict.fromkeys(Fate, 1),
)

_FAILURES = (500, 502, 503, 504, 408, 425, 401, 402, 403, 404, 302)

WORKS_S = 0.08
"""The longest that an ordinary request is in the works …"""

TRAVELS_S = 0.02
"""… and on its way there, or back."""

ANSWER_S = WORKS_S + 2 * TRAVELS_S

_HANGS_S = 25.0
"""The longest that a request may be in the works: longer than any sender waits."""


class SimulatedUpstream:
    """The far end, in the world's loop. It outlives every process of the proxy."""

    def __init__(self, chance: Random, limit_per_s: int, evidence: Evidence) -> None:
        self.weather = CALM
        self.slow_s = WORKS_S
        """How long an ordinary answer may take."""
        self._chance = chance
        self._window = FixedWindow(limit_per_s)
        self._evidence = evidence

    async def serve(self, request: Request) -> Answer | NoAnswer:
        """The answer to a request, whenever it comes; NoAnswer where the connection breaks."""
        chance = self._chance
        weather = self.weather
        fate = chance.choices(list(weather), list(weather.values()))[0]
        if fate is Fate.UNREACHED:
            await asyncio.sleep(chance.uniform(0, 5))
            return self._told(request, fate, NoAnswer(may_have_arrived=False, error="simulated: refused"))
        travel_s = chance.uniform(0.001, TRAVELS_S)
        await asyncio.sleep(travel_s)
        wall_s = self._evidence.world.wall_s()
        request.arrived_s = self._evidence.world.now_s
        allowance = self._window.take(request.key, wall_s)
        if not allowance.granted:
            self._evidence.met[Met.WINDOW] += 1
            self._evidence.refused_by_window.append(request)
            return self._told(request, "refused by the window", self._answer(429, {}, allowance, after_s=1))
        answer = await self._befall(fate, request, allowance)
        await asyncio.sleep(travel_s)
        return self._told(request, fate, answer)

    async def _befall(self, fate: Fate, request: Request, allowance: Allowance) -> Answer | NoAnswer:
        chance = self._chance
        works_s = chance.uniform(0.001, self.slow_s)
        match fate:
            case Fate.FAILED:
                await asyncio.sleep(works_s)
                after_s = chance.choice((None, None, 0, 1, 30))
                return self._answer(chance.choice(_FAILURES), {"success": False}, allowance, after_s=after_s)
            case Fate.LIMITED:
                return self._answer(429, {}, allowance, after_s=chance.choice((None, 0, 1, 2, 5)))
            case Fate.REFUSED_UNNAMED:
                await asyncio.sleep(works_s)
                said = {"success": False, "processed": 0, "errors": [{"index": -1, "message": "no"}]}
                return self._answer(chance.choice((400, 413, 422)), said, allowance)
            case Fate.HUNG | Fate.RESET:
                await asyncio.sleep(_HANGS_S if fate is Fate.HUNG else works_s)
                return NoAnswer(may_have_arrived=True, error="simulated: connection reset")
            case Fate.TAKEN_AND_HUNG | Fate.TAKEN_AND_RESET:
                await asyncio.sleep(works_s if fate is Fate.TAKEN_AND_RESET else chance.uniform(0, _HANGS_S))
                if not refuses_envelope(request.envelope):
                    self._take(request, _refused_events(request))
                return NoAnswer(may_have_arrived=True, error="simulated: connection reset")
            case _:
                await asyncio.sleep(works_s)
                return self._served(request, allowance)

    def _served(self, request: Request, allowance: Allowance) -> Answer:
        """What the request deserves."""
        chance = self._chance
        errors: list[dict[str, object]]
        if refuses_envelope(request.envelope):
            errors = [{"path": ["userIdentity", "traits", REFUSED_TRAIT], "message": "never"}]
            return self._answer(400, {"success": False, "message": "bad", "errors": errors}, allowance)
        refused = _refused_events(request)
        if not refused:
            self._take(request, ())
            return self._answer(chance.choice((200, 200, 200, 202)), self._agreement(request), allowance)
        if chance.random() < 0.5:
            self._take(request, refused)
            errors = [{"index": at, "message": "never"} for at in refused]
            chance.shuffle(errors)
            said = {"success": False, "processed": len(request.events) - len(refused), "errors": errors}
            return self._answer(207, said, allowance)
        named = chance.sample(refused, chance.randint(1, len(refused)))
        if chance.random() < 0.5:
            errors = [{"index": at, "message": "never"} for at in named]
        else:
            errors = [{"path": ["events", at, "referrer"], "message": "never"} for at in named]
        return self._answer(400, {"success": False, "message": "bad", "errors": errors}, allowance)

    def _agreement(self, request: Request) -> object:
        """The body of a 2xx: now and then one that contradicts what was taken."""
        if self._chance.random() < 0.95:
            return {"success": True, "processed": len(request.events)}
        return self._chance.choice(
            ({"success": False}, {"success": True, "processed": 0}, [], {"processed": "all"})
        )

    def _take(self, request: Request, but: Sequence[int]) -> None:
        for at, event in enumerate(request.events):
            if at not in but:
                self._evidence.arrivals.append(Arrival(event, request, self._evidence.world.now_s))

    def _answer(
        self, status: int, said: object, allowance: Allowance, *, after_s: int | None = None
    ) -> Answer:
        headers = {**allowance.headers, "Date": formatdate(self._evidence.world.wall_s(), usegmt=True)}
        if after_s is not None:
            headers["Retry-After"] = str(after_s)
        return Answer(status, read_rate_headers(headers), json.dumps(said).encode())

    def _told(self, request: Request, fate: str, answer: Answer | NoAnswer) -> Answer | NoAnswer:
        said = answer.status if isinstance(answer, Answer) else "no answer"
        self._evidence.note(f"upstream: request {request.number} {fate}: {said}")
        return answer


def refuses_envelope(envelope: Mapping[str, Any]) -> bool:
    """Whether all that comes under it is refused."""
    return REFUSED_TRAIT in envelope.get("userIdentity", {}).get("traits", {})


def refuses_event(event: Mapping[str, Any]) -> bool:
    """Whether it is refused under any envelope."""
    return event.get("referrer") == REFUSED_REFERRER


def _refused_events(request: Request) -> list[int]:
    return [at for at, event in enumerate(request.events) if refuses_event(event)]


class Line(Upstream):
    """One process's way there, in the place of the real one: what is sent is written down."""

    def __init__(
        self,
        far: SimulatedUpstream,
        outside: asyncio.AbstractEventLoop,
        evidence: Evidence,
        *,
        timeout_s: float,
    ) -> None:
        """`outside`: the loop in which the far end lives on when this process is dead."""
        super().__init__("https://upstream.example.com", timeout_s=timeout_s, connections=1)
        self._patience_s = timeout_s
        self._far = far
        self._outside = outside
        self._evidence = evidence

    async def post(self, key: PublicKey, lane: Lane, body: bytes) -> Answer | NoAnswer:
        request = self._sent(key, lane, body)
        answer: asyncio.Future[Answer | NoAnswer] = asyncio.get_running_loop().create_future()
        self._outside.create_task(self._carry(request, answer))
        try:
            async with asyncio.timeout(self._patience_s):
                return await answer
        except TimeoutError:
            self._evidence.met[Met.LATE_ANSWER] += 1
            self._evidence.note(f"line: request {request.number} timed out")
            return NoAnswer(may_have_arrived=True, error="simulated: no answer in time")

    async def _carry(self, request: Request, answer: "asyncio.Future[Answer | NoAnswer]") -> None:
        try:
            outcome = await self._far.serve(request)
        except Exception as error:  # noqa: BLE001  # of the simulation: it ends the run
            answer.set_exception(error)
            return
        if not answer.done():
            answer.set_result(outcome)

    def _sent(self, key: PublicKey, lane: Lane, body: bytes) -> Request:
        envelope: dict[str, Any] = json.loads(body)
        events = envelope.pop("events")
        request = Request(
            len(self._evidence.requests) + 1,
            key,
            lane.client_ip,
            lane.user_agent,
            lane.origin,
            len(body),
            envelope,
            events,
            present_claim.get(),
            self._evidence.world.steps,
        )
        self._evidence.requests.append(request)
        self._evidence.note(f"line: request {request.number} of {key}: {len(events)} events")
        return request
