"""What every engine promises: the contract of `proxy.buffer`, clause by clause."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from proxy.buffer import (
    Appended,
    Buffer,
    BufferFull,
    BufferUnavailable,
    Death,
    Event,
    Idle,
    Lease,
    NeverFits,
    Quota,
    QuotaExceeded,
    Settlement,
    Spent,
    Terms,
)
from proxy.buffer.contract import MAX_IDLE_S, MAX_WAIT_S
from proxy.gate import Feedback
from proxy.lanes import lane_id
from proxy.ledger import Books, Dead
from proxy.wire.limits import PublicKey
from proxy.wire.rate_headers import RateHeaders
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    REFUSED,
    books,
    event,
    events,
    filled,
    head,
    head_texts,
    header,
    idle,
    leased,
    portion,
    queue,
    settled,
    texts,
    token,
)

RATE_LIMITED = Feedback(rate_limited=True, headers=RateHeaders(retry_after_s=20.0))


async def due(buffer: Buffer, engine: Engine, key: PublicKey = KEY) -> Lease:
    """A lease of the first queue that becomes due, however long the clock must be moved for it."""
    while isinstance(claimed := await buffer.claim(key, token()), Idle):
        assert not claimed.empty
        engine.advance(claimed.wait_s)
    return claimed


async def drained(buffer: Buffer, engine: Engine, key: PublicKey = KEY) -> list[bytes]:
    """Deliver all that the key holds; the texts in the order in which they left."""
    out: list[bytes] = []
    while (claimed := await buffer.claim(key, token())) != Idle(MAX_IDLE_S, empty=True):
        if isinstance(claimed, Idle):
            engine.advance(claimed.wait_s)
            continue
        batch = await head_texts(buffer, claimed)
        out += batch
        await settled(buffer, claimed, len(batch))
    return out


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
        found[lease.queue] = ([held.text for held in read.events], read.header, {e.lane for e in read.events})
    assert found == {
        each.queue: (texts(each.events), each.header, {lane_id(each.header)}) for each in request
    }


async def test_what_is_read_is_what_was_appended_uuid_and_text_byte_for_byte(
    buffer: Buffer, engine: Engine
) -> None:
    odd = Event(b"\x00\xff" * 8, -(2**63), b'{"\\ud83d":"\\u0000 \xc3\xa9"}')
    await buffer.append(KEY, [portion([odd, event(1)])])
    read = await head(buffer, await due(buffer, engine))
    assert [(held.uuid, held.text) for held in read.events] == [
        (odd.uuid, odd.text),
        (event(1).uuid, event(1).text),
    ]
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


# -- read ----------------------------------------------------------------------------------------------


async def test_a_head_ends_where_another_lane_begins(buffer: Buffer, engine: Engine) -> None:
    for number, lane in enumerate("aabba"):
        await buffer.append(KEY, [portion([event(number)], lane=lane)])
    runs = []
    for _ in range(3):
        read = await head(buffer, lease := await due(buffer, engine))
        assert {held.lane for held in read.events} == {lane_id(read.header)}
        runs.append((read.header, [held.text for held in read.events], read.more))
        await settled(buffer, lease, len(read.events))
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
    assert [held.text for held in found.events] == texts(five[:read])
    assert found.more == more


async def test_a_head_with_nothing_behind_it_ends_with_none(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    lease = await due(buffer, engine)
    assert (await head(buffer, lease, 3)).more == "none"
    assert (await head(buffer, lease, 2)).more == "events"


async def test_reading_changes_nothing(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    lease = await due(buffer, engine)
    before = await buffer.figures(recount=True)
    assert await head(buffer, lease) == await head(buffer, lease)
    assert await buffer.figures(recount=True) == before


# -- due -----------------------------------------------------------------------------------------------


async def test_a_queue_is_due_the_linger_after_its_head_was_accepted(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    engine.advance(0.6)
    await buffer.append(KEY, [portion([event(2)])])  # its head does not become younger
    assert (await idle(buffer)).wait_s == pytest.approx(0.4, abs=0.01)
    engine.advance(0.5)
    assert await head_texts(buffer, await leased(buffer)) == texts(events(1, 2))


@pytest.mark.parametrize("portions", [(100,), (60, 40), (99, 1), (150,), (1, 1, 98)])
async def test_a_queue_is_due_at_once_when_a_full_batch_waits(
    buffer: Buffer, portions: Sequence[int]
) -> None:
    first = 1
    for size in portions:
        assert (await idle(buffer)).empty == (first == 1)
        await buffer.append(KEY, [portion(events(first, first + size - 1))])
        first += size
    assert len(await head_texts(buffer, await leased(buffer))) == 100


async def test_99_waiting_events_are_not_due_at_once(buffer: Buffer) -> None:
    await buffer.append(KEY, [portion(events(1, 99))])
    assert (await idle(buffer)).wait_s == pytest.approx(1.0, abs=0.01)


async def test_what_is_left_after_a_settle_is_due_at_once_when_it_fills_a_batch(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 250))])
    assert (await settled(buffer, await leased(buffer), 100)).left == 150
    assert (await settled(buffer, await leased(buffer), 100)).left == 50
    assert (await idle(buffer)).wait_s == pytest.approx(1.0, abs=0.01)  # its head's linger


async def test_the_next_head_is_due_the_linger_after_its_own_acceptance(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)], lane="a")])
    engine.advance(0.9)
    await buffer.append(KEY, [portion([event(2)], lane="b")])
    engine.advance(0.2)
    await settled(buffer, await leased(buffer), 1)
    assert (await idle(buffer)).wait_s == pytest.approx(0.8, abs=0.01)


async def test_settle_says_when_the_queue_is_due_again(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 250))])
    assert (await settled(buffer, await leased(buffer), 100)).due_s == 0.0
    assert (await settled(buffer, await leased(buffer), 100)).due_s == pytest.approx(1.0, abs=0.01)
    lease = await due(buffer, engine)
    assert (await settled(buffer, lease, 0)).due_s == 0.0  # its head has waited long enough
    outcome = await settled(buffer, await leased(buffer), 50, again=range(50), wait_s=20.0, failed=True)
    assert outcome.due_s == pytest.approx(20.0, abs=0.01)
    assert (await settled(buffer, await due(buffer, engine), 50)).due_s is None


async def test_claims_take_the_queue_that_has_been_due_longest(buffer: Buffer, engine: Engine) -> None:
    for name in "qrs":
        await buffer.append(KEY, [portion([event(name)], name)])
        engine.advance(0.1)
    await buffer.append(KEY, [portion(events(1, 100), "full")])
    engine.advance(0.85)
    # "full" has been due since 0.3 s, q since 1.0, r since 1.1; s is not due before 1.2.
    taken = [(await leased(buffer)).queue for _ in range(3)]
    assert taken == [queue("full"), queue("q"), queue("r")]
    assert not (await idle(buffer)).empty


async def test_a_queue_is_leased_to_one_worker_at_a_time(buffer: Buffer, engine: Engine) -> None:
    for name in "qrst":
        await buffer.append(KEY, [portion(events(1, 3), name)])
    engine.advance(1)
    claims = await asyncio.gather(*(buffer.claim(KEY, token()) for _ in range(20)))
    leases = [claimed for claimed in claims if isinstance(claimed, Lease)]
    assert sorted(lease.queue for lease in leases) == sorted(map(queue, "qrst"))


@pytest.mark.parametrize("held_back", ["leased", "backing off", "paused"])
async def test_an_append_never_shortens_a_lease_a_back_off_or_a_pause(
    buffer: Buffer, engine: Engine, held_back: str
) -> None:
    await buffer.append(KEY, [portion(events(1, 50))])
    lease = await due(buffer, engine)
    if held_back == "backing off":
        await settled(buffer, lease, 50, again=range(50), wait_s=20.0, failed=True)
    if held_back == "paused":
        await buffer.settle(lease, Settlement(50, again=frozenset(range(50)), feedback=RATE_LIMITED))
    wait_s = (await idle(buffer)).wait_s
    assert wait_s == pytest.approx(30.0 if held_back == "leased" else 20.0, abs=0.01)
    for first in range(51, 301, 50):
        await buffer.append(KEY, [portion(events(first, first + 49))])
        assert (await idle(buffer)).wait_s == pytest.approx(wait_s, abs=0.01)
    engine.advance(wait_s + 0.1)
    assert await head_texts(buffer, await leased(buffer)) == texts(events(1, 100))


async def test_a_queue_that_was_emptied_while_backing_off_begins_anew(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], wait_s=20.0, failed=True)
    await settled(buffer, await due(buffer, engine), 1)
    await buffer.append(KEY, [portion(events(2, 101))])
    assert (await leased(buffer)).attempts == 0


async def test_after_the_clock_jumped_back_a_queue_is_due_within_its_linger(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    engine.advance(-3600)
    assert (await idle(buffer)).wait_s <= 1.0
    engine.advance(1)
    await leased(buffer)


async def test_after_the_clock_jumped_back_a_lease_ends_within_its_length(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)], "q"), portion([event(2)], "r")])
    engine.advance(1)
    await leased(buffer)
    await leased(buffer)
    engine.advance(-3600)
    buffer = await engine.opened()
    assert (await idle(buffer)).wait_s <= 30.0
    engine.advance(30)
    assert {(await due(buffer, engine)).queue, (await due(buffer, engine)).queue} == {queue("q"), queue("r")}


async def test_after_the_clock_jumped_back_what_is_left_of_a_batch_is_due_within_its_linger(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    lease = await due(buffer, engine)
    engine.advance(-3600)
    await settled(buffer, lease, 1)
    assert (await idle(buffer)).wait_s <= 1.0


async def test_after_a_jump_of_a_day_a_back_off_lasts_no_longer_than_the_longest(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], wait_s=300.0, failed=True)
    engine.advance(-86_400)
    waited_s = 0.0
    while isinstance(claimed := await buffer.claim(KEY, token()), Idle):
        waited_s += claimed.wait_s
        engine.advance(claimed.wait_s)
    assert waited_s <= MAX_WAIT_S + 1


async def test_a_jump_forwards_makes_nothing_wait(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    engine.advance(3600)
    assert (await leased(buffer)).attempts == 0


async def test_a_wait_that_is_asked_for_is_kept_and_bounded(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)], "q"), portion([event(2)], "r")])
    engine.advance(1)
    await settled(buffer, await leased(buffer), 1, again=[0], wait_s=50.0)
    await settled(buffer, await leased(buffer), 1, again=[0], wait_s=1e9)
    assert (await idle(buffer)).wait_s == pytest.approx(50.0, abs=0.01)
    engine.advance(50)
    await settled(buffer, await leased(buffer), 1)
    assert (await idle(buffer)).wait_s == MAX_IDLE_S
    engine.advance(MAX_WAIT_S - 50)
    await leased(buffer)


async def test_an_idle_claim_says_whether_the_key_holds_anything(buffer: Buffer, engine: Engine) -> None:
    assert await idle(buffer) == Idle(MAX_IDLE_S, empty=True)
    await buffer.append(KEY, [portion([event(1)])])
    assert not (await idle(buffer)).empty
    assert (await idle(buffer, OTHER_KEY)).empty
    lease = await due(buffer, engine)
    assert not (await idle(buffer)).empty
    await settled(buffer, lease, 1)
    assert (await idle(buffer)).empty


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
        Settlement(3, {0: REFUSED}, frozenset({1, 2}), 500.0, True, RATE_LIMITED),
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
    await settled(buffer, lease, 2)
    assert await buffer.settle(lease, Settlement(2)) == Spent()
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
        taken = chance.choice([len(read.events), chance.randint(1, len(read.events))])
        assert [held.text for held in read.events] == texts(waiting[: len(read.events)])
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
        assert (read.header, [held.text for held in read.events]) == (header("a"), [event(number).text])
        await settled(buffer, lease, 1)


# -- dead letters --------------------------------------------------------------------------------------


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


async def test_dead_letters_are_listed_newest_first_of_one_key_or_of_all(
    buffer: Buffer, engine: Engine
) -> None:
    for number, key in enumerate([KEY, OTHER_KEY, KEY]):
        await buffer.append(key, [portion([event(number)])])
        await settled(buffer, await due(buffer, engine, key), 1, dead={0: REFUSED})
    found = await buffer.dead_letters()
    assert [letter.text for letter in found] == texts([event(2), event(1), event(0)])
    assert len({letter.id for letter in found}) == 3
    assert [letter.text for letter in await buffer.dead_letters(KEY)] == texts([event(2), event(0)])
    assert [letter.text for letter in await buffer.dead_letters(limit=1)] == texts([event(2)])
    assert await buffer.dead_letters(PublicKey("pk_nobody")) == []


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


# -- bounds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "terms", [replace(TERMS, max_bytes=10_000), replace(TERMS, max_bytes_per_key=10_000)], ids=["all", "key"]
)
async def test_a_request_that_an_empty_buffer_could_not_hold_is_told_so(engine: Engine, terms: Terms) -> None:
    buffer = await engine.opened(terms)
    with pytest.raises(NeverFits):
        await buffer.append(KEY, [portion([event(1, size=12_000)])])
    await buffer.append(KEY, [portion([event(1, size=6_000)])])
    with pytest.raises(BufferFull):
        await buffer.append(KEY, [portion([event(2, size=6_000)])])


@pytest.mark.parametrize("size", [60, 500, 20_000])
@pytest.mark.parametrize("at_once", [1, 120])
async def test_stored_bytes_never_pass_their_bounds(engine: Engine, size: int, at_once: int) -> None:
    max_bytes, per_key = 5 * at_once * (size + 300), 3 * at_once * (size + 300)
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
    buffer = await engine.opened(replace(TERMS, max_bytes=1_000))
    await buffer.check()
    await filled(buffer)
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


# -- the gate ------------------------------------------------------------------------------------------


async def test_claims_of_a_key_keep_to_its_rate(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=20.0))
    await buffer.append(KEY, [portion([event(1)], str(number)) for number in range(200)])
    engine.advance(1)
    granted = waited_s = 0.0
    while waited_s < 5:
        claimed = await buffer.claim(KEY, token())
        if isinstance(claimed, Lease):
            granted += 1
        else:
            assert 0 < claimed.wait_s <= 0.06
            waited_s += claimed.wait_s
            engine.advance(claimed.wait_s)
    assert granted == pytest.approx(0.9 * 20 * 5, abs=2)


async def test_a_claim_that_finds_nothing_due_takes_no_token(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=1.0))
    for _ in range(5):
        await idle(buffer)
    await buffer.append(KEY, [portion([event(1)])])
    await idle(buffer)
    engine.advance(1)
    await leased(buffer)


async def test_another_limit_counts_from_the_next_start(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=10.0))
    await buffer.append(KEY, [portion([event(1)], name) for name in "qrst"])
    assert (await buffer.figures())[KEY].rate_per_s == pytest.approx(9.0)
    buffer = await engine.opened(replace(TERMS, limit_per_s=2.0))
    engine.advance(1)
    await leased(buffer)
    assert (await idle(buffer)).wait_s == pytest.approx(1 / 1.8, abs=0.03)


async def test_each_key_has_a_gate_of_its_own(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=1.0))
    for key in (KEY, OTHER_KEY):
        await buffer.append(key, [portion([event(1)], "q"), portion([event(2)], "r")])
    engine.advance(1)
    await leased(buffer)
    await idle(buffer)
    await leased(buffer, OTHER_KEY)


async def test_a_429_pauses_its_key_whole_and_no_other(buffer: Buffer, engine: Engine) -> None:
    for key in (KEY, OTHER_KEY):
        await buffer.append(key, [portion([event(1)], "q"), portion([event(2)], "r")])
    engine.advance(1)
    lease = await leased(buffer)
    await buffer.settle(lease, Settlement(1, again=frozenset({0}), feedback=RATE_LIMITED))
    assert (await idle(buffer)).wait_s == pytest.approx(20.0, abs=0.01)
    assert (await buffer.figures())[KEY].paused == "rate_limited"
    assert (await buffer.figures())[OTHER_KEY].paused is None
    await leased(buffer, OTHER_KEY)
    engine.advance(20)
    assert (await buffer.figures())[KEY].paused is None
    assert (await leased(buffer)).attempts == 0


async def test_a_pause_outlasts_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await buffer.settle(await due(buffer, engine), Settlement(1, again=frozenset({0}), feedback=RATE_LIMITED))
    buffer = await engine.opened()
    assert (await idle(buffer)).wait_s == pytest.approx(20.0, abs=0.01)


# -- looking -------------------------------------------------------------------------------------------


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
