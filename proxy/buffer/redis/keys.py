"""The names of the engine's keys in Redis.

The hash tag is `{public key}`, so all that belongs to a public key is in one slot, and every key of a script
can be declared. What belongs to the fleet has a slot of its own; none of it is needed for correctness.
"""

from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from functools import lru_cache

from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

LAYOUT = b"outlit:{fleet}:layout"
"""STRING: the version of the stored layout, and the id of this store, made at its first start."""

KNOWN = b"outlit:{fleet}:keys"
"""SET: every public key that was ever appended to."""

ACTIVE = b"outlit:{fleet}:active"
"""ZSET: public key → when it is due next, in Unix ms. A hint that makes every process look in time."""

FACTS = b"outlit:{fleet}:facts"
"""HASH: public key → what its bounds need to know of the others (see `facts`)."""

RECOUNT = b"outlit:{fleet}:recount"
"""STRING, until the next one's turn: some process recounts the books."""

LETTERS = b"outlit:{fleet}:letters"
"""STRING: the id given to a dead letter last."""


@dataclass(frozen=True, slots=True)
class KeyNames:
    """The names of one public key's keys."""

    key: PublicKey
    books: bytes = field(init=False)
    """HASH: accepted, delivered, dead, dropped; numbered (accepted and replayed), stored_bytes, dead_bytes,
    ambiguous (batches on record as that), succeeded; held_difference and dead_difference, by which the last
    recount found less; latest_ms, the newest time that was seen; born_ms; turn, how often it was written."""
    due: bytes = field(init=False)
    """ZSET: queue that holds events → due time in Unix ms."""
    queues: bytes = field(init=False)
    """HASH: queue that holds events → its record (see `shared.lua`)."""
    heads: bytes = field(init=False)
    """ZSET: queue that holds events → number of its first event among the key's accepted."""
    gate: bytes = field(init=False)
    """STRING: the gate (`gate.dump`), which Lua reads and writes, too; none before a first claim or pause."""
    batches: bytes = field(init=False)
    """LIST: what became of ordinary batches, newest first."""
    ambiguous: bytes = field(init=False)
    """LIST: what became of ambiguous batches, newest first."""
    superseded: bytes = field(init=False)
    """ZSET: tokens of leases that ended by themselves → when that was seen, in Unix ms: the newest ones."""
    dead: bytes = field(init=False)
    """HASH: id → dead letter (see `entries`)."""
    dead_ids: bytes = field(init=False)
    """ZSET: id → id."""
    dead_order: bytes = field(init=False)
    """ZSET: id → number of the event among the key's accepted."""
    _prefix: bytes = field(init=False)

    def __post_init__(self) -> None:
        prefix = b"outlit:{%s}:" % self.key.encode("ascii")
        object.__setattr__(self, "_prefix", prefix)
        for name in ("books", "due", "queues", "heads", "gate", "batches", "ambiguous", "superseded", "dead"):
            object.__setattr__(self, name, prefix + name.encode())
        object.__setattr__(self, "dead_ids", prefix + b"dead:ids")
        object.__setattr__(self, "dead_order", prefix + b"dead:order")

    def of_queue(self, queue: QueueId) -> tuple[bytes, bytes]:
        """A queue's two keys.

        LIST: its lane headers and runs of events, oldest first (see `entries`).
        ZSET, seen: dedup id (8 bytes) → when its event was appended, in Unix ms.
        """
        name = urlsafe_b64encode(queue)[:22]
        return self._prefix + b"q:" + name, self._prefix + b"seen:" + name

    def list(self, queue: QueueId) -> bytes:
        """The first of `of_queue`."""
        return self.of_queue(queue)[0]

    def settled(self, token: bytes) -> bytes:
        """STRING, for some minutes: what settling with this token was answered."""
        return self._prefix + b"settled:" + token.hex().encode()


@lru_cache(maxsize=10_000)
def names(key: PublicKey) -> KeyNames:
    """The names of a public key's keys."""
    return KeyNames(key)
