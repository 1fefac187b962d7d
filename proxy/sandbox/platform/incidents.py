"""The orders: what can happen to a call of the Platform API, and which of them strikes one.

By the call's fate there are two families:

- *without effect*: ``plan``, ``answer``, ``hang_before``, ``reset_before``;
- *with the effect that it deserves, and told late, badly or not at all*: ``latency``, ``drip``, ``endless``,
  ``half_answer``, ``half_head``, ``reset_answer``, ``hang``, ``reset``. A sender cannot tell these last from
  the ``_before``: whether its call has run is unknown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from proxy.sandbox import lies
from proxy.sandbox.bounds import MOST, OrderError, bounded, check_latency, check_times
from proxy.sandbox.details import misplaced, shown
from proxy.sandbox.manner import ENDLESS_BYTES, Break, Manner
from proxy.sandbox.platform.keys import DIGEST
from proxy.sandbox.platform.routes import CONNECT, Route
from proxy.sandbox.schedule import Running, Strikes

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


_PLAN: Final = frozenset(
    {"status", "error", "code", "plan", "feature", "reset_at", "reset_in_s", "allowance"}
)
# What each may be told beyond whom it strikes and when. Every one may also be late and send headers.
_DETAILS: Final[Mapping[Happens, frozenset[str]]] = {
    Happens.PLAN: _PLAN,
    Happens.ANSWER: frozenset({"status", "body"}),
    Happens.DRIP: frozenset({"bytes_per_s"}),
    Happens.ENDLESS: frozenset({"answer_bytes"}),
}
_BREAKS: Final[Mapping[Happens, Break]] = {
    Happens.HANG: Break.HANG,
    Happens.HANG_BEFORE: Break.HANG,
    Happens.RESET: Break.RESET,
    Happens.RESET_BEFORE: Break.RESET,
    Happens.RESET_ANSWER: Break.RESET_ANSWER,
    Happens.HALF_ANSWER: Break.HALF_ANSWER,
    Happens.HALF_HEAD: Break.HALF_HEAD,
    Happens.DRIP: Break.DRIP,
    Happens.ENDLESS: Break.ENDLESS,
}


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
class Incident:
    """One order. It lasts until its `seconds` or its `requests` are used up, or until it is cleared."""

    what: Happens
    latency_ms: int = 0
    """How late the answer, or what takes its place, comes."""
    latency_to_ms: int | None = None
    """With it, the latency is by chance, evenly from `latency_ms` to this."""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Sent with the answer, or instead of its own; None leaves one out. `lies` says what a value may hold."""
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
    bytes_per_s: int | None = None
    answer_bytes: int = ENDLESS_BYTES
    # Whom it strikes. A plan that is told none of the first four strikes calls of tools, or, where its code
    # is that of the connection limit, what connects an integration:
    route: Route | None = None
    tool: str | None = None
    method: str | None = None
    path: str | None = None
    """As it was sent, without its query."""
    key: str | None = None
    """What stands for it, as `keys.digest` gives it and the record shows it."""
    every: int = 1
    """Strike the n-th, the 2n-th … of the calls that it could."""
    # When:
    after_s: float = 0.0
    """How long after it was ordered it begins."""
    seconds: float | None = None
    """How long it lasts from then on."""
    requests: int | None = None
    """How many calls it strikes, at least 1."""

    def __post_init__(self) -> None:
        """Refuse what could not be carried out."""
        wrong = next(self._wrong(), None)
        if wrong is not None:
            raise OrderError(wrong)
        self._check_figures()

    @property
    def manner(self) -> Manner:
        """Give how the answer is sent."""
        return Manner(
            latency_ms=self.latency_ms,
            latency_to_ms=self.latency_to_ms,
            breaks=_BREAKS.get(self.what),
            bytes_per_s=self.bytes_per_s or 1,
            answer_bytes=self.answer_bytes,
        )

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

    def document(self) -> dict[str, object]:
        """Give the order as the JSON object that `orders` reads."""
        return shown(self)

    def _wrong(self) -> Iterator[str]:
        yield from misplaced(self, _DETAILS)
        if self.key is not None and DIGEST.fullmatch(self.key) is None:
            yield "key must be a key, or what stands for one in the record: sha256:0123456789abcdef"
        match self.what:
            case Happens.LATENCY if self.latency_ms == 0 and self.latency_to_ms is None:
                yield "latency needs latency_ms"
            case Happens.DRIP if self.bytes_per_s is None:
                yield "drip needs bytes_per_s"
            case Happens.PLAN if self.reset_at is not UNSAID and self.reset_in_s is not None:
                yield "plan takes reset_at or reset_in_s, not both"

    def _check_figures(self) -> None:
        check_times(self.after_s, self.seconds)
        check_latency(self.latency_ms, self.latency_to_ms)
        if self.what is Happens.PLAN:
            bounded("status", self.status, 400, 499)
        bounded("status", self.status, 200, 599)
        bounded("reset_in_s", self.reset_in_s, 0.001, MOST)
        bounded("allowance", self.allowance, 0, MOST)
        bounded("bytes_per_s", self.bytes_per_s, 1, MOST)
        bounded("answer_bytes", self.answer_bytes, 1, 1_000 * MOST)
        bounded("every", self.every, 1, MOST)
        bounded("requests", self.requests, 1, MOST)
        for name, value in self.headers.items():
            lies.check(name, value)


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
