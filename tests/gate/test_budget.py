"""The budget by itself: a rate never exceeded, bounds that no header lifts, and what each answer teaches."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from proxy.gate import Feedback, Outcome, budget, window
from proxy.gate.budget import (
    CATCH_UP_MS,
    CUT,
    FLOOR_SHARE,
    HOLD_MS,
    MOST_AHEAD_MS,
    SHARE_OF_LIMIT,
    UNTOLD_SHARE,
    Budget,
)
from proxy.gate.window import GAP_MS, LEAST_LIMIT, MOST_GAP_MS, UNSEEN, Window
from proxy.wire.rate_headers import MAX_LIMIT, RateHeaders

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000

_limits = st.floats(0.5, 1000.0)
_shares = st.floats(0.01, 1.0)


def grants(of: Budget, from_ms: int, to_ms: int) -> list[int]:
    """When a claimer that waits exactly as long as it is told gets through."""
    at, now_ms = [], from_ms
    while now_ms < to_ms:
        wait_ms = budget.claim(of, now_ms)
        assert wait_ms >= 0
        if wait_ms == 0:
            at.append(now_ms)
        now_ms += wait_ms
    return at


def answer(
    limit: int | None = 100,
    remaining: int | None = 50,
    sent_ms: float = NOW_MS,
    outcome: Outcome = Outcome.TAKEN,
) -> Feedback:
    """An answer whose headers say nothing of when the limit is whole again."""
    return Feedback(outcome, RateHeaders(limit, remaining), sent_ms)


@dataclass(slots=True)
class Key:
    """A key whose answers come evenly, as many as it may send."""

    of: Budget
    now_ms: int = NOW_MS

    def second(self, said: Callable[[int], Feedback], answers: int | None = None) -> None:
        """A second of answers, each told its number, and the first of the next."""
        answers = round(self.of.rate_per_s) if answers is None else answers
        begin_ms = self.now_ms
        for number in range(answers):
            self.now_ms = begin_ms + 1000 * number // answers
            budget.settle(self.of, said(number), self.now_ms)
        self.now_ms = begin_ms + 1000


def steady(*, remaining: int, seconds: int = 5) -> Key:
    """A key in whose busy seconds Remaining was always the same."""
    key = Key(budget.opened(100.0, 1.0))
    for _ in range(seconds):
        key.second(lambda _: answer(remaining=remaining))
    return key


# -- the rate ------------------------------------------------------------------------------------------


@given(_limits, _shares, st.lists(st.integers(0, 200), max_size=200))
def test_no_window_holds_more_than_the_rate_and_the_catch_up(
    limit_per_s: float, share: float, steps_ms: list[int]
) -> None:
    of = budget.opened(limit_per_s, share)
    assert of.rate_per_s == pytest.approx(SHARE_OF_LIMIT * limit_per_s * share)
    now_ms, at = NOW_MS, []
    for step_ms in steps_ms:
        now_ms += step_ms
        if budget.claim(of, now_ms) == 0:
            at.append(now_ms)
    for first, first_ms in enumerate(at):
        for behind, last_ms in enumerate(at[first:]):
            # 1e-6: tat is a float of about 1.8e12.
            assert behind <= (last_ms - first_ms + CATCH_UP_MS) * of.rate_per_s / 1000 + 1e-6


@given(st.floats(0.5, 200.0))
def test_who_waits_as_told_gets_the_whole_rate(limit_per_s: float) -> None:
    span_ms = 5_000
    got = len(grants(budget.opened(limit_per_s, 1.0), NOW_MS, NOW_MS + span_ms))
    # Waits are whole milliseconds, so each grant comes up to one late; the catch-up makes good for it.
    assert got >= int(SHARE_OF_LIMIT * limit_per_s * span_ms / 1000)


@given(_limits, st.integers(0, 2000), st.integers(0, 2000))
def test_a_claim_is_granted_after_the_wait_it_was_told_and_not_before(
    limit_per_s: float, first_ms: int, then_ms: int
) -> None:
    of = budget.opened(limit_per_s, 1.0)
    assert budget.claim(of, NOW_MS + first_ms) == 0
    now_ms = NOW_MS + first_ms + then_ms
    if told_ms := budget.claim(of, now_ms):
        assert told_ms == 1 or budget.claim(of, now_ms + told_ms - 1) == 1
        assert budget.claim(of, now_ms + told_ms) == 0


def test_a_late_claim_catches_up_no_more_than_the_catch_up() -> None:
    of = budget.opened(100.0, 1.0)
    assert budget.claim(of, NOW_MS) == 0
    late_ms = NOW_MS + 60_000
    # 25 ms of catch-up at 90 a second: two more requests at once after the one that was due.
    at_once = [moment for moment in grants(of, late_ms, late_ms + 5) if moment == late_ms]
    assert len(at_once) == 1 + int(CATCH_UP_MS * of.rate_per_s / 1000)


@given(
    _limits, st.sampled_from([HOUR_MS, -HOUR_MS]) | st.integers(-2 * HOUR_MS, 2 * HOUR_MS), st.integers(0, 50)
)
def test_a_jump_of_the_clock_delays_the_next_request_by_a_period_or_a_second_at_most(
    limit_per_s: float, jump_ms: int, before: int
) -> None:
    of = budget.opened(limit_per_s, 1.0)
    now_ms = NOW_MS
    for _ in range(before):
        now_ms += budget.claim(of, now_ms)
        budget.claim(of, now_ms)
    after_ms = now_ms + jump_ms
    period_ms = 1000 / of.rate_per_s
    most_ms = max(period_ms, MOST_AHEAD_MS)
    first, *rest = grants(of, after_ms, after_ms + int(most_ms + 2 * period_ms) + 10)
    assert first - after_ms <= most_ms + 1
    assert rest


_moments_ms = st.integers(NOW_MS - 2 * HOUR_MS, NOW_MS + 2 * HOUR_MS)
_counts = st.integers(0, 1000)
_windows = st.builds(
    Window,
    sureness=st.floats(-600, 6),
    offset_ms=st.floats(-HOUR_MS, HOUR_MS),
    number=st.just(-1) | st.integers(-3, 3).map(lambda windows: NOW_MS // 1000 + windows),
    left=st.just(UNSEEN) | st.floats(-100, 1000),
    left_ms=_moments_ms,
    left_phase_ms=st.floats(0, 1000),
    own=_counts,
    claims=st.floats(0, 1000),
    answers=_counts,
    astray=_counts,
    strangers=st.floats(0, 1000),
    gap_ms=st.floats(GAP_MS, MOST_GAP_MS),
)
_budgets = st.builds(
    Budget,
    most_per_s=_limits,
    share=_shares,
    limit_per_s=st.integers(1, 1000).map(float),
    rate_per_s=st.floats(0.1, 1000),
    tat_ms=st.floats(NOW_MS - HOUR_MS, NOW_MS + HOUR_MS),
    held_until_ms=_moments_ms,
    cut_ms=_moments_ms,
    second_ms=_moments_ms,
    answers=_counts,
    least=st.floats(0, 1000),
    least_before=st.just(-1.0) | st.floats(0, 1000),
    swing=st.floats(0, 10),
    usual=st.floats(0, 1000),
    window=_windows,
)


@given(_budgets)
def test_whatever_is_stored_a_claim_is_granted_soon_though_no_wait_stores_anything(stored: Budget) -> None:
    """On Redis what a claim that must wait has changed is lost, and so it is anywhere after a crash."""
    assume(not window.is_on(stored.window) or stored.limit_per_s >= LEAST_LIMIT)
    text, now_ms = msgspec.msgpack.encode(stored), NOW_MS
    while wait_ms := budget.claim(msgspec.msgpack.decode(text, type=Budget), now_ms):
        now_ms += wait_ms
        assert now_ms - NOW_MS <= max(1000 / stored.rate_per_s, MOST_AHEAD_MS) + HOLD_MS + 20


# -- the operator's bound ------------------------------------------------------------------------------


@given(
    _limits,
    _shares,
    st.lists(st.tuples(st.sampled_from([1, 50, 100, 1000, MAX_LIMIT]), st.integers(0, 100)), min_size=1),
)
def test_no_header_lifts_the_rate_above_the_operators_limit_times_the_share(
    most_per_s: float, share: float, said: list[tuple[int, int]]
) -> None:
    key = Key(budget.opened(most_per_s, share))
    for limit, remaining in said:
        key.second(lambda _, limit=limit, remaining=remaining: answer(limit, remaining))  # type: ignore[misc]
        assert 0 < key.of.rate_per_s <= min(most_per_s, key.of.limit_per_s) * share * (1 + 1e-9)


@given(_limits, _shares, _limits, _shares)
def test_another_setting_moves_the_rate_in_proportion(
    most_per_s: float, share: float, then_per_s: float, then_share: float
) -> None:
    of = budget.opened(most_per_s, share)
    budget.tune(of, then_per_s, then_share)
    assert of.rate_per_s == pytest.approx(SHARE_OF_LIMIT * then_per_s * then_share)


def test_the_same_setting_changes_nothing() -> None:
    key = steady(remaining=30)
    before = repr(key.of)
    budget.tune(key.of, 100.0, 1.0)
    assert repr(key.of) == before


def test_an_operators_limit_above_the_learned_one_changes_nothing_but_itself() -> None:
    key = steady(remaining=3)
    rate_per_s = key.of.rate_per_s
    key.second(lambda _: answer(limit=40, remaining=3), answers=1)
    learned_per_s = key.of.rate_per_s
    assert learned_per_s == pytest.approx(0.4 * rate_per_s, rel=0.05)
    budget.tune(key.of, 80.0, 1.0)
    assert (key.of.rate_per_s, key.of.limit_per_s) == (learned_per_s, 40.0)


# -- what answers teach --------------------------------------------------------------------------------


def test_much_left_raises_the_rate_step_by_step_up_to_the_limit() -> None:
    key = steady(remaining=60, seconds=3)
    rates = [key.of.rate_per_s]
    for _ in range(10):
        key.second(lambda _: answer(remaining=60))
        rates.append(key.of.rate_per_s)
    assert all(0 <= after - before <= 2 for before, after in pairwise(rates))
    assert rates[-1] == 100.0


def test_one_low_remaining_in_a_second_lowers_the_rate() -> None:
    key = steady(remaining=60)
    before = key.of.rate_per_s
    key.second(lambda number: answer(remaining=0 if number == 50 else 60))
    key.second(lambda _: answer(remaining=60), answers=1)
    assert key.of.rate_per_s < before - 1


def test_the_margin_grows_with_how_much_the_least_remaining_swings() -> None:
    quiet, swinging = (Key(budget.opened(100.0, 1.0)) for _ in range(2))
    for second in range(20):
        quiet.second(lambda _: answer(remaining=8))
        swinging.second(lambda _, second=second: answer(remaining=16 * (second % 2)))  # type: ignore[misc]
    assert swinging.of.rate_per_s < quiet.of.rate_per_s - 5


def test_an_idle_key_does_not_climb() -> None:
    key = steady(remaining=30, seconds=2)
    key.second(lambda _: answer(remaining=95), answers=5)  # the first of these ends a busy second
    before = key.of.rate_per_s
    for _ in range(60):
        key.second(lambda _: answer(remaining=95), answers=5)
    assert key.of.rate_per_s == before < 100


def test_an_answer_moves_the_next_request_towards_the_usual_remaining() -> None:
    for remaining, direction in ((20, 1), (40, -1)):
        key = steady(remaining=30, seconds=20)
        before_ms = key.of.tat_ms
        budget.settle(key.of, answer(remaining=remaining), key.now_ms)
        moved_ms = key.of.tat_ms - before_ms
        assert 0 < moved_ms * direction <= 500 / key.of.rate_per_s


def test_a_lying_remaining_of_0_leaves_a_tenth_of_the_limit() -> None:
    key = Key(budget.opened(100.0, 1.0))
    for _ in range(60):
        key.second(lambda _: answer(remaining=0))
    assert key.of.rate_per_s == pytest.approx(FLOOR_SHARE * 100)


def test_the_limit_is_learned_from_one_answer_in_proportion_and_back() -> None:
    of = budget.opened(100.0, 1.0)
    budget.settle(of, answer(limit=100), NOW_MS)
    before = of.rate_per_s
    budget.settle(of, answer(limit=10, remaining=5), NOW_MS + 10)
    assert of.rate_per_s == pytest.approx(before / 10)
    budget.settle(of, answer(limit=100), NOW_MS + 20)
    assert of.rate_per_s == pytest.approx(before)


# -- 429s ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [RateHeaders(100, 50), None])
def test_429s_lower_the_rate_once_a_second(headers: RateHeaders | None) -> None:
    of = budget.opened(100.0, 1.0)
    budget.settle(of, answer(), NOW_MS)
    before = of.rate_per_s
    limited = Feedback(Outcome.RATE_LIMITED, headers, NOW_MS)
    for after_ms in (10, 20, 500, 900):
        budget.settle(of, limited, NOW_MS + after_ms)
    assert of.rate_per_s == pytest.approx(CUT * before)
    budget.settle(of, limited, NOW_MS + 1010)
    assert of.rate_per_s < CUT * before


@pytest.mark.parametrize("jump_ms", [HOUR_MS, -HOUR_MS])
def test_a_429_after_a_jump_of_the_clock_lowers_the_rate_too(jump_ms: int) -> None:
    of = budget.opened(100.0, 1.0)
    budget.settle(of, answer(outcome=Outcome.RATE_LIMITED), NOW_MS)
    before = of.rate_per_s
    budget.settle(of, answer(outcome=Outcome.RATE_LIMITED), NOW_MS + jump_ms)
    assert of.rate_per_s < before


def test_429s_for_ever_leave_a_request_a_second() -> None:
    key = Key(budget.opened(100.0, 1.0))
    for _ in range(120):
        key.second(lambda _: answer(remaining=0, outcome=Outcome.RATE_LIMITED))
    assert 0.9 <= key.of.rate_per_s <= 1.0


# -- answers without headers, and requests without an answer -------------------------------------------


@pytest.mark.parametrize(
    "feedback",
    [
        Feedback(Outcome.TAKEN, RateHeaders(), NOW_MS),
        Feedback(Outcome.TAKEN, RateHeaders(limit=100), NOW_MS),
        Feedback(Outcome.TAKEN, RateHeaders(remaining=3), NOW_MS),
        Feedback(Outcome.FAILED, None, NOW_MS),
    ],
)
def test_without_headers_the_rate_is_what_is_safe_without_any(feedback: Feedback) -> None:
    key = steady(remaining=60, seconds=12)
    assert key.of.rate_per_s == 100.0
    for _ in range(10):
        key.second(lambda _: feedback)
    assert key.of.rate_per_s == pytest.approx(UNTOLD_SHARE * 100)


def test_without_headers_a_lowered_rate_comes_back_within_minutes() -> None:
    key = Key(budget.opened(100.0, 0.5))
    for _ in range(20):
        key.second(lambda _: Feedback(Outcome.RATE_LIMITED, None, NOW_MS))
    assert key.of.rate_per_s < 20
    for _ in range(100):
        key.second(lambda _: Feedback(Outcome.TAKEN, None, NOW_MS), answers=10)
    assert key.of.rate_per_s == pytest.approx(UNTOLD_SHARE * 50)


def test_a_few_answers_without_headers_change_nothing_of_the_rate() -> None:
    key = steady(remaining=30)
    before = key.of.rate_per_s
    for number in range(50):
        budget.settle(key.of, Feedback(Outcome.FAILED, None, NOW_MS), key.now_ms + number)
    assert key.of.rate_per_s == before


def test_where_no_request_was_made_nothing_is_learned() -> None:
    key = steady(remaining=30)
    before = repr(key.of)
    budget.settle(key.of, Feedback(), key.now_ms + HOUR_MS)
    assert repr(key.of) == before
