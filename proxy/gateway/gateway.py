"""The gateway: one call, from its caller to Outlit and back.

In this order: whether it may be made, what is known without asking, whose turn it is, Outlit, and back.
Nothing is kept of a call but what its answer says of a plan or of a key.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web

from proxy.gateway.admission import MAX_CALLS, Admission, Rejected, Wanted
from proxy.gateway.answers import kept_answer, own_answer
from proxy.gateway.bearer import Operators
from proxy.gateway.client import Ask, Got, Lost, PlatformClient
from proxy.gateway.codes import KINDS
from proxy.gateway.figures import Figures
from proxy.gateway.headers import towards
from proxy.gateway.knowledge import Knowledge
from proxy.gateway.passing import pass_on
from proxy.gateway.paths import ROOTS, Astray, Place, read_target
from proxy.gateway.plan import KeyMark
from proxy.gateway.presence import CallerLeft, Stopped, while_waited_for
from proxy.gateway.turns import Turns
from proxy.gateway.validity import Marks
from proxy.ledger import OwnCode, PlatformOutcome, PlatformRoute
from proxy.metrics import OTHER_TOOLS, GatewayMetrics
from proxy.settings import ALL, GatewaySettings

MAX_HEARD_OUT: Final = 32
"""While more calls are under way, what is asked for callers who have left is given up: others wait."""

_LAST_WORD_S: Final = 1.0
"""What telling those that are given up may take."""


@dataclass(slots=True)
class _Count:
    """What is counted of a call in the end."""

    route: PlatformRoute
    tool: str | None
    outcome: PlatformOutcome = PlatformOutcome.ABANDONED
    code: OwnCode | None = None
    """Of an answer of the gateway's own."""
    asked: Wanted | None = None
    """What Outlit was asked; None: nothing."""


class Gateway:
    """The way to the Platform API, for callers of the operations listener. `url`: Outlit's address."""

    def __init__(self, metrics: GatewayMetrics, settings: GatewaySettings, url: str) -> None:
        self._metrics = metrics
        self._platform = PlatformClient(metrics.upstream_requests)
        self._marks = Marks()
        self._knowledge = Knowledge()
        self._turns = Turns()
        self._admission = Admission()
        self._is_stopping = self._is_over = False
        self._operators: Operators | None = None
        self._settings, self._url = settings, url
        self._log = structlog.get_logger("gateway")
        metrics.in_flight.set_function(lambda: self._admission.in_flight)
        metrics.in_flight_limit.set(MAX_CALLS)
        knowledge = self._knowledge
        metrics.plan_refusals["own"].set_function(lambda: knowledge.count_refusals(is_own=True))
        metrics.plan_refusals["callers"].set_function(lambda: knowledge.count_refusals(is_own=False))
        metrics.plan_reset.set_function(knowledge.own_reset_s)
        metrics.api_key_refused.set_function(lambda: knowledge.key_refused_at_ms is not None)
        self.go_by(settings, url)

    def go_by(self, settings: GatewaySettings, url: str) -> None:
        """Go by these from the next call on. What another upstream said of plans and keys is forgotten."""
        if url != self._url:
            self._knowledge.forget()
        key = settings.api_key
        self._knowledge.go_by(None if key is None else self._marks.of(key))
        self._settings, self._url = settings, url
        self._metrics.show_tools(tool for tool in settings.tools if tool != ALL)

    def mount(self, app: web.Application, operators: Operators) -> None:
        """Serve it on an application, for its `operators` and whoever has an API key."""
        self._operators = operators
        app.cleanup_ctx.append(self._open)
        for root in ROOTS:
            app.router.add_route("*", root, self._handle)
            app.router.add_route("*", f"{root}/{{rest:.*}}", self._handle)

    def figures(self) -> Figures:
        """How it is."""
        return Figures(
            api_key=self._settings.api_key is not None,
            tools=self._settings.tools,
            in_flight=self._admission.in_flight,
            refused=self._knowledge.refused(),
            key_refused_at_ms=self._knowledge.key_refused_at_ms,
        )

    def retry(self) -> int:
        """Forget what plans have used up: the next calls ask again. Returns how much that was."""
        return self._knowledge.forget_refusals()

    async def finish(self, deadline_s: float) -> None:
        """Take no new call; give those up that are still under way at `deadline_s` of the event loop."""
        self._is_stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline_s - _LAST_WORD_S):
                await self._admission.until_nobody_is_in()
        if in_flight := self._admission.in_flight:
            self._log.warning("the grace is over; calls of the gateway are given up", calls=in_flight)
            self._is_over = True
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_WORD_S):
                    await self._admission.until_nobody_is_in()

    async def _open(self, _app: web.Application) -> AsyncIterator[None]:
        async with self._platform:
            yield

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        place = read_target(request.raw_path)
        route = place.route if isinstance(place, Place) else PlatformRoute.OTHER
        count = _Count(route, OTHER_TOOLS if route is PlatformRoute.TOOLS else None)
        with self._counting(count):
            try:
                return await while_waited_for(
                    request,
                    self._serve(request, place, count),
                    is_worth_hearing=lambda: (
                        count.asked is not None and self._admission.in_flight <= MAX_HEARD_OUT
                    ),
                    is_over=lambda: self._is_over,
                )
            except Rejected as rejected:
                count.outcome, count.code = PlatformOutcome.REJECTED, rejected.code
                return own_answer(
                    rejected.code,
                    rejected.text,
                    is_of_validity=route is PlatformRoute.VALIDATE,
                    headers=rejected.headers,
                )
            except CallerLeft:
                count.outcome, count.code = PlatformOutcome.ABANDONED, None
                return own_answer(OwnCode.UPSTREAM_BROKEN)  # to nobody
            except Stopped:
                count.outcome, count.code = PlatformOutcome.BROKEN, OwnCode.STOPPING
                may_have_run = _may_have_run(count.asked)
                text = f"{KINDS[OwnCode.STOPPING].text}{may_have_run}"
                headers = None if may_have_run else {"Retry-After": "1"}
                return own_answer(OwnCode.STOPPING, text, is_retryable=not may_have_run, headers=headers)

    @contextmanager
    def _counting(self, count: _Count) -> Iterator[None]:
        """Count what became of a call in the end."""
        began_s = time.perf_counter()
        try:
            yield
        except Exception:
            count.outcome, count.code = PlatformOutcome.FAILED, OwnCode.INTERNAL
            raise
        finally:
            self._metrics.requests.labels(count.route, count.outcome).inc()
            if count.tool is not None:
                self._metrics.tool_calls.labels(count.tool, count.outcome).inc()
            if count.code is not None:
                self._metrics.own_answers[count.code].inc()
            if count.asked is not None:
                self._metrics.seconds.observe(time.perf_counter() - began_s)

    async def _serve(self, request: web.Request, place: Place | Astray, count: _Count) -> web.StreamResponse:
        """Answer a call, if it may be made. Raises Rejected, or CallerLeft."""
        if self._operators is None:
            raise RuntimeError("the gateway is not mounted")
        if self._is_stopping:
            raise Rejected(OwnCode.STOPPING, headers={"Retry-After": "1"})
        settings, url = self._settings, self._url
        async with self._admission.admit(request, place, self._operators, settings) as wanted:
            if wanted.tool in settings.tools and wanted.tool != ALL:
                count.tool = wanted.tool
            deadline_s = asyncio.get_running_loop().time() + settings.timeout_s
            mark, kind = self._marks.of(wanted.key), wanted.kind
            await self._turns.wait((mark, kind.route), lambda: self._knowledge.covers(mark, kind), deadline_s)
            is_authorized = not wanted.is_with_own_key or self._operators.allows(request)
            is_listed = settings.tools == self._settings.tools
            if not (is_authorized and is_listed and self._is_of_now(wanted, mark, url)):
                raise _too_late("other settings have come meanwhile")
            if (known := self._knowledge.recall(mark, kind)) is not None:
                kept, lasts_s, count.outcome = known
                return kept_answer(kept, lasts_s, is_of_plan=count.outcome is PlatformOutcome.REMEMBERED)
            if asyncio.get_running_loop().time() >= deadline_s:
                raise _too_late("its time is over")
            return await self._ask(request, wanted, count, deadline_s)

    async def _ask(
        self, request: web.Request, wanted: Wanted, count: _Count, deadline_s: float
    ) -> web.StreamResponse:
        """Ask Outlit, and pass on what it says. Raises CallerLeft."""
        url, mark, kind = self._url, self._marks.of(wanted.key), wanted.kind
        line = (mark, kind.route)
        ask = Ask(
            method=wanted.method,
            url=url + wanted.place.target,
            headers=towards(request.headers, wanted.key, is_tool_call=wanted.tool is not None),
            body=wanted.body,
            is_safe=wanted.is_safe,
            is_of_validity=kind.route is PlatformRoute.VALIDATE,
        )
        was_taken, count.asked = False, wanted
        self._turns.begin(line)
        try:
            outcome = await self._platform.ask(ask, deadline_s, self._settings.timeout_s)
            if isinstance(outcome, Got):
                was_taken = outcome.problem.refusal is None
                if self._is_of_now(wanted, mark, url) and self._knowledge.learn(mark, kind, outcome):
                    self._turns.doubt(line)
        finally:
            self._turns.end(line, was_taken=was_taken)
        if request.transport is None:
            if isinstance(outcome, Got):
                outcome.close()
            raise CallerLeft
        if isinstance(outcome, Lost):
            count.outcome, count.code = _of_lost(outcome)
            may_have_run = _may_have_run(wanted) if outcome.may_have_run else ""
            text = f"{KINDS[count.code].text}{may_have_run} ({outcome.error})"
            return own_answer(count.code, text, is_retryable=not may_have_run)
        answer, count.outcome, count.code = await pass_on(
            request, outcome, url, wanted.place.prefix, deadline_s
        )
        return answer

    def _is_of_now(self, wanted: Wanted, mark: KeyMark, url: str) -> bool:
        """Whether a call is as it would be now: a reload may have changed the key, or the upstream."""
        return url == self._url and (not wanted.is_with_own_key or self._knowledge.is_own(mark))


def _too_late(why: str) -> Rejected:
    """For a call that was let in, and may not be sent any more when its turn comes."""
    text = f"others with this key went first, and {why}; nothing was sent"
    return Rejected(OwnCode.OVERLOADED, text, {"Retry-After": "1"})


def _of_lost(lost: Lost) -> tuple[PlatformOutcome, OwnCode]:
    if not lost.may_have_run:
        return PlatformOutcome.UNREACHABLE, OwnCode.UPSTREAM_UNREACHABLE
    return PlatformOutcome.BROKEN, OwnCode.UPSTREAM_TIMEOUT if lost.is_late else OwnCode.UPSTREAM_BROKEN


def _may_have_run(asked: Wanted | None) -> str:
    return "" if asked is None or asked.is_harmless else "; the call may have been executed"
