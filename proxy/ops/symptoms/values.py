"""What may be found, what is looked at, and where the README says more."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Final, Literal

from proxy.buffer import KeyFigures
from proxy.gateway.figures import Figures
from proxy.ledger import Unsafe
from proxy.ops.reloads import Reloads
from proxy.ops.trends import Trend
from proxy.ops.window import Window
from proxy.wire.limits import PublicKey

DEFECT_S = 3_600.0
"""So long what happens once, and must not, is spoken of."""

Severity = Literal["error", "warning"]


@unique
class Symptom(StrEnum):
    """Everything that may be found."""

    UNREADY = "unready"
    BUFFER_UNSAFE = "buffer_unsafe"
    BUFFER_LOST = "buffer_lost"
    BUFFER_FULL = "buffer_full"
    BUFFER_NEARLY_FULL = "buffer_nearly_full"
    LEDGER_DIFFERENCE = "ledger_difference"
    LANE_FAULT = "lane_fault"
    INTERNAL_ERROR = "internal_error"
    UPSTREAM_NOT_ANSWERING = "upstream_not_answering"
    UPSTREAM_UNSTEADY = "upstream_unsteady"
    KEY_REFUSED = "key_refused"
    UPSTREAM_FAILING = "upstream_failing"
    REFUSAL_STORM = "refusal_storm"
    RATE_LIMITED = "rate_limited"
    PAUSED_BY_OPERATOR = "paused_by_operator"
    FORBIDDEN_ORIGINS = "forbidden_origins"
    FLOOD = "flood"
    BACKLOG = "backlog"
    QUEUE_WAITS = "queue_waits"
    QUOTA_REACHED = "quota_reached"
    EVENTS_REFUSED = "events_refused"
    DEAD_LETTERS_GROWING = "dead_letters_growing"
    AMBIGUOUS = "ambiguous"
    QUEUES_STALLED = "queues_stalled"
    API_KEY_REFUSED = "api_key_refused"
    PLAN_EXHAUSTED = "plan_exhausted"
    GATEWAY_FAILING = "gateway_failing"
    RELOAD_FAILED = "reload_failed"
    FORWARDING_UNTRUSTED = "forwarding_untrusted"


_OUTLIT = "#when-outlit-is-the-trouble"
_FLOOD = "#when-more-comes-in-than-goes-out"
_BUFFER = "#when-the-buffer-is-the-trouble"
_REDIS = "#when-redis-is-the-trouble"
_BOOKS = "#when-the-books-do-not-balance"
_GATEWAY = "#when-the-gateway-is-the-trouble"

SECTION: Final[Mapping[Symptom, str]] = {
    Symptom.UNREADY: _BUFFER,
    Symptom.BUFFER_UNSAFE: _REDIS,
    Symptom.BUFFER_LOST: _REDIS,
    Symptom.BUFFER_FULL: _BUFFER,
    Symptom.BUFFER_NEARLY_FULL: _BUFFER,
    Symptom.LEDGER_DIFFERENCE: _BOOKS,
    Symptom.LANE_FAULT: _BOOKS,
    Symptom.INTERNAL_ERROR: "#which-number-moves",
    Symptom.UPSTREAM_NOT_ANSWERING: _OUTLIT,
    Symptom.UPSTREAM_UNSTEADY: _OUTLIT,
    Symptom.KEY_REFUSED: _OUTLIT,
    Symptom.UPSTREAM_FAILING: _OUTLIT,
    Symptom.REFUSAL_STORM: _OUTLIT,
    Symptom.RATE_LIMITED: _OUTLIT,
    Symptom.PAUSED_BY_OPERATOR: _OUTLIT,
    Symptom.FORBIDDEN_ORIGINS: _OUTLIT,
    Symptom.FLOOD: _FLOOD,
    Symptom.BACKLOG: _FLOOD,
    Symptom.QUEUE_WAITS: _OUTLIT,
    Symptom.QUOTA_REACHED: _FLOOD,
    Symptom.EVENTS_REFUSED: "#what-clients-are-told",
    Symptom.DEAD_LETTERS_GROWING: "#dead-letters",
    Symptom.AMBIGUOUS: "#when-answers-are-lost",
    Symptom.QUEUES_STALLED: "#when-a-queue-stalls",
    Symptom.API_KEY_REFUSED: _GATEWAY,
    Symptom.PLAN_EXHAUSTED: _GATEWAY,
    Symptom.GATEWAY_FAILING: _GATEWAY,
    Symptom.RELOAD_FAILED: "#when-a-reload-is-refused",
    Symptom.FORWARDING_UNTRUSTED: "#behind-a-reverse-proxy",
}
"""Where the README says more."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an operator should know; `key`: the public key that it is about, None for all."""

    symptom: Symptom
    severity: Severity
    what: str
    what_to_do: str
    key: PublicKey | None = None

    @property
    def section(self) -> str:
        """Where the README says more."""
        return SECTION[self.symptom]


@dataclass(frozen=True, slots=True)
class Seen:
    """All that is looked at.

    `checks`: of being ready, "ok" or what is wrong. `figures`: None where the buffer did not answer.
    `trends`: how the backlogs of keys move, where that is known.
    `limit_per_s`: what a key may send. `unsafe`: of a Redis. `gateway`: None where it is off. `now_ms`: the
    time of day.
    """

    checks: Mapping[str, str]
    window: Window
    figures: Mapping[PublicKey, KeyFigures] | None
    limit_per_s: float
    max_bytes: int
    max_bytes_per_key: int
    trends: Mapping[PublicKey, Trend] = field(default_factory=dict)
    unsafe: tuple[Unsafe, ...] = ()
    reloads: Reloads = field(default_factory=Reloads)
    now_ms: int = 0
    gateway: Figures | None = None
