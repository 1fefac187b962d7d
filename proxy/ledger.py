"""Where every event ends, and the two identities that must balance.

At the door of one process:        received = accepted + duplicate + rejected
In the buffer, for each public key: accepted = held + delivered + dead + dropped

*held* includes what is leased. The closed lists of outcomes and reasons that operators see as label values
stand here too, each once. The second identity is kept in the same transaction as the data; its exported
difference compares the counters with a slow recount of that data, or it could never be other than 0.
"""

from dataclasses import dataclass
from enum import StrEnum, unique


@unique
class Rejected(StrEnum):
    """Why an event was not accepted. Its client was told so."""

    INVALID = "invalid"
    ENVELOPE = "envelope"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    UNKNOWN = "unknown"
    QUOTA = "quota"
    BUFFER_FULL = "buffer_full"
    BUFFER_UNAVAILABLE = "buffer_unavailable"


@unique
class Dead(StrEnum):
    """Why an accepted event became a dead letter."""

    REFUSED = "refused"
    ENVELOPE_REFUSED = "envelope_refused"
    FORBIDDEN = "forbidden"
    KEY_REFUSED = "key_refused"
    POISON = "poison"
    EXPIRED = "expired"


@unique
class Dropped(StrEnum):
    """Why an accepted event was given up: always by a choice of the operator's."""

    DEAD_EVICTED = "dead_evicted"
    DEAD_PURGED = "dead_purged"
    DEAD_EXPIRED = "dead_expired"
    ERASED = "erased"


@unique
class Sampled(StrEnum):
    """What a tap sees happen to an event; *deferred*: upstream did not take it, and it goes again."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    REJECTED = "rejected"
    DEFERRED = "deferred"
    DELIVERED = "delivered"
    DEAD = "dead"


@unique
class Answered(StrEnum):
    """What became of one upstream request."""

    DELIVERED = "delivered"
    PARTLY_DELIVERED = "partly_delivered"
    REFUSED = "refused"
    FORBIDDEN = "forbidden"
    KEY_REFUSED = "key_refused"
    RATE_LIMITED = "rate_limited"
    FAILED = "failed"
    UNANSWERED = "unanswered"
    UNREACHED = "unreached"


@unique
class Underfull(StrEnum):
    """Why an upstream request left with fewer than 100 events."""

    LINGER = "linger"
    LANE = "lane"
    BYTES = "bytes"
    LIMIT = "limit"
    DRAIN = "drain"


@unique
class Left(StrEnum):
    """Why a process that drained at its end has left events in the buffer."""

    PAUSED = "paused"
    WAITS = "waits"
    GRACE_OVER = "grace_over"


@unique
class Pause(StrEnum):
    """Why a key's gate lets nothing through for now, or one probe at a time."""

    RATE_LIMITED = "rate_limited"
    KEY_REFUSED = "key_refused"
    UPSTREAM_FAILING = "upstream_failing"
    REFUSAL_STORM = "refusal_storm"
    OPERATOR = "operator"


@unique
class Unsafe(StrEnum):
    """What of a Redis endangers what it holds, or keeps it from taking more."""

    ROLE = "role"
    VERSION = "version"
    EVICTION = "eviction"
    PERSISTENCE = "persistence"
    SAVING = "saving"
    REPLICAS = "replicas"
    MEMORY = "memory"
    BOUNDS = "bounds"
    IN_CLEAR = "in_clear"


@unique
class PlatformRoute(StrEnum):
    """Which part of Outlit's Platform API a call is for."""

    VALIDATE = "validate"
    TOOLS = "tools"
    INTEGRATIONS = "integrations"
    OTHER = "other"


@unique
class PlatformOutcome(StrEnum):
    """What became of one call to the gateway.

    *answered*, *refused*, *failed*: upstream's answer was a 2xx or 3xx, a 4xx, a 5xx; or what failed is the
    gateway itself. *unreachable*: nothing was sent. *broken*: it was, and no whole answer came back.
    *remembered*, *cached*, *rejected*: answered here, by what is known of the plan or of the API key, or
    because it may not be. *abandoned*: the caller left before it had its answer.
    """

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    UNREACHABLE = "unreachable"
    BROKEN = "broken"
    REMEMBERED = "remembered"
    CACHED = "cached"
    REJECTED = "rejected"
    ABANDONED = "abandoned"


@unique
class OwnCode(StrEnum):
    """Why the gateway answers by itself."""

    GATEWAY_OFF = "gateway_off"
    NO_API_KEY = "no_api_key"
    UNAUTHORIZED = "unauthorized"
    HOST_NOT_ALLOWED = "host_not_allowed"
    PATH_REFUSED = "path_refused"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    BODY_TOO_LARGE = "body_too_large"
    MALFORMED_BODY = "malformed_body"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    TOOL_NOT_ALLOWED = "tool_not_allowed"
    OVERLOADED = "overloaded"
    STOPPING = "stopping"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    UPSTREAM_BROKEN = "upstream_broken"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    ANSWER_TOO_LARGE = "answer_too_large"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Books:
    """One public key's account of events, or the sum of several.

    `difference` is what the last recount of the data found missing (above 0) or too much (below).
    """

    accepted: int = 0
    held: int = 0
    delivered: int = 0
    dead: int = 0
    dropped: int = 0
    difference: int = 0

    def __add__(self, other: "Books") -> "Books":
        return Books(
            self.accepted + other.accepted,
            self.held + other.held,
            self.delivered + other.delivered,
            self.dead + other.dead,
            self.dropped + other.dropped,
            self.difference + other.difference,
        )
