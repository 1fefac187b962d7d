"""What is special to the engine on Redis: groups, repeated calls, several processes, what is forgotten."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from proxy.buffer import (
    Appended,
    BufferFull,
    BufferUnavailable,
    Idle,
    Lease,
    Quota,
    QuotaExceeded,
    Settled,
    Settlement,
    Spent,
    Terms,
)
from proxy.buffer.redis.engine import RedisBuffer
from proxy.buffer.redis.keys import ACTIVE, KNOWN, names
from proxy.buffer.redis.link import Argument, Link, open_link
from proxy.buffer.redis.scripts import Script
from proxy.buffer.redis.store import RedisClock
from proxy.ledger import Answered
from proxy.settings.redis_url import parse_target
from proxy.wire.limits import PublicKey
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    Event,
    books,
    event,
    events,
    head,
    head_texts,
    leased,
    portion,
    queue,
    settled,
    texts,
    token,
)
from tests.buffer.redis.links import LinkAround, linked
from tests.redis_servers import RedisServer

TERMS = Terms(linger_s=1.0, lease_s=30.0, limit_per_s=1_000_000.0)


class Fleet:
    """Several processes on one Redis, under a clock that stands still."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.now_ms = 1_800_000_000_000
        self.losses: list[tuple[PublicKey, int]] = []
        self._open: list[RedisBuffer] = []

    async def replica(
        self, terms: Terms = TERMS, around: Callable[[Link], Link] = lambda link: link
    ) -> RedisBuffer:
        buffer = await RedisBuffer.opened(
            around(await linked(self.server)),
            terms,
            clock=RedisClock(lambda: self.now_ms),
            note_loss=lambda key, lost: self.losses.append((key, lost)),
            background=False,
        )
        self._open.append(buffer)
        return buffer

    def pass_s(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)

    async def close(self) -> None:
        for buffer in self._open:
            await buffer.close()


@pytest.fixture
async def fleet(redis_server: RedisServer) -> AsyncIterator[Fleet]:
    made = Fleet(redis_server)
    yield made
    await made.close()


class Deaf(LinkAround):
    """Does what it is asked, and loses the answers of one kind of script as often as it is told."""

    def __init__(self, inner: Link) -> None:
        super().__init__(inner)
        self.loses: dict[str, int] = {}
        self.calls: list[str] = []

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        self.calls.append(script.name)
        answer = await self.inner.run(script, keys, args, kept=kept)
        if self.loses.get(script.name, 0) > 0:
            self.loses[script.name] -= 1
            raise BufferUnavailable("the answer was lost")
        return answer


async def deaf(fleet: Fleet) -> tuple[RedisBuffer, Deaf]:
    links: list[Deaf] = []

    def around(link: Link) -> Link:
        links.append(Deaf(link))
        return links[-1]

    return await fleet.replica(around=around), links[0]


# -- groups --------------------------------------------------------------------------------------------


async def test_requests_that_come_together_share_script_calls(fleet: Fleet) -> None:
    buffer, link = await deaf(fleet)
    appended = await asyncio.gather(*(buffer.append(KEY, [portion([event(n)], f"{n}")]) for n in range(100)))
    assert appended == [Appended(1, 0)] * 100
    assert link.calls.count("append") <= 3
    assert (await books(buffer)).held == 100


async def test_in_a_group_each_request_is_answered_for_itself(fleet: Fleet) -> None:
    buffer = await fleet.replica(replace(TERMS, max_bytes_per_key=6_000))
    await buffer.append(KEY, [portion(events(1, 3))])
    results = await asyncio.gather(
        buffer.append(KEY, [portion(events(2, 5))]),
        buffer.append(KEY, [portion([event("big", size=6_000)], "other")]),
        buffer.append(KEY, [portion(events(1, 3))]),
        buffer.append(KEY, [portion(events(6, 6)), portion(events(7, 8), "other")]),
        return_exceptions=True,
    )
    assert isinstance(results[1], BufferFull)
    assert [results[0], *results[2:]] == [Appended(2, 2), Appended(0, 3), Appended(3, 0)]
    assert (await books(buffer)).held == 8


async def test_a_request_whose_caller_went_away_is_stored_whole_or_not_at_all(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    asked = [
        asyncio.ensure_future(buffer.append(KEY, [portion(events(10 * n, 10 * n + 9), f"{n}")]))
        for n in range(50)
    ]
    for at, task in enumerate(asked):
        await asyncio.sleep(0)
        if at % 3 == 0:
            task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    held = (await books(buffer)).held
    assert held % 10 == 0
    assert held >= 10 * sum(not task.cancelled() for task in asked)


# -- what is asked again -------------------------------------------------------------------------------


async def test_a_settle_whose_answer_was_lost_is_answered_as_the_first_time(fleet: Fleet) -> None:
    buffer, link = await deaf(fleet)
    await buffer.append(KEY, [portion(events(1, 5))])
    fleet.pass_s(1)
    lease = await leased(buffer)
    await head(buffer, lease)
    link.loses["settle"] = 2
    settlement = Settlement(3, again=frozenset({1}), wait_s=7.0, failed=True, answered=Answered.DELIVERED)
    for _ in range(2):
        with pytest.raises(BufferUnavailable):
            await buffer.settle(lease, settlement)
    fleet.pass_s(2)
    assert await buffer.settle(lease, settlement) == Settled(3, due_s=5.0)
    assert (await books(buffer)).delivered == 2
    fleet.pass_s(5)
    assert await head_texts(buffer, await leased(buffer)) == texts([event(2), event(4), event(5)])
    assert await buffer.ambiguous() == []


async def test_an_append_whose_answer_was_lost_is_a_duplicate_when_it_comes_again(fleet: Fleet) -> None:
    buffer, link = await deaf(fleet)
    link.loses["append"] = 1
    with pytest.raises(BufferUnavailable):
        await buffer.append(KEY, [portion(events(1, 5))])
    assert await buffer.append(KEY, [portion(events(1, 5))]) == Appended(0, 5)
    assert (await books(buffer)).accepted == 5


async def test_a_claim_whose_answer_was_lost_is_a_lease_that_ends_by_itself(fleet: Fleet) -> None:
    buffer, link = await deaf(fleet)
    await buffer.append(KEY, [portion(events(1, 2))])
    fleet.pass_s(1)
    link.loses["claim"] = 1
    with pytest.raises(BufferUnavailable):
        await buffer.claim(KEY, token())
    assert await buffer.claim(KEY, token()) == Idle(30.0)
    fleet.pass_s(30)
    lease = await leased(buffer)
    assert (lease.attempts, lease.expired, lease.unsettled) == (1, 1, 100)


# -- several processes ---------------------------------------------------------------------------------


async def test_a_queue_is_leased_by_one_process_at_a_time(fleet: Fleet) -> None:
    one, other = await fleet.replica(), await fleet.replica()
    await one.append(KEY, [portion(events(1, 3)), portion(events(4, 6), "p")])
    fleet.pass_s(1)
    leases = [await leased(one), await leased(other)]
    assert {lease.queue for lease in leases} == {queue("q"), queue("p")}
    assert isinstance(await one.claim(KEY, token()), Idle)
    assert isinstance(await other.claim(KEY, token()), Idle)


async def test_what_a_dead_process_had_leased_goes_to_another(fleet: Fleet) -> None:
    one, other = await fleet.replica(), await fleet.replica()
    await one.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    late = await leased(one)
    await head(one, late)
    fleet.pass_s(30)
    lease = await leased(other)
    assert lease.unsettled
    await settled(other, lease, 3, ambiguous=True)
    assert await one.settle(late, Settlement(3, answered=Answered.DELIVERED)) == Spent()
    assert len(await one.ambiguous()) == 1
    assert (await books(one)).delivered == 3


async def test_every_process_sees_the_same_books(fleet: Fleet) -> None:
    one, other = await fleet.replica(), await fleet.replica()
    await one.append(KEY, [portion(events(1, 3))])
    await other.append(KEY, [portion(events(4, 9))])
    await other.append(OTHER_KEY, [portion(events(1, 2))])
    assert await one.figures(recount=True) == await other.figures(recount=True)
    assert (await books(one)).held == 9


async def test_one_process_wakes_the_other_for_what_it_stored(fleet: Fleet) -> None:
    one, other = await fleet.replica(), await fleet.replica()
    woken: list[tuple[PublicKey, float]] = []
    other.on_append(lambda key, in_s: woken.append((key, in_s)))
    await one.append(KEY, [portion(events(1, 3))])
    await other._look()
    assert woken == [(KEY, 0.0)]


async def test_a_hint_that_led_to_nothing_is_followed_once(fleet: Fleet) -> None:
    one, other = await fleet.replica(), await fleet.replica()
    await one.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    await settled(one, await leased(one), 3)
    assert list(await other._roster.due()) == [KEY]
    assert await other.claim(KEY, token()) == Idle(60.0, empty=True)
    assert list(await other._roster.due()) == []
    assert fleet.server.command("ZCARD", ACTIVE) == 0


async def test_the_bound_over_all_keys_counts_what_other_processes_told(fleet: Fleet) -> None:
    terms = replace(TERMS, max_bytes=20_000)
    one, other = await fleet.replica(terms), await fleet.replica(terms)
    await one.append(KEY, [portion([event(n, size=900) for n in range(12)])])
    await other.append(OTHER_KEY, [portion([event("first", size=900)])])
    await one._exchange()
    await other._exchange()
    with pytest.raises(BufferFull):
        await other.append(OTHER_KEY, [portion([event(n, size=900) for n in range(12)])])
    with pytest.raises(BufferFull):
        await other.append(PublicKey("pk_third"), [portion([event(n, size=900) for n in range(12)])])


async def test_of_a_key_that_was_never_taken_nothing_is_left(fleet: Fleet) -> None:
    buffer = await fleet.replica(replace(TERMS, quota=Quota(queues=5, keys=1)))
    await buffer.append(KEY, [portion(events(1, 2))])
    before = set(fleet.server.command("KEYS", "*"))
    for number in range(5):
        with pytest.raises(QuotaExceeded):
            await buffer.append(PublicKey(f"pk_invented{number}"), [portion(events(1, 2))])
    assert set(fleet.server.command("KEYS", "*")) == before
    assert fleet.server.command("SMEMBERS", KNOWN) == {KEY.encode()} or fleet.server.command(
        "SMEMBERS", KNOWN
    ) == [KEY.encode()]


# -- what Redis may forget -----------------------------------------------------------------------------


async def test_that_redis_was_emptied_is_noticed_with_the_next_answer(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 7))])
    fleet.server.flush()
    fleet.pass_s(1)
    assert await buffer.append(KEY, [portion(events(1, 7))]) == Appended(7, 0)
    assert fleet.losses == [(KEY, 7)]
    await buffer.append(KEY, [portion(events(8, 9))])
    assert fleet.losses == [(KEY, 7)]


async def test_that_a_primary_was_lost_with_its_last_writes_is_noticed(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 4))])
    was = {key: fleet.server.command("DUMP", key) for key in fleet.server.command("KEYS", "*")}
    await buffer.append(KEY, [portion(events(5, 9))])
    restore(fleet.server, was)
    await buffer.append(KEY, [portion(events(11, 11))])
    assert fleet.losses == [(KEY, 4)]


async def test_a_batch_whose_lease_redis_has_lost_goes_on_record_as_ambiguous(fleet: Fleet) -> None:
    """A failover to a replica that did not have the claim yet: the next holder cannot know of the first."""
    one, other = await fleet.replica(), await fleet.replica()
    await one.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    was = {key: fleet.server.command("DUMP", key) for key in fleet.server.command("KEYS", "*")}
    forgotten = await leased(one)
    await head(one, forgotten)
    restore(fleet.server, was)
    again = await leased(other)
    assert not again.unsettled
    sent = Settlement(3, answered=Answered.DELIVERED)
    assert await one.settle(forgotten, sent) == Spent(ambiguous=True)
    assert await one.settle(forgotten, sent) == Spent()
    [batch] = await other.ambiguous()
    assert batch.uuids == b"".join(each.uuid for each in events(1, 3))
    assert (await books(one)).held == 3
    assert await other.settle(again, sent) == Settled(0)


def restore(server: RedisServer, was: dict[bytes, bytes]) -> None:
    server.flush()
    for key, dump in was.items():
        server.command("RESTORE", key, 0, dump)


# -- durability and room -------------------------------------------------------------------------------


async def test_without_its_replicas_nothing_is_said_to_be_kept(redis_server: RedisServer) -> None:
    link = await open_link(
        parse_target(redis_server.url), durability="replica", replicas=1, wait_timeout_s=0.05
    )
    buffer = await RedisBuffer.opened(link, TERMS, background=False)
    try:
        for _ in range(2):
            with pytest.raises(BufferUnavailable, match="0 of 1 replicas"):
                await buffer.append(KEY, [portion(events(1, 3))])
        assert (await books(buffer)).held == 3
        with pytest.raises(BufferUnavailable, match="0 of 1 replicas"):
            await buffer.claim(KEY, token())
    finally:
        await buffer.close()


async def test_a_redis_at_its_maxmemory_refuses_appends_and_drains(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 150))])
    fleet.server.command("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BufferFull):
            await buffer.append(KEY, [portion(events(200, 201))])
        with pytest.raises(BufferFull):
            await buffer.append(OTHER_KEY, [portion(events(200, 201))])
        with pytest.raises(BufferUnavailable):
            await buffer.check()
        assert await buffer.pause(KEY)
        assert await buffer.resume(KEY)
        assert await buffer.retry(KEY) == 0
        fleet.pass_s(1)
        for taken in (100, 50):
            lease = await leased(buffer)
            await head(buffer, lease)
            await settled(buffer, lease, taken)
    finally:
        fleet.server.command("CONFIG", "SET", "maxmemory", 0)
    assert (await books(buffer)).held == 0
    await buffer.check()


async def test_a_long_queue_is_read_in_slices_and_settled_where_a_run_is_cut(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    wanted: list[Event] = []
    for number in range(60):
        request = events(10 * number, 10 * number + 2)
        wanted += request
        await buffer.append(KEY, [portion(request)])
    got: list[bytes] = []
    while isinstance(claimed := await buffer.claim(KEY, token()), Lease):
        read = await head(buffer, claimed, 70)
        got += read.texts
        await settled(buffer, claimed, len(read.texts))
        fleet.pass_s(1)
    assert got == texts(wanted)


async def test_what_follows_in_the_lane_of_a_batch_keeps_its_header(fleet: Fleet) -> None:
    """An append between read and settle relies on the header that the batch's runs had."""
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    lease = await leased(buffer)
    read = await head(buffer, lease)
    await buffer.append(KEY, [portion(events(4, 5))])
    await settled(buffer, lease, 3)
    fleet.pass_s(1)
    assert await head(buffer, await leased(buffer)) == replace(
        read,
        lanes=read.lanes[:2],
        accepted_ms=[fleet.now_ms - 1_000] * 2,
        uuids=b"".join(each.uuid for each in events(4, 5)),
        texts=texts(events(4, 5)),
    )


async def test_a_queue_is_due_by_the_first_of_the_runs_that_a_batch_has_left(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    for number in range(3):
        await buffer.append(KEY, [portion([event(number)])])
        fleet.pass_s(5)
    await buffer.append(KEY, [portion([event(3)])])
    lease = await leased(buffer)
    await head(buffer, lease, 1)
    assert await settled(buffer, lease, 1) == Settled(3, due_s=0.0)
    lease = await leased(buffer)
    await head(buffer, lease, 2)
    assert await settled(buffer, lease, 2) == Settled(1, due_s=1.0)


async def test_the_engine_leaves_only_keys_of_its_own_prefix(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 3))])
    with suppress(BufferUnavailable):
        await buffer._exchange()
    assert all(key.startswith(b"outlit:") for key in fleet.server.command("KEYS", "*"))
    assert {key.split(b":")[1] for key in fleet.server.command("KEYS", "*")} == {b"{fleet}", b"{pk_one}"}
    assert names(KEY).books in fleet.server.command("KEYS", "*")


# -- what the operator asks for, while others go on ----------------------------------------------------


class Interrupted(LinkAround):
    """Lets something happen just before a script is run for the first time."""

    def __init__(self, inner: Link, name: str, happening: Callable[[], Awaitable[object]]) -> None:
        super().__init__(inner)
        self._name = name
        self._happening: Callable[[], Awaitable[object]] | None = happening

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        if script.name == self._name and (happening := self._happening) is not None:
            self._happening = None
            await happening()
        return await self.inner.run(script, keys, args, kept=kept)


async def test_a_queue_that_is_claimed_while_it_is_erased_is_left_and_counted(fleet: Fleet) -> None:
    one = await fleet.replica()
    other = await fleet.replica(around=lambda link: Interrupted(link, "erase", lambda: leased(one)))
    await one.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    erased = await other.erase(lambda _header, text: text == event(2).text)
    assert (erased.held, erased.leased) == (0, 1)
    assert (await books(one)).held == 3


async def test_one_loss_is_told_once_however_many_answers_show_it(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 300)), portion(events(1, 9), "p")])
    fleet.pass_s(1)
    leases = [await leased(buffer), await leased(buffer)]
    for lease in leases:
        await head(buffer, lease)
    was = {key: fleet.server.command("DUMP", key) for key in fleet.server.command("KEYS", "*")}
    await buffer.append(KEY, [portion(events(301, 309))])
    restore(fleet.server, was)
    await asyncio.gather(
        *(buffer.settle(lease, Settlement(2)) for lease in leases),
        buffer.append(KEY, [portion(events(400, 400))]),
    )
    assert fleet.losses == [(KEY, 9)]


async def test_of_a_fleet_one_process_recounts_at_a_time(fleet: Fleet) -> None:
    one, other = await fleet.replica(), await fleet.replica()
    assert await one.may_recount(60)
    assert not await other.may_recount(60)
    assert not await one.may_recount(60)
    fleet.server.flush()
    assert await other.may_recount(60)
