"""Append: whole, durable, in order, and once."""

import asyncio
from dataclasses import replace

import pytest

from proxy.buffer import (
    Appended,
    Buffer,
    BufferFull,
    NeverFits,
)
from proxy.ledger import Books
from proxy.wire.limits import PublicKey
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    REFUSED,
    Event,
    books,
    drained,
    due,
    event,
    events,
    head,
    head_texts,
    idle,
    leased,
    portion,
    settled,
    texts,
)

# -- append and order ----------------------------------------------------------------------------------


async def test_a_request_over_several_queues_is_kept_whole_and_in_order(
    buffer: Buffer, engine: Engine
) -> None:
    request = [portion(events(1, 3), "q"), portion(events(4, 5), "r", "b"), portion(events(6, 6), "s")]
    assert await buffer.append(KEY, request) == Appended(stored=6, duplicate=0)
    assert await books(buffer) == Books(accepted=6, held=6)
    engine.advance(1)
    found = {}
    for _ in range(3):
        lease = await leased(buffer)
        read = await head(buffer, lease)
        found[lease.queue] = (read.texts, read.header, set(read.lanes))
    assert found == {each.queue: (each.texts, each.header, {each.lane}) for each in request}


async def test_what_is_read_is_what_was_appended_uuid_and_text_byte_for_byte(
    buffer: Buffer, engine: Engine
) -> None:
    odd = Event(b"\x00\xff" * 8, -(2**63), b'{"\\ud83d":"\\u0000 \xc3\xa9"}')
    await buffer.append(KEY, [portion([odd, event(1)])])
    read = await head(buffer, await due(buffer, engine))
    assert (read.uuids, read.texts) == (odd.uuid + event(1).uuid, [odd.text, event(1).text])
    assert await buffer.append(KEY, [portion([odd])]) == Appended(0, 1)


async def test_a_refused_request_leaves_nothing_in_any_of_its_queues(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, max_bytes=5_000))
    with pytest.raises(NeverFits, match=r"buffer\.max_bytes"):
        await buffer.append(KEY, [portion([event(1)], "q"), portion([event(2, size=6_000)], "r")])
    assert await books(buffer) == Books()
    assert await buffer.keys_with_work() == []
    assert (await idle(buffer)).empty
    assert await buffer.append(KEY, [portion([event(1)], "q")]) == Appended(1, 0)


async def test_a_queue_gives_its_events_out_in_the_order_of_their_appends(
    buffer: Buffer, engine: Engine
) -> None:
    for first in range(0, 250, 7):
        await buffer.append(KEY, [portion(events(first, first + 6), lane="ab"[first % 2])])
        engine.advance(0.01)
    assert await drained(buffer, engine) == texts(events(0, 251))


async def test_appends_at_once_keep_each_queues_order(buffer: Buffer, engine: Engine) -> None:
    """The calls' order is the order: each caller's own appends come one behind the other all the same."""

    async def visitor(name: str) -> None:
        for number in range(5):
            await buffer.append(KEY, [portion([event(f"{name}{number}")], name)])

    names = [f"v{number}" for number in range(20)]
    await asyncio.gather(*map(visitor, names))
    out = await drained(buffer, engine)
    for name in names:
        own = texts([event(f"{name}{number}") for number in range(5)])
        assert [text for text in out if text in own] == own
    assert len(out) == 100


async def test_a_request_larger_than_a_batch_leaves_in_full_batches(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 520))])
    sizes = []
    while (await books(buffer)).held:
        batch = await head_texts(buffer, lease := await due(buffer, engine))
        sizes.append(len(batch))
        await settled(buffer, lease, len(batch))
    assert sizes == [100, 100, 100, 100, 100, 20]


# -- dedup ---------------------------------------------------------------------------------------------


async def test_a_request_repeated_after_a_lost_answer_is_all_duplicate(buffer: Buffer) -> None:
    request = [portion(events(1, 3), "q"), portion(events(4, 5), "r")]
    await buffer.append(KEY, request)
    assert await buffer.append(KEY, request) == Appended(stored=0, duplicate=5)
    assert await books(buffer) == Books(accepted=5, held=5)


async def test_only_what_is_new_of_a_request_is_stored(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(3, 4))])
    assert await buffer.append(KEY, [portion(events(1, 6))]) == Appended(stored=4, duplicate=2)
    assert await drained(buffer, engine) == texts([*events(3, 4), *events(1, 2), *events(5, 6)])


async def test_an_event_twice_in_one_request_is_stored_once(buffer: Buffer, engine: Engine) -> None:
    once = [event(1), event(2), event(1)]
    assert await buffer.append(KEY, [portion(once), portion(once)]) == Appended(stored=2, duplicate=4)
    assert await drained(buffer, engine) == texts(events(1, 2))


async def test_the_same_event_in_another_queue_or_under_another_key_is_no_duplicate(buffer: Buffer) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    assert await buffer.append(KEY, [portion([event(1)], "r")]) == Appended(1, 0)
    assert await buffer.append(OTHER_KEY, [portion([event(1)])]) == Appended(1, 0)


async def test_the_same_event_under_another_lane_of_its_queue_is_a_duplicate(buffer: Buffer) -> None:
    """A client's retry may come from another address."""
    await buffer.append(KEY, [portion([event(1)], lane="a")])
    assert await buffer.append(KEY, [portion([event(1)], lane="b")]) == Appended(0, 1)


async def test_an_event_is_a_duplicate_until_the_window_has_passed_and_new_after_it(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    engine.advance(599)
    assert await buffer.append(KEY, [portion([event(1)])]) == Appended(0, 1)
    engine.advance(2)  # a duplicate does not renew the window
    assert await buffer.append(KEY, [portion([event(1)])]) == Appended(1, 0)
    engine.advance(599)
    assert await buffer.append(KEY, [portion([event(1)])]) == Appended(0, 1)


@pytest.mark.parametrize("gap_s", [50, 100, 299, 300, 301, 450, 599])
async def test_each_event_has_a_window_of_its_own(buffer: Buffer, engine: Engine, gap_s: int) -> None:
    """Appends at every distance from one another, whatever is forgotten in between."""
    steps = 2400 // gap_s
    for number in range(steps):
        assert await buffer.append(KEY, [portion([event(number)])]) == Appended(1, 0)
        engine.advance(gap_s)
        for earlier in range(number + 1):
            if (number + 1 - earlier) * gap_s < 600:
                assert await buffer.append(KEY, [portion([event(earlier)])]) == Appended(0, 1)


async def test_what_was_delivered_or_died_is_a_duplicate_all_the_same(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 2))])
    await settled(buffer, await due(buffer, engine), 2, dead={1: REFUSED})
    assert await buffer.append(KEY, [portion(events(1, 2))]) == Appended(0, 2)
    assert (await idle(buffer)).empty


async def test_events_of_a_refused_append_are_no_duplicates_later(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, max_bytes=5_000))
    await buffer.append(KEY, [portion([event("large", size=3_000)], "large")])
    retried = [portion([event("new"), event("also new", size=3_000)])]
    with pytest.raises(BufferFull):
        await buffer.append(KEY, retried)
    await drained(buffer, engine)
    assert await buffer.append(KEY, retried) == Appended(2, 0)


# -- who is woken --------------------------------------------------------------------------------------


async def test_an_append_that_makes_a_queue_due_wakes_who_asked_for_it(
    buffer: Buffer, engine: Engine
) -> None:
    woken: list[tuple[PublicKey, float]] = []
    buffer.on_append(lambda key, in_s: woken.append((key, round(in_s, 2))))
    await buffer.append(KEY, [portion(events(1, 50))])
    await buffer.append(KEY, [portion(events(51, 60))])  # due as before
    await buffer.append(KEY, [portion(events(1, 60))])  # duplicates
    await buffer.append(KEY, [portion(events(61, 99), "q"), portion([event(1)], "r")])  # r, in a second
    await buffer.append(KEY, [portion(events(100, 100))])  # a full batch waits
    await due(buffer, engine)
    await buffer.append(KEY, [portion(events(101, 250))])  # leased
    await buffer.append(OTHER_KEY, [portion(events(1, 100))])
    assert woken == [(KEY, 1.0), (KEY, 1.0), (KEY, 0.0), (OTHER_KEY, 0.0)]


async def test_a_cancelled_append_is_whole_or_absent_and_wakes_the_flusher_if_whole(
    buffer: Buffer, engine: Engine
) -> None:
    woken = asyncio.Event()
    buffer.on_append(lambda key, in_s: woken.set())
    append = asyncio.create_task(buffer.append(KEY, [portion(events(1, 3), "q"), portion(events(4, 6), "r")]))
    await asyncio.sleep(0)  # it has been asked for
    append.cancel()
    with pytest.raises(asyncio.CancelledError):
        await append
    await buffer.check()  # asked for after it, so answered after it
    held = (await books(buffer)).held
    assert held in (0, 6)
    if held:
        await asyncio.wait_for(woken.wait(), 5)
    assert await buffer.append(KEY, [portion(events(1, 3), "q")]) == Appended(3 - held // 2, held // 2)
