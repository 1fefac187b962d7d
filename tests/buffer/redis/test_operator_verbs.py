"""What is special to Redis in the operator's verbs: they look first and change then; others come between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from proxy.buffer import Buffer, Erased, Which
from proxy.buffer.redis.engine import RedisBuffer
from proxy.buffer.redis.keys import names
from proxy.buffer.redis.link import Argument, Link
from proxy.buffer.redis.scripts import Script
from proxy.ledger import Books
from proxy.wire.limits import PublicKey
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    REFUSED,
    Event,
    books,
    event,
    events,
    head,
    header,
    idle,
    leased,
    letters,
    portion,
    queue,
    settled,
    texts,
)
from tests.buffer.redis.links import LinkAround
from tests.buffer.redis.test_engine import TERMS, Fleet
from tests.redis_servers import RedisServer

Step = Callable[[], Awaitable[object]]


class Between(LinkAround):
    """Does something of somebody else's just before a script, or a command, is asked for the n-th time."""

    def __init__(self, inner: Link) -> None:
        super().__init__(inner)
        self.steps: dict[str, list[Step | None]] = {}

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        await self._step(script.name)
        return await self.inner.run(script, keys, args, kept=kept)

    async def ask(self, command: str, key: bytes, *args: Argument) -> Any:
        await self._step(command)
        return await self.inner.ask(command, key, *args)

    async def ask_each(self, commands: Sequence[tuple[str, bytes, *tuple[Argument, ...]]]) -> list[Any]:
        for command in {command for command, *_ in commands}:
            await self._step(command)
        return await self.inner.ask_each(commands)

    async def _step(self, name: str) -> None:
        steps = self.steps.get(name)
        if steps:
            step = steps.pop(0)
            if step is not None:
                await step()


@pytest.fixture
async def fleet(redis_server: RedisServer) -> AsyncIterator[Fleet]:
    made = Fleet(redis_server)
    yield made
    await made.close()


async def between(fleet: Fleet) -> tuple[RedisBuffer, Between]:
    """A replica, between whose steps others can do something."""
    links: list[Between] = []

    def around(link: Link) -> Link:
        links.append(Between(link))
        return links[-1]

    return await fleet.replica(around=around), links[0]


def anns(number: int) -> Event:
    return event(f"ann {number}")


def is_anns(lane_header: bytes, text: bytes) -> bool:
    return b"ann" in text


async def all_left(buffer: Buffer, fleet: Fleet, key: PublicKey = KEY) -> list[tuple[bytes, bytes]]:
    """Deliver all; lane header and text of each event, in order."""
    out: list[tuple[bytes, bytes]] = []
    while (await buffer.figures())[key].queues:
        fleet.pass_s(31)
        lease = await leased(buffer, key)
        read = await head(buffer, lease)
        assert {*read.lanes} == {read.lanes[0]}
        out += [(read.header, text) for text in read.texts]
        await settled(buffer, lease, len(read.texts))
    return out


# -- erase ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps_before", [0, 1])
async def test_a_header_is_not_erased_from_under_what_is_appended_meanwhile(
    fleet: Fleet, steps_before: int
) -> None:
    """The lane of its tail is where an append puts a run without a header: it would get another person's."""
    other = await fleet.replica()
    buffer, link = await between(fleet)
    await buffer.append(KEY, [portion([event(1)], lane="a")])
    await buffer.append(KEY, [portion([anns(1)], lane="b")])
    append = lambda: other.append(KEY, [portion([event(2)], lane="b")])  # noqa: E731
    link.steps["erase"] = [None] * steps_before + [append]
    assert await buffer.erase(is_anns) == Erased(held=1)
    if steps_before:
        await append()
    assert await all_left(buffer, fleet) == [(header("a"), event(1).text), (header("b"), event(2).text)]
    assert (await books(buffer)).dropped == 1


async def test_an_append_of_the_erased_tails_lane_gets_its_header_again(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion([event(1)], lane="a")])
    await buffer.append(KEY, [portion([anns(1)], lane="b")])
    await buffer.erase(is_anns)
    list_key = names(KEY).list(queue("q"))
    assert b"".join(fleet.server.command("LRANGE", list_key, 0, -1)).count(header("b")) == 0
    await buffer.append(KEY, [portion([event(2)], lane="b"), portion([event(3)], lane="a")])
    assert await all_left(buffer, fleet) == [
        (header("a"), event(1).text),
        (header("b"), event(2).text),
        (header("a"), event(3).text),
    ]


@pytest.mark.parametrize("again", [(), (0,), (1,), (2,), (0, 2)])
async def test_what_was_delivered_while_an_erasure_looked_is_neither_erased_nor_brought_back(
    fleet: Fleet, again: Sequence[int]
) -> None:
    """What is left of a run begins as the run did."""
    other = await fleet.replica()
    buffer, link = await between(fleet)
    await buffer.append(KEY, [portion([event(1), anns(1), event(2), anns(2), event(3)])])
    fleet.pass_s(1)

    async def deliver() -> None:
        lease = await leased(other)
        await head(other, lease)
        await settled(other, lease, 3, again=again)

    link.steps["erase"] = [deliver]
    was_anns_delivered = 1 not in again
    assert await buffer.erase(is_anns) == Erased(held=1 if was_anns_delivered else 2)
    assert (await books(buffer)).delivered == 3 - len(again)
    first = [[event(1), anns(1), event(2)][at] for at in again if at != 1]
    assert [text for _, text in await all_left(buffer, fleet)] == texts([*first, event(3)])


async def test_an_erasure_misses_nothing_of_a_long_queue_whose_head_is_delivered_meanwhile(
    fleet: Fleet,
) -> None:
    other = await fleet.replica()
    buffer, link = await between(fleet)
    for number in range(60):
        await buffer.append(KEY, [portion([anns(number) if number in (31, 35, 36) else event(number)])])
    fleet.pass_s(1)

    async def deliver() -> None:
        lease = await leased(other)
        read = await head(other, lease, 10)
        await settled(other, lease, len(read.texts))

    link.steps["LRANGE"] = [None, deliver]
    assert await buffer.erase(is_anns) == Erased(held=3)
    assert len(await all_left(buffer, fleet)) == 47


async def test_a_long_queue_of_one_person_is_erased_whole(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    for number in range(300):
        await buffer.append(KEY, [portion([anns(number)], lane="ab"[number // 7 % 2])])
    await buffer.append(KEY, [portion([event(1)], lane="a")])
    assert await buffer.erase(is_anns) == Erased(held=300)
    assert await books(buffer) == Books(accepted=301, held=1, dropped=300)
    assert await all_left(buffer, fleet) == [(header("a"), event(1).text)]


async def test_an_erasure_that_takes_an_ended_lease_over_leaves_its_worker_spent_and_not_in_doubt(
    fleet: Fleet,
) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion([event(1), anns(1)])])
    fleet.pass_s(1)
    late = await leased(buffer)
    await head(buffer, late)
    fleet.pass_s(31)
    assert await buffer.erase(is_anns) == Erased(held=1)
    assert fleet.server.command("ZSCORE", names(KEY).superseded, late.token) is not None


async def test_a_queue_whose_ended_lease_was_taken_over_waits_no_longer_when_the_clock_goes_back(
    fleet: Fleet,
) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion([event(1), anns(1)])])
    fleet.pass_s(1)
    await leased(buffer)
    fleet.pass_s(31)
    assert await buffer.erase(is_anns) == Erased(held=1)
    fleet.pass_s(-20)
    assert (await idle(buffer)).wait_s <= TERMS.linger_s


# -- replay --------------------------------------------------------------------------------------------


async def bury(buffer: Buffer, fleet: Fleet, count: int, *, key: PublicKey = KEY, size: int = 0) -> None:
    """Have so many events die, in their order."""
    for start in range(0, count, 100):
        some = events(start, min(count, start + 100) - 1, size=size)
        await buffer.append(key, [portion(some)])
        fleet.pass_s(1)
        lease = await leased(buffer, key)
        await head(buffer, lease)
        await settled(buffer, lease, len(some), dead=dict.fromkeys(range(len(some)), REFUSED))


async def test_replays_by_two_processes_at_once_bring_each_letter_back_once(fleet: Fleet) -> None:
    one, other = await fleet.replica(), await fleet.replica()
    await bury(one, fleet, 300)
    assert sum(await asyncio.gather(one.replay(Which()), other.replay(Which()))) == 300
    assert await books(one) == Books(accepted=300, held=300)
    assert [text for _, text in await all_left(one, fleet)] == texts(events(0, 299))


async def test_a_replay_that_is_raced_looks_again_and_keeps_the_order(fleet: Fleet) -> None:
    other = await fleet.replica()
    buffer, link = await between(fleet)
    await bury(buffer, fleet, 6)
    third = (await other.dead_letters())[3]
    assert third.text == event(2).text
    link.steps["replay"] = [lambda: other.purge(Which(id=third.id))]
    assert await buffer.replay(Which()) == 5
    assert await books(buffer) == Books(accepted=6, held=5, dropped=1)
    assert [text for _, text in await all_left(buffer, fleet)] == texts([event(n) for n in (0, 1, 3, 4, 5)])


async def test_a_script_call_replays_about_a_megabyte_at_most(fleet: Fleet) -> None:
    buffer, link = await between(fleet)
    await bury(buffer, fleet, 20, size=200_000)
    calls: list[int] = []
    inner_run = link.inner.run

    async def measured(script: Script, keys: Any, args: Sequence[Argument], *, kept: bool = False) -> Any:
        if script.name == "replay":
            calls.append(sum(len(each) for each in args if isinstance(each, bytes)))
        return await inner_run(script, keys, args, kept=kept)

    link.inner.run = measured  # type: ignore[method-assign]
    assert await buffer.replay(Which()) == 20
    assert max(calls) < 1_300_000


# -- evict and purge -----------------------------------------------------------------------------------


async def test_eviction_gives_up_the_oldest_of_all_keys_whichever_dies_now(fleet: Fleet) -> None:
    terms = replace(TERMS, dead_max_bytes=20_000)
    buffer = await fleet.replica(terms)
    for number in range(12):
        key = (KEY, OTHER_KEY, PublicKey("pk_third"))[number % 3]
        await buffer.append(key, [portion([event(number, size=2_000)])])
        fleet.pass_s(1)
        lease = await leased(buffer, key)
        await head(buffer, lease)
        dropped = (await settled(buffer, lease, 1, dead={0: REFUSED})).dropped
        assert dropped == (number >= 8)
    assert await letters(buffer) == texts([event(n, size=2_000) for n in range(4, 12)])


async def test_eviction_gives_up_no_more_than_it_must_of_many(fleet: Fleet) -> None:
    buffer = await fleet.replica(replace(TERMS, dead_max_bytes=400 * 400))
    await bury(buffer, fleet, 300, size=100)
    size = int(fleet.server.command("HGET", names(KEY).books, "dead_bytes")) // 300
    await buffer.close()
    bound = 300 * size + size // 2
    buffer = await fleet.replica(replace(TERMS, dead_max_bytes=bound))
    await buffer.append(KEY, [portion([event(300, size=100)])])
    fleet.pass_s(1)
    lease = await leased(buffer)
    await head(buffer, lease)
    assert (await settled(buffer, lease, 1, dead={0: REFUSED})).dropped == 1
    assert await buffer.count_dead() == 300


async def test_deaths_at_the_same_time_evict_no_more_than_they_must(fleet: Fleet) -> None:
    buffer = await fleet.replica(replace(TERMS, dead_max_bytes=50_000))
    keys = [PublicKey(f"pk_{number}") for number in range(10)]
    for round_ in range(6):
        leases = []
        for key in keys:
            await buffer.append(key, [portion([event(round_, size=2_000)])])
        fleet.pass_s(1)
        for key in keys:
            leases.append(await leased(buffer, key))
            await head(buffer, leases[-1])
        await asyncio.gather(*(settled(buffer, lease, 1, dead={0: REFUSED}) for lease in leases))
        found = await buffer.dead_letters(limit=1_000)
        bytes_ = sum(int(fleet.server.command("HGET", names(key).books, "dead_bytes")) for key in keys)
        assert bytes_ <= 50_000
        if round_ >= 3:
            assert bytes_ > 50_000 - 2_600, (round_, len(found))


async def test_a_process_evicts_no_more_because_another_one_already_has(fleet: Fleet) -> None:
    """What it knows of other keys is some seconds old."""
    terms = replace(TERMS, dead_max_bytes=20_000)
    one, other = await fleet.replica(terms), await fleet.replica(terms)
    await bury(one, fleet, 8, size=2_000)
    await one._exchange()
    await other._exchange()
    assert await one.purge(Which()) == 8  # of which the other one has not heard
    await bury(other, fleet, 2, key=OTHER_KEY, size=2_000)
    assert await other.count_dead() == 2


async def test_a_purge_takes_the_oldest_of_all_keys(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await bury(buffer, fleet, 700)
    await bury(buffer, fleet, 700, key=OTHER_KEY)
    assert await buffer.purge(Which()) == 1_000
    assert await buffer.count_dead(Which(KEY)) == 0
    assert await letters(buffer, Which(OTHER_KEY)) == texts(events(300, 699))


# -- trace ---------------------------------------------------------------------------------------------


async def test_an_event_is_found_in_a_long_queue_whose_head_is_delivered_meanwhile(fleet: Fleet) -> None:
    other = await fleet.replica()
    buffer, link = await between(fleet)
    for number in range(60):
        await buffer.append(KEY, [portion([event(number)])])
    fleet.pass_s(1)

    async def deliver() -> None:
        lease = await leased(other)
        read = await head(other, lease, 10)
        await settled(other, lease, len(read.texts))

    for number in (3, 31, 35, 36, 45):
        link.steps["LRANGE"] = [None, deliver if number == 36 else None]
        assert len((await buffer.trace(event(number).uuid)).held) == 1


# -- recount -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("queues", [1, 3])
async def test_a_recount_finds_what_somebody_took_out_of_a_list(fleet: Fleet, queues: int) -> None:
    one, other = await fleet.replica(), await fleet.replica()
    for number in range(queues):
        await one.append(KEY, [portion(events(1, 5), str(number)), portion(events(6, 9), str(number), "b")])
    await bury(one, fleet, 3, key=OTHER_KEY)
    assert (await books(one)).held == 9 * queues
    fleet.server.command("RPOP", names(KEY).list(queue("0")))
    fleet.server.command("HDEL", names(OTHER_KEY).dead, (await one.dead_letters())[0].id)
    assert (await one.figures())[KEY].books.difference == 0
    found = await one.figures(recount=True)
    assert found[KEY].books == Books(accepted=9 * queues, held=9 * queues - 4, difference=4)
    assert found[OTHER_KEY].books == Books(accepted=3, dead=2, difference=1)
    # Every process says the same from then on.
    assert (await one.figures())[KEY].books.difference == 4
    assert (await other.figures())[KEY].books.difference == 4


async def test_a_recount_of_a_long_queue_is_right_while_it_is_filled_and_delivered(fleet: Fleet) -> None:
    other = await fleet.replica()
    buffer, link = await between(fleet)
    for number in range(700):
        await buffer.append(KEY, [portion([event(number)])])
    fleet.pass_s(1)
    numbers = iter(range(1_000, 2_000))

    async def deliver() -> None:
        fleet.pass_s(31)
        lease = await leased(other)
        read = await head(other, lease, 10)
        # The first one stays: the list begins as before.
        await settled(other, lease, len(read.texts), again=[0])

    async def append() -> None:
        await other.append(KEY, [portion([event(next(numbers))])])

    for steps in ([append] * 12, [None, None, deliver, append], [None, None, None, deliver]):
        link.steps["recount"] = list(steps)
        assert (await buffer.figures(recount=True))[KEY].books.difference == 0
    link.steps.clear()
    fleet.server.command(
        "LREM",
        names(KEY).list(queue("q")),
        1,
        fleet.server.command("LINDEX", names(KEY).list(queue("q")), 500),
    )
    assert (await buffer.figures(recount=True))[KEY].books.difference == 1


async def test_a_recount_goes_on_when_redis_is_full(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 5)), portion(events(6, 7), "r")])
    fleet.server.command("RPOP", names(KEY).list(queue("r")))
    fleet.server.command("CONFIG", "SET", "maxmemory", 1)
    try:
        assert (await buffer.figures(recount=True))[KEY].books.difference == 2
    finally:
        fleet.server.command("CONFIG", "SET", "maxmemory", 0)
