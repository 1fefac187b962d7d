"""What goes into the gate and comes out of it. Times are Unix milliseconds of the store's clock."""

from dataclasses import dataclass
from enum import StrEnum, unique

from proxy.ledger import Pause
from proxy.wire.rate_headers import RateHeaders

MAX_ORIGIN = 270
"""Characters of an Origin that are kept: a scheme, the longest name of a host, a port."""


@unique
class Outcome(StrEnum):
    """What a request's answer says of its key: all that the gate wants to know of it."""

    NONE = "none"
    """No request was made."""
    TAKEN = "taken"
    """2xx: upstream takes what this key sends."""
    REFUSED = "refused"
    """Upstream answered about the events, and took none of them."""
    FORBIDDEN = "forbidden"
    """403: perhaps about the request's Origin alone."""
    KEY_REFUSED = "key_refused"
    """401, 402, 404, a redirect: about the key, whatever was in the request."""
    RATE_LIMITED = "rate_limited"
    FAILED = "failed"
    """5xx, 408, 425, or no answer."""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What one request teaches the gate. No `headers`: there was no answer.

    `sent_ms`: when the request left. `origin`: the Origin that it was sent with, None where it had none; what
    is none (a real one is as long as its host's name) is cut, and made storable. `given_up`: the key was
    refused for so long that the request's events became dead letters.
    """

    outcome: Outcome = Outcome.NONE
    headers: RateHeaders | None = None
    sent_ms: float = 0.0
    origin: str | None = None
    given_up: bool = False

    def __post_init__(self) -> None:
        if self.origin is not None:
            shown = self.origin[:MAX_ORIGIN].encode(errors="replace").decode()
            object.__setattr__(self, "origin", shown)


NO_FEEDBACK = Feedback()
"""Nothing to learn: no request was made."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """How a key fares, as a claim finds it: what decides whether it is the events that upstream dislikes.

    `requests` and `successes` count the key's answered and unanswered requests, ever, 429 aside.
    `proven_ms`: when the latest of the requests was *claimed* of which upstream took something (0: never):
    such a success is no news from before a refusal. `judged`: of its latest 20 requests about whose events
    upstream answered, how many there were; `taken`: how many of them upstream took something of.
    `refused_elsewhere`: since the last success another queue was refused. `refused_since_ms`: when the key
    itself was first refused, 0 where it is not.
    """

    requests: int = 0
    successes: int = 0
    proven_ms: int = 0
    judged: int = 0
    taken: int = 0
    refused_elsewhere: bool = False
    refused_since_ms: int = 0


NO_EVIDENCE = Evidence()


@dataclass(frozen=True, slots=True)
class View:
    """A gate as people see it.

    `paused`: why it lets nothing through now, or one probe at a time until upstream takes something (then
    `paused_for_s` is 0). `by_operator`: the operator's own pause, which nothing else ends (and which says
    nothing of when: `paused_for_s` is 0).
    `forbidden_origins`: those whose requests upstream forbids, the latest first, at most 20.
    """

    rate_per_s: float
    limit_per_s: float
    paused: Pause | None = None
    paused_for_s: float = 0.0
    by_operator: bool = False
    forbidden_origins: tuple[str, ...] = ()
