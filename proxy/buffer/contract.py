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
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from proxy.gate import NO_FEEDBACK, Feedback
from proxy.lanes import LaneId, QueueId
from proxy.ledger import Answered, Books, Dead
from proxy.wire.limits import PublicKey

FULL_BATCH = 100
"""Waiting events that make a queue due at once: a full upstream request."""

MAX_IDLE_S = 60.0
"""Longest wait that a claim ever asks for."""


MAX_WAIT_S = 4320.0
"""Longest wait that a settlement can ask for: an hour and a fifth of it. A due time further ahead is a
mistake of the clock and is pulled back."""


MAX_LETTERS = 1_000
"""Dead letters that one call lists, replays or purges: a transaction of some milliseconds."""

MAX_BATCHES = 1_000
"""Batches that one call lists."""


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
    ├── BufferUnavailable    the store did not answer: perhaps done, perhaps not
    │   └── BufferBroken     storage failed: it will not answer again
    └── AppendRefused        nothing was stored
        ├── NeverFits        larger than the buffer may ever hold
        ├── BufferFull       a bound on stored bytes: later there may be room
        └── QuotaExceeded    a bound on keys that Outlit never confirmed
    """


class BufferUnavailable(BufferFault):
    """The store did not answer or cannot: what was asked may or may not have been done."""


class BufferBroken(BufferUnavailable):
    """Storage failed, and asking again is of no use: the process must end. The message says what to do."""


class AppendRefused(BufferFault):
    """A bound was reached and nothing was stored; the message says which."""


class NeverFits(AppendRefused):
    """The request alone is larger than a bound on stored bytes."""


class BufferFull(AppendRefused):
    """The stored bytes of the key, or of all, have reached their bound."""


class QuotaExceeded(AppendRefused):
    """A key without a single upstream success holds too many queues, or there are too many such keys."""


@dataclass(frozen=True, slots=True)
class Portion:
    """The events of one client request that go into one queue, in order; `header` is the lane's.

    The events stand in columns, each the n-th of the three: `uuids` has 16 bytes for each, `dedup_ids` any
    64-bit integer (signed), `texts` the JSON as it will be sent. (An object an event cost more than all that
    is done to it afterwards.)
    """

    queue: QueueId
    lane: LaneId
    header: bytes
    uuids: bytes
    dedup_ids: "array[int]"
    texts: Sequence[bytes]


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
class Head:
    """The longest head prefix of a queue that has one lane, within the bounds asked for.

    `lanes`: the lane id that was stored with each event. `uuids` and `texts` as in `Portion`. `more` says why
    it ends: nothing behind it, another lane, the number of events, or their bytes.
    """

    header: bytes
    lanes: Sequence[LaneId]
    uuids: bytes
    texts: Sequence[bytes]
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

    `answered` is what became of the request, None where none was made. `ambiguous`: upstream may have taken
    the batch, or an earlier one of its events, unseen. A batch that is ambiguous, or of which an event has
    left, is put on the key's record.
    """

    taken: int
    dead: Mapping[int, Death] = field(default_factory=dict)
    again: frozenset[int] = frozenset()
    wait_s: float | None = None
    failed: bool = False
    feedback: Feedback = NO_FEEDBACK
    answered: Answered | None = None
    ambiguous: bool = False

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
class Which:
    """Which dead letters: those that fit all that is given. Times are Unix milliseconds of the store's clock.

    `up_to_id`: none that was written after this one, so that a replay never meets what died of it.
    """

    key: PublicKey | None = None
    id: int | None = None
    uuid: bytes | None = None
    queue: QueueId | None = None
    reason: Dead | None = None
    died_from_ms: int | None = None
    died_before_ms: int | None = None
    up_to_id: int | None = None


ALL_LETTERS = Which()
"""Every dead letter."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch on a key's record: what became of each of its events, when upstream had answered or not.

    `fates` has a letter an event: `d`elivered, dead (`x`), sent `a`gain.
    """

    key: PublicKey
    settled_at_ms: int
    answered: Answered | None
    ambiguous: bool
    uuids: bytes
    fates: bytes

    def fate(self, uuid: bytes) -> str | None:
        """The letter of the event with this uuid; None where the batch has none."""
        for at in range(len(self.fates)):
            if self.uuids[16 * at : 16 * at + 16] == uuid:
                return chr(self.fates[at])
        return None


@dataclass(frozen=True, slots=True)
class HeldEvent:
    """Where a held event waits. `due_in_s` of its queue, at most 0 where it is due; leased: being sent."""

    key: PublicKey
    queue: QueueId
    accepted_at_ms: int
    attempts: int
    leased: bool
    due_in_s: float


@dataclass(frozen=True, slots=True)
class Traces:
    """What the buffer knows of one uuid: where it is held, its dead letters, and the batches that it was in.

    Newest first. Batches are remembered for a while only: so many of each key.
    """

    held: Sequence[HeldEvent] = ()
    dead: Sequence[DeadLetter] = ()
    batches: Sequence[Batch] = ()


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure took out, and how many queues it left alone because they are being delivered."""

    held: int = 0
    dead: int = 0
    leased: int = 0

    def __add__(self, other: "Erased") -> "Erased":
        return Erased(self.held + other.held, self.dead + other.dead, self.leased + other.leased)


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """What the buffer knows of one public key. `paused` names the reason why it sends nothing now.

    `ambiguous` counts the batches that were ever put on its record so.
    """

    books: Books
    queues: int
    stored_bytes: int
    oldest_held_ms: int | None
    rate_per_s: float
    paused: str | None
    succeeded: bool
    ambiguous: int = 0


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
    async def dead_letters(
        self, which: Which = ALL_LETTERS, *, before_id: int | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        """The newest dead letters of those, older than `before_id`; `limit` at most `MAX_LETTERS`."""

    @abstractmethod
    async def count_dead(self, which: Which = ALL_LETTERS) -> int:
        """How many dead letters these are."""

    @abstractmethod
    async def replay(self, which: Which) -> int:
        """Put dead letters back at the tails of their queues, past dedup; how many (0: none is left).

        At most `MAX_LETTERS`, in the order in which their events had been accepted: call it until it says 0.
        They are held again, as new events of their queues. Raises BufferFull where not even one fits.
        """

    @abstractmethod
    async def purge(self, which: Which) -> int:
        """Give dead letters up, oldest first; how many. At most `MAX_LETTERS`: call it until it says 0."""

    @abstractmethod
    async def erase(
        self,
        is_theirs: Callable[[bytes, bytes], bool],
        *,
        key: PublicKey | None = None,
        queue: QueueId | None = None,
    ) -> Erased:
        """Take out every held event and dead letter for which `is_theirs(lane header, text)`.

        Of one key, or queue, or of all; `is_theirs` is called on any thread. What is appended meanwhile may
        be passed over. A queue that is leased is left as it is and counted: call it again until none is.
        What is taken out is dropped, its bytes are overwritten where they lay. It is several transactions:
        where this raises, some of it may have been done, and calling it again does the rest.
        """

    @abstractmethod
    async def trace(
        self, uuid: bytes, *, key: PublicKey | None = None, queue: QueueId | None = None
    ) -> Traces:
        """What is known of the events with this uuid; of all keys where none is given.

        Without `queue` everything that is held is searched: about a second for a million events.
        """

    @abstractmethod
    async def ambiguous(self, key: PublicKey | None = None, *, limit: int = 100) -> list[Batch]:
        """The newest batches that upstream may have taken unseen; `limit` at most `MAX_BATCHES`."""

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
    async def failed(self) -> BufferBroken:
        """Wait until the engine cannot go on (a storage error), and say why. The process must end then."""

    @abstractmethod
    async def close(self) -> None:
        """Finish what was asked, then let go of the store."""
