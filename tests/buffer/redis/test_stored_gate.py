"""What is special to Redis in how the gate is stored, and in pauses: other processes, and what they write.

What pause, resume and retry do is told by the suite of all engines; what the gate decides, by its own tests.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec
import pytest

from proxy import gate
from proxy.buffer import BufferUnavailable, Idle, Lease, Outlook, Settled, Settlement, Spent, Trouble, Which
from proxy.buffer.contract import MAX_IDLE_S
from proxy.buffer.redis import RedisBuffer
from proxy.buffer.redis.entries import read_record
from proxy.buffer.redis.keys import ACTIVE, LETTERS, names
from proxy.gate import Feedback, Gate, Outcome
from proxy.gate.values import MAX_ORIGIN
from proxy.ledger import Answered, Pause
from proxy.wire.limits import PublicKey
from proxy.wire.rate_headers import RateHeaders
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    REFUSED,
    books,
    event,
    events,
    head,
    idle,
    leased,
    portion,
    queue,
    settled,
    token,
)
from tests.buffer.redis.test_engine import TERMS, Fleet, deaf, fleet, restore
from tests.buffer.redis.test_operator_verbs import between

__all__ = ["fleet"]  # a fixture

LIMITED = Feedback(Outcome.RATE_LIMITED, RateHeaders(retry_after_s=20.0))
TROUBLE = Trouble(1_799_999_990_000, 123, 45, suspects=7, forbidden=2, refused_ms=1_799_999_995_000)


def woken(buffer: RedisBuffer) -> list[tuple[PublicKey, float]]:
    """What the buffer wakes its flusher for, from now on."""
    calls: list[tuple[PublicKey, float]] = []
    buffer.on_append(lambda key, in_s: calls.append((key, in_s)))
    return calls


def dumped(fleet: Fleet) -> dict[bytes, bytes]:
    return {key: fleet.server.command("DUMP", key) for key in fleet.server.command("KEYS", "*")}


def stored_gate(fleet: Fleet) -> Gate:
    return gate.load(fleet.server.command("GET", names(KEY).gate), TERMS.limit_per_s, TERMS.rate_share)


async def backing_off(buffer: RedisBuffer, fleet: Fleet, queues: int) -> None:
    """Have so many queues back off."""
    for start in range(0, queues, 50):
        some = range(start, min(queues, start + 50))
        await buffer.append(KEY, [portion([event(number)], str(number)) for number in some])
    fleet.pass_s(1)
    for _ in range(queues):
        await settled(buffer, await leased(buffer), 0, wait_s=300.0, failed=True)


# -- other processes -----------------------------------------------------------------------------------


async def test_a_pause_and_its_end_hold_for_every_process(fleet: Fleet) -> None:
    one, other = await fleet.replica(), await fleet.replica()
    await one.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    assert await one.pause(KEY)
    assert await idle(other) == Idle(MAX_IDLE_S)
    assert (await other.figures())[KEY].gate.paused == Pause.OPERATOR
    assert await other.resume(KEY)
    assert (await one.figures())[KEY].gate.paused is None
    await leased(one)


@pytest.mark.parametrize("verb", ["resume", "retry"])
async def test_what_was_held_back_is_looked_at_again_by_every_process(fleet: Fleet, verb: str) -> None:
    one, other = await fleet.replica(), await fleet.replica()
    await backing_off(one, fleet, 1)
    await one.pause(KEY)
    await other._look()
    assert await idle(other) == Idle(MAX_IDLE_S)
    own, others = woken(one), woken(other)
    await other._look()
    assert (own, others) == ([], []), "the hint was corrected"
    await getattr(one, verb)(KEY)
    await other._look()
    assert (own, others) == ([(KEY, 0.0)], [(KEY, 0.0)])


async def test_an_end_of_a_pause_is_not_undone_by_who_was_told_of_the_pause_before(fleet: Fleet) -> None:
    """It was told to wait a minute, and corrects the hint, but not one that is newer than it knows."""
    one = await fleet.replica()
    other, link = await between(fleet)
    await one.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    await one.pause(KEY)
    await other._look()
    fleet.pass_s(1)
    link.steps["hint"] = [lambda: one.resume(KEY)]
    assert await idle(other) == Idle(MAX_IDLE_S)
    assert not link.steps["hint"]
    others = woken(other)
    await other._look()
    assert others == [(KEY, 0.0)]


async def test_nobody_is_woken_for_a_key_that_nobody_knows(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(OTHER_KEY, [portion(events(1, 3))])
    before, calls = dumped(fleet), woken(buffer)
    assert not await buffer.pause(KEY)
    assert not await buffer.resume(KEY)
    assert await buffer.retry(KEY) is None
    assert calls == []
    assert dumped(fleet) == before


async def test_without_the_hint_a_resume_is_done_all_the_same(fleet: Fleet) -> None:
    buffer, link = await between(fleet)
    await buffer.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    await buffer.pause(KEY)

    async def fail() -> None:
        raise BufferUnavailable("the fleet's node is away")

    link.steps["ZADD"] = [fail]
    assert await buffer.resume(KEY)
    assert not link.steps["ZADD"]
    await leased(buffer)


# -- retry, some queues at a time ----------------------------------------------------------------------


async def test_a_retry_of_many_queues_takes_some_at_a_time_and_all_in_all(fleet: Fleet) -> None:
    buffer, link = await deaf(fleet)
    await backing_off(buffer, fleet, 150)
    await buffer.append(KEY, [portion(events(1, 3), "waits for its linger")])
    assert isinstance(await buffer.claim(KEY, token()), Idle)
    link.calls.clear()
    assert await buffer.retry(KEY) == 150
    assert link.calls.count("retry") >= 3
    assert await buffer.retry(KEY) == 0
    retried = [await leased(buffer) for _ in range(150)]
    assert {lease.attempts for lease in retried} == {1}
    assert queue("waits for its linger") not in {lease.queue for lease in retried}
    assert isinstance(await buffer.claim(KEY, token()), Idle)


async def test_a_retry_that_was_cut_off_does_the_rest_when_it_is_asked_again(fleet: Fleet) -> None:
    buffer, link = await deaf(fleet)
    await backing_off(buffer, fleet, 150)
    link.loses["retry"] = 1
    with pytest.raises(BufferUnavailable):
        await buffer.retry(KEY)
    again = await buffer.retry(KEY)
    assert again is not None
    assert 0 < again < 150
    assert len({(await leased(buffer)).queue for _ in range(150)}) == 150


async def test_a_retry_ends_no_lease_and_counts_none(fleet: Fleet) -> None:
    other = await fleet.replica()
    buffer, link = await between(fleet)
    await backing_off(buffer, fleet, 2)
    fleet.pass_s(300)
    held: list[Lease] = []

    async def claim() -> None:
        held.append(await leased(other))

    link.steps["retry"] = [claim]
    assert await buffer.retry(KEY) == 0, "the other one is due by itself"
    assert {held[0].queue, (await leased(buffer)).queue} == {queue("0"), queue("1")}
    assert isinstance(await buffer.claim(KEY, token()), Idle)
    assert isinstance(await other.settle(held[0], Settlement(1)), Settled)


async def test_what_was_retried_waits_no_longer_when_the_clock_goes_back(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await backing_off(buffer, fleet, 1)
    fleet.pass_s(200)
    assert await buffer.retry(KEY) == 1
    fleet.pass_s(-150)
    assert (await idle(buffer)).wait_s <= TERMS.linger_s


# -- the gate as it is stored --------------------------------------------------------------------------


async def test_a_settle_that_is_asked_again_teaches_the_gate_once(fleet: Fleet) -> None:
    buffer, link = await deaf(fleet)
    await buffer.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    lease = await leased(buffer)
    link.loses["settle"] = 1
    settlement = Settlement(1, feedback=Feedback(Outcome.TAKEN), answered=Answered.DELIVERED)
    with pytest.raises(BufferUnavailable):
        await buffer.settle(lease, settlement)
    taught = stored_gate(fleet)
    assert gate.evidence(taught, lease.queue).successes == 1
    assert isinstance(await buffer.settle(lease, settlement), Settled)
    assert stored_gate(fleet) == taught


async def test_a_spent_token_teaches_the_gate_nothing(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    late = await leased(buffer)
    fleet.pass_s(30)
    await leased(buffer)
    before = stored_gate(fleet)
    assert await buffer.settle(late, Settlement(1, feedback=LIMITED)) == Spent()
    assert stored_gate(fleet) == before


@pytest.mark.parametrize("origin", ["https://пример.example", "https://a\0b.example", "x" * MAX_ORIGIN, ""])
async def test_an_origin_of_any_kind_comes_back_as_it_was_sent(fleet: Fleet, origin: str) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    feedback = Feedback(Outcome.FORBIDDEN, origin=origin)
    await settled(buffer, await leased(buffer), 0, wait_s=60.0, feedback=feedback)
    assert (await buffer.figures())[KEY].gate.forbidden_origins == (origin,)
    fleet.pass_s(60)
    taken = Feedback(Outcome.TAKEN, origin=origin)
    await settled(buffer, await leased(buffer), 1, feedback=taken)
    assert (await buffer.figures())[KEY].gate.forbidden_origins == ()


async def test_other_settings_hold_from_the_next_claim_and_for_who_looks(fleet: Fleet) -> None:
    buffer = await fleet.replica(replace(TERMS, limit_per_s=100.0))
    await buffer.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    await leased(buffer)
    halved = await fleet.replica(replace(TERMS, limit_per_s=100.0, rate_share=0.5))
    whole, half = [(await each.figures())[KEY].gate for each in (buffer, halved)]
    assert half.rate_per_s == whole.rate_per_s / 2
    fleet.pass_s(31)
    await leased(halved)
    assert (await halved.figures())[KEY].gate.rate_per_s == half.rate_per_s


def without_a_field(fleet: Fleet) -> bytes:
    sound = msgspec.msgpack.decode(fleet.server.command("GET", names(KEY).gate))
    del sound["budget"]["rate_per_s"]
    return msgspec.msgpack.encode(sound)


def of_another_kind(fleet: Fleet) -> bytes:
    sound = msgspec.msgpack.decode(fleet.server.command("GET", names(KEY).gate))
    sound["standing"]["pause_until_ms"] = "soon"
    return msgspec.msgpack.encode(sound)


NO_GATES = (b"", b"mine", b"\x93\x01", b"\x80", b"\x07", b"\xc0")


@pytest.mark.parametrize(
    "written", [*(lambda _, text=text: text for text in NO_GATES), without_a_field, of_another_kind]
)
async def test_where_somebody_else_wrote_the_gate_it_is_said_and_nothing_is_half_done(
    fleet: Fleet, written: Callable[[Fleet], bytes]
) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 3)), portion(events(4, 5), "p")])
    await backing_off(buffer, fleet, 1)
    lease = await leased(buffer)
    await head(buffer, lease)
    sound = dumped(fleet)
    fleet.server.command("SET", names(KEY).gate, written(fleet))
    damaged = dumped(fleet)
    settlement = Settlement(2, {0: REFUSED}, feedback=LIMITED, outlook=Outlook(3, TROUBLE))
    verbs: list[Callable[[], Awaitable[object]]] = [lambda: buffer.claim(KEY, token()), buffer.figures]
    if written not in (without_a_field, of_another_kind):  # which the others may leave as it is
        verbs += [
            lambda: buffer.settle(lease, settlement),
            lambda: buffer.pause(KEY),
            lambda: buffer.resume(KEY),
            lambda: buffer.retry(KEY),
        ]
    said = r"gate .* somebody else writes to this Redis, or it is damaged"
    for verb in verbs:
        with pytest.raises(BufferUnavailable, match=said):
            await verb()
    # A letter's id that nobody uses is no harm.
    assert {**dumped(fleet), LETTERS: b""} == {**damaged, LETTERS: b""}

    fleet.server.command("DEL", names(KEY).gate)
    fleet.server.command("RESTORE", names(KEY).gate, 0, sound[names(KEY).gate])
    await settled(buffer, lease, 2, dead={0: REFUSED})
    assert (await books(buffer)).dead == 1
    await leased(buffer)


async def test_a_gate_that_was_lost_with_all_else_is_a_new_one(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    was = dumped(fleet)
    await buffer.pause(KEY)
    restore(fleet.server, was)
    await leased(buffer)


# -- what is remembered of a head ----------------------------------------------------------------------


async def test_what_is_remembered_of_a_head_outlasts_what_others_do_to_its_queue(fleet: Fleet) -> None:
    buffer, other = await fleet.replica(), await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 9))])
    fleet.pass_s(1)
    lease = await leased(buffer)
    await head(buffer, lease)
    await settled(buffer, lease, 1, dead={0: REFUSED}, wait_s=600.0, outlook=Outlook(37, TROUBLE))
    await other.append(KEY, [portion(events(10, 120)), portion(events(200, 201), lane="b")])
    assert await other.replay(Which()) == 1
    assert (await other.erase(lambda _header, text: text == event(3).text)).held == 1
    fleet.pass_s(-100)
    await idle(other)  # which pulls due times back
    assert await other.retry(KEY) == 1
    found = await leased(other)
    assert found.outlook == Outlook(37, replace(TROUBLE, suspects=0, refused_ms=0)), (
        "some of these may have been erased"
    )
    assert (found.attempts, found.expired, found.unsettled) == (0, 0, 0)
    record = read_record(fleet.server.command("HGET", names(KEY).queues, found.queue))
    assert (record.held, record.token, record.max_events) == (8 + 111 + 2 + 1 - 1, found.token, 37)


async def test_a_trouble_that_nobody_of_ours_wrote_is_told(fleet: Fleet) -> None:
    buffer = await fleet.replica()
    await buffer.append(KEY, [portion(events(1, 3))])
    fleet.pass_s(1)
    record = fleet.server.command("HGET", names(KEY).queues, queue("q"))
    fleet.server.command("HSET", names(KEY).queues, queue("q"), record + b"\xc1")
    with pytest.raises(BufferUnavailable, match=r"trouble .* somebody else writes to this Redis"):
        await buffer.claim(KEY, token())


async def test_several_processes_at_once_take_and_give_back_one_gate(fleet: Fleet) -> None:
    """Claims, settlements and the operator's word of three processes: no answer is lost to the gate."""
    replicas = [await fleet.replica() for _ in range(3)]
    await replicas[0].append(KEY, [portion([event(number)], str(number)) for number in range(60)])
    fleet.pass_s(1)

    async def deliver(buffer: RedisBuffer) -> None:
        for _ in range(20):
            lease = await leased(buffer)
            await settled(buffer, lease, 1, feedback=Feedback(Outcome.TAKEN))
            await buffer.resume(KEY)

    await asyncio.gather(*map(deliver, replicas))
    assert gate.evidence(stored_gate(fleet), queue("q")).successes == 60
    assert fleet.server.command("ZSCORE", ACTIVE, KEY) is not None
