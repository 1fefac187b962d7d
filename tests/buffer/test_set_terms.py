"""Other terms for a buffer that is open: what each changes, and what it leaves as it was."""

import asyncio
from dataclasses import replace

import pytest

from proxy.buffer import Appended, Buffer, BufferFull, Quota, QuotaExceeded, Settlement, Terms
from proxy.gate import Feedback, Outcome
from proxy.ledger import Pause
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    books,
    buried,
    drained,
    due,
    event,
    events,
    idle,
    leased,
    portion,
    settled,
    tried,
)

KEY_IS_REFUSED = Settlement(1, again=frozenset({0}), feedback=Feedback(Outcome.KEY_REFUSED))


async def test_a_linger_is_that_of_when_the_event_came(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)], "early")])
    buffer.set_terms(replace(TERMS, linger_s=40.0))
    await buffer.append(KEY, [portion([event(2)], "late")])
    assert (await idle(buffer)).wait_s == 1.0
    engine.advance(1.0)
    await settled(buffer, await leased(buffer), 1)
    assert (await idle(buffer)).wait_s == 39.0
    buffer.set_terms(replace(TERMS, linger_s=5.0))
    await buffer.append(OTHER_KEY, [portion([event(3)])])
    assert (await idle(buffer, OTHER_KEY)).wait_s == 5.0


async def test_a_lease_is_as_long_as_when_it_was_given(buffer: Buffer, engine: Engine) -> None:
    for name in ("one", "other"):
        await buffer.append(KEY, [portion([event(name)], name)])
    engine.advance(1.0)
    first = await leased(buffer)
    buffer.set_terms(replace(TERMS, lease_s=80.0))
    second = await leased(buffer)
    engine.advance(TERMS.lease_s)
    again = await leased(buffer)
    assert again.queue == first.queue
    await settled(buffer, again, 1)
    assert (await idle(buffer)).wait_s == 50.0
    await settled(buffer, second, 1)


async def test_what_is_leased_when_they_change_is_settled_as_ever(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    engine.advance(1.0)
    lease = await leased(buffer)
    buffer.set_terms(replace(TERMS, linger_s=9.0, lease_s=9.0, limit_per_s=3.0, dedup_window_s=9.0))
    await settled(buffer, lease, 3)
    assert (await books(buffer)).delivered == 3


@pytest.mark.parametrize(
    "lower", [replace(TERMS, max_bytes=10_000), replace(TERMS, max_bytes_per_key=10_000)], ids=["all", "key"]
)
async def test_a_lower_bound_drops_nothing_and_a_higher_one_takes_more(
    buffer: Buffer, engine: Engine, lower: Terms
) -> None:
    for number in range(4):
        await buffer.append(KEY, [portion([event(number, size=4_000)], f"{number}")])
    buffer.set_terms(lower)
    with pytest.raises(BufferFull):
        await buffer.append(KEY, [portion([event(9, size=4_000)])])
    assert (await books(buffer)).held == 4
    assert len(await drained(buffer, engine)) == 4
    await buffer.append(KEY, [portion([event(9, size=8_000)])])
    buffer.set_terms(TERMS)
    await buffer.append(KEY, [portion([event(10, size=8_000)])])
    assert (await books(buffer)).held == 2


async def test_a_repeated_event_is_known_as_long_as_the_window_of_now(buffer: Buffer, engine: Engine) -> None:
    request = [portion([event(1)])]
    await buffer.append(KEY, request)
    engine.advance(20.0)
    assert await buffer.append(KEY, request) == Appended(0, 1)
    buffer.set_terms(replace(TERMS, dedup_window_s=10.0))
    assert await buffer.append(KEY, request) == Appended(1, 0)
    buffer.set_terms(TERMS)
    engine.advance(20.0)
    assert await buffer.append(KEY, request) == Appended(0, 1)


async def test_a_quota_can_come_and_go(buffer: Buffer) -> None:
    await buffer.append(KEY, [portion([event(1)], "one")])
    buffer.set_terms(replace(TERMS, quota=Quota(queues=1, keys=10)))
    with pytest.raises(QuotaExceeded):
        await buffer.append(KEY, [portion([event(2)], "other")])
    buffer.set_terms(TERMS)
    await buffer.append(KEY, [portion([event(2)], "other")])


async def test_a_gate_in_use_goes_by_the_limit_of_now(buffer: Buffer, engine: Engine) -> None:
    for number in range(3):
        await buffer.append(KEY, [portion([event(number)], f"{number}")])
    await tried(buffer, engine, Outcome.TAKEN)
    buffer.set_terms(replace(TERMS, limit_per_s=0.5))
    await leased(buffer)
    assert (await buffer.figures())[KEY].gate.rate_per_s <= 0.5
    assert 1.0 < (await idle(buffer)).wait_s < 3.0  # a token each two seconds and a bit
    buffer.set_terms(TERMS)
    engine.advance(3.0)
    await leased(buffer)
    assert (await buffer.figures())[KEY].gate.rate_per_s > 1_000


async def test_what_a_gate_learnt_outlives_a_change(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)], "one"), portion([event(2)], "other")])
    settling = asyncio.ensure_future(buffer.settle(await due(buffer, engine), KEY_IS_REFUSED))
    while not settling.done():  # also while it is written
        await asyncio.sleep(0)
        buffer.set_terms(replace(TERMS, limit_per_s=50.0))
    assert (await buffer.figures())[KEY].gate.paused is Pause.KEY_REFUSED
    assert (await idle(buffer)).wait_s > 10
    await engine.close()
    reopened = await engine.opened()
    assert (await reopened.figures())[KEY].gate.paused is Pause.KEY_REFUSED


async def test_dead_letters_beyond_a_lower_bound_go_when_the_next_one_comes(
    buffer: Buffer, engine: Engine
) -> None:
    await buried(buffer, engine, events(1, 5))
    buffer.set_terms(replace(TERMS, dead_max_bytes=1))
    assert await buffer.count_dead() == 5
    await buried(buffer, engine, [event(6)])
    assert await buffer.count_dead() < 5
