"""The buffer's contract: what every engine promises, in words.

The buffer is the only authority on what is held. It knows public keys, and of each its queues, its gate,
its dead letters and its books. Front and flusher meet in it and nowhere else, so either can run without
the other, in one process or in several.

*Durable.* When a verb that writes returns, what it says is kept at the configured durability. Each is one
transaction: it happens whole or not at all, the books with it. (Only `erase` and `retry` may be several.)

*Order.* A queue gives its events out in the order in which they were appended; only its head is ever
leased, and by one worker at a time. `settle` takes from the head and leaves the rest where it was.

*Fenced.* A lease is a token and a later due time. When it ends unsettled (its worker died), the queue is
due again and the same head is given out again; nothing has to be repaired. A late worker's token is
*spent*: settling with it changes nothing and says so. (Settling again, because the answer was lost, is told
*spent* too, or what it was told before.)

*Trouble.* What a settlement says of a queue's outlook is given to its next lease. A lease that ends by itself
is a failed try of its head; from `HALVING_EXPIRIES` of them in a row on each halves the next batch.

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

from proxy.buffer.values import (
    ALL_LETTERS,
    Appended,
    Batch,
    DeadLetter,
    Erased,
    Head,
    Idle,
    KeyFigures,
    Lease,
    Portion,
    Settled,
    Settlement,
    Spent,
    Terms,
    Traces,
    Which,
)
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

FULL_BATCH = 100
"""Waiting events that make a queue due at once: a full upstream request."""

HALVING_EXPIRIES = 3
"""From so many leases in a row on that end by themselves, each halves what the next batch may hold …"""

STALLED_EXPIRIES = 10
"""… and after so many, when that has long been one event, the queue is put off and somebody is told."""

STALLED_WAIT_S = 3_600.0

LOOKED_THROUGH = 50
"""Queues that one claim looks at, where not simply the first is wanted."""

MAX_IDLE_S = 60.0
"""Longest wait that a claim ever asks for."""

MAX_WAIT_S = 4320.0
"""Longest wait that a settlement can ask for: an hour and a fifth of it. A due time further ahead is a
mistake of the clock and is pulled back."""

MAX_LETTERS = 1_000
"""Dead letters that one call lists, replays or purges: a transaction of some milliseconds."""

MAX_BATCHES = 1_000
"""Batches that one call lists."""


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


class Buffer(ABC):
    """One engine. Every method may be called from many tasks at once."""

    @abstractmethod
    async def append(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        """Keep a client's request: all of its events in all of their queues, or none.

        A caller that is cancelled leaves it done whole or not at all, and repeating it does no harm.
        Raises AppendRefused (nothing was stored) or BufferUnavailable (unknown: repeat it).
        """

    @abstractmethod
    async def claim(self, key: PublicKey, token: bytes, *, early: bool = False) -> Lease | Idle:
        """Lease the queue that has been due longest and take a rate token with it, or say how long to wait.

        `token`: 12 random bytes, never used before. `early`: do not wait for `linger`, either; back-offs,
        leases and the gate are respected all the same. While the gate probes after a refusal storm, of the
        first `LOOKED_THROUGH` due queues one without trouble is preferred.
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
    async def pause(self, key: PublicKey) -> bool:
        """The operator's pause: claim nothing of this key until `resume`. False: no such key is known."""

    @abstractmethod
    async def resume(self, key: PublicKey) -> bool:
        """End the operator's pause, and only that. False where no such key is known.

        What is due is looked at again at once by this process, within about a second by others.
        """

    @abstractmethod
    async def retry(self, key: PublicKey) -> int | None:
        """End every back-off and pause of the key but the operator's, and say how many queues had waited.

        The next claim is a probe where the gate had refused others. None where no such key is known.
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
        What is taken out is dropped. A file has its bytes overwritten where they lay; what Redis wrote to its
        own files keeps them until it writes those anew. It is several transactions:
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

    async def may_recount(self, every_s: float) -> bool:
        """Whether it is this process's turn to recount: of several that share a store one has it at a time.

        `every_s`: seconds for which no other gets it.
        """
        del every_s  # who has the store alone may whenever it likes
        return True

    @abstractmethod
    async def keys_with_work(self) -> Sequence[PublicKey]:
        """The keys that hold events: what a flusher starts from."""

    @abstractmethod
    def on_append(self, wake: Callable[[PublicKey, float], None]) -> None:
        """Call `wake(key, in_s)` after each append of this process that made a queue due in `in_s` seconds.

        That may be earlier than the last claim said. Called on the event loop.
        """

    @abstractmethod
    def set_terms(self, terms: Terms) -> None:
        """Go by these settings from now on; what is leased or waits keeps the time that it was given.

        Bounds that are lower than what is stored drop nothing: appends are refused until there is room, and
        dead letters are given up when the next one comes. Called on the event loop.
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
