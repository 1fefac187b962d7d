"""The orders: what can happen to a call of the Platform API, and which of them strikes one.

By the call's fate there are two families:

- *without effect*: ``plan``, ``answer``, ``hang_before``, ``reset_before``;
- *with the effect that it deserves, and told late, badly or not at all*: ``latency``, ``drip``, ``endless``,
  ``half_answer``, ``half_head``, ``reset_answer``, ``hang``, ``reset``. A sender cannot tell these last from
  the ``_before``: whether its call has run is unknown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Final

from proxy.sandbox.bounds import MOST, bounded
from proxy.sandbox.platform.keys import DIGEST
from proxy.sandbox.platform.routes import CONNECT, Route
from proxy.sandbox.schedule import Running, Strikes
from proxy.sandbox.strike import Strike

CONNECTION_LIMIT: Final = "plan_connection_limit_exceeded"
UNSAID: Final = ...
"""Of a field whose every JSON value means something."""


class Happens(StrEnum):
    """What happens to a call."""

    PLAN = "plan"
    """The plan is exhausted once `allowance` calls have succeeded: refused until the order ends."""
    ANSWER = "answer"
    """Do nothing, answer `status` and `body`."""
    LATENCY = "latency"
    """Do it at once, answer after `latency_ms`."""
    HANG = "hang"
    """Do it, never answer."""
    HANG_BEFORE = "hang_before"
    """Do nothing, never answer."""
    RESET = "reset"
    """Do it, reset the connection without an answer."""
    RESET_BEFORE = "reset_before"
    """Do nothing, reset the connection without an answer."""
    RESET_ANSWER = "reset_answer"
    """Do it, send the headers of the answer, reset the connection."""
    HALF_ANSWER = "half_answer"
    """Do it, send the headers and half of the body, close the connection."""
    HALF_HEAD = "half_head"
    """Do it, send half of the headers, close the connection."""
    DRIP = "drip"
    """Do it, send the answer, headers and all, at `bytes_per_s`."""
    ENDLESS = "endless"
    """Do it, answer with spaces behind the JSON: `answer_bytes` of them, or a billion."""

    @property
    def takes_effect(self) -> bool:
        """Say whether a call that it strikes is done, if it can be."""
        return self not in (Happens.PLAN, Happens.ANSWER, Happens.HANG_BEFORE, Happens.RESET_BEFORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What of a call can decide whether an order strikes it."""

    route: Route
    method: str
    path: str
    key: str | None = None
    """What stands for it."""
    tool: str | None = None
    admitted: bool = True
    """Its key and its form are good: what it asks for is now a question of the plan."""
    succeeds: bool = True
    """What it asks for can be done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident(Strike):
    """One incident, as it was ordered."""

    DETAILS: ClassVar[Mapping[str, frozenset[str]]] = {
        Happens.PLAN: frozenset(
            {"status", "error", "code", "plan", "feature", "reset_at", "reset_in_s", "allowance"}
        ),
        Happens.ANSWER: frozenset({"status", "body"}),
    }

    what: Happens
    # What is answered:
    status: int | None = None
    """200 to 599; of a plan 400 to 499."""
    body: object = UNSAID
    """JSON, or a text that is sent as it stands."""
    error: str | None = None
    code: str | None = None
    plan: str | None = None
    feature: str | None = None
    reset_at: object = UNSAID
    """Sent as it stands, and ends nothing."""
    reset_in_s: float | None = None
    """So long after its beginning the plan is renewed: then the order ends, unless `seconds` says when."""
    allowance: int = 0
    """Calls that still succeed."""
    # Whom it strikes. A plan that is told none of the first four strikes calls of tools, or, where its code
    # is that of the connection limit, what connects an integration:
    route: Route | None = None
    tool: str | None = None
    method: str | None = None
    path: str | None = None
    """As it was sent, without its query."""
    key: str | None = None
    """What stands for it, as `keys.digest` gives it and the record shows it."""

    @property
    def lasts_s(self) -> float | None:
        """Give how long it lasts from its beginning, None: until it is cleared."""
        return self.reset_in_s if self.seconds is None else self.seconds

    def meets(self, asked: Asked) -> bool:
        """Say whether a call is one of those that it strikes."""
        if self.what is Happens.PLAN and not asked.admitted:
            return False
        if self.key not in (None, asked.key):
            return False
        if self.what is Happens.PLAN and (self.route, self.tool, self.method, self.path) == (None,) * 4:
            if self.code == CONNECTION_LIMIT:
                return (asked.method, asked.path) == ("POST", CONNECT)
            return asked.route is Route.TOOLS
        return (
            self.route in (None, asked.route)
            and self.tool in (None, asked.tool)
            and self.method in (None, asked.method)
            and self.path in (None, asked.path)
        )

    def _wrong(self) -> Iterator[str]:
        if self.key is not None and DIGEST.fullmatch(self.key) is None:
            yield "key must be a key, or what stands for one in the record: sha256:0123456789abcdef"
        if self.what is Happens.PLAN and self.reset_at is not UNSAID and self.reset_in_s is not None:
            yield "plan takes reset_at or reset_in_s, not both"

    def _check_figures(self) -> None:
        if self.what is Happens.PLAN:
            bounded("status", self.status, 400, 499)
        bounded("status", self.status, 200, 599)
        bounded("reset_in_s", self.reset_in_s, 0.001, MOST)
        bounded("allowance", self.allowance, 0, MOST)


class Incidents(Strikes[Incident]):
    """The orders that are on or to come, switched while the sandbox runs. A call meets at most one."""

    def next(self, asked: Asked, now: float) -> Running[Incident] | None:
        """Say which order strikes a call at `now`, Unix seconds, and count it: the first that may.

        A plan lets a call pass as long as there is an allowance; one that takes effect uses it up.
        """
        passed: list[Running[Incident]] = []
        struck: Running[Incident] | None = None
        for running in self.begun(now):
            if not running.order.meets(asked):
                continue
            if running.spared < running.order.allowance:
                passed.append(running)
            elif self._falls(running):
                struck = running
                break
        if asked.succeeds and (struck is None or struck.order.what.takes_effect):
            for running in passed:
                running.spared += 1
        return struck

    def _lasts_s(self, order: Incident) -> float | None:
        return order.lasts_s
