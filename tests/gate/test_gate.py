"""The gate by itself: a rate never exceeded, pauses with bounds, and no jump of a clock that stops it."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy import gate
from proxy.gate import CATCH_UP_MS, MAX_PAUSE_MS, RATE_LIMITED_PAUSE_MS, SHARE_OF_LIMIT, Feedback, Gate
from proxy.ledger import Pause
from proxy.wire.rate_headers import MAX_WAIT_S, RateHeaders

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000

_limits = st.floats(0.5, 1000.0)


def limited(**said: float) -> Feedback:
    return Feedback(rate_limited=True, headers=RateHeaders(**said))  # type: ignore[arg-type]


def wait_ms(of: Gate, now_ms: int) -> int:
    """How long a claim is told to wait, 0 where it is granted."""
    answer = gate.claim(of, now_ms)
    return answer if isinstance(answer, int) else 0


def granted(of: Gate, now_ms: int) -> Gate:
    answer = gate.claim(of, now_ms)
    assert isinstance(answer, Gate)
    return answer


def grants(of: Gate, from_ms: int, to_ms: int) -> list[int]:
    """When a claimer that waits exactly as long as it is told gets through."""
    at, now_ms = [], from_ms
    while now_ms < to_ms:
        answer = gate.claim(of, now_ms)
        if isinstance(answer, int):
            assert answer > 0
            now_ms += answer
        else:
            of = answer
            at.append(now_ms)
    return at


# -- the rate ------------------------------------------------------------------------------------------


@given(_limits, st.lists(st.integers(0, 200), max_size=200))
def test_no_window_holds_more_than_the_rate_and_the_catch_up(limit_per_s: float, steps_ms: list[int]) -> None:
    of = gate.opened(limit_per_s)
    now_ms, at = NOW_MS, []
    for step_ms in steps_ms:
        now_ms += step_ms
        answer = gate.claim(of, now_ms)
        if isinstance(answer, Gate):
            of = answer
            at.append(now_ms)
    for first, first_ms in enumerate(at):
        for behind, last_ms in enumerate(at[first:]):
            allowed = (last_ms - first_ms + CATCH_UP_MS) * of.rate_per_s / 1000
            # 1e-6: tat is a float of about 1.8e12.
            assert behind <= allowed + 1e-6


@given(st.floats(0.5, 200.0))
def test_who_waits_as_told_gets_the_whole_rate(limit_per_s: float) -> None:
    span_ms = 5_000
    got = len(grants(gate.opened(limit_per_s), NOW_MS, NOW_MS + span_ms))
    # Waits are whole milliseconds, so each grant comes up to one late; the catch-up makes good for it.
    assert got >= int(SHARE_OF_LIMIT * limit_per_s * span_ms / 1000)


@given(_limits, st.integers(0, 2000), st.integers(0, 2000))
def test_a_claim_is_granted_after_the_wait_it_was_told_and_not_before(
    limit_per_s: float, first_ms: int, then_ms: int
) -> None:
    of = granted(gate.opened(limit_per_s), NOW_MS + first_ms)
    now_ms = NOW_MS + first_ms + then_ms
    told_ms = wait_ms(of, now_ms)
    if told_ms:
        assert wait_ms(of, now_ms + told_ms) == 0
        assert told_ms == 1 or wait_ms(of, now_ms + told_ms - 1) == 1


def test_a_late_claim_catches_up_no_more_than_the_catch_up() -> None:
    of = granted(gate.opened(100), NOW_MS)
    late_ms = NOW_MS + 60_000
    # 25 ms of catch-up at 90 a second: two more requests at once after the one that was due.
    at_once = [moment for moment in grants(of, late_ms, late_ms + 5) if moment == late_ms]
    assert len(at_once) == 1 + int(CATCH_UP_MS * of.rate_per_s / 1000)


# -- jumps of the clock --------------------------------------------------------------------------------


@given(
    _limits,
    st.sampled_from([HOUR_MS, -HOUR_MS]) | st.integers(-2 * HOUR_MS, 2 * HOUR_MS),
    st.integers(0, 50),
)
def test_a_jump_of_the_clock_delays_the_next_request_by_no_more_than_a_period(
    limit_per_s: float, jump_ms: int, before: int
) -> None:
    of = gate.opened(limit_per_s)
    now_ms = NOW_MS
    for _ in range(before):
        now_ms += wait_ms(of, now_ms)
        of = granted(of, now_ms)
    after_ms = now_ms + jump_ms
    period_ms = 1000 / of.rate_per_s
    first, *rest = grants(of, after_ms, after_ms + int(3 * period_ms) + 10)
    assert first - after_ms <= period_ms + 1
    assert rest


@given(st.integers(1, 4 * HOUR_MS))
def test_a_jump_back_during_a_pause_holds_the_key_no_longer_than_the_longest_pause(back_ms: int) -> None:
    of = gate.settle(gate.opened(100), limited(retry_after_s=30.0), NOW_MS)
    after_ms = NOW_MS - back_ms
    told_ms = wait_ms(of, after_ms)
    assert told_ms <= MAX_PAUSE_MS
    assert wait_ms(of, after_ms + told_ms) == 0


def test_a_429_after_a_jump_back_pauses_like_any_other() -> None:
    of = gate.settle(gate.opened(100), limited(retry_after_s=30.0), NOW_MS)
    after_ms = NOW_MS - HOUR_MS
    of = gate.settle(of, limited(retry_after_s=2.0), after_ms)
    assert wait_ms(of, after_ms) == 2000


# -- pauses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feedback", "pause_ms"),
    [
        (limited(retry_after_s=7.0), 7000),
        (limited(retry_after_s=7.0, reset_in_s=1.0), 7000),
        (limited(retry_after_s=0.0, reset_in_s=1.0), 1000),
        (limited(reset_in_s=1.0), 1000),
        (limited(reset_in_s=0.0), RATE_LIMITED_PAUSE_MS),
        (limited(), RATE_LIMITED_PAUSE_MS),
        (Feedback(rate_limited=True), RATE_LIMITED_PAUSE_MS),
        (limited(retry_after_s=MAX_WAIT_S), MAX_PAUSE_MS),
        (limited(retry_after_s=10 * MAX_WAIT_S), MAX_PAUSE_MS),
        (limited(reset_in_s=10 * MAX_WAIT_S), MAX_PAUSE_MS),
    ],
)
def test_a_429_pauses_by_retry_after_else_by_the_reset_else_briefly(
    feedback: Feedback, pause_ms: int
) -> None:
    of = gate.settle(gate.opened(100), feedback, NOW_MS)
    assert of.pause_reason is Pause.RATE_LIMITED
    assert wait_ms(of, NOW_MS) == pause_ms
    assert wait_ms(of, NOW_MS + pause_ms - 1) == 1
    assert wait_ms(of, NOW_MS + pause_ms) == 0


def test_a_grant_ends_the_pause_in_the_books() -> None:
    paused = gate.settle(gate.opened(100), limited(retry_after_s=1.0), NOW_MS)
    after = granted(paused, NOW_MS + 1000)
    assert (after.pause_until_ms, after.pause_reason) == (0, None)


def test_a_shorter_pause_does_not_end_a_longer_one() -> None:
    of = gate.settle(gate.opened(100), limited(retry_after_s=30.0), NOW_MS)
    of = gate.settle(of, limited(retry_after_s=1.0), NOW_MS)
    assert wait_ms(of, NOW_MS) == 30_000


def test_any_other_answer_leaves_the_gate_as_it_is() -> None:
    of = gate.settle(gate.opened(100), limited(retry_after_s=30.0), NOW_MS)
    assert gate.settle(of, Feedback(headers=RateHeaders(retry_after_s=5.0, remaining=0)), NOW_MS) == of


# -- the limit, and the gate as it is stored -----------------------------------------------------------


@given(_limits, _limits)
def test_another_limit_moves_the_rate_in_proportion_and_keeps_the_rest(old: float, new: float) -> None:
    of = replace(
        gate.opened(old), tat_ms=NOW_MS + 0.5, pause_until_ms=NOW_MS, pause_reason=Pause.RATE_LIMITED
    )
    moved = gate.with_limit(of, new)
    assert moved.limit_per_s == new
    assert moved.rate_per_s == pytest.approx(SHARE_OF_LIMIT * new)
    assert replace(moved, limit_per_s=old, rate_per_s=of.rate_per_s) == of
    assert gate.with_limit(of, old) is of


@given(
    st.builds(
        Gate,
        limit_per_s=_limits,
        rate_per_s=_limits,
        tat_ms=st.floats(0, 4e12),
        pause_until_ms=st.integers(0, 4_000_000_000_000),
        pause_reason=st.none() | st.sampled_from(Pause),
    )
)
def test_a_gate_that_was_stored_is_the_same_gate(of: Gate) -> None:
    assert gate.load(gate.dump(of)) == of


@pytest.mark.parametrize("text", [b"", b"{}", b"null", b'{"limit_per_s":"fast","rate_per_s":90.0}'])
def test_what_is_no_gate_is_refused(text: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        gate.load(text)
