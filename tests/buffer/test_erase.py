"""Erase: somebody's events, held and dead, and nobody else's."""

import asyncio
from dataclasses import replace

import pytest

from proxy.buffer import ALL_IS_WELL, Appended, Buffer, Erased, Lease, Outlook, Settlement, Spent, Trouble
from proxy.ledger import Books
from proxy.wire.limits import PublicKey
from tests.buffer.conftest import Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    REFUSED,
    TROUBLE,
    Event,
    books,
    buried,
    drained,
    due,
    event,
    events,
    head,
    head_texts,
    header,
    idle,
    lapsed,
    leased,
    letters,
    portion,
    queue,
    settled,
    texts,
    token,
)


def anns(number: int) -> Event:
    return event(f"ann {number}")


def is_anns(lane_header: bytes, text: bytes) -> bool:
    return b"ann" in text


def everybodys(lane_header: bytes, text: bytes) -> bool:
    return True


async def test_held_events_and_dead_letters_of_one_person_go_and_all_others_stay_in_order(
    buffer: Buffer, engine: Engine
) -> None:
    await buried(buffer, engine, [event(1), anns(1), event(2)])
    mixed = [[event(3), anns(3), event(4)], [anns(4)], [event(5)], [anns(5), event(6), anns(6)]]
    for request in mixed:
        await buffer.append(KEY, [portion(request)])
    await buffer.append(KEY, [portion([anns(7)], "r", "b")])
    await buffer.append(OTHER_KEY, [portion([event(7), anns(7)], "r")])
    assert await buffer.erase(is_anns) == Erased(held=6, dead=1)
    assert await books(buffer) == Books(accepted=12, held=4, dead=2, dropped=6)
    assert await books(buffer, OTHER_KEY) == Books(accepted=2, held=1, dropped=1)
    assert await letters(buffer) == texts(events(1, 2))
    assert await drained(buffer, engine) == texts(events(3, 6))
    assert await drained(buffer, engine, OTHER_KEY) == texts([event(7)])
    assert await buffer.erase(is_anns) == Erased()


async def test_one_person_is_found_among_many(buffer: Buffer, engine: Engine) -> None:
    """More requests and queues than any engine would rewrite in one step."""
    for number in range(450):
        request = [anns(number), event(number)] if number % 3 else [event(number)]
        await buffer.append(KEY, [portion(request, "q" if number < 300 else str(number))])
    assert await buffer.erase(is_anns) == Erased(held=300)
    assert await books(buffer) == Books(accepted=750, held=450, dropped=300)
    assert (await drained(buffer, engine))[:300] == texts(events(0, 299))


async def test_an_event_is_judged_with_its_lane(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, [event(1)], lane="b")
    await buried(buffer, engine, [event(2)], lane="a")
    for number, lane in enumerate("abab", start=3):
        await buffer.append(KEY, [portion([event(number)], lane=lane)])
    assert await buffer.erase(lambda lane, text: lane == header("b")) == Erased(held=2, dead=1)
    read = await head(buffer, await due(buffer, engine))
    assert (read.header, read.texts, read.more) == (header("a"), texts([event(3), event(5)]), "none")
    assert await letters(buffer) == [event(2).text]


@pytest.mark.parametrize(
    ("key", "name", "erased"),
    [
        (None, None, Erased(4, 4)),
        (KEY, None, Erased(2, 2)),
        (None, "q", Erased(2, 2)),
        (KEY, "q", Erased(1, 1)),
        (KEY, "nobody's", Erased()),
    ],
)
async def test_an_erasure_keeps_to_its_key_and_queue(
    buffer: Buffer, engine: Engine, key: PublicKey | None, name: str | None, erased: Erased
) -> None:
    for owner in (KEY, OTHER_KEY):
        for each in "qr":
            await buried(buffer, engine, [anns(1)], each, key=owner)
        await buffer.append(owner, [portion([anns(2)], each) for each in "qr"])
    assert await buffer.erase(is_anns, key=key, queue=queue(name) if name else None) == erased
    assert await buffer.erase(is_anns) == Erased(4 - erased.held, 4 - erased.dead)


async def test_what_was_erased_stays_so_after_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1), anns(1), event(2)])])
    await buried(buffer, engine, [anns(2)], key=OTHER_KEY)
    await buffer.erase(is_anns)
    buffer = await engine.opened()
    assert await books(buffer) == Books(accepted=3, held=2, dropped=1)
    assert await letters(buffer) == []
    assert await drained(buffer, engine) == texts(events(1, 2))


async def test_a_clients_retry_does_not_bring_back_what_was_erased(buffer: Buffer) -> None:
    await buffer.append(KEY, [portion([anns(1)])])
    await buffer.erase(is_anns)
    assert await buffer.append(KEY, [portion([anns(1)])]) == Appended(0, 1)


async def test_an_erasure_makes_room(buffer: Buffer) -> None:
    await buffer.append(KEY, [portion([anns(n) for n in range(100)]), portion([event(1)], "r")])
    before = (await buffer.figures())[KEY].stored_bytes
    await buffer.erase(is_anns)
    after = (await buffer.figures())[KEY]
    assert (after.queues, after.stored_bytes < before / 2) == (1, True)
    await buffer.erase(everybodys)
    after = (await buffer.figures())[KEY]
    assert (after.queues, after.stored_bytes, after.oldest_held_ms) == (0, 0, None)
    assert await buffer.keys_with_work() == []
    assert (await idle(buffer)).empty


# -- due -----------------------------------------------------------------------------------------------


async def test_what_others_hold_in_the_queue_is_due_as_before(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([anns(1), event(1)])])
    await settled(buffer, await due(buffer, engine), 2, again=[0, 1], wait_s=20.0, failed=True)
    await buffer.erase(is_anns)
    assert (await idle(buffer)).wait_s == pytest.approx(20.0)
    lease = await due(buffer, engine)
    assert (lease.attempts, await head_texts(buffer, lease)) == (1, [event(1).text])


async def test_a_queue_that_was_emptied_by_an_erasure_begins_anew(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([anns(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], wait_s=20.0, failed=True)
    await buffer.erase(is_anns)
    await buffer.append(KEY, [portion(events(1, 50))])
    assert (await idle(buffer)).wait_s == pytest.approx(1.0)
    await buffer.append(KEY, [portion(events(51, 100))])
    lease = await leased(buffer)
    assert (lease.attempts, lease.unsettled) == (0, 0)


async def test_a_back_off_that_was_over_does_not_come_back_with_an_erasure(
    buffer: Buffer, engine: Engine
) -> None:
    """Or a clock that jumps back would hold the queue for an hour."""
    await buffer.append(KEY, [portion([anns(1), event(1)])])
    await settled(buffer, await due(buffer, engine), 2, again=[0, 1], wait_s=20.0)
    await lapsed(buffer, engine, 1)
    await buffer.erase(is_anns)
    engine.advance(-3600)
    assert (await idle(buffer)).wait_s <= 1.0


# -- trouble -------------------------------------------------------------------------------------------


TOO_LARGE = replace(TROUBLE, suspects=0, refused_ms=0, too_large=True)


@pytest.mark.parametrize(
    ("trouble", "left"), [(TROUBLE, replace(TROUBLE, suspects=0, refused_ms=0)), (TOO_LARGE, TOO_LARGE)]
)
async def test_whom_upstream_refuses_is_no_longer_known_once_somebody_was_erased(
    buffer: Buffer, engine: Engine, trouble: Trouble, left: Trouble
) -> None:
    """But that all of them together were too large still is."""
    await buffer.append(KEY, [portion([event(1), anns(1), event(2)])])
    await settled(buffer, await due(buffer, engine), 3, again=range(3), outlook=Outlook(20, trouble))
    assert await buffer.erase(lambda lane, text: False) == Erased()
    lease = await due(buffer, engine)
    assert lease.outlook == Outlook(20, trouble)
    await settled(buffer, lease, 0)
    await buffer.erase(is_anns)
    assert (await due(buffer, engine)).outlook == Outlook(20, left)


async def test_a_queue_in_trouble_that_was_emptied_by_an_erasure_has_none(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([anns(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], outlook=Outlook(1, TROUBLE))
    await lapsed(buffer, engine, 4)
    await buffer.erase(is_anns)
    await buffer.append(KEY, [portion([event(1)])])
    lease = await due(buffer, engine)
    assert (lease.attempts, lease.expired, lease.unsettled, lease.outlook) == (0, 0, 0, ALL_IS_WELL)


async def test_a_lease_whose_end_an_erasure_is_the_first_to_see_counts_as_any_other(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1), anns(1)])])
    await lapsed(buffer, engine, 3)
    await buffer.erase(is_anns)
    lease = await leased(buffer)
    assert (lease.attempts, lease.expired, lease.unsettled, lease.outlook) == (3, 3, 100, Outlook(50))


# -- leases --------------------------------------------------------------------------------------------


async def test_a_queue_that_is_being_delivered_is_left_alone_and_counted(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1), anns(1)]), portion([anns(2)], "r")])
    lease = await due(buffer, engine)
    other = await leased(buffer)
    await buffer.append(KEY, [portion([anns(3)], "s")])
    assert await buffer.erase(is_anns) == Erased(held=1, leased=2)
    assert await buffer.erase(lambda lane, text: text == event(1).text) == Erased(leased=1)
    assert await buffer.erase(lambda lane, text: b"bob" in text) == Erased()
    first, second = sorted([lease, other], key=lambda each: each.queue != queue("q"))
    assert await head_texts(buffer, first) == texts([event(1), anns(1)])
    await settled(buffer, second, 1)
    assert await buffer.erase(is_anns) == Erased(leased=1)
    await settled(buffer, first, 2, again=[0, 1])
    assert await buffer.erase(is_anns) == Erased(held=1)
    assert await drained(buffer, engine) == [event(1).text]


async def test_a_dead_letter_goes_even_while_its_queue_is_being_delivered(
    buffer: Buffer, engine: Engine
) -> None:
    await buried(buffer, engine, [anns(1)])
    await buffer.append(KEY, [portion([anns(2)])])
    await due(buffer, engine)
    assert await buffer.erase(is_anns) == Erased(dead=1, leased=1)


async def test_a_late_worker_settles_nothing_of_a_queue_out_of_which_something_was_erased(
    buffer: Buffer, engine: Engine
) -> None:
    """Its positions would mean other events."""
    await buffer.append(KEY, [portion([anns(1), event(1), event(2)])])
    late = await due(buffer, engine)
    engine.advance(31)
    assert await buffer.erase(is_anns) == Erased(held=1)
    for settlement in (Settlement(2), Settlement(3, {0: REFUSED}, frozenset({1, 2})), Settlement(0)):
        assert await buffer.settle(late, settlement) == Spent()
    assert await buffer.read(late, 100, 1_000) == Spent()
    assert await books(buffer) == Books(accepted=3, held=2, dropped=1)
    # What it held may have been taken by upstream all the same.
    lease = await leased(buffer)
    assert (lease.attempts, lease.expired, lease.unsettled) == (1, 1, 100)
    assert await head_texts(buffer, lease) == texts(events(1, 2))


async def test_a_late_worker_may_settle_where_nothing_was_erased(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 2))])
    late = await due(buffer, engine)
    engine.advance(31)
    assert await buffer.erase(is_anns) == Erased()
    await settled(buffer, late, 2)


async def test_asked_until_no_queue_is_leased_an_erasure_misses_nothing_that_was_there(
    buffer: Buffer, engine: Engine
) -> None:
    for number in range(20):
        await buffer.append(KEY, [portion([anns(number), event(number)], str(number))])
    engine.advance(1)
    leases = [await leased(buffer) for _ in range(10)]
    total = Erased()
    while (erased := await buffer.erase(is_anns)).leased:
        total += erased
        await settled(buffer, leases.pop(), 2, again=[0, 1])
    total += erased
    assert (total.held, leases) == (20, [])
    assert sorted(await drained(buffer, engine)) == sorted(texts(events(0, 19)))


async def test_a_claim_in_between_is_given_what_is_left(buffer: Buffer, engine: Engine) -> None:
    """Asked for at once: whichever is first, no event of theirs is both erased and given out."""
    await buffer.append(KEY, [portion([event(1), anns(1)])])
    engine.advance(1)
    erasure = asyncio.create_task(buffer.erase(is_anns))
    lease = await buffer.claim(KEY, token())
    erased = await erasure
    assert isinstance(lease, Lease)
    read = await head_texts(buffer, lease)
    assert (erased, read) in (
        (Erased(held=1), [event(1).text]),
        (Erased(leased=1), texts([event(1), anns(1)])),
    )
