"""Trace and the record of batches: what became of an event, and what upstream may have taken unseen."""

import pytest

from proxy.buffer import MAX_BATCHES, Batch, Buffer, HeldEvent, Settlement, Spent, Traces, Which
from proxy.ledger import Answered, Books
from proxy.wire.limits import PublicKey
from tests.buffer.conftest import Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    REFUSED,
    Event,
    books,
    buried,
    due,
    event,
    events,
    leased,
    portion,
    queue,
    settled,
)

UUID = event(1).uuid


def is_empty(found: Traces) -> bool:
    return not (found.held or found.dead or found.batches)


# -- trace ---------------------------------------------------------------------------------------------


async def test_nothing_is_known_of_a_uuid_that_never_came(buffer: Buffer, engine: Engine) -> None:
    assert is_empty(await buffer.trace(UUID))
    await buffer.append(KEY, [portion(events(2, 5))])
    await settled(buffer, await due(buffer, engine), 2, dead={1: REFUSED})
    for found in (
        await buffer.trace(UUID),
        await buffer.trace(UUID, key=KEY),
        await buffer.trace(UUID, key=KEY, queue=queue("q")),
        await buffer.trace(event(2).uuid, key=PublicKey("pk_nobody")),
    ):
        assert is_empty(found)


async def test_a_held_event_is_found_where_it_waits(buffer: Buffer, engine: Engine) -> None:
    accepted_ms = engine.now_ms()
    await buffer.append(KEY, [portion(events(0, 2))])
    engine.advance(0.4)
    (held,) = (await buffer.trace(UUID)).held
    assert held == HeldEvent(KEY, queue("q"), accepted_ms, attempts=0, leased=False, due_in_s=0.6)
    engine.advance(5)
    (held,) = (await buffer.trace(UUID)).held
    assert (held.leased, held.due_in_s <= 0) == (False, True)


async def test_a_leased_event_is_found_as_being_sent_until_the_lease_ends(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(0, 2))])
    lease = await due(buffer, engine)
    engine.advance(10)
    (held,) = (await buffer.trace(UUID)).held
    assert (held.leased, held.due_in_s) == (True, 20.0)
    engine.advance(20)
    (held,) = (await buffer.trace(UUID)).held
    assert (held.leased, held.due_in_s <= 0) == (False, True)
    await settled(buffer, lease, 3, again=range(3), wait_s=5.0, failed=True)
    (held,) = (await buffer.trace(UUID)).held
    assert (held.leased, held.due_in_s, held.attempts) == (False, 5.0, 1)


async def test_a_dead_letter_is_found_and_the_batch_that_it_died_in(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(0, 2))])
    lease = await due(buffer, engine)
    await settled(buffer, lease, 3, dead={1: REFUSED}, again=[2], answered=Answered.PARTLY_DELIVERED)
    found = await buffer.trace(UUID)
    assert found.held == []
    assert found.dead == await buffer.dead_letters()
    (batch,) = found.batches
    uuids = b"".join(each.uuid for each in events(0, 2))
    assert batch == Batch(KEY, engine.now_ms(), Answered.PARTLY_DELIVERED, False, uuids, b"dxa")
    assert [batch.fate(event(n).uuid) for n in range(4)] == ["d", "x", "a", None]


async def test_a_delivered_event_is_found_in_its_batch(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(0, 2))])
    await settled(buffer, await due(buffer, engine), 2, answered=Answered.DELIVERED)
    found = await buffer.trace(UUID)
    assert (found.held, found.dead) == ([], [])
    (batch,) = found.batches
    assert (batch.answered, batch.ambiguous, batch.fates) == (Answered.DELIVERED, False, b"dd")
    # What was not in the batch is not on the record.
    assert (await buffer.trace(event(2).uuid)).batches == []


async def test_a_batch_of_which_nothing_left_is_on_the_record_only_if_it_is_ambiguous(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], answered=Answered.RATE_LIMITED)
    await settled(buffer, await due(buffer, engine), 0)
    assert (await buffer.trace(UUID)).batches == []
    lease = await due(buffer, engine)
    await settled(buffer, lease, 1, again=[0], answered=Answered.UNANSWERED, ambiguous=True)
    assert [(b.ambiguous, b.fates) for b in (await buffer.trace(UUID)).batches] == [(True, b"a")]


async def test_the_whole_story_of_an_event_is_told_newest_first(buffer: Buffer, engine: Engine) -> None:
    """Unanswered once, refused, replayed, delivered, and sent again by its client after the window."""
    await buffer.append(KEY, [portion([event(1)])])
    lease = await due(buffer, engine)
    await settled(buffer, lease, 1, again=[0], answered=Answered.UNANSWERED, ambiguous=True)
    engine.advance(1)
    await settled(buffer, await due(buffer, engine), 1, dead={0: REFUSED}, answered=Answered.REFUSED)
    await buffer.replay(Which())
    await settled(buffer, await due(buffer, engine), 1, answered=Answered.DELIVERED)
    engine.advance(600)
    await buffer.append(KEY, [portion([event(1)], "q"), portion([event(1)], "r")])
    await buried(buffer, engine, [event(1)], "s", key=OTHER_KEY)
    await settled(buffer, await due(buffer, engine), 1, dead={0: REFUSED}, answered=Answered.REFUSED)
    found = await buffer.trace(UUID)
    assert len(found.held) == 1
    assert [letter.key for letter in found.dead] == [KEY, OTHER_KEY]
    assert [(batch.key, batch.answered) for batch in found.batches] == [
        (KEY, Answered.REFUSED),
        (OTHER_KEY, None),
        (KEY, Answered.DELIVERED),
        (KEY, Answered.REFUSED),
        (KEY, Answered.UNANSWERED),
    ]


async def test_a_trace_keeps_to_its_key_and_queue(buffer: Buffer, engine: Engine) -> None:
    for key in (KEY, OTHER_KEY):
        for name in "qr":
            await buried(buffer, engine, [event(1)], name, key=key)
    await buffer.replay(Which(queue=queue("q")))
    found = await buffer.trace(UUID)
    assert (len(found.held), len(found.dead), len(found.batches)) == (2, 2, 4)
    found = await buffer.trace(UUID, key=KEY)
    assert {held.key for held in found.held} == {letter.key for letter in found.dead} == {KEY}
    assert {batch.key for batch in found.batches} == {KEY}
    assert (len(found.held), len(found.dead), len(found.batches)) == (1, 1, 2)
    found = await buffer.trace(UUID, key=KEY, queue=queue("q"))
    assert [held.queue for held in found.held] == [queue("q")]
    assert found.dead == []
    found = await buffer.trace(UUID, key=KEY, queue=queue("r"))
    assert found.held == []
    assert [letter.queue for letter in found.dead] == [queue("r")]


async def test_a_uuid_is_not_found_in_the_halves_of_two_others(buffer: Buffer, engine: Engine) -> None:
    left, right = Event(b"l" * 8 + UUID[:8], 1, b"{}"), Event(UUID[8:] + b"r" * 8, 2, b"{}")
    await buffer.append(KEY, [portion([left, right])])
    assert is_empty(await buffer.trace(UUID))
    await settled(buffer, await due(buffer, engine), 2, ambiguous=True)
    assert is_empty(await buffer.trace(UUID))


async def test_what_is_known_of_an_event_outlasts_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, [event(1)])
    await buffer.append(KEY, [portion([event(1)], "r")])
    lease = await due(buffer, engine)
    await settled(buffer, lease, 1, again=[0], answered=Answered.UNANSWERED, ambiguous=True)
    before, ambiguous = await buffer.trace(UUID), await buffer.ambiguous()
    assert (len(before.held), len(before.dead), len(before.batches)) == (1, 1, 2)
    buffer = await engine.opened()
    assert await buffer.trace(UUID) == before
    assert await buffer.ambiguous() == ambiguous


async def test_settle_with_a_spent_token_puts_nothing_on_the_record(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    late = await due(buffer, engine)
    engine.advance(31)
    await leased(buffer)
    assert await buffer.settle(late, Settlement(1, ambiguous=True)) == Spent()
    assert (await buffer.trace(UUID)).batches == []
    assert (await buffer.figures())[KEY].ambiguous == 0


# -- ambiguous -----------------------------------------------------------------------------------------


async def test_ambiguous_batches_are_listed_newest_first_and_counted(buffer: Buffer, engine: Engine) -> None:
    for number, key in enumerate([KEY, OTHER_KEY, KEY, KEY]):
        await buffer.append(key, [portion([event(number)])])
        lease = await due(buffer, engine, key)
        await settled(buffer, lease, 1, answered=Answered.UNANSWERED, ambiguous=number != 3)
    first, second, third = [event(number).uuid for number in range(3)]
    assert [batch.uuids for batch in await buffer.ambiguous()] == [third, second, first]
    assert [batch.uuids for batch in await buffer.ambiguous(KEY)] == [third, first]
    assert [batch.uuids for batch in await buffer.ambiguous(limit=1)] == [third]
    assert [batch.uuids for batch in await buffer.ambiguous(OTHER_KEY, limit=1)] == [second]
    assert await buffer.ambiguous(PublicKey("pk_nobody")) == []
    figures = await buffer.figures()
    assert (figures[KEY].ambiguous, figures[OTHER_KEY].ambiguous) == (2, 1)


async def test_one_call_lists_so_many_batches_at_most(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    for _ in range(MAX_BATCHES + 1):
        lease = await due(buffer, engine)
        await settled(buffer, lease, 1, again=[0], wait_s=0.0, ambiguous=True)
    assert len(await buffer.ambiguous(limit=10 * MAX_BATCHES)) == MAX_BATCHES
    assert (await buffer.figures())[KEY].ambiguous == MAX_BATCHES + 1


async def test_a_lease_that_ended_by_itself_leaves_its_batch_in_doubt_until_one_is_settled(
    buffer: Buffer, engine: Engine
) -> None:
    """A worker that gives its lease back untried knows no more than before."""
    await buffer.append(KEY, [portion(events(1, 2))])
    assert not (await due(buffer, engine)).unsettled
    engine.advance(31)
    lease = await leased(buffer)
    assert lease.unsettled
    await settled(buffer, lease, 0)
    lease = await due(buffer, engine)
    assert lease.unsettled
    await settled(buffer, lease, 0, wait_s=5.0)
    buffer = await engine.opened()
    lease = await due(buffer, engine)
    assert lease.unsettled
    await settled(buffer, lease, 2, again=[0, 1], answered=Answered.FAILED, failed=True, ambiguous=True)
    assert not (await due(buffer, engine)).unsettled
    assert [batch.fates for batch in await buffer.ambiguous()] == [b"aa"]


async def test_a_batch_that_a_worker_settles_late_but_first_is_no_more_in_doubt(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 2))])
    lease = await due(buffer, engine)
    engine.advance(31)
    await settled(buffer, lease, 1)
    lease = await leased(buffer)
    assert (lease.unsettled, lease.attempts) == (0, 0)
    assert await books(buffer) == Books(accepted=2, held=1, delivered=1)


@pytest.mark.parametrize("fate", ["d", "x", "a"])
async def test_an_ambiguous_batch_is_listed_whatever_became_of_it(
    buffer: Buffer, engine: Engine, fate: str
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    lease = await due(buffer, engine)
    dead, again = {0: REFUSED} if fate == "x" else {}, [0] if fate == "a" else []
    await settled(buffer, lease, 1, dead=dead, again=again, ambiguous=True)
    (batch,) = await buffer.ambiguous()
    assert (batch.key, batch.ambiguous, batch.answered) == (KEY, True, None)
    assert batch.fate(UUID) == fate
    assert (await buffer.trace(UUID)).batches == [batch]
