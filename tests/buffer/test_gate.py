"""The gate in the buffer: a claim takes a rate token, answers pause a key, a lease says how it fares."""

from dataclasses import replace

import pytest

from proxy.buffer import ALL_IS_WELL, Buffer, Lease, Outlook, Settlement, Spent
from proxy.buffer.contract import LOOKED_THROUGH
from proxy.gate import NO_EVIDENCE, Evidence, Feedback, Outcome
from proxy.ledger import Pause
from tests.buffer.conftest import TERMS, Engine
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    RATE_LIMITED,
    REFUSED,
    TROUBLE,
    due,
    event,
    events,
    idle,
    leased,
    portion,
    queue,
    settled,
    token,
    tried,
)


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
    assert (await buffer.figures())[KEY].gate.rate_per_s == pytest.approx(9.0)
    buffer = await engine.opened(replace(TERMS, limit_per_s=2.0))
    engine.advance(1)
    await leased(buffer)
    assert (await idle(buffer)).wait_s == pytest.approx(1 / 1.8, abs=0.03)


async def test_a_share_of_the_limit_is_all_that_is_used_of_it(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, limit_per_s=10.0, rate_share=0.2))
    await buffer.append(KEY, [portion([event(1)], "q"), portion([event(2)], "r")])
    assert (await buffer.figures())[KEY].gate.rate_per_s == pytest.approx(1.8)
    assert (await buffer.figures())[KEY].gate.limit_per_s == pytest.approx(10.0)
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
    assert (await buffer.figures())[KEY].gate.paused is Pause.RATE_LIMITED
    assert (await buffer.figures())[OTHER_KEY].gate.paused is None
    await leased(buffer, OTHER_KEY)
    engine.advance(20)
    assert (await buffer.figures())[KEY].gate.paused is None
    assert (await leased(buffer)).attempts == 0


async def test_a_pause_outlasts_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    await buffer.settle(await due(buffer, engine), Settlement(1, again=frozenset({0}), feedback=RATE_LIMITED))
    buffer = await engine.opened()
    assert (await idle(buffer)).wait_s == pytest.approx(20.0, abs=0.01)


async def test_what_the_gate_has_learnt_outlasts_a_restart(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(name)], name) for name in "qrst"])
    await tried(buffer, engine, Outcome.TAKEN)
    await tried(buffer, engine, Outcome.FORBIDDEN, origin="https://elsewhere.example")
    await tried(buffer, engine, Outcome.KEY_REFUSED)
    before = await buffer.figures()
    assert before[KEY].gate.paused is Pause.KEY_REFUSED
    buffer = await engine.opened()
    assert await buffer.figures() == before
    assert (await idle(buffer)).wait_s == pytest.approx(15.0, abs=0.01)
    lease = await due(buffer, engine)
    assert (lease.evidence.requests, lease.evidence.successes, lease.evidence.judged) == (3, 1, 1)


async def test_a_settlement_that_came_late_teaches_the_gate_nothing(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    late = await due(buffer, engine)
    engine.advance(30)
    await leased(buffer)
    settlement = Settlement(1, again=frozenset({0}), feedback=Feedback(Outcome.KEY_REFUSED))
    assert await buffer.settle(late, settlement) == Spent()
    assert (await buffer.figures())[KEY].gate.paused is None


# -- probes --------------------------------------------------------------------------------------------


async def test_a_key_that_was_refused_is_probed_by_one_lease_at_a_time(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(name)], name) for name in "qrs"])
    await tried(buffer, engine, Outcome.KEY_REFUSED)
    assert (await idle(buffer)).wait_s == pytest.approx(15.0, abs=0.01)
    probe = await due(buffer, engine)
    for _ in range(29):
        assert 0 < (await idle(buffer)).wait_s <= 1  # its end wakes nobody
        engine.advance(1)
    await settled(buffer, probe, 1, feedback=Feedback(Outcome.TAKEN))
    assert (await buffer.figures())[KEY].gate.paused is None
    await leased(buffer)
    await leased(buffer)


async def test_a_probe_that_nobody_made_is_given_back(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(name)], name) for name in "qrs"])
    await tried(buffer, engine, Outcome.KEY_REFUSED)
    probe = await due(buffer, engine)
    await settled(buffer, probe, 0)
    probe = await leased(buffer)
    await idle(buffer)
    engine.advance(30)  # its worker died
    await leased(buffer)
    await idle(buffer)


async def test_after_the_clock_jumped_back_a_refused_key_is_probed_within_its_longest_pause(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(KEY, [portion([event(name)], name) for name in "qrs"])
    await tried(buffer, engine, Outcome.KEY_REFUSED)
    engine.advance(-3600)
    jumped_ms = engine.now_ms()
    await due(buffer, engine)
    assert engine.now_ms() - jumped_ms <= 300_000


async def stormed(buffer: Buffer, engine: Engine, queues: int) -> None:
    """Have so many new queues refused, all at once, and wait for the pause to end: the next is a probe."""
    leases = []
    for number in range(queues):
        await buffer.append(KEY, [portion([event(number)], str(number))])
        lease = await buffer.claim(KEY, token(), early=True)
        assert isinstance(lease, Lease)
        leases.append(lease)
    refused = Feedback(Outcome.REFUSED)
    for lease in leases:
        await settled(buffer, lease, 1, again=[0], outlook=Outlook(1, TROUBLE), feedback=refused)
    assert (await buffer.figures())[KEY].gate.paused is Pause.REFUSAL_STORM
    engine.advance(5)


@pytest.mark.parametrize(
    ("troubled", "is_preferred"), [(20, True), (LOOKED_THROUGH - 1, True), (LOOKED_THROUGH, False)]
)
async def test_a_refusal_storm_is_probed_with_a_queue_that_was_not_refused(
    buffer: Buffer, engine: Engine, troubled: int, is_preferred: bool
) -> None:
    await stormed(buffer, engine, troubled)
    await buffer.append(KEY, [portion([event("good")], "good")])
    engine.advance(1)
    probe = await leased(buffer)
    assert (probe.queue == queue("good")) is is_preferred
    assert (probe.outlook == ALL_IS_WELL) is is_preferred
    await idle(buffer)
    await settled(buffer, probe, 1, feedback=Feedback(Outcome.TAKEN))
    assert (await leased(buffer)).queue != queue("good")
    await leased(buffer)


async def test_in_a_storm_a_queue_that_failed_before_is_no_better_than_a_refused_one(
    buffer: Buffer, engine: Engine
) -> None:
    await stormed(buffer, engine, 20)
    await buffer.append(KEY, [portion([event("failed")], "failed")])
    engine.advance(1)
    probe = await leased(buffer)
    assert probe.queue == queue("failed")
    await settled(buffer, probe, 1, again=[0], failed=True)
    probe = await leased(buffer)
    assert (probe.queue != queue("failed"), probe.outlook) == (True, Outlook(1, TROUBLE))


async def test_in_a_storm_an_early_claim_prefers_an_untroubled_queue_too(engine: Engine) -> None:
    buffer = await engine.opened(replace(TERMS, linger_s=60.0))
    await stormed(buffer, engine, 20)
    await buffer.append(KEY, [portion([event("good")], "good")])
    await idle(buffer)  # none is due
    probe = await buffer.claim(KEY, token(), early=True)
    assert isinstance(probe, Lease)
    assert probe.queue == queue("good")


# -- evidence ------------------------------------------------------------------------------------------


async def test_a_lease_says_how_its_key_fares(buffer: Buffer, engine: Engine) -> None:
    """The refused queue is not refused elsewhere; every other one is."""
    await buffer.append(KEY, [portion(events(1, 3), name) for name in "qrs"])
    await buffer.append(OTHER_KEY, [portion(events(1, 3))])
    first = await due(buffer, engine)
    assert (first.claimed_ms, first.evidence) == (engine.now_ms(), NO_EVIDENCE)
    engine.advance(3)
    await settled(buffer, first, 1, feedback=Feedback(Outcome.TAKEN))
    refused = await tried(buffer, engine, Outcome.REFUSED)
    seen = {lease.queue: lease.evidence for lease in [await leased(buffer) for _ in range(3)]}
    expected = Evidence(requests=2, successes=1, proven_ms=first.claimed_ms, judged=2, taken=1)
    assert seen.pop(refused.queue) == expected
    assert set(seen.values()) == {replace(expected, refused_elsewhere=True)}
    assert len(seen) == 2
    assert (await due(buffer, engine, OTHER_KEY)).evidence == NO_EVIDENCE


async def test_a_lease_says_since_when_its_key_is_refused(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion([event(1)])])
    for _ in range(3):
        lease = await tried(buffer, engine, Outcome.KEY_REFUSED)
        if not lease.evidence.refused_since_ms:
            since_ms = engine.now_ms()
    lease = await due(buffer, engine)
    assert (lease.evidence.refused_since_ms, lease.confirmed) == (since_ms, False)
    assert engine.now_ms() - since_ms >= 1000 * (15 + 30 + 60)


async def test_a_key_is_confirmed_once_something_of_it_was_delivered(buffer: Buffer, engine: Engine) -> None:
    await buffer.append(KEY, [portion(events(1, 4))])
    assert not (await tried(buffer, engine, Outcome.REFUSED)).confirmed
    lease = await due(buffer, engine)
    await settled(buffer, lease, 2, dead={0: REFUSED}, again=[1])
    lease = await due(buffer, engine)
    assert not lease.confirmed
    await settled(buffer, lease, 1)
    assert (await tried(buffer, engine, Outcome.REFUSED)).confirmed
    buffer = await engine.opened()
    assert (await due(buffer, engine)).confirmed


async def test_a_lease_says_whether_other_queues_of_its_key_hold_events(
    buffer: Buffer, engine: Engine
) -> None:
    await buffer.append(OTHER_KEY, [portion([event(1)], "r")])
    await buffer.append(KEY, [portion(events(1, 2), "q")])
    lease = await due(buffer, engine)
    assert not lease.others
    await buffer.append(KEY, [portion([event(3)], "r")])
    other = await due(buffer, engine)
    assert (other.queue, other.others) == (queue("r"), True)  # what is leased is held
    await settled(buffer, lease, 1)
    lease = await due(buffer, engine)
    assert (lease.queue, lease.others) == (queue("q"), True)
    await settled(buffer, lease, 0)
    await settled(buffer, other, 1)
    assert not (await due(buffer, engine)).others
