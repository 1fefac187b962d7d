"""Dead letters: what is kept of an event that was given up."""

from dataclasses import replace

import pytest

from proxy.buffer import (
    ALL_IS_WELL,
    MAX_LETTERS,
    Buffer,
    Death,
    Outlook,
    Which,
)
from proxy.ledger import Books, Dead
from proxy.wire.limits import PublicKey
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    REFUSED,
    TROUBLE,
    books,
    buried,
    drained,
    due,
    event,
    events,
    header,
    letters,
    portion,
    queue,
    settled,
    texts,
)


async def test_a_dead_letter_holds_all_that_is_needed_to_understand_and_replay_it(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 3), lane="b")])
    await settled(buffer, await due(buffer, engine), 3, again=range(3), wait_s=2.0, failed=True)
    lease = await due(buffer, engine)
    death = Death(Dead.ENVELOPE_REFUSED, "userIdentity.email: Invalid")
    await settled(buffer, lease, 3, dead={1: death})
    (letter,) = await buffer.dead_letters()
    assert (letter.key, letter.queue, letter.lane_header) == (KEY, queue("q"), header("b"))
    assert (letter.uuid, letter.text) == (event(2).uuid, event(2).text)
    assert (letter.reason, letter.message) == (Dead.ENVELOPE_REFUSED, "userIdentity.email: Invalid")
    assert (letter.attempts, letter.died_at_ms) == (2, engine.now_ms())


async def test_a_dead_letter_says_when_its_head_was_first_tried(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    first = await due(buffer, engine)
    first_ms = engine.now_ms()
    trouble = replace(TROUBLE, since_ms=first.claimed_ms)
    engine.advance(5)
    await settled(buffer, first, 1, dead={0: REFUSED}, wait_s=60.0, outlook=Outlook(1, trouble))
    await settled(buffer, await due(buffer, engine), 1, dead={0: REFUSED}, outlook=ALL_IS_WELL)
    last = await due(buffer, engine)
    last_ms = engine.now_ms()
    engine.advance(5)
    await settled(buffer, last, 1, dead={0: REFUSED})
    found = reversed(await buffer.dead_letters())
    assert [letter.first_tried_ms for letter in found] == [first_ms, first_ms, last_ms]


async def test_dead_letters_are_listed_newest_first_of_one_key_or_of_all(
    buffer: Buffer, engine: Engine
) -> None:
    for number, key in enumerate([KEY, OTHER_KEY, KEY]):
        await buffer.append(key, [portion([event(number)])])
        await settled(buffer, await due(buffer, engine, key), 1, dead={0: REFUSED})
    found = await buffer.dead_letters()
    assert [letter.text for letter in found] == texts([event(2), event(1), event(0)])
    assert len({letter.id for letter in found}) == 3
    assert [letter.text for letter in await buffer.dead_letters(Which(KEY))] == texts([event(2), event(0)])
    assert [letter.text for letter in await buffer.dead_letters(limit=1)] == texts([event(2)])
    assert await buffer.dead_letters(Which(PublicKey("pk_nobody"))) == []


async def test_the_oldest_dead_letters_are_evicted_at_the_bound_and_counted(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, dead_max_bytes=10_000))
    dropped = 0
    for number in range(8):
        key = KEY if number < 5 else OTHER_KEY
        await buffer.append(key, [portion([event(number, size=2_000)])])
        outcome = await settled(buffer, await due(buffer, engine, key), 1, dead={0: REFUSED})
        dropped += outcome.dropped
    kept = await buffer.dead_letters()
    assert dropped + len(kept) == 8
    assert 3 <= len(kept) <= 4  # 2,000 bytes each, with overhead
    assert [letter.text for letter in kept] == texts(
        [event(n, size=2_000) for n in (7, 6, 5, 4)][: len(kept)]
    )
    assert await books(buffer) == Books(accepted=5, dead=len(kept) - 3, dropped=dropped)
    assert await books(buffer, OTHER_KEY) == Books(accepted=3, dead=3)


async def test_a_bound_of_no_bytes_keeps_no_dead_letter(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, dead_max_bytes=0))
    await buffer.append(KEY, [portion(events(1, 3))])
    outcome = await settled(buffer, await due(buffer, engine), 3, dead=dict.fromkeys(range(3), REFUSED))
    assert outcome.dropped == 3
    assert await books(buffer) == Books(accepted=3, dropped=3)


async def test_dead_letters_are_listed_by_all_that_is_asked_for(buffer: Buffer, engine: Engine) -> None:
    envelope = Death(Dead.ENVELOPE_REFUSED, "userIdentity: Invalid")
    await buried(buffer, engine, events(1, 2))
    await buried(buffer, engine, [event(3)], "r")
    engine.advance(10)
    await buried(buffer, engine, [event(1)], "r", death=envelope)
    engine.advance(10)
    await buried(buffer, engine, [event(1)], key=OTHER_KEY)
    first, second, third, fourth, fifth = reversed(await buffer.dead_letters())
    for which, expected in (
        (Which(), [first, second, third, fourth, fifth]),
        (Which(KEY), [first, second, third, fourth]),
        (Which(id=third.id), [third]),
        (Which(OTHER_KEY, id=third.id), []),
        (Which(uuid=event(1).uuid), [first, fourth, fifth]),
        (Which(KEY, uuid=event(1).uuid), [first, fourth]),
        (Which(queue=queue("q")), [first, second, fifth]),
        (Which(KEY, queue=queue("r")), [third, fourth]),
        (Which(reason=Dead.ENVELOPE_REFUSED), [fourth]),
        (Which(died_from_ms=fourth.died_at_ms), [fourth, fifth]),
        (Which(died_before_ms=fourth.died_at_ms), [first, second, third]),
        (Which(died_from_ms=fourth.died_at_ms, died_before_ms=fifth.died_at_ms), [fourth]),
        (Which(up_to_id=third.id), [first, second, third]),
        (Which(uuid=event(9).uuid), []),
    ):
        assert await buffer.dead_letters(which) == expected[::-1], which
        assert await buffer.count_dead(which) == len(expected), which


async def test_dead_letters_are_listed_page_by_page(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, events(1, 7))
    await buried(buffer, engine, events(1, 5), key=OTHER_KEY)
    pages = []
    before_id = None
    while page := await buffer.dead_letters(Which(KEY), before_id=before_id, limit=3):
        pages.append([letter.text for letter in page])
        before_id = page[-1].id
    assert pages == [texts([event(n) for n in numbers]) for numbers in ((7, 6, 5), (4, 3, 2), (1,))]


async def test_one_call_lists_so_many_dead_letters_at_most(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, events(1, MAX_LETTERS + 1))
    found = await buffer.dead_letters(limit=10 * MAX_LETTERS)
    assert [letter.text for letter in reversed(found)] == texts(events(2, MAX_LETTERS + 1))
    assert await buffer.count_dead() == MAX_LETTERS + 1


async def test_ids_of_dead_letters_never_come_back(buffer: Buffer, engine: Engine) -> None:
    """Or `up_to_id` would mean letters that died later."""
    await buried(buffer, engine, events(1, 3))
    newest = (await buffer.dead_letters())[0].id
    await buffer.purge(Which())
    buffer = await engine.opened()
    await buried(buffer, engine, [event(4)])
    assert (await buffer.dead_letters())[0].id > newest


# -- purge ---------------------------------------------------------------------------------------------


async def test_a_purge_drops_the_dead_letters_it_names_and_no_others(buffer: Buffer, engine: Engine) -> None:
    await buried(buffer, engine, events(1, 3))
    await buried(buffer, engine, [event(4)], "r")
    await buried(buffer, engine, [event(5)], key=OTHER_KEY)
    await buffer.append(KEY, [portion([event(6)])])
    assert await buffer.purge(Which(KEY, queue=queue("q"))) == 3
    assert await letters(buffer) == texts(events(4, 5))
    assert await books(buffer) == Books(accepted=5, held=1, dead=1, dropped=3)
    assert await books(buffer, OTHER_KEY) == Books(accepted=1, dead=1)
    assert await buffer.purge(Which(KEY, queue=queue("q"))) == 0
    assert await drained(buffer, engine) == [event(6).text]


async def test_a_purge_begins_with_the_oldest_and_takes_so_many_at_a_time(
    buffer: Buffer, engine: Engine
) -> None:
    await buried(buffer, engine, events(1, MAX_LETTERS + 30))
    assert await buffer.purge(Which()) == MAX_LETTERS
    assert await letters(buffer) == texts(events(MAX_LETTERS + 1, MAX_LETTERS + 30))
    assert await buffer.purge(Which()) == 30
    assert await buffer.purge(Which()) == 0
    assert await books(buffer) == Books(accepted=MAX_LETTERS + 30, dropped=MAX_LETTERS + 30)


@pytest.mark.parametrize("taken_out", ["purged", "replayed", "erased"])
async def test_dead_letters_that_are_gone_make_room_for_others(engine: Engine, taken_out: str) -> None:
    buffer = await engine.opened(replace(TERMS, dead_max_bytes=10_000))
    for number in range(3):
        await buried(buffer, engine, [event(number, size=2_500)], str(number))
    if taken_out == "purged":
        assert await buffer.purge(Which()) == 3
    elif taken_out == "replayed":
        assert await buffer.replay(Which()) == 3
        await drained(buffer, engine)
    else:
        assert (await buffer.erase(lambda header, text: True)).dead == 3
    for number in range(3, 6):
        await buried(buffer, engine, [event(number, size=2_500)], str(number))
    assert await letters(buffer) == texts([event(number, size=2_500) for number in range(3, 6)])
