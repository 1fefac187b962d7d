"""What goes into the buffer's verbs and comes out of them."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from proxy.gate import NO_EVIDENCE, NO_FEEDBACK, Evidence, Feedback, View
from proxy.lanes import LaneId, QueueId
from proxy.ledger import Answered, Books, Dead
from proxy.wire.limits import EVENTS_PER_REQUEST, PublicKey


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
    rate_share: float = 1.0
    dedup_window_s: float = 600.0
    max_bytes: int = 4_000_000_000
    max_bytes_per_key: int = 2_000_000_000
    dead_max_bytes: int = 500_000_000
    quota: Quota | None = None

    @property
    def linger_ms(self) -> int:
        return int(self.linger_s * 1000)

    @property
    def lease_ms(self) -> int:
        return int(self.lease_s * 1000)

    @property
    def dedup_window_ms(self) -> int:
        return int(self.dedup_window_s * 1000)


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
class Trouble:
    """What is remembered of a head that upstream did not take.

    `since_ms`: when the first try that it did not take was claimed (store's clock); `requests` and
    `successes`: of the key, then (`Evidence`). `suspects`: upstream refuses one of the queue's first so many
    events (0: it is not known). `too_large`: no single one is suspect, all together were too much (413).
    `forbidden`: how often it was answered 403. `refused_ms`: when the answer came that made suspects of them,
    on the store's clock (0: no refusal did). Only a request that was claimed after that and taken proves that
    upstream takes other things: one claimed before may have arrived before.
    """

    since_ms: int
    requests: int
    successes: int
    suspects: int = 0
    forbidden: int = 0
    refused_ms: int = 0
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a queue's next delivery should know of the ones before it.

    `max_events`: how many events its batch may hold. `trouble`: None where nothing is wrong.
    """

    max_events: int = EVENTS_PER_REQUEST
    trouble: Trouble | None = None


ALL_IS_WELL = Outlook()


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to deliver the head of a queue until `lease_s` after the claim was *asked for*.

    `claimed_ms`: the store's clock at the claim. `attempts` counts the tries of this head that failed before,
    `expired` how many of its leases in a row ended by themselves just before this one. `unsettled`: so many
    events of the head may have arrived with those (0: none). `outlook`: what the last delivery left, its
    `max_events` halved by leases that end by themselves. `evidence`: how the key fares. `confirmed`: upstream
    has taken something of the key once. `others`: other queues of the key hold events, too.
    """

    key: PublicKey
    queue: QueueId
    token: bytes
    claimed_ms: int = 0
    attempts: int = 0
    expired: int = 0
    unsettled: int = 0
    outlook: Outlook = ALL_IS_WELL
    evidence: Evidence = NO_EVIDENCE
    confirmed: bool = False
    others: bool = False


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing to deliver yet: ask again after `wait_s` (at most `MAX_IDLE_S`), or when woken.

    `empty`: the key holds nothing at all. `stalled`: a queue was put off for `STALLED_WAIT_S` because every
    lease of its head ends by itself, with one event too; ask again at once.
    """

    wait_s: float
    empty: bool = False
    stalled: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """The longest head prefix of a queue that has one lane, within the bounds asked for.

    `lanes`: the lane id that was stored with each event; `accepted_ms`: when each was accepted, on the
    store's clock. `uuids` and `texts` as in `Portion`. `more` says why it ends: nothing behind it, another
    lane, the number of events, or their bytes.
    """

    header: bytes
    lanes: Sequence[LaneId]
    accepted_ms: Sequence[int]
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

    `outlook` is left to the queue's next delivery (None: the lease's own stays). `answered` is what became of
    the request, None where none was made. `ambiguous`: upstream may have taken
    the batch, or an earlier one of its events, unseen. A batch that is ambiguous, or of which an event has
    left, is put on the key's record.
    """

    taken: int
    dead: Mapping[int, Death] = field(default_factory=dict)
    again: frozenset[int] = frozenset()
    wait_s: float | None = None
    failed: bool = False
    outlook: Outlook | None = None
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
    """The token was no longer the queue's: nothing was changed.

    `ambiguous`: the store has lost the lease (with a primary that failed, say), so that its next holder does
    not know that the batch may have arrived: it was put on the key's record as ambiguous.
    """

    ambiguous: bool = False


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An event that was given up, with all that is needed to understand and to replay it.

    `attempts`: the failed tries of its queue's head, the last one with them; `first_tried_ms`: when the first
    of these was claimed.
    """

    id: int
    key: PublicKey
    queue: QueueId
    lane_header: bytes
    uuid: bytes
    text: bytes
    reason: Dead
    message: str
    attempts: int
    first_tried_ms: int
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
    """What the buffer knows of one public key.

    `ambiguous` counts the batches that were ever put on its record so.
    """

    books: Books
    queues: int
    stored_bytes: int
    oldest_held_ms: int | None
    gate: View
    succeeded: bool
    ambiguous: int = 0
