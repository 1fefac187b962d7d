"""The gate in Lua and the gate in Python say the same, whatever is asked of them.

Through the buffer's own verbs: which claims are granted, how long the others are told to wait, and what the
figures say of rate and pause. There is always a queue that is due, so only the gate can make a claim wait.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import gate
from proxy.buffer import Idle, Lease, Settled, Settlement
from proxy.buffer.contract import MAX_IDLE_S
from proxy.buffer.redis import RedisBuffer
from proxy.buffer.redis.store import RedisClock
from proxy.gate import NO_FEEDBACK, Feedback, Gate
from proxy.wire.rate_headers import RateHeaders
from tests.buffer.conftest import TERMS
from tests.buffer.contents import KEY, event, portion
from tests.redis_servers import shared
from tests.sync_link import SyncLink

QUEUES = 6

_limits = st.sampled_from([0.07, 0.5, 1.0, 3.3, 9.999, 20.0, 100.0, 333.333, 5_000.0]) | st.floats(
    0.01, 10_000
)
_waits_s = st.sampled_from([0.0, 0.001, 0.25, 1.0, 2.0007, 59.0, 3_599.9, 3_600.0, 1e6]) | st.floats(0, 5_000)
_headers = st.none() | st.builds(
    RateHeaders, retry_after_s=st.none() | _waits_s, reset_in_s=st.none() | _waits_s
)
_jumps_ms = st.sampled_from([-86_400_000, -3_600_000, -1_000, 1_000])
_feedbacks = st.just(NO_FEEDBACK) | st.builds(Feedback, st.booleans(), _headers)


class Beside:
    """A buffer on Redis with a clock that stands still, and the gate that its key should have."""

    def __init__(self, kind: str) -> None:
        self.deployment = shared(kind)
        self.deployment.flush()
        self.now_ms = 1_800_000_000_000
        self.limit = 0.0
        self.gate: Gate | None = None
        """As it is stored: another limit is written with the next verb that changes it."""
        self.leases: list[Lease] = []
        self.tokens = count(1)
        self.buffer: RedisBuffer

    async def open(self, limit: float) -> None:
        if self.limit:
            await self.buffer.close()
        self.limit = limit
        terms = replace(TERMS, linger_s=0.0, lease_s=1e6, limit_per_s=limit)
        clock = RedisClock(lambda: self.now_ms)
        self.buffer = await RedisBuffer.opened(
            SyncLink(self.deployment), terms, clock=clock, background=False
        )

    async def fill(self) -> None:
        await self.buffer.append(KEY, [portion([event(n)], str(n)) for n in range(QUEUES)])

    @property
    def present(self) -> Gate:
        return gate.opened(self.limit) if self.gate is None else gate.with_limit(self.gate, self.limit)

    async def claim(self) -> None:
        if len(self.leases) == QUEUES:
            return
        claimed = await self.buffer.claim(KEY, next(self.tokens).to_bytes(12, "big"))
        expected = gate.claim(self.present, self.now_ms)
        if isinstance(expected, Gate):
            assert isinstance(claimed, Lease)
            self.leases.append(claimed)
            self.gate = expected
        else:
            assert claimed == Idle(min(MAX_IDLE_S, expected / 1000))

    async def claim_on_time(self) -> None:
        """At the very millisecond that the last claim was told, or one before it."""
        waits_ms = gate.claim(self.present, self.now_ms)
        if isinstance(waits_ms, int):
            self.now_ms += waits_ms - 1
            await self.claim()
            self.now_ms += 1
        await self.claim()

    async def settle(self, at: int, feedback: Feedback) -> None:
        if not self.leases:
            return
        lease = self.leases.pop(at % len(self.leases))
        settlement = Settlement(1, again=frozenset({0}), feedback=feedback)
        assert isinstance(await self.buffer.settle(lease, settlement), Settled)
        self.gate = gate.settle(self.present, feedback, self.now_ms)

    async def claim_and_jump(self, periods: float) -> None:
        """A claim, and another when the clock has gone back by so many periods."""
        await self.claim_on_time()
        self.now_ms -= int(periods * 1000 / self.present.rate_per_s)
        await self.claim()

    async def pause_and_jump(self, wait_s: float, ms: int, next_s: float) -> None:
        """An answer pauses the key, the clock jumps, and an answer to a request of before pauses it too."""
        await self.claim_on_time()
        await self.claim_on_time()
        await self.settle(0, _limited(wait_s))
        self.now_ms += ms
        await self.settle(0, _limited(next_s))
        await self.claim()

    async def check(self) -> None:
        figures = (await self.buffer.figures())[KEY]
        reason = self.present.pause_reason if gate.paused_ms(self.present, self.now_ms) else None
        assert (figures.rate_per_s, figures.paused) == (self.present.rate_per_s, reason)


def _limited(wait_s: float) -> Feedback:
    return Feedback(rate_limited=True, headers=RateHeaders(retry_after_s=wait_s))


async def _advance(beside: Beside, ms: int) -> None:
    beside.now_ms += ms


Step = tuple[Callable[..., object], Sequence[object]]


def _step(verb: Callable[..., object], *arguments: st.SearchStrategy) -> st.SearchStrategy[Step]:
    return st.tuples(st.just(verb), st.tuples(*arguments))


_steps = st.one_of(
    _step(Beside.claim),
    _step(Beside.claim_on_time),
    _step(Beside.claim_on_time),
    _step(Beside.settle, st.integers(0, QUEUES), _feedbacks),
    _step(_advance, st.sampled_from([1, 5, 25, 26, 100, 999, 3_600_000, 86_400_000]) | st.integers(1, 5_000)),
    _step(_advance, st.sampled_from([-1, -10, -26, -1_000, -3_600_000, -86_400_000])),
    _step(Beside.claim_and_jump, st.sampled_from([0.5, 0.99, 1.0, 1.5, 2.5])),
    _step(Beside.pause_and_jump, _waits_s, _jumps_ms, _waits_s),
    _step(Beside.open, _limits),
)


async def _told(kind: str, limit: float, steps: Sequence[Step]) -> None:
    beside = Beside(kind)
    await beside.open(limit)
    await beside.fill()
    for verb, arguments in steps:
        await verb(beside, *arguments)  # type: ignore[misc]
        await beside.check()
    await beside.buffer.close()


@pytest.mark.parametrize("kind", ["redis", "valkey"])
@given(limit=_limits, steps=st.lists(_steps, max_size=40))
def test_both_gates_say_the_same(kind: str, limit: float, steps: Sequence[Step]) -> None:
    asyncio.run(_told(kind, limit, steps))
