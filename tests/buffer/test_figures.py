"""Figures: what is known of each key."""

from proxy.buffer import (
    Buffer,
)
from proxy.ledger import Books
from tests.buffer.conftest import Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    drained,
    due,
    event,
    events,
    portion,
    settled,
)


async def test_figures_tell_of_each_key_what_it_holds(buffer: Buffer, engine: Engine) -> None:
    assert await buffer.figures() == {}
    first_ms = engine.now_ms()
    await buffer.append(KEY, [portion(events(1, 3), "q"), portion([event(4)], "r")])
    engine.advance(0.5)
    await buffer.append(OTHER_KEY, [portion([event(5)])])
    await buffer.append(KEY, [portion([event(6)], "r")])
    figures = await buffer.figures()
    assert set(figures) == {KEY, OTHER_KEY}
    one = figures[KEY]
    assert (one.books, one.queues, one.oldest_held_ms) == (Books(accepted=5, held=5), 2, first_ms)
    assert one.stored_bytes > sum(len(event(n).text) for n in (1, 2, 3, 4, 6))
    assert figures[OTHER_KEY].oldest_held_ms == engine.now_ms()
    assert len(await drained(buffer, engine)) == 5
    one = (await buffer.figures())[KEY]
    assert one.books == Books(accepted=5, delivered=5)
    assert (one.queues, one.stored_bytes, one.oldest_held_ms) == (0, 0, None)


async def test_keys_with_work_are_those_that_hold_events(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await buffer.append(OTHER_KEY, [portion([event(1)])])
    assert sorted(await buffer.keys_with_work()) == sorted([KEY, OTHER_KEY])
    lease = await due(buffer, engine)
    assert sorted(await buffer.keys_with_work()) == sorted([KEY, OTHER_KEY])  # what is leased is held
    await settled(buffer, lease, 1)
    assert await buffer.keys_with_work() == [OTHER_KEY]
