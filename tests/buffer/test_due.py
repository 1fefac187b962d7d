"""Due: when a queue is given out, and which one first."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from proxy.buffer import (
    Buffer,
    Idle,
    Lease,
    Settlement,
)
from proxy.buffer.contract import (
    LOOKED_THROUGH,
    MAX_IDLE_S,
    MAX_WAIT_S,
)
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    RATE_LIMITED,
    due,
    event,
    events,
    head_texts,
    idle,
    leased,
    portion,
    queue,
    settled,
    texts,
    token,
)


async def test_a_queue_is_due_the_linger_after_its_head_was_accepted(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    engine.advance(0.6)
    await buffer.append(KEY, [portion([event(2)])])  # its head does not become younger
    assert (await idle(buffer)).wait_s == pytest.approx(0.4, abs=0.01)
    engine.advance(0.5)
    assert await head_texts(buffer, await leased(buffer)) == texts(events(1, 2))


@pytest.mark.parametrize("portions", [(100,), (60, 40), (99, 1), (150,), (1, 1, 98)])
async def test_a_queue_is_due_at_once_when_a_full_batch_waits(
    buffer: Buffer, portions: Sequence[int]
) -> None:
    first = 1
    for size in portions:
        assert (await idle(buffer)).empty == (first == 1)
        await buffer.append(KEY, [portion(events(first, first + size - 1))])
        first += size
    assert len(await head_texts(buffer, await leased(buffer))) == 100


async def test_99_waiting_events_are_not_due_at_once(buffer: Buffer) -> None:
    await buffer.append(KEY, [portion(events(1, 99))])
    assert (await idle(buffer)).wait_s == pytest.approx(1.0, abs=0.01)


async def test_what_is_left_after_a_settle_is_due_at_once_when_it_fills_a_batch(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 250))])
    assert (await settled(buffer, await leased(buffer), 100)).left == 150
    assert (await settled(buffer, await leased(buffer), 100)).left == 50
    assert (await idle(buffer)).wait_s == pytest.approx(1.0, abs=0.01)  # its head's linger


async def test_the_next_head_is_due_the_linger_after_its_own_acceptance(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)], lane="a")])
    engine.advance(0.9)
    await buffer.append(KEY, [portion([event(2)], lane="b")])
    engine.advance(0.2)
    await settled(buffer, await leased(buffer), 1)
    assert (await idle(buffer)).wait_s == pytest.approx(0.8, abs=0.01)


async def test_settle_says_when_the_queue_is_due_again(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 250))])
    assert (await settled(buffer, await leased(buffer), 100)).due_s == 0.0
    assert (await settled(buffer, await leased(buffer), 100)).due_s == pytest.approx(1.0, abs=0.01)
    lease = await due(buffer, engine)
    assert (await settled(buffer, lease, 0)).due_s == 0.0  # its head has waited long enough
    outcome = await settled(buffer, await leased(buffer), 50, again=range(50), wait_s=20.0, failed=True)
    assert outcome.due_s == pytest.approx(20.0, abs=0.01)
    assert (await settled(buffer, await due(buffer, engine), 50)).due_s is None


async def test_claims_take_the_queue_that_has_been_due_longest(buffer: Buffer, engine: Engine) -> None:
    for name in "qrs":
        await buffer.append(KEY, [portion([event(name)], name)])
        engine.advance(0.1)
    await buffer.append(KEY, [portion(events(1, 100), "full")])
    engine.advance(0.85)
    # "full" has been due since 0.3 s, q since 1.0, r since 1.1; s is not due before 1.2.
    taken = [(await leased(buffer)).queue for _ in range(3)]
    assert taken == [queue("full"), queue("q"), queue("r")]
    assert not (await idle(buffer)).empty


async def test_a_queue_is_leased_to_one_worker_at_a_time(buffer: Buffer, engine: Engine) -> None:
    for name in "qrst":
        await buffer.append(KEY, [portion(events(1, 3), name)])
    engine.advance(1)
    claims = await asyncio.gather(*(buffer.claim(KEY, token()) for _ in range(20)))
    leases = [claimed for claimed in claims if isinstance(claimed, Lease)]
    assert sorted(lease.queue for lease in leases) == sorted(map(queue, "qrst"))


@pytest.mark.parametrize("held_back", ["leased", "backing off", "paused"])
async def test_an_append_never_shortens_a_lease_a_back_off_or_a_pause(
    buffer: Buffer, engine: Engine, held_back: str
) -> None:
    await buffer.append(KEY, [portion(events(1, 50))])
    lease = await due(buffer, engine)
    if held_back == "backing off":
        await settled(buffer, lease, 50, again=range(50), wait_s=20.0, failed=True)
    if held_back == "paused":
        await buffer.settle(lease, Settlement(50, again=frozenset(range(50)), feedback=RATE_LIMITED))
    wait_s = (await idle(buffer)).wait_s
    assert wait_s == pytest.approx(30.0 if held_back == "leased" else 20.0, abs=0.01)
    for first in range(51, 301, 50):
        await buffer.append(KEY, [portion(events(first, first + 49))])
        assert (await idle(buffer)).wait_s == pytest.approx(wait_s, abs=0.01)
    engine.advance(wait_s + 0.1)
    assert await head_texts(buffer, await leased(buffer)) == texts(events(1, 100))


async def test_a_queue_that_was_emptied_while_backing_off_begins_anew(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], wait_s=20.0, failed=True)
    await settled(buffer, await due(buffer, engine), 1)
    await buffer.append(KEY, [portion(events(2, 101))])
    assert (await leased(buffer)).attempts == 0


async def test_after_the_clock_jumped_back_a_queue_is_due_within_its_linger(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    engine.advance(-3600)
    assert (await idle(buffer)).wait_s <= 1.0
    engine.advance(1)
    await leased(buffer)


async def test_after_the_clock_jumped_back_a_lease_ends_within_its_length(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)], "q"), portion([event(2)], "r")])
    engine.advance(1)
    await leased(buffer)
    await leased(buffer)
    engine.advance(-3600)
    buffer = await engine.opened()
    assert (await idle(buffer)).wait_s <= 30.0
    engine.advance(30)
    assert {(await due(buffer, engine)).queue, (await due(buffer, engine)).queue} == {queue("q"), queue("r")}


async def test_after_the_clock_jumped_back_what_is_left_of_a_batch_is_due_within_its_linger(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    lease = await due(buffer, engine)
    engine.advance(-3600)
    await settled(buffer, lease, 1)
    assert (await idle(buffer)).wait_s <= 1.0


async def test_after_a_jump_of_a_day_a_back_off_lasts_no_longer_than_the_longest(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], wait_s=300.0, failed=True)
    engine.advance(-86_400)
    waited_s = 0.0
    while isinstance(claimed := await buffer.claim(KEY, token()), Idle):
        waited_s += claimed.wait_s
        engine.advance(claimed.wait_s)
    assert waited_s <= MAX_WAIT_S + 1


async def test_a_jump_forwards_makes_nothing_wait(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    engine.advance(3600)
    assert (await leased(buffer)).attempts == 0


async def test_a_wait_that_is_asked_for_is_kept_and_bounded(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)], "q"), portion([event(2)], "r")])
    engine.advance(1)
    await settled(buffer, await leased(buffer), 1, again=[0], wait_s=50.0)
    await settled(buffer, await leased(buffer), 1, again=[0], wait_s=1e9)
    assert (await idle(buffer)).wait_s == pytest.approx(50.0, abs=0.01)
    engine.advance(50)
    await settled(buffer, await leased(buffer), 1)
    assert (await idle(buffer)).wait_s == MAX_IDLE_S
    engine.advance(MAX_WAIT_S - 50)
    await leased(buffer)


async def test_an_idle_claim_says_whether_the_key_holds_anything(buffer: Buffer, engine: Engine) -> None:
    assert await idle(buffer) == Idle(MAX_IDLE_S, empty=True)
    await buffer.append(KEY, [portion([event(1)])])
    assert not (await idle(buffer)).empty
    assert (await idle(buffer, OTHER_KEY)).empty
    lease = await due(buffer, engine)
    assert not (await idle(buffer)).empty
    await settled(buffer, lease, 1)
    assert (await idle(buffer)).empty


# -- early ---------------------------------------------------------------------------------------------


async def early(buffer: Buffer) -> Lease | Idle:
    return await buffer.claim(KEY, token(), early=True)


async def test_an_early_claim_does_not_wait_for_the_linger(buffer: Buffer) -> None:
    await buffer.append(KEY, [portion(events(1, 3), "q"), portion([event(4)], "r")])
    assert (await idle(buffer)).wait_s == pytest.approx(1.0, abs=0.01)
    for _ in range(2):
        lease = await early(buffer)
        assert isinstance(lease, Lease)
        assert lease.attempts == 0
        await settled(buffer, lease, len(await head_texts(buffer, lease)))
    assert await early(buffer) == Idle(MAX_IDLE_S, empty=True)


async def test_an_early_claim_takes_what_is_due_first_and_then_the_next(
    buffer: Buffer, engine: Engine
) -> None:
    for name in "qrst":
        await buffer.append(KEY, [portion([event(name)], name)])
        engine.advance(0.3)
    engine.advance(0.2)  # q and r are due
    taken = [await early(buffer) for _ in range(4)]
    assert [lease.queue for lease in taken if isinstance(lease, Lease)] == list(map(queue, "qrst"))


@pytest.mark.parametrize("held_back", ["leased", "backing off", "rate limited"])
async def test_an_early_claim_respects_leases_back_offs_and_the_gate(
    buffer: Buffer, engine: Engine, held_back: str
) -> None:
    await buffer.append(KEY, [portion(events(1, 2))])
    lease = await due(buffer, engine)
    if held_back == "backing off":
        await settled(buffer, lease, 2, again=range(2), wait_s=30.0)
    if held_back == "rate limited":
        await buffer.append(KEY, [portion([event(3)], "r")])
        await settled(buffer, lease, 2, again=range(2), feedback=RATE_LIMITED)
    claimed = await early(buffer)
    assert isinstance(claimed, Idle)
    assert claimed.wait_s == pytest.approx(20.0 if held_back == "rate limited" else 30.0, abs=0.01)


@pytest.mark.parametrize(("others", "is_found"), [(LOOKED_THROUGH - 1, True), (LOOKED_THROUGH, False)])
async def test_an_early_claim_passes_over_what_may_not_go_within_bounds(
    engine: Engine, others: int, is_found: bool
) -> None:
    buffer = await engine.opened(replace(TERMS, linger_s=3600.0))
    for number in range(others):
        await buffer.append(KEY, [portion([event(number)], str(number))])
        lease = await early(buffer)
        assert isinstance(lease, Lease)
        if number % 2:
            await settled(buffer, lease, 1, again=[0], wait_s=30.0)
    await buffer.append(KEY, [portion([event("lingers")], "lingers")])
    claimed = await early(buffer)
    if is_found:
        assert isinstance(claimed, Lease)
        assert claimed.queue == queue("lingers")
    else:
        assert isinstance(claimed, Idle)
        assert claimed.wait_s == pytest.approx(30.0, abs=0.01)
