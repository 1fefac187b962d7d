"""The metrics of the Platform gateway, `outlit_proxy_gateway_…`: defined once, as those of the catalogue."""

from collections.abc import Iterable

from proxy.ledger import OwnCode, PlatformOutcome, PlatformRoute
from proxy.metrics.families import Makers

_CALL_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

OTHER_TOOLS = "other"
"""The label of all tools that `gateway.tools` does not name."""

_PLAN_KEYS = ("own", "callers")
"""Whose plan: that of `gateway.api_key`, or of the keys that callers give."""


class GatewayMetrics:
    """What becomes of calls: `metrics.gateway.own_answers[OwnCode.OVERLOADED].inc()`."""

    def __init__(self, make: Makers) -> None:
        self.requests = make.counter_by(
            "gateway_requests", "Calls to the Platform gateway by what became of them.", "route", "outcome"
        )
        for route in PlatformRoute:
            for outcome in PlatformOutcome:
                self.requests.labels(route, outcome)
        self.tool_calls = make.counter_by(
            "gateway_tool_calls",
            "Those of them that call a tool; gateway.tools gives a tool a label of its own.",
            "tool",
            "outcome",
        )
        self._shown_tools: set[str] = set()
        self.show_tools(())
        self.own_answers = make.counters(
            "gateway_own_answers",
            "Calls that the gateway answered itself, by the code it gave.",
            "code",
            OwnCode,
        )
        self.upstream_requests = make.counter(
            "gateway_upstream_requests",
            "Attempts to ask the Platform API: repeated ones count, and those that found no connection.",
        )
        self.seconds = make.histogram(
            "gateway_request_seconds",
            "Time from a call to the end of its answer, of calls that Outlit was asked for.",
            _CALL_SECONDS,
        )
        self.in_flight = make.gauge("gateway_in_flight", "Calls to the gateway under way.")
        self.in_flight_limit = make.gauge("gateway_in_flight_limit", "The most that may be.")
        self.plan_refusals = make.gauges(
            "gateway_plan_refusals",
            "What plans have used up, as remembered: such calls are answered here.",
            "key",
            _PLAN_KEYS,
        )
        self.plan_reset = make.gauge(
            "gateway_plan_reset_timestamp_seconds",
            "When the last of what the plan of gateway.api_key has used up is back, 0 if nothing is used up.",
        )
        self.api_key_refused = make.gauge(
            "gateway_api_key_refused", "1 while Outlit refuses gateway.api_key, as it said last."
        )

    def show_tools(self, tools: Iterable[str]) -> None:
        """Have the counts of these tools, and of all others together, there from now on, and no more."""
        now = {*tools, OTHER_TOOLS}
        for outcome in PlatformOutcome:
            for tool in now:
                self.tool_calls.labels(tool, outcome)
            for tool in self._shown_tools - now:
                self.tool_calls.remove(tool, outcome)
        self._shown_tools = now
