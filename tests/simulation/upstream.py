"""Upstream, simulated: a strict limit, refusals that lie in the events, and weather that passes over it.

An event is refused for what it is, whenever and however often it comes, as by the real one; all that chance
decides is what befalls a request. What was taken is written down at the moment of taking, which may come
long after its sender gave up. The weather may hold something else against requests: their key, their Origin,
their number of events, or that upstream has changed its mind about all events.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import formatdate
from enum import StrEnum
from random import Random
from typing import Any

from proxy.lanes import Lane
from proxy.sandbox.window import Allowance, Window
from proxy.upstream import Upstream
from proxy.wire.answers import Answer, NoAnswer
from proxy.wire.limits import EVENTS_PER_REQUEST, PublicKey
from proxy.wire.rate_headers import read_rate_headers
from tests.simulation.evidence import Arrival, Evidence, Met, Request
from tests.simulation.watched import present_claim

NAMED = "https://refused.example.com/"
"""An event with this referrer is refused for ever, and upstream names it."""

UNNAMED = "https://unnamed.example.com/"
"""The same, but upstream refuses the whole request and says nothing that would tell for whose sake."""

POISON = "https://poison.example.com/"
"""Upstream fails over this event, every time."""

BAD = frozenset({NAMED, UNNAMED, POISON})

REFUSED_TRAIT = "refused"
"""An envelope whose user has this trait is refused for ever."""


class Fate(StrEnum):
    """What befalls one request."""

    SERVED = "served"
    FAILED = "failed"
    LIMITED = "limited"
    HUNG = "hung"
    TAKEN_AND_HUNG = "taken and hung"
    RESET = "reset"
    TAKEN_AND_RESET = "taken and reset"
    UNREACHED = "unreached"


Fates = Mapping[Fate, float]

FATES: Sequence[Fates] = (
    {Fate.SERVED: 8, Fate.FAILED: 1, Fate.RESET: 1, Fate.TAKEN_AND_RESET: 1},
    {Fate.SERVED: 3, Fate.TAKEN_AND_RESET: 2, Fate.TAKEN_AND_HUNG: 2, Fate.HUNG: 1, Fate.RESET: 1},
    {Fate.SERVED: 4, Fate.LIMITED: 1},
    {Fate.FAILED: 9, Fate.SERVED: 1},
    {Fate.UNREACHED: 1},
    dict.fromkeys(Fate, 1),
)


@dataclass(frozen=True, slots=True)
class Weather:
    """What passes over upstream.

    `fates`: what befalls requests, by weight. Those that are served: `keys` says by which status a key is
    refused, `origins` which Origins are forbidden (None: none was sent), `slips` whether every event is
    refused, named or not (None: it is not), `most_events` beyond how many it is 413.
    """

    fates: Fates = field(default_factory=lambda: {Fate.SERVED: 1})
    keys: Mapping[PublicKey, int] = field(default_factory=dict)
    origins: frozenset[str | None] = frozenset()
    slips: bool | None = None
    most_events: int = EVENTS_PER_REQUEST

    @property
    def is_calm(self) -> bool:
        return self == CALM


CALM = Weather()

KEY_REFUSALS = (401, 402, 404, 301, 302, 308)

_DRAWS: Sequence[Callable[[Random, Sequence[PublicKey], Sequence[str | None]], Weather]] = (
    lambda _chance, _keys, _origins: CALM,
    *(lambda _chance, _keys, _origins, fates=fates: Weather(fates) for fates in FATES),
    lambda chance, keys, _origins: Weather(keys={chance.choice(keys): chance.choice(KEY_REFUSALS)}),
    lambda chance, _keys, origins: Weather(origins=frozenset({chance.choice(origins)})),
    lambda chance, _keys, _origins: Weather(slips=chance.random() < 0.5),
    lambda chance, _keys, _origins: Weather(most_events=chance.choice((1, 2, 7, 40))),
)


def drawn_weather(chance: Random, keys: Sequence[PublicKey], origins: Sequence[str | None]) -> Weather:
    """Some weather or other."""
    return chance.choice(_DRAWS)(chance, keys, origins)


_FAILURES = (500, 502, 503, 504, 408, 425)

WORKS_S = 0.08
"""The longest that an ordinary request is in the works …"""

TRAVELS_S = 0.02
"""… and on its way there, or back."""

ANSWER_S = WORKS_S + 2 * TRAVELS_S

_HANGS_S = 25.0
"""The longest that a request may be in the works: longer than any sender waits."""


class SimulatedUpstream:
    """The far end, in the world's loop. It outlives every process of the proxy."""

    def __init__(self, chance: Random, window: Window, evidence: Evidence) -> None:
        self._weather = CALM
        self._slips = 0
        self.slow_s = WORKS_S
        """How long an ordinary answer may take."""
        self.ahead_s = 0.0
        """By how much its clock is ahead of the world's."""
        self.on_arrival: Callable[[Request], None] = lambda _request: None
        """Called with each request that comes here: it may kill who sent it."""
        self._chance = chance
        self._window = window
        self._evidence = evidence

    @property
    def weather(self) -> Weather:
        return self._weather

    @weather.setter
    def weather(self, weather: Weather) -> None:
        self._evidence.note(f"weather: {weather}")
        self._weather = weather
        self._slips += weather.slips is not None

    async def serve(self, request: Request) -> Answer | NoAnswer:
        """The answer to a request, whenever it comes; NoAnswer where the connection breaks."""
        chance = self._chance
        weather = self.weather
        fate = chance.choices(list(weather.fates), list(weather.fates.values()))[0]
        if fate is Fate.UNREACHED:
            await asyncio.sleep(chance.uniform(0, 5))
            return self._told(request, fate, NoAnswer(may_have_arrived=False, error="simulated: refused"))
        travel_s = chance.uniform(0.001, TRAVELS_S)
        await asyncio.sleep(travel_s)
        request.arrived_s = self._evidence.world.now_s
        self.on_arrival(request)
        allowance = self._window.take(request.key, self._wall_s())
        if not allowance.granted:
            self._evidence.met[Met.WINDOW] += 1
            self._evidence.refused_by_window.append(request)
            return self._told(request, "refused by the window", self._answer(429, {}, allowance, after_s=1))
        answer = await self._befall(fate, weather, request, allowance)
        await asyncio.sleep(travel_s)
        return self._told(request, fate, answer)

    async def _befall(
        self, fate: Fate, weather: Weather, request: Request, allowance: Allowance
    ) -> Answer | NoAnswer:
        chance = self._chance
        works_s = chance.uniform(0.001, self.slow_s)
        match fate:
            case Fate.FAILED:
                await asyncio.sleep(works_s)
                after_s = chance.choice((None, None, 0, 1, 30))
                return self._answer(chance.choice(_FAILURES), {"success": False}, allowance, after_s=after_s)
            case Fate.LIMITED:
                return self._answer(429, {}, allowance, after_s=chance.choice((None, 0, 1, 2, 5)))
            case Fate.HUNG | Fate.RESET:
                await asyncio.sleep(_HANGS_S if fate is Fate.HUNG else works_s)
                return NoAnswer(may_have_arrived=True, error="simulated: connection reset")
            case Fate.TAKEN_AND_HUNG | Fate.TAKEN_AND_RESET:
                await asyncio.sleep(works_s if fate is Fate.TAKEN_AND_RESET else chance.uniform(0, _HANGS_S))
                if not refuses_envelope(request.envelope) and not _positions(request, UNNAMED, POISON):
                    self._take(request, _positions(request, NAMED))
                return NoAnswer(may_have_arrived=True, error="simulated: connection reset")
            case _:
                await asyncio.sleep(works_s)
                return self._held_against(weather, request, allowance) or self._served(request, allowance)

    def _held_against(self, weather: Weather, request: Request, allowance: Allowance) -> Answer | None:
        """What the weather holds against a request, whatever is in it."""
        chance, met = self._chance, self._evidence.met
        if request.key in weather.keys:
            met[Met.KEY_REFUSED] += 1
            return self._answer(weather.keys[request.key], {"success": False, "message": "no"}, allowance)
        if request.origin in weather.origins:
            met[Met.FORBIDDEN] += 1
            return self._answer(403, {"success": False, "message": "unauthorized domain"}, allowance)
        if len(request.events) > weather.most_events:
            met[Met.SHRUNK] += 1
            return self._answer(413, chance.choice(_NAMELESS), allowance)
        if weather.slips is None:
            return None
        met[Met.SLIP] += 1
        request.slip = self._slips
        if not weather.slips:
            return self._answer(chance.choice((400, 422)), chance.choice(_NAMELESS), allowance)
        errors = [{"path": ["events", at, "type"], "message": "unknown"} for at in range(len(request.events))]
        return self._answer(400, {"success": False, "message": "bad", "errors": errors}, allowance)

    def _served(self, request: Request, allowance: Allowance) -> Answer:
        """What the request deserves."""
        chance = self._chance
        errors: list[dict[str, object]]
        if refuses_envelope(request.envelope):
            errors = [{"path": ["userIdentity", "traits", REFUSED_TRAIT], "message": "never"}]
            return self._answer(400, {"success": False, "message": "bad", "errors": errors}, allowance)
        if _positions(request, POISON):
            return self._answer(500, {"success": False}, allowance)
        if _positions(request, UNNAMED):
            return self._answer(chance.choice((400, 409, 413, 422)), chance.choice(_NAMELESS), allowance)
        refused = _positions(request, NAMED)
        if not refused:
            self._take(request, ())
            if chance.random() < 0.02:
                self._evidence.met[Met.NONSENSE] += 1
                return self._answer(207, chance.choice(_NAMELESS), allowance)
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
        headers = {**allowance.headers, "Date": formatdate(self._wall_s(), usegmt=True)}
        if after_s is not None:
            headers["Retry-After"] = str(after_s)
        return Answer(status, read_rate_headers(headers), json.dumps(said).encode())

    def _wall_s(self) -> float:
        return self._evidence.world.wall_s() + self.ahead_s

    def _told(self, request: Request, fate: str, answer: Answer | NoAnswer) -> Answer | NoAnswer:
        request.status = answer.status if isinstance(answer, Answer) else None
        said = request.status or "no answer"
        self._evidence.note(f"upstream: request {request.number} {fate}: {said}")
        return answer


def refuses_envelope(envelope: Mapping[str, Any]) -> bool:
    """Whether all that comes under it is refused."""
    return REFUSED_TRAIT in envelope.get("userIdentity", {}).get("traits", {})


def refuses_event(event: Mapping[str, Any]) -> bool:
    """Whether it is refused, or makes upstream fail, under any envelope."""
    return event.get("referrer") in BAD


def _positions(request: Request, *referrers: str) -> list[int]:
    return [at for at, event in enumerate(request.events) if event.get("referrer") in referrers]


_NAMELESS: Sequence[object] = (
    {"success": False, "processed": 0, "errors": [{"index": -1, "message": "no"}]},
    {"success": False, "errors": [{"index": 5_000, "message": "no"}, {"index": "0", "message": "no"}]},
    {"success": False, "message": "no"},
    {},
    [],
)
"""Bodies of which nobody could tell which event they are about."""


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
        super().__init__("https://upstream.example.com", timeout_s=timeout_s)
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
            self._evidence.world.now_s,
        )
        self._evidence.requests.append(request)
        self._evidence.note(f"line: request {request.number} of {key}: {len(events)} events")
        return request
