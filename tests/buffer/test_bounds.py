"""Bounds: what is refused, whole and with its name."""

import asyncio
from dataclasses import replace

import pytest

from proxy.buffer import (
    Appended,
    BufferFull,
    NeverFits,
    Quota,
    QuotaExceeded,
    Terms,
)
from proxy.ledger import Books
from proxy.wire.limits import PublicKey
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    REFUSED,
    books,
    drained,
    due,
    event,
    events,
    idle,
    leased,
    portion,
    settled,
)


@pytest.mark.parametrize(
    "terms", [replace(TERMS, max_bytes=10_000), replace(TERMS, max_bytes_per_key=10_000)], ids=["all", "key"]
)
async def test_a_request_that_an_empty_buffer_could_not_hold_is_told_so(engine: Engine, terms: Terms) -> None:
    buffer = await engine.opened(terms)
    with pytest.raises(NeverFits):
        await buffer.append(KEY, [portion([event(1, size=16_000)])])
    await buffer.append(KEY, [portion([event(1, size=6_000)])])
    with pytest.raises(BufferFull):
        await buffer.append(KEY, [portion([event(2, size=6_000)])])


@pytest.mark.parametrize("size", [60, 500, 20_000])
@pytest.mark.parametrize("at_once", [1, 120])
async def test_stored_bytes_never_pass_their_bounds(engine: Engine, size: int, at_once: int) -> None:
    max_bytes, per_key = 5 * at_once * (size + 500), 3 * at_once * (size + 500)
    buffer = await engine.opened(replace(TERMS, max_bytes=max_bytes, max_bytes_per_key=per_key))
    for key in (KEY, OTHER_KEY):
        # At once: the bound must hold within a group of appends, too.
        await asyncio.gather(
            *(buffer.append(key, [portion(events(1, at_once, size=size), str(n))]) for n in range(20)),
            return_exceptions=True,
        )
    figures = await buffer.figures(recount=True)
    stored = [figures[key].stored_bytes for key in (KEY, OTHER_KEY)]
    assert per_key / 2 < stored[0] <= per_key
    assert max_bytes / 2 < sum(stored) <= max_bytes


async def test_the_bound_of_a_key_holds_for_its_first_request_too(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, max_bytes_per_key=1_000))
    with pytest.raises(NeverFits, match="max_bytes_per_key"):
        await buffer.append(KEY, [portion([event(1, size=2_000)])])
    assert (await idle(buffer)).empty


async def test_a_full_key_leaves_room_for_others(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, max_bytes_per_key=5_000))
    await buffer.append(KEY, [portion([event(1, size=4_000)])])
    with pytest.raises(BufferFull, match=r"buffer\.max_bytes_per_key"):
        await buffer.append(KEY, [portion([event(2, size=4_000)])])
    assert await buffer.append(OTHER_KEY, [portion([event(2, size=4_000)])]) == Appended(1, 0)


async def test_a_full_buffer_takes_again_what_was_delivered_out_of_it(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, max_bytes=5_000))
    for number in range(10):
        await buffer.append(KEY, [portion([event(number, size=4_000)])])
        with pytest.raises(BufferFull):
            await buffer.append(KEY, [portion([event("more", size=4_000)])])
        assert await drained(buffer, engine) == [event(number, size=4_000).text]


async def test_check_says_when_the_buffer_is_full(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, max_bytes=5_000))
    await buffer.check()
    appends = [buffer.append(KEY, [portion([event(number)])]) for number in range(1_000)]
    said = await asyncio.gather(*appends, return_exceptions=True)
    assert any(isinstance(each, BufferFull) for each in said)
    with pytest.raises(BufferFull):
        await buffer.check()
    await drained(buffer, engine)
    await buffer.check()


async def test_an_unconfirmed_key_may_hold_so_many_queues(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, quota=Quota(queues=3, keys=10)))
    for name in "qrs":
        await buffer.append(KEY, [portion([event(name)], name)])
    with pytest.raises(QuotaExceeded):
        await buffer.append(KEY, [portion([event("t")], "t")])
    assert await books(buffer) == Books(accepted=3, held=3)


async def test_a_request_may_not_leap_over_the_quota(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, quota=Quota(queues=3, keys=10)))
    with pytest.raises(QuotaExceeded):
        await buffer.append(KEY, [portion([event(name)], name) for name in "qrst"])
    await buffer.append(KEY, [portion([event(name)], name) for name in "qr"])
    with pytest.raises(QuotaExceeded):
        await buffer.append(KEY, [portion([event(name)], name) for name in "st"])
    assert (await buffer.figures(recount=True))[KEY].queues == 2


async def test_an_unconfirmed_key_at_its_quota_may_add_to_the_queues_it_has(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, quota=Quota(queues=2, keys=10)))
    await buffer.append(KEY, [portion([event(1)], "q"), portion([event(2)], "r")])
    assert await buffer.append(KEY, [portion([event(3)], "q")]) == Appended(1, 0)


async def test_a_smaller_quota_takes_no_room_from_the_queues_there_are(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, quota=Quota(queues=3, keys=10)))
    await buffer.append(KEY, [portion([event(1)], name) for name in "qrs"])
    buffer = await engine.opened(replace(TERMS, quota=Quota(queues=1, keys=10)))
    assert await buffer.append(KEY, [portion([event(2)], "q")]) == Appended(1, 0)
    with pytest.raises(QuotaExceeded):
        await buffer.append(KEY, [portion([event(2)], "t")])


async def test_so_many_unconfirmed_keys_may_exist(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, quota=Quota(queues=10, keys=2)))
    await buffer.append(KEY, [portion([event(1)])])
    await buffer.append(OTHER_KEY, [portion([event(1)])])
    with pytest.raises(QuotaExceeded):
        await buffer.append(PublicKey("pk_third"), [portion([event(1)])])
    assert await buffer.append(KEY, [portion([event(2)])]) == Appended(1, 0)
    # A success makes room: the key is no longer an unconfirmed one.
    await settled(buffer, await due(buffer, engine), 2)
    assert await buffer.append(PublicKey("pk_third"), [portion([event(1)])]) == Appended(1, 0)


async def test_a_key_that_holds_nothing_any_more_takes_no_place_from_others(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, quota=Quota(queues=3, keys=1)))
    await buffer.append(KEY, [portion([event(1)])])
    with pytest.raises(QuotaExceeded):
        await buffer.append(OTHER_KEY, [portion([event(1)])])
    engine.advance(2)
    await settled(buffer, await leased(buffer), 1, dead={0: REFUSED})
    await buffer.append(OTHER_KEY, [portion([event(1)])])
    with pytest.raises(QuotaExceeded):
        await buffer.append(KEY, [portion([event(2)])])


@pytest.mark.parametrize("restarted", [False, True])
async def test_a_key_that_upstream_confirmed_has_no_quota(engine: Engine, restarted: bool) -> None:
    terms = replace(TERMS, quota=Quota(queues=2, keys=1))
    buffer = await engine.opened(terms)
    await buffer.append(KEY, [portion([event(1)])])
    assert not (await buffer.figures())[KEY].succeeded
    await settled(buffer, await due(buffer, engine), 1)
    assert (await buffer.figures())[KEY].succeeded
    if restarted:
        buffer = await engine.opened(terms)
    for number in range(10):
        await buffer.append(KEY, [portion([event("x")], str(number))])
    assert (await buffer.figures())[KEY].queues == 10


async def test_a_batch_of_which_all_died_confirms_no_key(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, quota=Quota(queues=1, keys=1)))
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, dead={0: REFUSED})
    assert not (await buffer.figures())[KEY].succeeded
