"""Figures: what is known of each key."""

from proxy.buffer import (
    Buffer,
)
from proxy.gate import Outcome
from proxy.ledger import Books, Pause
from tests.buffer.conftest import Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    RATE_LIMITED,
    drained,
    due,
    event,
    events,
    portion,
    settled,
    tried,
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


async def test_figures_show_the_origins_that_upstream_forbids_until_it_takes_one(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 9))])
    first, second = "https://first.example", "https://second.example"
    for origin in (first, second, None):
        await tried(buffer, engine, Outcome.FORBIDDEN, origin=origin)
    seen = (await buffer.figures())[KEY].gate
    assert (seen.paused, seen.forbidden_origins) == (None, ("", second, first))
    buffer = await engine.opened()
    assert (await buffer.figures())[KEY].gate == seen
    await tried(buffer, engine, Outcome.TAKEN, origin=second)
    assert (await buffer.figures())[KEY].gate.forbidden_origins == ("", first)


async def test_figures_tell_of_a_pause_only_while_it_lasts(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], feedback=RATE_LIMITED)
    for left_s in (20, 12, 4):
        seen = (await buffer.figures())[KEY].gate
        assert (seen.paused, seen.paused_for_s) == (Pause.RATE_LIMITED, left_s)
        engine.advance(8)
    seen = (await buffer.figures())[KEY].gate
    assert (seen.paused, seen.paused_for_s) == (None, 0.0)
