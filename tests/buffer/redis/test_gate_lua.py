"""The gate in Lua and the gate in Python are one: the same calls leave the same state, to the last bit.

Call by call: Python's gate takes random calls, then Redis takes the same ones at the same times, with the
gate stored between any two as the scripts store it; every answer and every stored gate are compared. Then
through the buffer's own verbs.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from importlib.resources import files
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ResponseError

from proxy import gate
from proxy.buffer import Idle, Lease, Settled, Settlement
from proxy.buffer.contract import MAX_IDLE_S
from proxy.buffer.redis import RedisBuffer
from proxy.buffer.redis.keys import names
from proxy.buffer.redis.store import RedisClock
from proxy.gate import Feedback, Gate, Outcome
from proxy.ledger import Pause
from proxy.wire.rate_headers import MAX_LIMIT, RateHeaders
from tests.buffer.conftest import TERMS
from tests.buffer.contents import KEY, event, portion
from tests.buffer.redis.small_scripts import script
from tests.redis_servers import shared
from tests.sync_link import SyncLink

KINDS = ["redis", "valkey"]
NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
QUEUES = [bytes((n, 0, 0, 255 - n)) * 4 for n in range(8)]

_RULES = [files("proxy.buffer.redis") / "lua" / f"{name}.lua" for name in ("budget", "standing", "gate")]
_CALLS = Path(__file__).with_name("gate_calls.lua")
CALLS = script(b"#!lua flags=no-writes\n" + b"".join(file.read_bytes() for file in (*_RULES, _CALLS)))


def run(kind: str, *arguments: bytes | str) -> Any:
    """Have Redis make the calls."""
    link = SyncLink(shared(kind))
    try:
        return asyncio.run(link.run(CALLS, (b"{gate}",), arguments))
    finally:
        link.hang_up()


class Calls:
    """A gate in Python, and all that was asked of it."""

    def __init__(self, limit_per_s: float, share: float) -> None:
        self.now_ms = NOW_MS
        self.limit_per_s, self.share = limit_per_s, share
        self.gate: Gate | None = None
        self.queues = len(QUEUES)
        """How many take part."""
        self.leases: list[tuple[int, int]] = []
        """The queue and the time of each claim that was granted."""
        self.made: list[list[Any]] = []
        self.answers: list[Any] = []
        self.after: list[bytes] = []

    def call(self, verb: str, does: Callable[[Gate], Any], *arguments: Any) -> Any:
        if self.gate is None:
            its = gate.opened(self.limit_per_s, self.share)
        else:
            its = gate.load(gate.dump(self.gate), self.limit_per_s, self.share)
        answer = does(its)
        self.gate = its
        self.made.append([verb, self.limit_per_s, self.share, *arguments])
        self.answers.append(answer)
        self.after.append(gate.dump(its))
        return answer

    def claim(self, lease_ms: int = 30_000) -> int:
        now_ms, queue = self.now_ms, len(self.made) % self.queues
        wait_ms = self.call("claim", lambda its: gate.claim(its, now_ms, lease_ms), now_ms, lease_ms)
        assert isinstance(wait_ms, int)
        if wait_ms == 0:
            self.leases.append((queue, now_ms))
            self.evidence(queue)
        return wait_ms

    def claim_on_time(self) -> None:
        """As soon as a claim is granted, and just before."""
        for _ in range(4):
            wait_ms = self.claim()
            if wait_ms == 0:
                return
            self.now_ms += wait_ms - 1
            self.claim()
            self.now_ms += 1

    def settle(self, at: int, feedback: Feedback) -> None:
        if self.leases:
            self.settle_lease(self.leases.pop(at % len(self.leases)), feedback)

    def settle_lease(self, lease: tuple[int, int], feedback: Feedback) -> None:
        (queue, claimed_ms), now_ms = lease, self.now_ms
        self.call(
            "settle",
            lambda its: gate.settle(its, feedback, QUEUES[queue], claimed_ms, now_ms),
            now_ms,
            feedback,
            queue + 1,
            claimed_ms,
        )
        self.evidence(queue)
        self.call("wants_untroubled", gate.wants_untroubled)

    def evidence(self, queue: int) -> None:
        self.call("evidence", lambda its: list(astuple(gate.evidence(its, QUEUES[queue]))), queue + 1)

    def answered(self, at: int, feedback: Feedback, ahead_s: float) -> None:
        """A settlement whose answer speaks of now: its reset lies `ahead_s` from it."""
        headers = feedback.headers
        if headers is not None and headers.reset_at is not None:
            headers = replace(headers, reset_at=int(self.now_ms / 1000 + ahead_s))
        self.settle(at, replace(feedback, headers=headers, sent_ms=self.now_ms - 41.7))

    def several(self, feedback: Feedback, times: int) -> None:
        """A run of equal answers, as an outage or a storm gives."""
        for _ in range(times):
            self.claim_on_time()
            self.settle(-1, feedback)

    def advance(self, ms: int) -> None:
        self.now_ms += ms

    def tune(self, limit_per_s: float, share: float) -> None:
        self.limit_per_s, self.share = limit_per_s, share

    def operator(self, verb: str) -> None:
        self.call(verb, getattr(gate, verb))

    @property
    def reasons(self) -> set[str]:
        """All reasons for which it paused."""
        return {msgspec.msgpack.decode(its, type=Gate).standing.reason for its in self.after}

    def compare(self, kind: str) -> None:
        """Have Redis answer the same calls."""
        answers = run(kind, b"", msgspec.msgpack.encode(self.made), *QUEUES)
        for at, made in enumerate(self.made):
            answer, stored = answers[2 * at : 2 * at + 2]
            assert msgspec.msgpack.decode(answer) == self.answers[at], (at, made)
            assert _fields(stored) == _fields(self.after[at]), (at, made)


def _fields(stored: bytes) -> Any:
    """A stored gate, of which Python's decoder has made sure that it is one."""
    return msgspec.to_builtins(msgspec.msgpack.decode(stored, type=Gate))


_limits = st.sampled_from([0.07, 0.5, 1.0, 3.3, 9.999, 20.0, 100.0, 333.333, 5_000.0]) | st.floats(
    0.01, 10_000
)
_shares = st.sampled_from([1.0, 1.0, 0.5, 1 / 3]) | st.floats(0.01, 1.0)
_waits_s = st.sampled_from([0.0, 0.001, 0.25, 1.0, 2.0007, 59.0, 300.0]) | st.floats(0, 300)
_headers = st.none() | st.builds(
    RateHeaders,
    limit=st.none() | st.sampled_from([1, 10, 100]) | st.integers(1, MAX_LIMIT),
    remaining=st.none() | st.integers(0, 100) | st.integers(0, MAX_LIMIT),
    reset_at=st.none() | st.just(0),
    reset_in_s=st.none() | _waits_s,
    retry_after_s=st.none() | _waits_s,
)
_origins = (
    st.none()
    | st.sampled_from(
        ["", "https://a.example", "https://b.example", "null", "\udcff\x00", "https://ö.example"]
    )
    | st.integers(0, 30).map("https://{}.example".format)
    | st.text(st.characters(codec=None), max_size=400)
)
_feedbacks = st.builds(
    Feedback,
    st.sampled_from(Outcome),
    _headers,
    sent_ms=st.just(0.0) | st.floats(0, 4e12),
    origin=_origins,
    given_up=st.booleans(),
)
_jumps_ms = st.sampled_from(
    [-HOUR_MS, -300_001, -15_000, -1_000, -26, -1, 1, 25, 26, 999, 5_000, 15_000, 300_000, HOUR_MS]
)

Step = tuple[Callable[..., object], Sequence[Any]]


def _step(verb: Callable[..., object], *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(verb), st.tuples(*arguments))


_steps = st.one_of(
    _step(Calls.claim, st.sampled_from([5_000, 30_000, 600_000])),
    _step(Calls.claim_on_time),
    _step(Calls.settle, st.integers(0, 7), _feedbacks),
    _step(Calls.answered, st.integers(0, 7), _feedbacks, st.sampled_from([-1.0, 0.0, 0.6, 1.0, 5.0])),
    _step(Calls.several, _feedbacks, st.integers(1, 25)),
    _step(Calls.advance, _jumps_ms | st.integers(1, 2_000)),
    _step(Calls.operator, st.sampled_from(["pause", "resume", "retry"])),
    _step(Calls.tune, _limits, _shares),
)


@pytest.mark.parametrize("kind", KINDS)
@given(limit=_limits, share=_shares, steps=st.lists(_steps, max_size=40))
def test_the_same_calls_leave_the_same_gate(
    kind: str, limit: float, share: float, steps: Sequence[Step]
) -> None:
    calls = Calls(limit, share)
    for verb, arguments in steps:
        verb(calls, *arguments)
    calls.compare(kind)


class Walk:
    """A long life of a gate: whole pauses of each kind, and what may come between."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.calls = Calls(self.chance.choice([20.0, 100.0, 1_000.0]), self.chance.choice([1.0, 0.7]))

    def go(self, steps: int) -> Calls:
        weights = {
            self.refusals: 2,
            self.failures: 2,
            self.edge_of_window: 1,
            self.refused_key: 1,
            self.one_moment: 1,
            self.answered_after_a_jump: 1,
            self.probes: 3,
            self.limited: 2,
            self.forbidden: 1,
            self.late: 2,
            self.pass_time: 3,
            self.operator: 1,
            self.tune: 1,
        }
        for do in self.chance.choices([*weights], [*weights.values()], k=steps):
            self.calls.queues = self.chance.choice([4, 5, 8])
            do()
        return self.calls

    def ask(self, outcome: Outcome, headers: RateHeaders | None = None, origin: str | None = None) -> None:
        self.calls.claim_on_time()
        self.calls.now_ms += self.chance.choice([0, 20])
        feedback = Feedback(outcome, headers, self.calls.now_ms - 20.3, origin, self.chance.random() < 0.1)
        self.calls.settle(-1, feedback)

    def refusals(self) -> None:
        for _ in range(self.chance.randint(18, 22)):
            self.ask(Outcome.REFUSED)

    def failures(self) -> None:
        share = self.chance.choice([0.7, 0.8, 1.0])
        others = [Outcome.TAKEN, Outcome.REFUSED, Outcome.FORBIDDEN]
        for _ in range(self.chance.randint(18, 40)):
            self.ask(Outcome.FAILED if self.chance.random() < share else self.chance.choice(others))

    def edge_of_window(self) -> None:
        """A failure in the last millisecond of the window in which they are counted, or just behind it."""
        self.calls.claim_on_time()
        if self.calls.gate is not None and (began_ms := self.calls.gate.standing.window_ms):
            self.calls.now_ms = began_ms + self.chance.choice([29_999, 30_000])
        self.calls.settle(-1, Feedback(Outcome.FAILED))

    def refused_key(self) -> None:
        self.ask(Outcome.KEY_REFUSED)

    def one_moment(self) -> None:
        """In one millisecond, as far as the pace allows, a probe is taken and the next pause begins."""
        self.refused_key()
        self.calls.now_ms += 300_000
        self.calls.claim()
        self.calls.settle(-1, Feedback(Outcome.TAKEN))
        for _ in range(3):
            self.calls.claim()
        for outcome in (Outcome.KEY_REFUSED, *self.chance.choices(list(Outcome), k=2)):
            self.calls.settle(-1, Feedback(outcome))

    def answered_after_a_jump(self) -> None:
        self.calls.claim_on_time()
        self.calls.now_ms -= HOUR_MS
        self.calls.settle(-1, Feedback(self.chance.choice(list(Outcome))))

    def probes(self) -> None:
        outcome = self.chance.choice(list(Outcome))
        for _ in range(self.chance.choice([1, 1, 6])):
            self.ask(outcome)

    def limited(self) -> None:
        waits_s = [None, 0.0, 0.0004, 0.25, 0.9997, 1.3337, 7.0, 299.9, 300.0, 1_000.0]
        headers = RateHeaders(
            100, 0, None, reset_in_s=self.chance.choice(waits_s), retry_after_s=self.chance.choice(waits_s)
        )
        self.ask(Outcome.RATE_LIMITED, headers)

    def forbidden(self) -> None:
        outcomes = self.chance.choice([[Outcome.FORBIDDEN], [Outcome.FORBIDDEN, Outcome.TAKEN]])
        for _ in range(self.chance.choice([1, 5, 40])):
            origin = f"https://{self.chance.randrange(30)}.example"
            self.ask(self.chance.choice(outcomes), None, origin)

    def late(self) -> None:
        """Requests whose answers come among those of later ones."""
        calls = self.calls
        if self.chance.random() < 0.5 or not calls.leases:
            calls.claim_on_time()
        else:
            calls.settle(
                self.chance.randrange(len(calls.leases)), Feedback(self.chance.choice(list(Outcome)))
            )

    def pass_time(self) -> None:
        a_moment = self.chance.choice([0, 0, -1, 1])
        jump_ms = self.chance.choice([0, 1_000, 5_000, 15_000, 30_000, 300_000, -1_000, -HOUR_MS, HOUR_MS])
        self.calls.now_ms += jump_ms + a_moment
        if self.chance.random() < 0.5:
            self.calls.claim()

    def operator(self) -> None:
        verb = self.chance.choice(["pause", "resume", "retry"])
        self.calls.operator(verb)
        if verb == "pause":
            self.calls.claim()
            self.calls.operator("resume")

    def tune(self) -> None:
        self.calls.tune(self.chance.choice([20.0, 100.0, 1_000.0]), self.chance.choice([1.0, 0.7]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(10))
def test_through_a_long_life_both_gates_stay_the_same(kind: str, seed: int) -> None:
    calls = Walk(seed).go(100)
    assert {"", *Pause} - {Pause.RATE_LIMITED, Pause.OPERATOR} <= calls.reasons
    calls.compare(kind)


# -- what is stored ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_python_stored_is_a_gate_to_lua(kind: str) -> None:
    calls = Calls(100.0, 1.0)
    for outcome in Outcome:
        calls.claim_on_time()
        calls.settle(0, Feedback(outcome, RateHeaders(100, 0, None, 0.5), NOW_MS + 0.1, "https://a.example"))
    assert calls.gate is not None
    stored = gate.dump(calls.gate)
    _, after = run(kind, stored, msgspec.msgpack.encode([["resume", 100.0, 1.0]]))
    assert _fields(after) == _fields(stored)


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b"\xc0",
        b"\x80",
        b"\xc1",
        b"\x82\xa6budget\x80\xa8standing\xc0",
        gate.dump(gate.opened(100.0, 1.0))[:-1],
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_gate_is_an_error_that_says_so(kind: str, text: bytes) -> None:
    with pytest.raises(ResponseError, match="this is no gate"):
        run(kind, text, msgspec.msgpack.encode([["resume", 100.0, 1.0]]))


# -- through the buffer --------------------------------------------------------------------------------


class Beside:
    """A buffer on Redis with a clock that stands still, and the gate that its key should have.

    There is always a queue that is due, so only the gate can make a claim wait; no lease ends by itself.
    """

    def __init__(self, kind: str) -> None:
        self.deployment = shared(kind)
        self.deployment.flush()
        self.now_ms = NOW_MS
        self.limit, self.share = 0.0, 0.0
        self.gate: bytes | None = None
        """As it is stored."""
        self.leases: list[Lease] = []
        self.tokens = count(1)
        self.buffer: RedisBuffer
        self.link: SyncLink

    async def tune(self, limit: float, share: float) -> None:
        """Another start, with other settings."""
        if self.limit:
            await self.buffer.close()
        self.limit, self.share = limit, share
        terms = replace(TERMS, linger_s=0.0, lease_s=LEASE_S, limit_per_s=limit, rate_share=share)
        self.link = SyncLink(self.deployment)
        clock = RedisClock(lambda: self.now_ms)
        self.buffer = await RedisBuffer.opened(self.link, terms, clock=clock, background=False)

    async def fill(self) -> None:
        await self.buffer.append(KEY, [portion([event(n)], str(n)) for n in range(len(QUEUES))])

    @property
    def present(self) -> Gate:
        if self.gate is None:
            return gate.opened(self.limit, self.share)
        return gate.load(self.gate, self.limit, self.share)

    async def claim(self) -> int:
        if len(self.leases) == len(QUEUES):
            return 0
        its = self.present
        claimed = await self.buffer.claim(KEY, next(self.tokens).to_bytes(12, "big"))
        wait_ms = gate.claim(its, self.now_ms, LEASE_S * 1000)
        if wait_ms:
            assert claimed == Idle(min(MAX_IDLE_S, wait_ms / 1000))
        else:
            assert isinstance(claimed, Lease)
            assert claimed.claimed_ms == self.now_ms
            assert claimed.evidence == gate.evidence(its, claimed.queue)
            self.leases.append(claimed)
            self.gate = gate.dump(its)
        return wait_ms

    async def claim_on_time(self) -> None:
        wait_ms = await self.claim()
        self.now_ms += wait_ms
        if wait_ms:
            await self.claim()

    async def settle(self, at: int, feedback: Feedback) -> None:
        if not self.leases:
            return
        lease = self.leases.pop(at % len(self.leases))
        settlement = Settlement(1, again=frozenset({0}), feedback=feedback)
        assert isinstance(await self.buffer.settle(lease, settlement), Settled)
        its = self.present
        gate.settle(its, feedback, lease.queue, lease.claimed_ms, self.now_ms)
        self.gate = gate.dump(its)

    async def several(self, feedback: Feedback, times: int) -> None:
        for _ in range(times):
            await self.claim_on_time()
            await self.settle(-1, feedback)

    async def advance(self, ms: int) -> None:
        self.now_ms += ms

    async def operator(self, verb: str) -> None:
        await getattr(self.buffer, verb)(KEY)
        its = self.present
        getattr(gate, verb)(its)
        self.gate = gate.dump(its)

    async def check(self) -> None:
        stored = await self.link.ask("GET", names(KEY).gate)
        assert (None if stored is None else _fields(stored)) == (self.gate and _fields(self.gate))
        assert (await self.buffer.figures())[KEY].gate == gate.view(self.present, self.now_ms)


LEASE_S = 1_000_000

_told_steps = st.one_of(
    _step(Beside.claim),
    _step(Beside.claim_on_time),
    _step(Beside.claim_on_time),
    _step(Beside.settle, st.integers(0, 7), _feedbacks),
    _step(Beside.several, _feedbacks, st.integers(1, 25)),
    _step(Beside.advance, _jumps_ms | st.integers(1, 2_000)),
    _step(Beside.operator, st.sampled_from(["pause", "resume", "retry"])),
    _step(Beside.tune, _limits, _shares),
)


async def _told(kind: str, limit: float, share: float, steps: Sequence[Step]) -> None:
    beside = Beside(kind)
    await beside.tune(limit, share)
    await beside.fill()
    for verb, arguments in steps:
        await verb(beside, *arguments)  # type: ignore[misc]
        await beside.check()
    await beside.buffer.close()


@pytest.mark.parametrize("kind", KINDS)
@given(limit=_limits, share=_shares, steps=st.lists(_told_steps, max_size=25))
def test_the_buffers_verbs_keep_the_same_gate(
    kind: str, limit: float, share: float, steps: Sequence[Step]
) -> None:
    asyncio.run(_told(kind, limit, share, steps))
