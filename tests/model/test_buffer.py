"""The buffer against a model of it in plain dicts: whatever is done to both, both say the same.

The model is the contract once more, in the fewest words: lists of events, moments, and sums. It is told what
no contract fixes (which of two queues that became due in the same millisecond is claimed) and checks it.
"""

import asyncio
import tempfile
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.buffer import (
    Appended,
    Buffer,
    Event,
    Head,
    Idle,
    Lease,
    Portion,
    Settled,
    Settlement,
    Spent,
)
from proxy.buffer.contract import FULL_BATCH, MAX_IDLE_S, MAX_WAIT_S
from proxy.ledger import Books
from proxy.wire.limits import PublicKey
from tests.buffer.conftest import TERMS, SqliteEngine
from tests.buffer.contents import KEY, OTHER_KEY, REFUSED, event, portion

LINGER_MS, LEASE_MS, WINDOW_MS = 1_000, 30_000, 600_000
QUEUES = ("q", "r", "s")
LANES = ("a", "b")
DEAD_BYTES = 4_000
"""Room for about a dozen dead letters."""


@dataclass
class Queue:
    """`waiting`: event, lane and moment of acceptance, oldest first. `lease` is the newest, ended or not."""

    waiting: list[tuple[Event, bytes, int]] = field(default_factory=list)
    due_ms: int = 0
    lease: Lease | None = None
    backs_off: bool = False
    attempts: int = 0
    seen: dict[int, int] = field(default_factory=dict)


@dataclass
class Model:
    now_ms: int
    queues: dict[tuple[PublicKey, bytes], Queue] = field(default_factory=dict)
    accepted: dict[PublicKey, int] = field(default_factory=dict)
    delivered: dict[PublicKey, int] = field(default_factory=dict)
    buried: list[tuple[PublicKey, Event]] = field(default_factory=list)
    dropped: int = 0

    def append(self, key: PublicKey, portions: list[Portion]) -> Appended:
        stored = offered = 0
        for each in portions:
            queue = self.queues.setdefault((key, each.queue), Queue())
            before = len(queue.waiting)
            for one in each.events:
                offered += 1
                seen_ms = queue.seen.get(one.dedup_id)
                if seen_ms is None or self.now_ms - seen_ms >= WINDOW_MS:
                    queue.seen[one.dedup_id] = self.now_ms
                    queue.waiting.append((one, each.lane, self.now_ms))
                    stored += 1
            after = len(queue.waiting)
            if before == after:
                continue
            if before < FULL_BATCH <= after and queue.lease is None and not queue.backs_off:
                queue.due_ms = self.now_ms
            elif before == 0:
                queue.due_ms = self.now_ms + LINGER_MS
        self.accepted[key] = self.accepted.get(key, 0) + stored
        return Appended(stored, offered - stored)

    def of(self, key: PublicKey) -> list[Queue]:
        return [queue for (owner, _), queue in self.queues.items() if owner == key and queue.waiting]

    def first_due_ms(self, key: PublicKey) -> int | None:
        return min((queue.due_ms for queue in self.of(key)), default=None)

    def lease(self, lease: Lease) -> None:
        queue = self.queues[lease.key, lease.queue]
        assert queue.due_ms == self.first_due_ms(lease.key)
        assert queue.due_ms <= self.now_ms
        queue.attempts += queue.lease is not None
        queue.lease = lease
        queue.due_ms = self.now_ms + LEASE_MS
        assert lease.attempts == queue.attempts

    def holds(self, lease: Lease) -> Queue | None:
        queue = self.queues.get((lease.key, lease.queue))
        return queue if queue is not None and queue.lease == lease else None

    def head(self, queue: Queue, max_events: int) -> list[tuple[Event, bytes, int]]:
        lane = queue.waiting[0][1]
        head = []
        for entry in queue.waiting[:max_events]:
            if entry[1] != lane:
                break
            head.append(entry)
        return head

    def settle(self, lease: Lease, settlement: Settlement) -> None:
        queue = self.queues[lease.key, lease.queue]
        batch, rest = queue.waiting[: settlement.taken], queue.waiting[settlement.taken :]
        self.buried += [(lease.key, batch[at][0]) for at in sorted(settlement.dead)]
        queue.waiting = [batch[at] for at in sorted(settlement.again)] + rest
        gone = len(batch) - len(settlement.again)
        self.delivered[lease.key] = self.delivered.get(lease.key, 0) + gone - len(settlement.dead)
        queue.attempts = 0 if gone else queue.attempts + settlement.failed
        queue.lease = None
        queue.backs_off = False
        if queue.waiting:
            queue.due_ms = queue.waiting[0][2] + LINGER_MS
            if len(queue.waiting) >= FULL_BATCH:
                queue.due_ms = self.now_ms
            if settlement.wait_s is not None:
                queue.due_ms = self.now_ms + int(min(settlement.wait_s, MAX_WAIT_S) * 1000)
                queue.backs_off = True


_numbers = st.integers(0, 40)
_events = st.lists(_numbers, min_size=1, max_size=4).map(lambda some: [event(n) for n in some]) | st.tuples(
    st.integers(100, 300), st.sampled_from([60, 99, 100, 130])
).map(lambda at: [event(n) for n in range(at[0], at[0] + at[1])])
_portions = st.lists(
    st.builds(portion, _events, st.sampled_from(QUEUES), st.sampled_from(LANES)), min_size=1, max_size=3
)
_keys = st.sampled_from([KEY, OTHER_KEY])


class BufferMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.engine = SqliteEngine(Path(self.folder.name))
        self.buffer: Buffer
        self.model = Model(self.engine.now_ms())
        self.leases: list[Lease] = []
        self.tokens = count(1)

    @initialize()
    def open(self) -> None:
        terms = replace(TERMS, dead_max_bytes=DEAD_BYTES)
        self.buffer = self.loop.run_until_complete(self.engine.opened(terms))

    def teardown(self) -> None:
        self.loop.run_until_complete(self.engine.close())
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    @rule(key=_keys, portions=_portions)
    def append(self, key: PublicKey, portions: list[Portion]) -> None:
        said = self.loop.run_until_complete(self.buffer.append(key, portions))
        assert said == self.model.append(key, portions)

    @rule(key=_keys)
    def claim(self, key: PublicKey) -> None:
        claimed = self.loop.run_until_complete(self.buffer.claim(key, next(self.tokens).to_bytes(12, "big")))
        if isinstance(claimed, Lease):
            self.model.lease(claimed)
            self.leases.append(claimed)
            return
        due_ms = self.model.first_due_ms(key)
        if due_ms is None:
            assert claimed == Idle(MAX_IDLE_S, empty=True)
        else:
            assert due_ms > self.model.now_ms
            assert claimed == Idle(min(MAX_IDLE_S, (due_ms - self.model.now_ms) / 1000))

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), max_events=st.sampled_from([1, 3, 100]))
    def read(self, data: st.DataObject, max_events: int) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        read = self.loop.run_until_complete(self.buffer.read(lease, max_events, 1_000_000))
        queue = self.model.holds(lease)
        if queue is None:
            assert read == Spent()
            return
        assert isinstance(read, Head)
        head = self.model.head(queue, max_events)
        assert [(held.lane, held.uuid, held.text) for held in read.events] == [
            (lane, one.uuid, one.text) for one, lane, _ in head
        ]
        behind = queue.waiting[len(head) :]
        assert (read.more == "none") == (not behind)
        assert (read.more == "lane") == (bool(behind) and behind[0][1] != head[0][1])

    @precondition(lambda self: self.leases)
    @rule(
        data=st.data(),
        max_events=st.sampled_from([1, 3, 100]),
        wait_s=st.sampled_from([None, None, 2.0, 300.0, 1e6]),
        failed=st.booleans(),
        weights=st.sampled_from([(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]),
    )
    def settle(
        self,
        data: st.DataObject,
        max_events: int,
        wait_s: float | None,
        failed: bool,
        weights: tuple[int, ...],
    ) -> None:
        lease = data.draw(st.sampled_from(self.leases))
        queue = self.model.holds(lease)
        taken = 1 if queue is None else len(self.model.head(queue, max_events))
        chance = data.draw(st.randoms(use_true_random=False))
        fates = chance.choices("dxa", weights, k=taken)
        settlement = Settlement(
            taken,
            {at: REFUSED for at, fate in enumerate(fates) if fate == "x"},
            frozenset(at for at, fate in enumerate(fates) if fate == "a"),
            wait_s,
            failed,
        )
        said = self.loop.run_until_complete(self.buffer.settle(lease, settlement))
        if queue is None:
            assert said == Spent()
            return
        self.model.settle(lease, settlement)
        assert isinstance(said, Settled)
        assert said.left == len(queue.waiting)
        self.model.dropped += said.dropped

    @rule(ms=st.sampled_from([1, 500, 999, 1_000, 2_000, 29_999, 30_000, 300_000, 599_999, 600_000]))
    def advance(self, ms: int) -> None:
        self.engine.clock.offset_ms += ms
        self.model.now_ms += ms

    @rule()
    def reopen(self) -> None:
        self.open()

    @invariant()
    def the_books_are_those_of_the_model(self) -> None:
        if not self.model.accepted:
            return
        letters = self.loop.run_until_complete(self.buffer.dead_letters(limit=1_000))
        kept = self.model.buried[len(self.model.buried) - len(letters) :]
        assert [(letter.key, letter.text) for letter in reversed(letters)] == [
            (key, one.text) for key, one in kept
        ]
        assert self.model.dropped == len(self.model.buried) - len(kept)
        figures = self.loop.run_until_complete(self.buffer.figures(recount=True))
        for key, accepted in self.model.accepted.items():
            held = self.model.of(key)
            buried = sum(owner == key for owner, _ in self.model.buried)
            dead = sum(owner == key for owner, _ in kept)
            assert figures[key].books == Books(
                accepted,
                sum(len(queue.waiting) for queue in held),
                self.model.delivered.get(key, 0),
                dead,
                buried - dead,
            )
            assert figures[key].queues == len(held)
            assert (figures[key].stored_bytes == 0) == (not held)
            assert figures[key].oldest_held_ms == min(
                (at_ms for queue in held for _, _, at_ms in queue.waiting), default=None
            )


TestBuffer = BufferMachine.TestCase
TestBuffer.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
