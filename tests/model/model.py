"""The buffer's contract once more, in plain lists and dicts: what each verb answers and changes.

It is told what no contract fixes: which of two queues that became due in the same millisecond is claimed, how
many bytes an engine counts for an event, the ids of its dead letters, how many of them fit at a replay. The
gate is the product's own decider, which is tested by itself.
"""

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import count
from math import inf

from proxy import gate
from proxy.buffer import (
    ALL_IS_WELL,
    MAX_LETTERS,
    Appended,
    Batch,
    DeadLetter,
    Death,
    Erased,
    HeldEvent,
    Idle,
    Lease,
    Outlook,
    Settled,
    Settlement,
    Terms,
    Traces,
    Which,
)
from proxy.buffer.contract import (
    FULL_BATCH,
    HALVING_EXPIRIES,
    MAX_IDLE_S,
    MAX_WAIT_S,
    STALLED_EXPIRIES,
    STALLED_WAIT_S,
)
from proxy.gate import Gate
from proxy.lanes import QueueId
from proxy.ledger import Books
from proxy.wire.limits import PublicKey
from tests.buffer.contents import Event, header, queue


@dataclass(frozen=True)
class Overheads:
    """Bytes that an engine may count at most.

    For a queue that holds events, and for an event or a dead letter beside its text and its lane's header.
    """

    queue: int
    event: int
    letter: int


Asked = tuple[Sequence[Event], str, str]
"""A portion: events, the name of their queue, and that of their lane."""

Request = Sequence[Asked]


@dataclass(frozen=True)
class Held:
    """`place`: its number among all that was ever accepted or replayed."""

    event: Event
    header: bytes
    accepted_ms: int
    place: int

    @property
    def own_bytes(self) -> int:
        return len(self.event.text) + len(self.header)


@dataclass(eq=False)
class Queue:
    """`waiting`: oldest first. `lease`: the newest, ended by itself or not, until it is settled."""

    key: PublicKey
    name: QueueId
    waiting: list[Held] = field(default_factory=list)
    due_ms: int = 0
    lease: Lease | None = None
    backs_off: bool = False
    attempts: int = 0
    expired: int = 0
    unsettled: int = 0
    outlook: Outlook = ALL_IS_WELL
    seen: dict[int, tuple[int, int]] = field(default_factory=dict)
    """By dedup id: when it was appended, by the clock and by the time that has passed in all."""

    def rid_of(self, gone: Callable[[Held], bool]) -> int:
        """Take out what is `gone`; how many. An emptied queue begins anew."""
        before = len(self.waiting)
        self.waiting = [held for held in self.waiting if not gone(held)]
        if not self.waiting:
            self.lease, self.backs_off = None, False
            self.attempts = self.expired = self.unsettled = 0
            self.outlook = ALL_IS_WELL
        return before - len(self.waiting)

    @property
    def is_untroubled(self) -> bool:
        return self.outlook.trouble is None and self.attempts == 0

    @property
    def would_stall(self) -> bool:
        """Whether its lease, if that has ended by itself, was one too many."""
        was_alone = self.outlook.max_events == 1
        return self.lease is not None and was_alone and self.expired + 1 >= STALLED_EXPIRIES

    def end_by_itself(self) -> None:
        """Its lease has ended unsettled."""
        self.lease = None
        self.attempts += 1
        self.expired += 1
        self.unsettled = max(self.unsettled, self.outlook.max_events)
        if self.expired >= HALVING_EXPIRIES:
            self.outlook = replace(self.outlook, max_events=max(1, self.outlook.max_events // 2))


@dataclass(eq=False)
class Letter:
    """A dead letter; its `id` is learnt from the engine."""

    queue: Queue
    held: Held
    death: Death
    attempts: int
    first_tried_ms: int
    died_ms: int
    id: int = 0

    def told(self) -> DeadLetter:
        event, death = self.held.event, self.death
        of = (self.id, self.queue.key, self.queue.name, self.held.header, event.uuid, event.text)
        return DeadLetter(*of, death.reason, death.message, self.attempts, self.first_tried_ms, self.died_ms)

    def fits(self, which: Which) -> bool:
        wanted = (
            (which.key, self.queue.key),
            (which.id, self.id),
            (which.uuid, self.held.event.uuid),
            (which.queue, self.queue.name),
            (which.reason, self.death.reason),
        )
        return (
            all(asked in (None, own) for asked, own in wanted)
            and (which.died_from_ms is None or self.died_ms >= which.died_from_ms)
            and (which.died_before_ms is None or self.died_ms < which.died_before_ms)
            and (which.up_to_id is None or self.id <= which.up_to_id)
        )


class Model:
    def __init__(self, terms: Terms, now_ms: int, overheads: Overheads) -> None:
        self.terms = terms
        self.overheads = overheads
        self.linger_ms = round(terms.linger_s * 1000)
        self.lease_ms = round(terms.lease_s * 1000)
        self.window_ms = round(terms.dedup_window_s * 1000)
        self.now_ms = now_ms
        self.passed_ms = 0
        self.places = count()
        self.queues: dict[tuple[PublicKey, QueueId], Queue] = {}
        self.gates: dict[PublicKey, Gate] = {}
        self.books: dict[PublicKey, Books] = {}
        self.succeeded: set[PublicKey] = set()
        self.letters: list[Letter] = []
        self.batches: list[Batch] = []
        self.woken: dict[PublicKey, float] = {}

    # -- time ------------------------------------------------------------------------------------------

    def advance(self, ms: int) -> None:
        self.now_ms += ms
        self.passed_ms += ms

    def jump_back(self, ms: int) -> None:
        """No due time may then lie further ahead than what set it can reach."""
        self.now_ms -= ms
        for each in self.queues.values():
            each.due_ms = min(each.due_ms, self.now_ms + self.reach_ms(each))

    def reach_ms(self, queue: Queue) -> int:
        if queue.lease is not None:
            return self.lease_ms
        return int(MAX_WAIT_S * 1000) if queue.backs_off else self.linger_ms

    # -- append ----------------------------------------------------------------------------------------

    def of(self, key: PublicKey) -> list[Queue]:
        return [each for each in self.queues.values() if each.key == key and each.waiting]

    def queue(self, key: PublicKey, name: QueueId) -> Queue:
        return self.queues.setdefault((key, name), Queue(key, name))

    def is_new(self, queue: Queue, event: Event) -> bool | None:
        """None where the clock's jumps leave it open."""
        if event.dedup_id not in queue.seen:
            return True
        at_ms, passed_ms = queue.seen[event.dedup_id]
        if self.now_ms - at_ms >= self.window_ms:
            return True
        return False if self.passed_ms - passed_ms < self.window_ms else None

    def decided(self, key: PublicKey, request: Request) -> Request:
        """The request without the events of which it is open whether they are new."""

        def clear(events: Sequence[Event], to: Queue) -> list[Event]:
            return [event for event in events if self.is_new(to, event) is not None]

        asked = [(clear(events, self.queue(key, queue(name))), name, lane) for events, name, lane in request]
        return [each for each in asked if each[0]]

    def is_within_quota(self, key: PublicKey, request: Request) -> bool:
        quota = self.terms.quota
        if quota is None or key in self.succeeded:
            return True
        waiting, asked = {each.name for each in self.of(key)}, {queue(name) for _, name, _ in request}
        unconfirmed = [other for other in self.books if other not in self.succeeded and self.of(other)]
        return (bool(waiting) or len(unconfirmed) < quota.keys) and (
            asked <= waiting or len(asked | waiting) <= quota.queues
        )

    def most_bytes(self, key: PublicKey) -> int:
        return sum(self.overheads.queue + self.most_bytes_of(each.waiting) for each in self.of(key))

    def most_bytes_of(self, events: Sequence[Held]) -> int:
        return sum(held.own_bytes + self.overheads.event for held in events)

    def may_overfill(self, key: PublicKey, more: Sequence[Held], queues: int) -> bool:
        """Whether so much more, in so many queues, may be beyond a bound, as far as the overheads allow."""
        more_bytes = self.most_bytes_of(more) + queues * self.overheads.queue
        return (
            self.most_bytes(key) + more_bytes > self.terms.max_bytes_per_key
            or sum(map(self.most_bytes, self.books)) + more_bytes > self.terms.max_bytes
        )

    def repeats(self, key: PublicKey, requests: Sequence[Request]) -> bool:
        """Whether one of the requests holds an event that was appended before, or that another holds too."""
        asked = [
            {(name, event.dedup_id) for events, name, _ in request for event in events}
            for request in requests
        ]
        return len(set().union(*asked)) < sum(map(len, asked)) or any(
            not self.is_new(self.queue(key, queue(name)), event)
            for request in requests
            for events, name, _ in request
            for event in events
        )

    def append(self, key: PublicKey, request: Request) -> Appended:
        self.books.setdefault(key, Books())
        self.gates.setdefault(key, gate.opened(self.terms.limit_per_s, self.terms.rate_share))
        stored = offered = 0
        for events, name, lane in request:
            to = self.queue(key, queue(name))
            for event in events:
                offered += 1
                if self.is_new(to, event):
                    stored += 1
                    to.seen[event.dedup_id] = (self.now_ms, self.passed_ms)
                    self._add(to, event, header(lane))
        self.books[key] += Books(accepted=stored, held=stored)
        return Appended(stored, offered - stored)

    def _add(self, to: Queue, event: Event, header: bytes) -> None:
        to.waiting.append(Held(event, header, self.now_ms, next(self.places)))
        if len(to.waiting) == FULL_BATCH and to.lease is None and not to.backs_off:
            to.due_ms = self.now_ms
        elif len(to.waiting) == 1:
            to.due_ms = self.now_ms + self.linger_ms
        else:
            return
        in_s = (to.due_ms - self.now_ms) / 1000
        self.woken[to.key] = min(in_s, self.woken.get(to.key, inf))

    # -- claim, read, settle ---------------------------------------------------------------------------

    def choice(self, key: PublicKey, *, early: bool) -> list[Queue]:
        """The queues of which a claim takes one, if the gate lets it: which, is open.

        There are few: none is past those that a claim looks at.
        """
        waiting = sorted(self.of(key), key=lambda each: each.due_ms)
        due = [each for each in waiting if each.due_ms <= self.now_ms]
        if not due and early:
            due = [each for each in waiting if each.lease is None and not each.backs_off]
        if gate.wants_untroubled(self.gates[key]):
            due = [each for each in due if each.is_untroubled] or due
        return [each for each in due if each.due_ms == due[0].due_ms]

    def idle(self, key: PublicKey, *, early: bool = False) -> Idle | None:
        """What a claim says; None where a lease is owed, or word that a queue is stalled."""
        if not self.of(key):
            return Idle(MAX_IDLE_S, empty=True)
        chosen = self.choice(key, early=early)
        if not chosen:
            wait_ms = min(each.due_ms for each in self.of(key)) - self.now_ms
        elif all(each.would_stall for each in chosen):
            return None
        else:
            wait_ms = gate.claim(deepcopy(self.gates[key]), self.now_ms, self.lease_ms)
        return Idle(min(MAX_IDLE_S, wait_ms / 1000)) if wait_ms else None

    def lease(self, lease: Lease, *, early: bool) -> None:
        of = self.queues[lease.key, lease.queue]
        its_gate = self.gates[lease.key]
        assert of in self.choice(lease.key, early=early)
        assert not of.would_stall
        if of.lease is not None:
            of.end_by_itself()
        assert gate.claim(its_gate, self.now_ms, self.lease_ms) == 0
        expected = Lease(
            lease.key,
            of.name,
            lease.token,
            self.now_ms,
            of.attempts,
            of.expired,
            of.unsettled,
            of.outlook,
            gate.evidence(its_gate, of.name),
            lease.key in self.succeeded,
            others=len(self.of(lease.key)) > 1,
        )
        of.lease, of.backs_off, of.due_ms = lease, False, self.now_ms + self.lease_ms
        assert lease == expected

    def stall(self, of: Queue, *, early: bool) -> None:
        """Its leases all ended by themselves, with one event too."""
        assert of in self.choice(of.key, early=early)
        assert of.would_stall
        of.end_by_itself()
        of.backs_off, of.due_ms = True, self.now_ms + int(STALLED_WAIT_S * 1000)

    def holds(self, lease: Lease) -> Queue | None:
        of = self.queues[lease.key, lease.queue]
        return of if of.lease == lease else None

    def settle(self, lease: Lease, settlement: Settlement) -> Settled:
        """But for what was dropped: see `evict`."""
        of, key = self.queues[lease.key, lease.queue], lease.key
        batch = of.waiting[: settlement.taken]
        trouble = lease.outlook.trouble
        tried = (lease.attempts + 1, trouble.since_ms if trouble else lease.claimed_ms)
        for at in sorted(settlement.dead):
            self.letters.append(Letter(of, batch[at], settlement.dead[at], *tried, self.now_ms))
        gone = [held.place for at, held in enumerate(batch) if at not in settlement.again]
        if gone or settlement.ambiguous:
            self.batches.append(self._recorded(key, settlement, batch))
        if settlement.delivered:
            self.succeeded.add(key)
        self.books[key] += Books(held=-len(gone), delivered=settlement.delivered, dead=len(settlement.dead))
        gate.settle(self.gates[key], settlement.feedback, of.name, lease.claimed_ms, self.now_ms)

        of.lease, of.expired = None, 0
        of.attempts = 0 if gone else of.attempts + settlement.failed
        of.unsettled = self._unsettled_after(lease, settlement)
        if settlement.outlook is not None:
            of.outlook = settlement.outlook
        of.backs_off = settlement.wait_s is not None
        if settlement.wait_s is not None:
            of.due_ms = self.now_ms + int(min(settlement.wait_s, MAX_WAIT_S) * 1000)
        of.rid_of(lambda held: held.place in gone)
        left = len(of.waiting)
        if not left:
            return Settled(0)
        if settlement.wait_s is None:
            full = left >= FULL_BATCH
            of.due_ms = self.now_ms if full else min(of.waiting[0].accepted_ms, self.now_ms) + self.linger_ms
        return Settled(left, max(0, of.due_ms - self.now_ms) / 1000)

    @staticmethod
    def _unsettled_after(lease: Lease, settlement: Settlement) -> int:
        """How many events of the head may still have arrived with leases that ended by themselves."""
        if not settlement.taken:
            return lease.unsettled
        if settlement.taken < lease.outlook.max_events:  # the earlier batch ended at the same place
            return 0
        behind = max(0, lease.unsettled - settlement.taken)
        return behind + len(settlement.again) if behind else 0

    def _recorded(self, key: PublicKey, settlement: Settlement, batch: Sequence[Held]) -> Batch:
        fates = ["d"] * len(batch)
        for fate, places in (("x", settlement.dead), ("a", settlement.again)):
            for at in places:
                fates[at] = fate
        uuids = b"".join(held.event.uuid for held in batch)
        told = "".join(fates).encode()
        return Batch(key, self.now_ms, settlement.answered, settlement.ambiguous, uuids, told)

    # -- the operator's pause --------------------------------------------------------------------------

    def pause(self, key: PublicKey) -> bool:
        if key not in self.gates:
            return False
        gate.pause(self.gates[key])
        return True

    def resume(self, key: PublicKey) -> bool:
        if key not in self.gates:
            return False
        gate.resume(self.gates[key])
        self.woken[key] = 0.0
        return True

    def retry(self, key: PublicKey) -> int | None:
        if key not in self.gates:
            return None
        gate.retry(self.gates[key])
        waiting = [each for each in self.of(key) if each.backs_off and each.due_ms > self.now_ms]
        for each in waiting:
            each.backs_off, each.due_ms = False, self.now_ms
        self.woken[key] = 0.0
        return len(waiting)

    # -- dead letters ----------------------------------------------------------------------------------

    def evict(self, letters: int) -> None:
        """The engine gave up so many of the oldest: that was needed, and enough."""
        least = sum(len(each.held.event.text) for each in self.letters[letters:])
        most = sum(
            each.held.own_bytes + self.overheads.letter for each in self.letters[max(0, letters - 1) :]
        )
        assert least <= self.terms.dead_max_bytes
        assert not letters or most > self.terms.dead_max_bytes
        self._drop(self.letters[:letters])

    def purge(self, which: Which) -> int:
        doomed = [each for each in self.letters if each.fits(which)][:MAX_LETTERS]
        self._drop(doomed)
        return len(doomed)

    def _drop(self, doomed: Sequence[Letter]) -> None:
        for each in doomed:
            self.letters.remove(each)
            self.books[each.queue.key] += Books(dead=-1, dropped=1)

    def to_replay(self, which: Which) -> dict[PublicKey, list[Letter]]:
        """Of each key, in the order of acceptance."""
        found: dict[PublicKey, list[Letter]] = {}
        for each in sorted(self.letters, key=lambda each: each.held.place):
            if each.fits(which):
                found.setdefault(each.queue.key, []).append(each)
        return found

    def replay(self, letters: Sequence[Letter]) -> None:
        for each in letters:
            self.letters.remove(each)
            self.books[each.queue.key] += Books(held=1, dead=-1)
            self._add(self.queue(each.queue.key, each.queue.name), each.held.event, each.held.header)

    # -- erase, trace, figures -------------------------------------------------------------------------

    def in_scope(self, key: PublicKey | None, name: QueueId | None) -> Iterator[Queue]:
        for each in self.queues.values():
            if key in (None, each.key) and name in (None, each.name):
                yield each

    def erase(
        self, is_theirs: Callable[[bytes, bytes], bool], key: PublicKey | None, name: QueueId | None
    ) -> Erased:
        def theirs(held: Held) -> bool:
            return is_theirs(held.header, held.event.text)

        erased = Erased()
        for each in self.in_scope(key, name):
            if not any(map(theirs, each.waiting)):
                continue
            if each.lease is not None and each.due_ms > self.now_ms:
                erased += Erased(leased=1)
                continue
            if each.lease is not None:  # it ended by itself, and its worker may come too late only now
                each.end_by_itself()
            trouble = each.outlook.trouble
            if trouble is not None:  # whoever is suspected may be gone
                cleared = replace(trouble, suspects=0, refused_ms=0)
                each.outlook = replace(each.outlook, trouble=cleared)
            held = each.rid_of(theirs)
            self.books[each.key] += Books(held=-held, dropped=held)
            erased += Erased(held=held)
        queues = list(self.in_scope(key, name))
        doomed = [each for each in self.letters if theirs(each.held) and each.queue in queues]
        self._drop(doomed)
        return erased + Erased(dead=len(doomed))

    def trace(self, uuid: bytes, key: PublicKey | None, name: QueueId | None) -> Traces:
        held = [
            (one.place, self._traced(each, one))
            for each in self.in_scope(key, name)
            for one in each.waiting
            if one.event.uuid == uuid
        ]
        dead = [each.told() for each in self.letters if each.fits(Which(key=key, queue=name, uuid=uuid))]
        batches = [each for each in self.batches if key in (None, each.key) and each.fate(uuid)]
        return Traces([told for _, told in sorted(held, reverse=True)], dead[::-1], batches[::-1])

    def _traced(self, of: Queue, held: Held) -> HeldEvent:
        leased = of.lease is not None and of.due_ms > self.now_ms
        in_s = (of.due_ms - self.now_ms) / 1000
        return HeldEvent(of.key, of.name, held.accepted_ms, of.attempts, leased, in_s)
