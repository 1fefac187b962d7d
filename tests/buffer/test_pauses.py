"""The operator's pause, its end, and the end of all other waiting."""

from dataclasses import replace

import pytest

from proxy.buffer import Buffer, Idle, Outlook
from proxy.buffer.contract import MAX_IDLE_S, MAX_WAIT_S
from proxy.gate import Feedback, Outcome
from proxy.ledger import Pause
from proxy.wire.limits import PublicKey
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    RATE_LIMITED,
    TROUBLE,
    books,
    drained,
    due,
    event,
    events,
    head_texts,
    idle,
    lapsed,
    leased,
    portion,
    settled,
    texts,
    token,
    tried,
)

NOBODY = PublicKey("pk_nobody")


def woken(buffer: Buffer) -> list[tuple[PublicKey, float]]:
    """What the buffer wakes from now on."""
    found: list[tuple[PublicKey, float]] = []
    buffer.on_append(lambda key, in_s: found.append((key, in_s)))
    return found


async def test_a_key_that_nobody_knows_is_neither_paused_nor_made(buffer: Buffer) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    wakes = woken(buffer)
    assert await buffer.pause(NOBODY) is False
    assert await buffer.resume(NOBODY) is False
    assert await buffer.retry(NOBODY) is None
    assert set(await buffer.figures()) == {KEY}
    assert wakes == []


# -- pause and resume ----------------------------------------------------------------------------------


async def test_nothing_is_claimed_of_a_paused_key_until_it_is_resumed(buffer: Buffer, engine: Engine) -> None:
    for key in (KEY, OTHER_KEY):
        await buffer.append(key, [portion([event(1)])])
    assert await buffer.pause(KEY) is True
    engine.advance(1)
    for _ in range(3):
        assert await idle(buffer) == Idle(MAX_IDLE_S)
        engine.advance(3600)
    await leased(buffer, OTHER_KEY)
    seen = (await buffer.figures())[KEY].gate
    assert (seen.by_operator, seen.paused) == (True, Pause.OPERATOR)
    assert await buffer.resume(KEY) is True
    await leased(buffer)
    seen = (await buffer.figures())[KEY].gate
    assert (seen.by_operator, seen.paused) == (False, None)


async def test_a_paused_key_takes_events_and_keeps_its_books(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    before = await books(buffer)
    await buffer.pause(KEY)
    await buffer.pause(KEY)
    assert await books(buffer) == before
    await buffer.append(KEY, [portion(events(4, 5))])
    await buffer.resume(KEY)
    await buffer.retry(KEY)
    assert (await books(buffer)).held == 5
    assert await drained(buffer, engine) == texts(events(1, 5))


async def test_what_was_leased_before_the_pause_is_settled_and_does_not_end_it(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion(events(1, 3))])
    lease = await due(buffer, engine)
    await buffer.pause(KEY)
    assert await head_texts(buffer, lease) == texts(events(1, 3))
    await settled(buffer, lease, 1, feedback=Feedback(Outcome.TAKEN))
    assert await idle(buffer) == Idle(MAX_IDLE_S)
    assert await buffer.claim(KEY, token(), early=True) == Idle(MAX_IDLE_S)
    await buffer.resume(KEY)
    assert await head_texts(buffer, await leased(buffer)) == texts(events(2, 3))


async def test_the_operators_pause_outlasts_a_restart_and_any_clock(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await buffer.pause(KEY)
    for seconds in (5, -7200, 86_400):
        engine.advance(seconds)
        buffer = await engine.opened()
        assert (await buffer.figures())[KEY].gate.by_operator
        assert isinstance(await buffer.claim(KEY, token()), Idle)
    await buffer.resume(KEY)
    buffer = await engine.opened()
    await due(buffer, engine)


async def test_resume_ends_no_other_pause_and_no_back_off(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    lease = await due(buffer, engine)
    await settled(buffer, lease, 1, again=[0], wait_s=50.0, feedback=RATE_LIMITED)
    await buffer.pause(KEY)
    await buffer.resume(KEY)
    assert (await idle(buffer)).wait_s == pytest.approx(50.0, abs=0.01)
    assert (await buffer.figures())[KEY].gate.paused is Pause.RATE_LIMITED


async def test_a_pause_wakes_nobody_and_its_end_wakes_this_process(buffer: Buffer) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    wakes = woken(buffer)
    await buffer.pause(KEY)
    assert wakes == []
    await buffer.resume(KEY)
    assert wakes == [(KEY, 0.0)]
    await buffer.retry(KEY)
    assert wakes == [(KEY, 0.0)] * 2


# -- retry ---------------------------------------------------------------------------------------------


async def test_a_retry_makes_every_queue_due_that_backs_off_and_counts_them(
    buffer: Buffer, engine: Engine
) -> None:
    names = [str(number) for number in range(7)]
    await buffer.append(KEY, [portion([event(name)], name) for name in names])
    for wait_s in (2.0, 60.0, 3600.0, 1e9):
        lease = await due(buffer, engine)
        await settled(buffer, lease, 1, again=[0], wait_s=wait_s, failed=True, outlook=Outlook(1, TROUBLE))
    held = await leased(buffer)
    engine.advance(3)  # the first has waited long enough
    await buffer.append(KEY, [portion([event("new")], "new")])
    assert await buffer.retry(KEY) == 3
    assert await buffer.retry(KEY) == 0
    again = [await leased(buffer) for _ in range(6)]
    assert sorted(lease.attempts for lease in again) == [0, 0, 1, 1, 1, 1]
    assert [lease.outlook.trouble for lease in again].count(TROUBLE) == 4  # what is known of them is kept
    assert (await idle(buffer)).wait_s == pytest.approx(1.0, abs=0.01)  # the new one lingers as before
    assert len({held.queue, *(lease.queue for lease in again)}) == 7  # and the lease lasts
    await settled(buffer, held, 1)


async def test_a_retry_keeps_to_its_key(buffer: Buffer, engine: Engine) -> None:
    for key in (KEY, OTHER_KEY):
        await buffer.append(key, [portion([event(1)])])
        await settled(buffer, await due(buffer, engine, key), 1, again=[0], wait_s=50.0)
    assert await buffer.retry(KEY) == 1
    await leased(buffer)
    await idle(buffer, OTHER_KEY)


async def test_a_retry_outlasts_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], wait_s=50.0)
    await buffer.retry(KEY)
    buffer = await engine.opened()
    await leased(buffer)


async def test_a_queue_that_was_retried_no_longer_backs_off(buffer: Buffer, engine: Engine) -> None:
    """So that a clock which jumps back keeps it no longer than it keeps any other."""
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], wait_s=MAX_WAIT_S)
    await buffer.retry(KEY)
    engine.advance(-3600)
    assert (await idle(buffer)).wait_s <= TERMS.linger_s


async def test_a_retry_ends_the_wait_of_a_queue_whose_leases_all_end_by_themselves(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await lapsed(buffer, engine, 10)
    assert await buffer.claim(KEY, token()) == Idle(0.0, stalled=True)
    assert await buffer.retry(KEY) == 1
    assert (await leased(buffer)).expired == 10
    engine.advance(30)
    assert await buffer.claim(KEY, token()) == Idle(0.0, stalled=True)


async def test_a_retry_ends_the_pause_of_a_429(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], feedback=RATE_LIMITED)
    assert await buffer.retry(KEY) == 0  # no queue waits, only the key
    assert (await buffer.figures())[KEY].gate.paused is None
    await leased(buffer)


async def test_after_a_retry_a_refused_key_is_probed_at_once_and_once(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(name)], name) for name in "qrs"])
    await tried(buffer, engine, Outcome.KEY_REFUSED)
    await idle(buffer)
    await buffer.retry(KEY)
    probe = await leased(buffer)
    await idle(buffer)
    assert (await buffer.figures())[KEY].gate.paused is Pause.KEY_REFUSED
    await settled(buffer, probe, 1, feedback=Feedback(Outcome.TAKEN))
    await leased(buffer)
    await leased(buffer)


async def test_a_retry_leaves_the_operators_pause(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await settled(buffer, await due(buffer, engine), 1, again=[0], wait_s=50.0)
    await buffer.pause(KEY)
    assert await buffer.retry(KEY) == 1
    assert await idle(buffer) == Idle(MAX_IDLE_S)
    await buffer.resume(KEY)
    await leased(buffer)


async def test_a_retry_gives_no_more_than_the_rate(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=1.0))
    await buffer.append(KEY, [portion([event(name)], name) for name in "qr"])
    engine.advance(1)
    await leased(buffer)
    await buffer.retry(KEY)
    assert 0 < (await idle(buffer)).wait_s <= 1.2
