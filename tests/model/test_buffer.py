"""The buffer beside a model of it: whatever is asked of both, both say the same, and keep the same.

`--examples-times N` tries N times as many examples.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import count, cycle, islice, takewhile
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.buffer import (
    Buffer,
    BufferFull,
    Death,
    Head,
    Idle,
    Lease,
    NeverFits,
    Outlook,
    Quota,
    QuotaExceeded,
    Settled,
    Settlement,
    Spent,
    Terms,
    Trouble,
    Which,
)
from proxy.buffer.contract import FULL_BATCH, STALLED_WAIT_S
from proxy.gate import Feedback, Outcome, view
from proxy.lanes import QueueId, lane_id
from proxy.ledger import Answered, Dead
from proxy.wire.limits import PublicKey
from proxy.wire.rate_headers import RateHeaders
from tests.buffer.conftest import TERMS, Engine, RedisEngine, SqliteEngine
from tests.buffer.contents import KEY, OTHER_KEY, event, header, portion, queue, uuids
from tests.model.model import Asked, Held, Letter, Model, Overheads, Queue, Request

_T = TypeVar("_T")

ENGINES: Mapping[str, Callable[[Path], Engine]] = {
    "sqlite": partial(SqliteEngine, inline=True),
    **{kind: partial(RedisEngine, kind=kind, at_once=True) for kind in ("redis", "cluster", "valkey")},
}
OVERHEADS = {
    "sqlite": Overheads(queue=0, event=300, letter=300),
    # An event may have a run and a lane header of its own.
    **dict.fromkeys(("redis", "cluster", "valkey"), Overheads(queue=800, event=190, letter=300)),
}

MOST_WAITS = 1_000
"""A claim may be asked for again and again, but none of the waits is longer than an hour and a fifth."""

KEYS = (KEY, OTHER_KEY)
QUEUES = ("q", "r", "s")
LANES = ("a", "b")
PERSONS = 5

numbered = cache(event)


def theirs(person: int, lane: str | None) -> Callable[[bytes, bytes], bool]:
    """Whether an event is of a person, and its lane the one asked for."""

    def is_theirs(lane_header: bytes, text: bytes) -> bool:
        number = int(text.split(b'"')[3])
        return number % PERSONS == person and (lane is None or lane_header == header(lane))

    return is_theirs


_numbers = st.integers(0, 30)
_few = st.lists(_numbers, min_size=1, max_size=4)
_many = st.builds(range, st.integers(100, 300), st.integers(360, 430))  # 60 to 330 events


def portions(numbers: st.SearchStrategy[Sequence[int]]) -> st.SearchStrategy[Asked]:
    return st.tuples(
        numbers.map(lambda some: [numbered(n) for n in some]),
        st.sampled_from(QUEUES),
        st.sampled_from(LANES),
    )


_keys = st.sampled_from(KEYS)
_any_key = st.none() | _keys
_any_queue = st.none() | st.sampled_from([queue(name) for name in QUEUES])
_headers = st.sampled_from(
    [
        None,
        None,
        RateHeaders(),
        RateHeaders(retry_after_s=2.0),
        RateHeaders(limit=100, remaining=40, reset_at=1_800_000_060, reset_in_s=0.5),
        RateHeaders(limit=1_000_000, remaining=0, reset_at=1_800_000_001, reset_in_s=1.0),
    ]
)
_feedbacks = st.builds(
    Feedback,
    outcome=st.sampled_from([*Outcome, Outcome.TAKEN, Outcome.TAKEN]),
    headers=_headers,
    origin=st.sampled_from([None, "https://www.example.com", "https://shop.example.com"]),
)
_troubles = st.builds(
    Trouble,
    since_ms=st.integers(1_799_999_000_000, 1_800_000_100_000),
    requests=st.integers(0, 1_000_000),
    successes=st.integers(0, 1_000),
    suspects=st.sampled_from([0, 0, 1, 50, 100]),
    forbidden=st.sampled_from([0, 0, 3]),
    refused_ms=st.sampled_from([0, 1_800_000_000_500]),
    too_large=st.booleans(),
)
_outlooks = st.none() | st.builds(
    Outlook, max_events=st.sampled_from([1, 2, 7, 50, 100, 100]), trouble=st.none() | _troubles
)
_endings = st.fixed_dictionaries(
    {
        "most": st.sampled_from([0, 1, 3, 100, 100]),
        "fates": st.sampled_from(["d", "x", "a", "da", "xdx", "ax", "adx"]),
        "death": st.builds(Death, st.sampled_from(Dead), st.just("no")),
        "wait_s": st.sampled_from([None, None, None, 0.0, 2.0, 300.0, 1e6]),
        "failed": st.booleans(),
        "outlook": _outlooks,
        "feedback": _feedbacks,
        "answered": st.none() | st.sampled_from(Answered),
        "ambiguous": st.booleans(),
    }
)
"""How a lease ends: at most so many events of the head were in the batch, their fates are these in turn."""

_fields_of_which = st.sets(st.sampled_from(sorted(asdict(Which()))))


class BufferMachine(RuleBasedStateMachine):
    terms: ClassVar[Terms] = replace(TERMS, dead_max_bytes=4_000)

    kind: ClassVar[str] = "sqlite"

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        # In memory, where there is such a place: this is about what is kept, not about the disk.
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.engine = ENGINES[self.kind](Path(self.folder.name))
        self.model = Model(self.terms, self.engine.now_ms(), OVERHEADS[self.kind])
        self.leases: list[Lease] = []
        self.told: dict[bytes, Settled] = {}
        self.tokens = count(1)
        self.buffer: Buffer
        self.open()

    def open(self) -> None:
        self.buffer = self.ask(self.engine.opened(self.terms))
        self.woken: dict[PublicKey, float] = {}
        self.buffer.on_append(self.wake)

    def holds_events(self) -> bool:
        return any(map(self.model.of, KEYS))

    def holds_anything(self) -> bool:
        return bool(self.model.letters) or self.holds_events()

    def keys_to_deliver(self) -> list[PublicKey]:
        return [key for key in KEYS if self.model.of(key) and not self.is_paused(key)]

    def is_paused(self, key: PublicKey) -> bool:
        """By the operator, and so for as long as nobody resumes it."""
        return key in self.model.gates and view(self.model.gates[key], self.model.now_ms).by_operator

    def wake(self, key: PublicKey, in_s: float) -> None:
        self.woken[key] = min(in_s, self.woken.get(key, in_s))

    def ask(self, verb: Awaitable[_T]) -> _T:
        async def asked() -> _T:
            return await verb

        return self.loop.run_until_complete(asked())

    def teardown(self) -> None:
        self.ask(self.engine.close())
        self.loop.close()
        self.folder.cleanup()

    # -- append ----------------------------------------------------------------------------------------

    @rule(
        requests=st.lists(
            st.tuples(_keys, st.lists(portions(_few), min_size=1, max_size=3)), min_size=1, max_size=3
        )
    )
    def append(self, requests: Sequence[tuple[PublicKey, Request]]) -> None:
        """Some at once; each is whole or absent, whatever becomes of its neighbours.

        Which comes first is open where what they hold was appended before: they are then asked in turn.
        """
        asked = [(key, self.model.decided(key, request)) for key, request in requests]
        asked = [(key, request) for key, request in asked if request]
        if any(self.model.repeats(key, [request for of, request in asked if of == key]) for key, _ in asked):
            for one in asked:
                self.append_at_once([one])
        else:
            self.append_at_once(asked)

    def append_at_once(self, asked: Sequence[tuple[PublicKey, Request]]) -> None:
        async def at_once() -> Sequence[Any]:
            appends = [
                self.buffer.append(key, [portion(*each) for each in request]) for key, request in asked
            ]
            return await asyncio.gather(*appends, return_exceptions=True)

        for (key, request), said in zip(asked, self.ask(at_once()), strict=True):
            if isinstance(said, BaseException):
                self.check_refusal(key, request, said)
            else:
                assert self.model.is_within_quota(key, request)
                assert said == self.model.append(key, request)

    @rule(key=_keys, portion=portions(_many))
    def append_many(self, key: PublicKey, portion: Asked) -> None:
        self.append([(key, [portion])])

    def check_refusal(self, key: PublicKey, request: Request, refusal: BaseException) -> None:
        more = [Held(one, header(lane), 0, 0) for events, _, lane in request for one in events]
        if isinstance(refusal, QuotaExceeded):
            assert not self.model.is_within_quota(key, request)
        elif isinstance(refusal, NeverFits):
            assert Model(self.terms, 0, self.model.overheads).may_overfill(key, more, len(request))
        else:
            assert isinstance(refusal, BufferFull), refusal
            assert self.model.may_overfill(key, more, len(request))

    # -- claim, read, settle ---------------------------------------------------------------------------

    @precondition(holds_events)
    @rule(
        key=_keys,
        patience=st.sampled_from(["none", "nearly", "due", "due"]),
        early=st.sampled_from([0, 0, 1]),
    )
    def claim(self, key: PublicKey, patience: str = "none", early: int = 0) -> None:
        """Now, or when a lease is said to be owed, or a millisecond before."""
        self.claimed(key, "none" if self.is_paused(key) else patience, early=bool(early))

    def claimed(self, key: PublicKey, patience: str, *, early: bool = False) -> Lease | Idle:
        waits = 0
        while patience != "none" and (idle := self.model.idle(key, early=early)) and not idle.empty:
            self.advance(round(idle.wait_s * 1000) - (patience == "nearly"))
            waits += 1
            assert waits < MOST_WAITS, "it waits for ever"
            if patience == "nearly":
                break
        claimed = self.ask(self.buffer.claim(key, next(self.tokens).to_bytes(12, "big"), early=early))
        expected = self.model.idle(key, early=early)
        if expected is not None:
            assert claimed == expected
        elif isinstance(claimed, Lease):
            self.model.lease(claimed, early=early)
            self.leases.append(claimed)
        else:
            assert claimed == Idle(0, stalled=True)
            self.model.stall(self.stalled(key), early=early)
        return claimed

    def stalled(self, key: PublicKey) -> Queue:
        """Which queue was put off just now."""
        for each in self.model.of(key):
            uuid = each.waiting[0].event.uuid
            held = self.ask(self.buffer.trace(uuid, key=key, queue=each.name)).held
            if each.would_stall and held[0].due_in_s == STALLED_WAIT_S:
                return each
        raise AssertionError

    def held_leases(self) -> list[Lease]:
        return [lease for lease in self.leases if self.model.holds(lease)]

    def spent_leases(self) -> list[Lease]:
        return [lease for lease in self.leases if not self.model.holds(lease)]

    def lease_of(self, data: st.DataObject) -> Lease:
        return data.draw(st.sampled_from(self.held_leases()))

    @precondition(lambda self: self.held_leases())
    @rule(
        data=st.data(),
        max_events=st.sampled_from([1, 3, 100]),
        max_bytes=st.sampled_from([1, 60, 1_000_000]),
    )
    def read(self, data: st.DataObject, max_events: int, max_bytes: int) -> None:
        self.check_head(self.lease_of(data), max_events, max_bytes)

    def check_head(self, lease: Lease, max_events: int, max_bytes: int) -> None:
        waiting = self.model.queues[lease.key, lease.queue].waiting
        read = self.ask(self.buffer.read(lease, max_events, max_bytes))
        assert isinstance(read, Head)
        head = waiting[: len(read.texts)]
        assert read.header == head[0].header
        assert list(read.accepted_ms) == [held.accepted_ms for held in head]
        assert list(zip(read.lanes, uuids(read.uuids), read.texts, strict=True)) == [
            (lane_id(read.header), held.event.uuid, held.event.text) for held in head
        ]
        text_bytes = sum(map(len, read.texts))
        assert len(head) == 1 or (len(head) <= max_events and text_bytes <= max_bytes)
        behind = waiting[len(head) :]
        if not behind or behind[0].header != read.header:
            assert read.more == ("lane" if behind else "none")
        elif read.more == "events":
            assert len(head) == max_events
        else:  # a comma behind each
            assert read.more == "bytes"
            assert text_bytes + len(behind[0].event.text) + len(head) + 1 > max_bytes

    @precondition(lambda self: self.held_leases())
    @rule(data=st.data(), ending=_endings)
    def settle(self, data: st.DataObject, ending: dict[str, Any]) -> None:
        self.end(self.lease_of(data), **ending)

    @precondition(lambda self: self.keys_to_deliver())
    @rule(data=st.data(), ending=_endings)
    def deliver(self, data: st.DataObject, ending: dict[str, Any]) -> None:
        """All at once, as it goes when nothing comes in between."""
        key = data.draw(st.sampled_from(self.keys_to_deliver()))
        while not isinstance(lease := self.claimed(key, "due"), Lease):
            assert lease.stalled
        self.end(lease, **ending)

    @precondition(lambda self: self.keys_to_deliver())
    @rule(data=st.data(), times=st.sampled_from([1, 2, 3, 5, 10, 12]))
    def let_leases_end_by_themselves(self, data: st.DataObject, times: int) -> None:
        """Their workers die, one after another."""
        key = data.draw(st.sampled_from(self.keys_to_deliver()))
        for _ in range(times):
            self.claimed(key, "due")
            self.advance(self.model.lease_ms)

    def end(
        self,
        lease: Lease,
        *,
        most: int,
        fates: str,
        death: Death,
        wait_s: float | None,
        failed: bool,
        outlook: Outlook | None,
        feedback: Feedback,
        answered: Answered | None,
        ambiguous: bool,
    ) -> None:
        self.check_head(lease, FULL_BATCH, 1_000_000)
        waiting = self.model.queues[lease.key, lease.queue].waiting
        most = min(most, lease.outlook.max_events)
        head = list(takewhile(lambda held: held.header == waiting[0].header, waiting[:most]))
        fated = list(enumerate(islice(cycle(fates), len(head))))
        settlement = Settlement(
            taken=len(head),
            dead={at: death for at, fate in fated if fate == "x"},
            again=frozenset(at for at, fate in fated if fate == "a"),
            wait_s=wait_s,
            failed=failed,
            outlook=outlook,
            feedback=replace(feedback, sent_ms=lease.claimed_ms + 1.5),
            answered=answered,
            ambiguous=ambiguous,
        )
        said = self.ask(self.buffer.settle(lease, settlement))
        assert isinstance(said, Settled)
        self.told[lease.token] = replace(said, dropped=0)
        assert self.told[lease.token] == self.model.settle(lease, settlement)
        self.model.evict(said.dropped)
        self.learn_ids()

    @precondition(lambda self: self.spent_leases())
    @rule(data=st.data(), taken=st.sampled_from([0, 1, 100]), died=st.booleans())
    def settle_late(self, data: st.DataObject, taken: int, died: bool) -> None:
        lease = data.draw(st.sampled_from(self.spent_leases()))
        dead = {at: Death(Dead.REFUSED, "late") for at in range(taken) if died}
        settlement = Settlement(taken, dead, wait_s=3_000.0, failed=True, ambiguous=True)
        said = self.ask(self.buffer.settle(lease, settlement))
        if said != Spent():  # it was settled, and the engine remembers what it answered
            assert isinstance(said, Settled)
            assert (said.left, said.dropped) == (self.told[lease.token].left, 0)
        assert self.ask(self.buffer.read(lease, 100, 1_000)) == Spent()

    # -- the operator's pause --------------------------------------------------------------------------

    @precondition(holds_events)
    @rule(key=_keys)
    def pause(self, key: PublicKey) -> None:
        assert self.ask(self.buffer.pause(key)) == self.model.pause(key)

    @precondition(lambda self: any(map(self.is_paused, KEYS)))
    @rule(key=_keys)
    def resume(self, key: PublicKey) -> None:
        assert self.ask(self.buffer.resume(key)) == self.model.resume(key)

    @precondition(holds_events)
    @rule(key=_keys)
    def retry(self, key: PublicKey) -> None:
        assert self.ask(self.buffer.retry(key)) == self.model.retry(key)

    # -- dead letters ----------------------------------------------------------------------------------

    def learn_ids(self) -> None:
        found = self.ask(self.buffer.dead_letters(limit=1_000))[::-1]
        for letter, told in zip(self.model.letters, found, strict=True):
            letter.id = letter.id or told.id

    def which(self, data: st.DataObject, fields: set[str]) -> Which:
        """Those that are in these respects like one of them."""
        like = data.draw(st.sampled_from(self.model.letters)).told()
        own = asdict(like) | {"up_to_id": like.id}
        own |= {"died_from_ms": like.died_at_ms, "died_before_ms": like.died_at_ms}
        return Which(**{name: own[name] for name in fields})

    @precondition(lambda self: self.model.letters)
    @rule(data=st.data(), fields=_fields_of_which, limit=st.sampled_from([1, 2, 100]))
    def look(self, data: st.DataObject, fields: set[str], limit: int) -> None:
        which = self.which(data, fields)
        before_id = data.draw(st.none() | st.sampled_from([letter.id for letter in self.model.letters]))
        fitting = [letter.told() for letter in self.model.letters if letter.fits(which)]
        assert self.ask(self.buffer.count_dead(which)) == len(fitting)
        older = [told for told in fitting if before_id is None or told.id < before_id]
        found = self.ask(self.buffer.dead_letters(which, before_id=before_id, limit=limit))
        assert found == older[::-1][:limit]

    @precondition(lambda self: self.model.letters)
    @rule(data=st.data(), fields=_fields_of_which)
    def replay(self, data: st.DataObject, fields: set[str]) -> None:
        """Where not all fit, or it is interrupted, how many of each key's have gone is open."""
        which = self.which(data, fields)
        letters = self.model.to_replay(which)

        def may_not_fit(key: PublicKey, letters: Sequence[Letter]) -> bool:
            return self.model.may_overfill(key, [each.held for each in letters], len(QUEUES))

        try:
            replayed = self.ask(self.buffer.replay(which))
        except BufferFull:
            assert any(may_not_fit(key, of_key[:1]) for key, of_key in letters.items())
            return
        left = {told.id for told in self.ask(self.buffer.dead_letters(limit=1_000))}
        gone = {key: [each for each in of_key if each.id not in left] for key, of_key in letters.items()}
        assert replayed == sum(map(len, gone.values()))
        assert replayed or not letters
        for key, of_key in letters.items():
            assert gone[key] == of_key[: len(gone[key])]
            self.model.replay(gone[key])
        if any(len(gone[key]) < len(letters[key]) for key in letters):
            assert any(may_not_fit(key, letters[key]) for key in letters)

    @precondition(lambda self: self.model.letters)
    @rule(data=st.data(), fields=_fields_of_which)
    def purge(self, data: st.DataObject, fields: set[str]) -> None:
        which = self.which(data, fields)
        assert self.ask(self.buffer.purge(which)) == self.model.purge(which)

    # -- erase, trace ----------------------------------------------------------------------------------

    @precondition(holds_anything)
    @rule(
        person=st.integers(0, PERSONS - 1),
        lane=st.none() | st.sampled_from(LANES),
        key=_any_key,
        name=_any_queue,
    )
    def erase(self, person: int, lane: str | None, key: PublicKey | None, name: QueueId | None) -> None:
        is_theirs = theirs(person, lane)
        erased = self.ask(self.buffer.erase(is_theirs, key=key, queue=name))
        assert erased == self.model.erase(is_theirs, key, name)

    @precondition(holds_anything)
    @rule(number=_numbers, key=_any_key, name=_any_queue)
    def trace(self, number: int, key: PublicKey | None, name: QueueId | None) -> None:
        uuid = numbered(number).uuid
        found = self.ask(self.buffer.trace(uuid, key=key, queue=name))
        expected = self.model.trace(uuid, key, name)
        for each in KEYS:  # between two keys the order of one moment is open
            held, expected_held = (
                [event for event in traces.held if event.key == each] for traces in (found, expected)
            )
            assert held == expected_held
        assert len(found.held) == len(expected.held)
        assert list(found.dead) == list(expected.dead)
        assert_newest_first(found.batches, expected.batches)

    # -- time and process ------------------------------------------------------------------------------

    @precondition(holds_anything)
    @rule(ms=st.sampled_from([1, 999, 1_000, 29_999, 30_000, 300_000, 599_999, 600_000]))
    def advance(self, ms: int) -> None:
        self.engine.advance(ms / 1000)
        self.model.advance(ms)

    @precondition(holds_anything)
    @rule(ms=st.sampled_from([0, 0, 1, 20_000, 3_600_000, 86_400_000]), restarts=st.booleans())
    def jump_back(self, ms: int, restarts: bool) -> None:
        """The clock; and perhaps the process is another one from then on."""
        self.engine.advance(-ms / 1000)
        self.model.jump_back(ms)
        if restarts:
            self.open()
        for key in KEYS:
            self.claimed(key, "none")

    # -- what is kept ----------------------------------------------------------------------------------

    @invariant()
    def the_dead_letters_are_those_of_the_model(self) -> None:
        found = self.ask(self.buffer.dead_letters(limit=1_000))
        assert found[::-1] == [letter.told() for letter in self.model.letters]

    @invariant()
    def the_ambiguous_batches_are_those_of_the_model(self) -> None:
        found = self.ask(self.buffer.ambiguous(limit=1_000))
        assert_newest_first(found, [batch for batch in self.model.batches if batch.ambiguous])

    @invariant()
    def who_waits_was_woken(self) -> None:
        assert self.woken == self.model.woken
        self.woken, self.model.woken = {}, {}

    @invariant()
    def the_figures_are_those_of_the_model(self) -> None:
        figures = self.ask(self.buffer.figures(recount=True))
        assert self.ask(self.buffer.figures()) == figures  # what was written is what is counted
        assert set(figures) == set(self.model.books)
        for key, found in figures.items():
            queues = self.model.of(key)
            assert found.books == self.model.books[key]
            assert found.queues == len(queues)
            assert found.succeeded == (key in self.model.succeeded)
            assert found.gate == view(self.model.gates[key], self.model.now_ms)
            assert found.ambiguous == sum(b.key == key and b.ambiguous for b in self.model.batches)
            oldest = min((each.waiting[0] for each in queues), key=lambda held: held.place, default=None)
            assert found.oldest_held_ms == (oldest and oldest.accepted_ms)
            assert (found.stored_bytes > 0) == bool(queues)
            assert found.stored_bytes <= self.model.most_bytes(key)
            assert found.stored_bytes <= self.terms.max_bytes_per_key
        assert sum(found.stored_bytes for found in figures.values()) <= self.terms.max_bytes

    @invariant()
    def keys_with_work_are_those_that_hold_events(self) -> None:
        found = self.ask(self.buffer.keys_with_work())
        assert sorted(found) == sorted(key for key in KEYS if self.model.of(key))


def assert_newest_first(found: Sequence[Any], expected: Sequence[Any]) -> None:
    """The order of what was settled in the same millisecond is open."""
    moments = [batch.settled_at_ms for batch in found]
    assert moments == sorted(moments, reverse=True)
    assert sorted(found, key=repr) == sorted(expected, key=repr)


class StrangerMachine(BufferMachine):
    """For keys that Outlit never confirmed, at first, and under a limit that makes claims wait."""

    terms = replace(TERMS, limit_per_s=1.0, rate_share=0.5, quota=Quota(queues=2, keys=1))


class SmallMachine(BufferMachine):
    """In a buffer that is soon full."""

    terms = replace(TERMS, max_bytes=24_000, max_bytes_per_key=18_000, dead_max_bytes=2_000)


TestBuffer = BufferMachine.TestCase
TestBufferForStrangers = StrangerMachine.TestCase
TestSmallBuffer = SmallMachine.TestCase


def on(kind: str, machine: type[BufferMachine], share: float) -> Any:
    """The machine on another engine, for that share of the examples."""
    on_kind: Any = type(f"{machine.__name__}On{kind.title()}", (machine,), {"kind": kind})
    examples = settings().max_examples
    on_kind.TestCase.settings = settings(max_examples=max(1, int(share * examples)))
    return on_kind.TestCase


TestRedisBuffer = on("redis", BufferMachine, 1 / 3)
TestRedisBufferForStrangers = on("redis", StrangerMachine, 1 / 3)
TestSmallRedisBuffer = on("redis", SmallMachine, 1 / 3)
TestClusterBuffer = on("cluster", BufferMachine, 1 / 10)
TestSmallClusterBuffer = on("cluster", SmallMachine, 1 / 10)
TestValkeyBuffer = on("valkey", BufferMachine, 1 / 10)
TestSmallValkeyBuffer = on("valkey", SmallMachine, 1 / 10)
