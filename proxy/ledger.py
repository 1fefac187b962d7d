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
