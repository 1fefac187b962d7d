"""What a queue remembers from one delivery to the next: its outlook, and leases that ended by themselves."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from proxy.buffer import ALL_IS_WELL, Buffer, Idle, Outlook, Trouble
from proxy.buffer.contract import MAX_IDLE_S, MAX_WAIT_S, STALLED_WAIT_S
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    TROUBLE,
    due,
    event,
    events,
    idle,
    lapsed,
    leased,
    portion,
    queue,
    settled,
    token,
)

STALLED = Idle(0.0, stalled=True)


# -- the outlook ---------------------------------------------------------------------------------------


async def test_a_new_queue_is_well(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    assert (await due(buffer, engine)).outlook == ALL_IS_WELL == Outlook(100, None)


@pytest.mark.parametrize("trouble", [None, TROUBLE, Trouble(0, 0, 0)])
async def test_an_outlook_is_given_to_the_next_lease_and_kept_until_another_is_left(
    buffer: Buffer, engine: Engine, trouble: Trouble | None
) -> None:
    left = Outlook(25, trouble)
    await buffer.append(KEY, [portion(events(1, 3))])
    await settled(buffer, await due(buffer, engine), 3, again=range(3), wait_s=5.0, outlook=left)
    await buffer.append(KEY, [portion([event(4)], "other")])
    other = await due(buffer, engine)
    assert (other.queue, other.outlook) == (queue("other"), ALL_IS_WELL)
    await settled(buffer, other, 1)
    for taken in (0, 1):  # untried, and a try that says nothing of the outlook
        lease = await due(buffer, engine)
        assert lease.outlook == left
        await settled(buffer, lease, taken)
    buffer = await engine.opened()
    lease = await due(buffer, engine)
    assert lease.outlook == left
    await settled(buffer, lease, 1, outlook=ALL_IS_WELL)
    assert (await due(buffer, engine)).outlook == ALL_IS_WELL


async def test_a_spent_token_leaves_no_outlook(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    late = await due(buffer, engine)
    engine.advance(30)
    holder = await leased(buffer)
    with pytest.raises(AssertionError, match="Spent"):
        await settled(buffer, late, 3, again=range(3), outlook=Outlook(1, TROUBLE))
    await settled(buffer, holder, 0)
    assert (await due(buffer, engine)).outlook == ALL_IS_WELL


async def test_a_queue_that_empties_forgets_all_trouble(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], failed=True, outlook=Outlook(1, TROUBLE))
    await lapsed(buffer, engine, 2)
    lease = await due(buffer, engine)
    assert (lease.attempts, lease.expired, lease.unsettled, lease.outlook) == (3, 2, 1, Outlook(1, TROUBLE))
    await settled(buffer, lease, 1, outlook=Outlook(1, TROUBLE))
    await buffer.append(KEY, [portion([event(2)])])
    lease = await due(buffer, engine)
    assert (lease.attempts, lease.expired, lease.unsettled, lease.outlook) == (0, 0, 0, ALL_IS_WELL)


# -- leases that end by themselves ---------------------------------------------------------------------

HALVED = [100, 100, 100, 50, 25, 12, 6, 3, 1, 1]
"""How many events the batches may hold of leases that end by themselves one after another."""


async def test_from_the_third_on_each_lease_that_ends_by_itself_halves_the_next_batch(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 100))])
    for expired, max_events in enumerate(HALVED):
        lease = await leased(buffer)
        assert (lease.expired, lease.attempts, lease.outlook) == (expired, expired, Outlook(max_events))
        engine.advance(30)


async def test_a_settlement_ends_the_row_and_keeps_what_was_halved(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 100))])
    await lapsed(buffer, engine, 4)
    lease = await leased(buffer)
    assert lease.outlook == Outlook(25)
    await settled(buffer, lease, 0)
    for expired, max_events in enumerate([25, 25, 25, 12]):
        lease = await leased(buffer)
        assert (lease.expired, lease.attempts) == (expired, 4 + expired)
        assert lease.outlook == Outlook(max_events)
        engine.advance(30)


async def test_what_is_halved_is_the_outlook_that_was_left(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 100))])
    await settled(buffer, await leased(buffer), 9, again=range(9), outlook=Outlook(9, TROUBLE))
    await lapsed(buffer, engine, 3)
    assert (await leased(buffer)).outlook == Outlook(4, TROUBLE)


async def test_a_queue_that_ends_every_lease_with_one_event_too_is_put_off_for_an_hour(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 100))])
    await lapsed(buffer, engine, 10)
    for expired in (10, 11, 12):
        assert await buffer.claim(KEY, token()) == STALLED
        assert await buffer.claim(KEY, token()) == Idle(MAX_IDLE_S)  # told once
        await buffer.append(KEY, [portion([event(f"more {expired} {n}") for n in range(100)])])
        engine.advance(STALLED_WAIT_S - 0.5)
        assert (await idle(buffer)).wait_s == pytest.approx(0.5)
        engine.advance(0.5)
        lease = await leased(buffer)
        assert (lease.expired, lease.attempts, lease.outlook) == (expired, expired, Outlook(1))
        if expired < 12:
            engine.advance(30)
    await settled(buffer, lease, 1)  # at last
    lease = await leased(buffer)
    assert (lease.expired, lease.attempts) == (0, 0)


async def test_fewer_leases_that_ended_do_not_put_a_queue_off(buffer: Buffer, engine: Engine) -> None:
    """Where its batch was one event from the start, too."""
    await buffer.append(KEY, [portion(events(1, 100))])
    await settled(buffer, await leased(buffer), 1, again=[0], outlook=Outlook(1))
    await lapsed(buffer, engine, 9)
    assert (await leased(buffer)).expired == 9
    engine.advance(30)
    assert await buffer.claim(KEY, token()) == STALLED


async def test_a_claim_that_puts_a_queue_off_takes_no_rate_token(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=1.0))
    await buffer.append(KEY, [portion([event(1)], "stalls")])
    await lapsed(buffer, engine, 10)
    await buffer.append(KEY, [portion([event(2)], "q"), portion([event(3)], "r")])
    engine.advance(1)
    assert await buffer.claim(KEY, token()) == STALLED
    assert (await leased(buffer)).queue in (queue("q"), queue("r"))
    assert 0 < (await idle(buffer)).wait_s <= 1.2


async def test_a_late_worker_of_a_queue_that_was_put_off_settles_nothing(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await lapsed(buffer, engine, 9)
    late = await leased(buffer)
    engine.advance(30)
    assert await buffer.claim(KEY, token()) == STALLED
    with pytest.raises(AssertionError, match="Spent"):
        await settled(buffer, late, 1)


async def test_a_queue_that_was_put_off_stays_so_over_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await lapsed(buffer, engine, 10)
    assert await buffer.claim(KEY, token()) == STALLED
    buffer = await engine.opened()
    assert await buffer.claim(KEY, token()) == Idle(MAX_IDLE_S)
    engine.advance(STALLED_WAIT_S)
    assert (await leased(buffer)).expired == 10


async def test_after_a_jump_of_a_day_a_queue_that_was_put_off_waits_no_longer_than_the_longest(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await lapsed(buffer, engine, 10)
    assert await buffer.claim(KEY, token()) == STALLED
    engine.advance(-86_400)
    jumped_ms = engine.now_ms()
    assert (await due(buffer, engine)).expired == 10
    assert engine.now_ms() - jumped_ms <= 1000 * (MAX_WAIT_S + 1)


# -- what those leases leave in doubt ------------------------------------------------------------------


async def in_doubt(buffer: Buffer, batches: Sequence[tuple[int, int]]) -> list[int]:
    """How much is in doubt at each claim, where so many are taken off the head of which so many stay."""
    found = []
    for taken, again in batches:
        lease = await leased(buffer)
        found.append(lease.unsettled)
        await settled(buffer, lease, taken, again=range(again), wait_s=0.0)
    return found


@pytest.mark.parametrize(
    ("max_events", "batches", "unsettled"),
    [
        (100, [(100, 0), (100, 0)], [100, 0]),
        (100, [(0, 0), (100, 100), (100, 0)], [100, 100, 0]),
        # The batch that may have arrived was of 100: two of 50 are in it.
        (50, [(50, 0), (50, 0), (50, 0)], [100, 50, 0]),
        (30, [(30, 0), (30, 0), (30, 0), (30, 0), (30, 0)], [100, 70, 40, 10, 0]),
        # What goes again has an answer by now, but the rest lies behind it.
        (50, [(50, 10), (50, 50), (50, 0), (50, 0), (50, 0)], [100, 60, 60, 10, 0]),
        (50, [(50, 0), (50, 50), (50, 0)], [100, 50, 0]),
        # It ended where this one does: where its lane ends, or the bytes that fit.
        (50, [(49, 0), (50, 0)], [100, 0]),
        (50, [(49, 49), (50, 0)], [100, 0]),
    ],
)
async def test_the_events_of_a_lease_that_ended_by_itself_are_in_doubt_until_they_are_settled(
    buffer: Buffer,
    engine: Engine,
    max_events: int,
    batches: Sequence[tuple[int, int]],
    unsettled: Sequence[int],
) -> None:
    await buffer.append(KEY, [portion(events(1, 400))])
    await lapsed(buffer, engine, 1)
    await settled(buffer, await leased(buffer), 0, outlook=Outlook(max_events))
    assert await in_doubt(buffer, batches) == unsettled


async def test_of_many_leases_that_ended_by_themselves_the_largest_counts(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 300))])
    await lapsed(buffer, engine, 5)
    lease = await leased(buffer)
    assert (lease.unsettled, lease.outlook) == (100, Outlook(12))
    await settled(buffer, lease, 12)
    engine.advance(30)
    await lapsed(buffer, engine, 1)
    assert (await leased(buffer)).unsettled == 88


async def test_what_is_in_doubt_outlasts_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 300))])
    await lapsed(buffer, engine, 3)
    assert await in_doubt(buffer, [(50, 0)]) == [100]
    buffer = await engine.opened()
    assert (await leased(buffer)).unsettled == 50
