"""The gate inside the buffer: a claim takes its rate token, an answer pauses its key."""

from dataclasses import replace

import pytest

from proxy.buffer import (
    Buffer,
    Lease,
    Settlement,
)
from proxy.gate import Feedback
from proxy.wire.rate_headers import RateHeaders
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    due,
    event,
    idle,
    leased,
    portion,
    token,
)

RATE_LIMITED = Feedback(rate_limited=True, headers=RateHeaders(retry_after_s=20.0))


async def test_claims_of_a_key_keep_to_its_rate(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=20.0))
    await buffer.append(KEY, [portion([event(1)], str(number)) for number in range(200)])
    engine.advance(1)
    granted = waited_s = 0.0
    while waited_s < 5:
        claimed = await buffer.claim(KEY, token())
        if isinstance(claimed, Lease):
            granted += 1
        else:
            assert 0 < claimed.wait_s <= 0.06
            waited_s += claimed.wait_s
            engine.advance(claimed.wait_s)
    assert granted == pytest.approx(0.9 * 20 * 5, abs=2)


async def test_a_claim_that_finds_nothing_due_takes_no_token(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=1.0))
    for _ in range(5):
        await idle(buffer)
    await buffer.append(KEY, [portion([event(1)])])
    await idle(buffer)
    engine.advance(1)
    await leased(buffer)


async def test_another_limit_counts_from_the_next_start(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=10.0))
    await buffer.append(KEY, [portion([event(1)], name) for name in "qrst"])
    assert (await buffer.figures())[KEY].rate_per_s == pytest.approx(9.0)
    buffer = await engine.opened(replace(TERMS, limit_per_s=2.0))
    engine.advance(1)
    await leased(buffer)
    assert (await idle(buffer)).wait_s == pytest.approx(1 / 1.8, abs=0.03)


async def test_each_key_has_a_gate_of_its_own(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=1.0))
    for key in (KEY, OTHER_KEY):
        await buffer.append(key, [portion([event(1)], "q"), portion([event(2)], "r")])
    engine.advance(1)
    await leased(buffer)
    await idle(buffer)
    await leased(buffer, OTHER_KEY)


async def test_a_429_pauses_its_key_whole_and_no_other(buffer: Buffer, engine: Engine) -> None:
    for key in (KEY, OTHER_KEY):
        await buffer.append(key, [portion([event(1)], "q"), portion([event(2)], "r")])
    engine.advance(1)
    lease = await leased(buffer)
    await buffer.settle(lease, Settlement(1, again=frozenset({0}), feedback=RATE_LIMITED))
    assert (await idle(buffer)).wait_s == pytest.approx(20.0, abs=0.01)
    assert (await buffer.figures())[KEY].paused == "rate_limited"
    assert (await buffer.figures())[OTHER_KEY].paused is None
    await leased(buffer, OTHER_KEY)
    engine.advance(20)
    assert (await buffer.figures())[KEY].paused is None
    assert (await leased(buffer)).attempts == 0


async def test_a_pause_outlasts_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await buffer.settle(await due(buffer, engine), Settlement(1, again=frozenset({0}), feedback=RATE_LIMITED))
    buffer = await engine.opened()
    assert (await idle(buffer)).wait_s == pytest.approx(20.0, abs=0.01)
