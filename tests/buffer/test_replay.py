"""Replay: dead letters become events of their queues again."""

import asyncio
from dataclasses import replace

import pytest

from proxy.buffer import ALL_IS_WELL, MAX_LETTERS, Appended, Buffer, BufferFull, Outlook, Quota, Terms, Which
from proxy.ledger import Books
from proxy.wire.limits import PublicKey
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    RATE_LIMITED,
    REFUSED,
    TROUBLE,
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
)


async def test_a_replayed_event_goes_to_its_queues_tail(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, events(1, 2))
    await buffer.append(KEY, [portion([event(3)])])
    assert await buffer.replay(Which()) == 2
    await buffer.append(KEY, [portion([event(4)])])
    assert await drained(buffer, engine) == texts([event(3), event(1), event(2), event(4)])


async def test_a_replay_keeps_the_order_of_acceptance_in_whatever_order_its_events_died(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    await buffer.append(KEY, [portion(events(4, 5))])
    for died in (5, 2, 4, 1, 3):
        lease = await due(buffer, engine)
        waiting = await head_texts(buffer, lease)
        at = waiting.index(event(died).text)
        await settled(
            buffer, lease, len(waiting), dead={at: REFUSED}, again=sorted({*range(len(waiting))} - {at})
        )
    assert await letters(buffer) == texts([event(n) for n in (5, 2, 4, 1, 3)])
    assert await buffer.replay(Which()) == 5
    assert await drained(buffer, engine) == texts(events(1, 5))


async def test_a_replay_keeps_the_order_of_acceptance_over_a_clock_that_jumped_back(
    buffer: Buffer, engine: Engine
) -> None:
    await buried(buffer, engine, [event(1)])
    engine.advance(-3600)
    await buried(buffer, engine, [event(2)])
    engine.advance(-3600)
    buffer = await engine.opened()
    await buried(buffer, engine, [event(3)])
    assert await buffer.replay(Which()) == 3
    assert await drained(buffer, engine) == texts(events(1, 3))


async def test_a_replayed_event_leaves_under_its_own_lane_and_uuid(buffer: Buffer, engine: Engine) -> None:
    for number, lane in enumerate("abba"):
        await buried(buffer, engine, [event(number)], lane=lane)
    await buffer.replay(Which())
    found = []
    while (await books(buffer)).held:
        read = await head(buffer, lease := await due(buffer, engine))
        found.append((read.header, read.uuids, read.texts))
        await settled(buffer, lease, len(read.texts))
    assert found == [
        (header("a"), event(0).uuid, [event(0).text]),
        (header("b"), event(1).uuid + event(2).uuid, texts(events(1, 2))),
        (header("a"), event(3).uuid, [event(3).text]),
    ]


async def test_a_replay_is_past_dedup_and_leaves_dedup_as_it_was(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, [event(1)])
    assert await buffer.replay(Which()) == 1
    assert await buffer.append(KEY, [portion([event(1)])]) == Appended(0, 1)
    assert await drained(buffer, engine) == [event(1).text]


async def test_a_replay_is_written_into_the_books_of_each_key(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, events(1, 3))
    await buried(buffer, engine, events(1, 2), key=OTHER_KEY)
    await buffer.append(KEY, [portion([event(4)], "r")])
    await buffer.replay(Which())
    assert await books(buffer) == Books(accepted=4, held=4)
    assert await books(buffer, OTHER_KEY) == Books(accepted=2, held=2)
    await drained(buffer, engine)
    assert await books(buffer) == Books(accepted=4, delivered=4)


async def test_a_replay_takes_those_that_it_names_and_no_others(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, events(1, 3))
    await buried(buffer, engine, [event(4)], "r")
    await buried(buffer, engine, [event(5)], key=OTHER_KEY)
    (second,) = await buffer.dead_letters(Which(uuid=event(2).uuid))
    assert await buffer.replay(Which(id=second.id)) == 1
    assert await buffer.replay(Which(KEY, queue=queue("r"))) == 1
    assert await letters(buffer) == texts([event(1), event(3), event(5)])
    assert sorted(await drained(buffer, engine)) == sorted(texts([event(2), event(4)]))
    assert (await idle(buffer, OTHER_KEY)).empty


async def test_what_is_replayed_twice_runs_once(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, events(1, 10))
    assert sorted(await asyncio.gather(buffer.replay(Which()), buffer.replay(Which()))) == [0, 10]
    assert await buffer.replay(Which()) == 0
    assert await drained(buffer, engine) == texts(events(1, 10))
    assert await buffer.replay(Which()) == 0


async def test_a_replay_up_to_an_id_never_meets_what_died_of_it(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, events(1, 2))
    which = Which(up_to_id=(await buffer.dead_letters())[0].id)
    assert await buffer.replay(which) == 2
    await settled(buffer, await due(buffer, engine), 2, dead={0: REFUSED, 1: REFUSED})
    assert await buffer.replay(which) == 0
    assert await letters(buffer) == texts(events(1, 2))


async def test_one_call_replays_so_many_at_most_and_the_next_go_behind_them(
    buffer: Buffer, engine: Engine
) -> None:
    await buried(buffer, engine, events(1, MAX_LETTERS + 30))
    assert await buffer.replay(Which()) == MAX_LETTERS
    assert await books(buffer) == Books(accepted=MAX_LETTERS + 30, held=MAX_LETTERS, dead=30)
    assert await buffer.replay(Which()) == 30
    assert await buffer.replay(Which()) == 0
    assert await drained(buffer, engine) == texts(events(1, MAX_LETTERS + 30))


async def test_what_was_replayed_is_there_after_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, events(1, 3), lane="b")
    await buffer.replay(Which())
    buffer = await engine.opened()
    assert await books(buffer) == Books(accepted=3, held=3)
    assert await letters(buffer) == []
    assert await drained(buffer, engine) == texts(events(1, 3))


async def test_a_queue_that_was_forgotten_takes_its_dead_letters_back(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, [event(1)])
    for _ in range(3):
        engine.advance(601)
        await buried(buffer, engine, [event("other")], "r")
    assert await buffer.replay(Which(queue=queue("q"))) == 1
    lease = await due(buffer, engine)
    assert (lease.queue, await head_texts(buffer, lease)) == (queue("q"), [event(1).text])


# -- as new events -------------------------------------------------------------------------------------


async def test_a_replayed_event_is_due_and_tried_as_a_new_one(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    for _ in range(3):
        await settled(buffer, await due(buffer, engine), 1, again=[0], wait_s=2.0, failed=True)
    await settled(buffer, await due(buffer, engine), 1, dead={0: REFUSED})
    engine.advance(3600)
    await buffer.replay(Which())
    assert (await buffer.figures())[KEY].oldest_held_ms == engine.now_ms()
    assert (await idle(buffer)).wait_s == pytest.approx(1.0)
    engine.advance(1)
    assert (await leased(buffer)).attempts == 0


async def test_a_replayed_event_does_not_inherit_the_trouble_that_it_died_of(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], failed=True, outlook=Outlook(1, TROUBLE))
    await lapsed(buffer, engine, 4)
    await settled(buffer, await due(buffer, engine), 1, dead={0: REFUSED}, outlook=Outlook(1, TROUBLE))
    await buffer.replay(Which())
    lease = await due(buffer, engine)
    assert (lease.attempts, lease.expired, lease.unsettled, lease.outlook) == (0, 0, 0, ALL_IS_WELL)


async def test_a_queue_keeps_its_own_trouble_when_events_are_replayed_into_it(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 2))])
    lease = await due(buffer, engine)
    await settled(buffer, lease, 2, dead={0: REFUSED}, again=[1], outlook=Outlook(1, TROUBLE))
    await buffer.replay(Which())
    assert (await due(buffer, engine)).outlook == Outlook(1, TROUBLE)


async def test_a_queue_is_due_at_once_when_replayed_events_fill_a_batch(
    buffer: Buffer, engine: Engine
) -> None:
    await buried(buffer, engine, events(1, 40))
    await buffer.append(KEY, [portion(events(41, 100))])
    assert (await idle(buffer)).wait_s == pytest.approx(1.0)
    await buffer.replay(Which())
    assert len(await head_texts(buffer, await leased(buffer))) == 100


@pytest.mark.parametrize("held_back", ["leased", "backing off", "paused"])
async def test_a_replay_never_shortens_a_lease_a_back_off_or_a_pause(
    buffer: Buffer, engine: Engine, held_back: str
) -> None:
    await buried(buffer, engine, events(1, 90))
    await buffer.append(KEY, [portion(events(101, 150))])
    lease = await due(buffer, engine)
    if held_back == "backing off":
        await settled(buffer, lease, 50, again=range(50), wait_s=20.0, failed=True)
    if held_back == "paused":
        await settled(buffer, lease, 50, again=range(50), feedback=RATE_LIMITED)
    wait_s = (await idle(buffer)).wait_s
    assert await buffer.replay(Which()) == 90
    assert (await idle(buffer)).wait_s == wait_s
    if held_back == "leased":
        assert await head_texts(buffer, lease, 50) == texts(events(101, 150))
        await settled(buffer, lease, 50)
        assert await drained(buffer, engine) == texts(events(1, 90))
    else:
        assert await drained(buffer, engine) == texts([*events(101, 150), *events(1, 90)])


async def test_a_replay_wakes_the_flusher_as_an_append_does(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, events(1, 3))
    await buried(buffer, engine, events(1, 100), "r", key=OTHER_KEY)
    woken: dict[PublicKey, float] = {}
    buffer.on_append(lambda key, in_s: woken.update({key: in_s}))
    await buffer.replay(Which(KEY, uuid=event(1).uuid))
    assert woken == {KEY: 1.0}
    woken.clear()
    await buffer.replay(Which(KEY))  # due as before
    assert woken == {}
    await buffer.replay(Which())
    assert woken == {OTHER_KEY: 0.0}


# -- bounds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "terms", [replace(TERMS, max_bytes=10_000), replace(TERMS, max_bytes_per_key=10_000)], ids=["all", "key"]
)
async def test_a_replay_that_does_not_fit_is_refused_with_nothing_half_done(
    engine: Engine, terms: Terms
) -> None:
    buffer = await engine.opened(terms)
    await buried(buffer, engine, [event(1, size=4_000)])
    await buffer.append(KEY, [portion([event(2, size=8_000)], "r")])
    before, dead = await buffer.figures(recount=True), await buffer.dead_letters()
    with pytest.raises(BufferFull):
        await buffer.replay(Which())
    assert await buffer.figures(recount=True) == before
    assert await buffer.dead_letters() == dead
    assert await drained(buffer, engine) == [event(2, size=8_000).text]
    assert await buffer.replay(Which()) == 1


async def test_a_replay_takes_as_many_as_fit_and_the_rest_later_in_order(engine: Engine) -> None:
    """Small ones behind the first that does not fit wait with it: they were accepted after it."""
    buffer = await engine.opened(replace(TERMS, max_bytes=10_000))
    request = [event(n, size=200 if n == 4 else 2_000) for n in range(1, 5)]
    for one, lane in zip(request, "aaab", strict=True):
        await buried(buffer, engine, [one], lane=lane)
    await buffer.append(KEY, [portion([event("large", size=7_000)], "r")])
    assert 0 < await buffer.replay(Which()) < 3
    out = await drained(buffer, engine)
    assert await buffer.replay(Which()) > 0
    out += await drained(buffer, engine)
    out.remove(event("large", size=7_000).text)
    assert out == texts(request)


async def test_one_letter_fits_where_many_do_not(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, max_bytes=10_000))
    request = [event(n, size=2_000) for n in range(1, 5)]
    await buried(buffer, engine, request)
    await buffer.append(KEY, [portion([event("large", size=6_000)], "r")])
    assert 0 < await buffer.replay(Which()) < 4
    await drained(buffer, engine)
    assert await buffer.replay(Which()) > 0
    assert await letters(buffer) == []


async def test_the_bounds_count_what_was_replayed(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, max_bytes=10_000))
    await buried(buffer, engine, [event(n, size=3_000) for n in range(1, 4)])
    await buffer.replay(Which())
    assert (await buffer.figures())[KEY].stored_bytes > 6_000
    with pytest.raises(BufferFull):
        await buffer.append(KEY, [portion([event(4, size=4_000)])])
    await drained(buffer, engine)
    assert (await buffer.figures())[KEY].stored_bytes == 0


async def test_a_key_that_was_never_confirmed_may_replay_within_its_quota(engine: Engine) -> None:
    """Its events passed the quota when they were accepted; a replay is the operator's choice."""
    buffer = await engine.opened(replace(TERMS, quota=Quota(queues=1, keys=1)))
    await buried(buffer, engine, [event(1)], "q")
    await buried(buffer, engine, [event(2)], "r")
    assert await buffer.replay(Which()) == 2
    assert (await buffer.figures())[KEY].queues == 2
