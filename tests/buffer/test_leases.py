"""Read, settle, and the fence around both."""

import random
from dataclasses import replace

import pytest

from proxy.buffer import (
    Buffer,
    Idle,
    Outlook,
    Settlement,
    Spent,
)
from proxy.lanes import lane_id
from proxy.ledger import Books
from tests.buffer.conftest import Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    RATE_LIMITED,
    REFUSED,
    Event,
    books,
    due,
    event,
    events,
    head,
    head_texts,
    header,
    leased,
    portion,
    queue,
    settled,
    texts,
    token,
)

# -- read ----------------------------------------------------------------------------------------------


async def test_a_head_ends_where_another_lane_begins(buffer: Buffer, engine: Engine) -> None:
    for number, lane in enumerate("aabba"):
        await buffer.append(KEY, [portion([event(number)], lane=lane)])
    runs = []
    for _ in range(3):
        read = await head(buffer, lease := await due(buffer, engine))
        assert set(read.lanes) == {lane_id(read.header)}
        runs.append((read.header, read.texts, read.more))
        await settled(buffer, lease, len(read.texts))
    assert runs == [
        (header("a"), texts(events(0, 1)), "lane"),
        (header("b"), texts(events(2, 3)), "lane"),
        (header("a"), texts(events(4, 4)), "none"),
    ]


@pytest.mark.parametrize(
    ("max_events", "max_bytes", "read", "more"),
    [
        (100, 1_000_000, 5, "lane"),
        (5, 1_000_000, 5, "lane"),
        (4, 1_000_000, 4, "events"),
        (1, 1_000_000, 1, "events"),
        (100, 3_500, 3, "bytes"),
        (100, 1_000, 1, "bytes"),
        (100, 10, 1, "bytes"),
        (1, 10, 1, "events"),
    ],
)
async def test_a_head_keeps_within_the_bounds_and_says_what_ended_it(
    buffer: Buffer, engine: Engine, max_events: int, max_bytes: int, read: int, more: str
) -> None:
    five = [event(number, size=1_000) for number in range(5)]
    await buffer.append(KEY, [portion(five[:2])])
    await buffer.append(KEY, [portion(five[2:])])
    await buffer.append(KEY, [portion([event("b")], lane="b")])
    found = await head(buffer, await due(buffer, engine), max_events, max_bytes)
    assert found.texts == texts(five[:read])
    assert found.more == more


async def test_a_head_with_nothing_behind_it_ends_with_none(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    lease = await due(buffer, engine)
    assert (await head(buffer, lease, 3)).more == "none"
    assert (await head(buffer, lease, 2)).more == "events"


async def test_a_head_says_when_each_of_its_events_was_accepted(buffer: Buffer, engine: Engine) -> None:
    expected = []
    for number, size in enumerate([2, 1, 3]):
        await buffer.append(KEY, [portion([event(f"{number} {at}") for at in range(size)])])
        expected += [engine.now_ms()] * size
        engine.advance(0.7)
    lease = await due(buffer, engine)
    assert list((await head(buffer, lease)).accepted_ms) == expected
    assert list((await head(buffer, lease, 4)).accepted_ms) == expected[:4]
    await settled(buffer, lease, 4, again=[1, 3])
    engine.advance(0.7)
    lease = await due(buffer, engine)
    assert list((await head(buffer, lease)).accepted_ms) == [expected[1], *expected[3:]]


async def test_reading_changes_nothing(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    lease = await due(buffer, engine)
    before = await buffer.figures(recount=True)
    assert await head(buffer, lease) == await head(buffer, lease)
    assert await buffer.figures(recount=True) == before


# -- fencing -------------------------------------------------------------------------------------------


async def test_a_lease_that_ended_gives_the_same_head_out_again_as_a_failed_try(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    first = await due(buffer, engine)
    assert first.attempts == 0
    engine.advance(29)
    assert isinstance(await buffer.claim(KEY, token()), Idle)
    engine.advance(2)
    second = await leased(buffer)
    assert (second.queue, second.attempts) == (first.queue, 1)
    assert await head_texts(buffer, second) == texts(events(1, 3))
    engine.advance(31)
    assert (await leased(buffer)).attempts == 2


async def test_settle_with_a_spent_token_changes_nothing(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    late = await due(buffer, engine)
    engine.advance(31)
    holder = await leased(buffer)
    before = await buffer.figures(recount=True)
    for settlement in (
        Settlement(3),
        Settlement(3, {0: REFUSED}, frozenset({1, 2}), 500.0, True, Outlook(7), RATE_LIMITED),
        Settlement(0),
    ):
        assert await buffer.settle(late, settlement) == Spent()
    assert await buffer.figures(recount=True) == before
    assert await buffer.dead_letters() == []
    assert await head_texts(buffer, holder) == texts(events(1, 3))
    await settled(buffer, holder, 3)
    assert await books(buffer) == Books(accepted=3, delivered=3)


async def test_read_with_a_spent_token_gives_no_events(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    late = await due(buffer, engine)
    engine.advance(31)
    await leased(buffer)
    assert await buffer.read(late, 100, 1_000_000) == Spent()


async def test_a_settle_that_is_repeated_counts_once(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    lease = await due(buffer, engine)
    first = await settled(buffer, lease, 2)
    assert await buffer.settle(lease, Settlement(2)) in (first, Spent())  # an engine may remember its answer
    assert await books(buffer) == Books(accepted=3, held=1, delivered=2)


async def test_a_token_of_another_queue_or_key_is_spent(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)], "q"), portion([event(2)], "r")])
    lease = await due(buffer, engine)
    (other,) = {queue("q"), queue("r")} - {lease.queue}
    for stranger in (
        replace(lease, queue=other),
        replace(lease, key=OTHER_KEY),
        replace(lease, token=token()),
    ):
        assert await buffer.settle(stranger, Settlement(1)) == Spent()
        assert await buffer.read(stranger, 100, 1_000_000) == Spent()


# -- settle --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(24))
async def test_settle_takes_what_is_done_and_keeps_the_rest_in_order(
    buffer: Buffer, engine: Engine, seed: int
) -> None:
    """Delivered, dead and again in any mixture, over requests of any size, until the queue is empty."""
    chance = random.Random(seed)
    waiting: list[Event] = []
    number = 0
    while number < 150:
        size = chance.choice([1, 1, 2, 3, 10, 40])
        request = [event(n) for n in range(number, number + size)]
        await buffer.append(KEY, [portion(request, lane="a" if number < 100 else "b")])
        waiting += request
        number += size
    accepted, delivered, dead = number, 0, 0
    graves: list[bytes] = []
    while waiting:
        lease = await due(buffer, engine)
        read = await head(buffer, lease, chance.choice([1, 5, 30, 100]))
        taken = chance.choice([len(read.texts), chance.randint(1, len(read.texts))])
        assert read.texts == texts(waiting[: len(read.texts)])
        fates = [
            chance.choices("dxa", chance.choice([(1, 0, 0), (1, 1, 1), (0, 1, 1), (0, 0, 1)]))[0]
            for _ in range(taken)
        ]
        again = [at for at, fate in enumerate(fates) if fate == "a"]
        died = [at for at, fate in enumerate(fates) if fate == "x"]
        outcome = await settled(buffer, lease, taken, dead=dict.fromkeys(died, REFUSED), again=again)
        graves += texts([waiting[at] for at in died])
        waiting = [waiting[at] for at in again] + waiting[taken:]
        delivered, dead = delivered + fates.count("d"), dead + len(died)
        assert outcome.left == len(waiting)
        assert await books(buffer) == Books(accepted, len(waiting), delivered, dead)
    assert (await buffer.figures())[KEY].stored_bytes == 0
    assert [letter.text for letter in reversed(await buffer.dead_letters(limit=1000))] == graves


async def test_a_settle_of_nothing_gives_the_lease_back_untried(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    assert (await settled(buffer, await due(buffer, engine), 0)).left == 3
    lease = await leased(buffer)
    assert lease.attempts == 0
    assert await head_texts(buffer, lease) == texts(events(1, 3))


async def test_failed_tries_of_a_head_add_up_and_progress_forgets_them(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    for failures in range(3):
        lease = await due(buffer, engine)
        assert lease.attempts == failures
        await settled(buffer, lease, 3, again=range(3), wait_s=2.0, failed=True)
    lease = await due(buffer, engine)
    await settled(buffer, lease, 3, again=range(3))  # rate limited, say: no failed try
    lease = await due(buffer, engine)
    assert lease.attempts == 3
    await settled(buffer, lease, 3, again=[1, 2])
    assert (await due(buffer, engine)).attempts == 0


async def test_a_lane_whose_events_are_gone_can_come_back(buffer: Buffer, engine: Engine) -> None:
    for number in range(3):
        await buffer.append(KEY, [portion([event(number)], lane="a")])
        read = await head(buffer, lease := await due(buffer, engine))
        assert (read.header, read.texts) == (header("a"), [event(number).text])
        await settled(buffer, lease, 1)
