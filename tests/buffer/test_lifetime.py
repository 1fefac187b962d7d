"""A process's start and end."""

import asyncio

import pytest

from proxy.buffer import (
    Appended,
    Buffer,
    BufferUnavailable,
)
from tests.buffer.conftest import Engine
from tests.buffer.contents import (
    KEY,
    REFUSED,
    books,
    drained,
    due,
    event,
    events,
    head_texts,
    portion,
    settled,
    token,
)


async def test_a_closed_buffer_is_unavailable(buffer: Buffer) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await buffer.close()
    with pytest.raises(BufferUnavailable):
        await buffer.append(KEY, [portion([event(2)])])
    with pytest.raises(BufferUnavailable):
        await buffer.claim(KEY, token())
    with pytest.raises(BufferUnavailable):
        await buffer.check()


async def test_closing_finishes_what_was_asked(engine: Engine) -> None:
    buffer = await engine.opened()
    appends = [asyncio.create_task(buffer.append(KEY, [portion([event(number)])])) for number in range(100)]
    await asyncio.sleep(0)  # all have been asked for
    await buffer.close()
    assert sum([(await append).stored for append in appends]) == 100
    assert (await books(await engine.opened())).held == 100


async def test_what_was_appended_and_leased_is_there_after_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 4)), portion(events(5, 6), "r", "b")])
    lease = await due(buffer, engine)
    await settled(buffer, lease, 1, dead={0: REFUSED})
    lease = await due(buffer, engine)
    before = await buffer.figures(recount=True)
    letters = await buffer.dead_letters()

    buffer = await engine.opened()
    assert await buffer.figures(recount=True) == before
    assert await buffer.dead_letters() == letters
    assert await buffer.keys_with_work() == [KEY]
    assert await buffer.append(KEY, [portion(events(1, 4))]) == Appended(0, 4)
    # The lease is still good: its holder may settle it, were it another process that restarted.
    assert await head_texts(buffer, lease)
    await settled(buffer, lease, 1)
    assert len(await drained(buffer, engine)) == 4
