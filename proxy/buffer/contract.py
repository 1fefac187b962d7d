"""The buffer's contract: what every engine promises, in words.

The buffer is the only authority on what is held. It knows public keys, and of each its queues, its gate,
its dead letters and its books. Front and flusher meet in it and nowhere else, so either can run without
the other, in one process or in several.

*Durable.* When `append` or `settle` returns, what it says is kept at the configured durability. Each verb
is one transaction: it happens whole or not at all, the books with it.

*Order.* A queue gives its events out in the order in which they were appended; only its head is ever
leased, and by one worker at a time. `settle` takes from the head and leaves the rest where it was.

*Fenced.* A lease is a token and a later due time. When it ends unsettled (its worker died), the queue is
due again and the same head is given out again; nothing has to be repaired. A late worker's token is
*spent*: settling with it changes nothing and says so.

*Due.* A queue is due `linger` after its head was accepted, at once when 100 events wait. An append moves
a due time only where the queue was empty, or where it reaches 100 events while it neither is leased nor
backs off: it can never shorten a lease, a back-off or a pause.

*Dedup.* An event whose dedup id was appended to the same queue within the window is answered as a
duplicate and not stored again. So `append` may be repeated, whole, after its answer was lost.

*Time* is the store's own clock, in Unix milliseconds; no verb takes the caller's time of day.

Any verb may raise BufferUnavailable: it then did nothing, or its answer is not known; a claim of that kind
ends by itself, and append and settle are safe to repeat.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from proxy.gate import NO_FEEDBACK, Feedback
from proxy.lanes import LaneId, QueueId
from proxy.ledger import Books, Dead
from proxy.wire.limits import PublicKey

FULL_BATCH = 100
"""Waiting events that make a queue due at once: a full upstream request."""

MAX_IDLE_S = 60.0
"""Longest wait that a claim ever asks for."""


MAX_WAIT_S = 4320.0
"""Longest wait that a settlement can ask for: an hour and a fifth of it. A due time further ahead is a
mistake of the clock and is pulled back."""


@dataclass(frozen=True, slots=True)
class Quota:
    """Bounds on keys that Outlit never confirmed by a success: waiting queues of each, and how many keys."""

    queues: int
    keys: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What the operator's settings say to any engine.

    `quota` None: every key that comes here is one that the operator listed.
    """

    linger_s: float = 1.0
    lease_s: float = 30.0
    limit_per_s: float = 100.0
    dedup_window_s: float = 600.0
    max_bytes: int = 4_000_000_000
    max_bytes_per_key: int = 2_000_000_000
    dead_max_bytes: int = 500_000_000
    quota: Quota | None = None


class BufferFault(Exception):
    """What the buffer raises.

    BufferFault
    ├── BufferUnavailable    the store did not answer, or broke: perhaps done, perhaps not
    └── AppendRefused        nothing was stored
        ├── NeverFits        larger than the buffer may ever hold
        ├── BufferFull       a bound on stored bytes: later there may be room
        └── QuotaExceeded    a bound on keys that Outlit never confirmed
    """


class BufferUnavailable(BufferFault):
    """The store did not answer or cannot: what was asked may or may not have been done."""


class AppendRefused(BufferFault):
    """A bound was reached and nothing was stored; the message says which."""


class NeverFits(AppendRefused):
    """The request alone is larger than a bound on stored bytes."""


class BufferFull(AppendRefused):
    """The stored bytes of the key, or of all, have reached their bound."""


class QuotaExceeded(AppendRefused):
    """A key without a single upstream success holds too many queues, or there are too many such keys."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event to be kept. `text` is its JSON as it will be sent, `dedup_id` any 64-bit integer (signed)."""

    uuid: bytes
    dedup_id: int
    text: bytes


@dataclass(frozen=True, slots=True)
class Portion:
    """The events of one client request that go into one queue, in order; `header` is the lane's."""

    queue: QueueId
    lane: LaneId
    header: bytes
    events: Sequence[Event]


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a request: events stored and events that were there already."""

    stored: int
    duplicate: int


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to deliver the head of a queue until `lease_s` after the claim was *asked for*.

    `attempts` counts the tries of this head that failed before; `max_events` is how many events the next
    batch may hold. `unsettled`: the lease before this one ended by itself, so its batch may have arrived.
    """

    key: PublicKey
    queue: QueueId
    token: bytes
    attempts: int
    max_events: int
    unsettled: bool = False


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to deliver yet: ask again after `wait_s` (at most `MAX_IDLE_S`), or when woken.

    `empty`: the key holds nothing at all.
    """

    wait_s: float
    empty: bool = False


@dataclass(frozen=True, slots=True)
class Held:
    """One event at the head of a queue, with the lane id that was stored with it."""

    lane: LaneId
    uuid: bytes
    text: bytes


@dataclass(frozen=True, slots=True)
class Head:
    """The longest head prefix of a queue that has one lane, within the bounds asked for.

    `more` says why it ends: nothing behind it, another lane, the number of events, or their bytes.
    """

    header: bytes
    events: Sequence[Held]
    more: Literal["none", "lane", "events", "bytes"]


@dataclass(frozen=True, slots=True)
class Death:
    """Why one event is given up: `message` is upstream's own word for it."""

    reason: Dead
    message: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """How a lease ends.

    `taken` events of the head were in the batch. Of these, the positions in `dead` become dead letters,
    those in `again` stay at the head in their order, all others are delivered. `wait_s` holds the queue
    back (None: it is due as usual); `failed` counts a failed try of what stays.
    """

    taken: int
    dead: Mapping[int, Death] = field(default_factory=dict)
    again: frozenset[int] = frozenset()
    wait_s: float | None = None
    failed: bool = False
    feedback: Feedback = NO_FEEDBACK

    @property
    def delivered(self) -> int:
        """How many of the batch's events upstream has taken."""
        return self.taken - len(self.dead) - len(self.again)


@dataclass(frozen=True, slots=True)
class Settled:
    """The lease has ended and the books are written.

    `due_s`: in how many seconds the queue is due again, None where nothing is left in it. `dropped` dead
    letters were evicted to make room.
    """

    left: int
    due_s: float | None = None
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Spent:
    """The token was no longer the queue's: nothing was changed."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up, with all that is needed to understand and to replay it."""

    id: int
    key: PublicKey
    queue: QueueId
    lane_header: bytes
    uuid: bytes
    text: bytes
    reason: Dead
    message: str
    attempts: int
    died_at_ms: int


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """What the buffer knows of one public key. `paused` names the reason why it sends nothing now."""

    books: Books
    queues: int
    stored_bytes: int
    oldest_held_ms: int | None
    rate_per_s: float
    paused: str | None
    succeeded: bool


class Buffer(ABC):
    """One engine. Every method may be called from many tasks at once."""

    @abstractmethod
    async def append(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        """Keep a client's request: all of its events in all of their queues, or none.

        A caller that is cancelled leaves it done whole or not at all, and repeating it does no harm.
        Raises AppendRefused (nothing was stored) or BufferUnavailable (unknown: repeat it).
        """

    @abstractmethod
    async def claim(self, key: PublicKey, token: bytes) -> Lease | Idle:
        """Lease the queue that has been due longest and take a rate token with it, or say how long to wait.

        `token`: 12 random bytes, never used before.
        """

    @abstractmethod
    async def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        """The head of a leased queue: at most `max_events`, and no more than fit `max_bytes` of text.

        At least one event, even where that alone is larger.
        """

    @abstractmethod
    async def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        """End a lease: write down what became of its batch, in the data and in the books.

        Raises BufferUnavailable: repeat it with the same lease until it is answered.
        """

    @abstractmethod
    async def dead_letters(self, key: PublicKey | None = None, *, limit: int = 100) -> list[DeadLetter]:
        """The newest dead letters, of one key or of all; `limit` at most 1,000."""

    @abstractmethod
    async def figures(self, *, recount: bool = False) -> Mapping[PublicKey, KeyFigures]:
        """What is known of each key.

        With `recount` the books' difference is found by counting the data itself, which takes about a second
        for a million events; without it the difference is the one that was found last.
        """

    @abstractmethod
    async def keys_with_work(self) -> Sequence[PublicKey]:
        """The keys that hold events: what a flusher starts from."""

    @abstractmethod
    def on_append(self, wake: Callable[[PublicKey, float], None]) -> None:
        """Call `wake(key, in_s)` after each append of this process that made a queue due in `in_s` seconds.

        That may be earlier than the last claim said. Called on the event loop.
        """

    @abstractmethod
    async def check(self) -> None:
        """Return if an append would succeed now. Raises BufferFault with what is wrong."""

    @abstractmethod
    async def failed(self) -> Exception:
        """Wait until the engine cannot go on (a storage error), and say why. The process must end then."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was asked, then let go of the store."""
