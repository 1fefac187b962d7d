"""The window mode: when it begins, what it leaves to others, and all that ends it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import msgspec
import pytest

from proxy.gate import Feedback, Outcome, budget, window
from proxy.gate.budget import Budget
from proxy.wire.rate_headers import RateHeaders
from tests.gate import cases
from tests.gate.virtual import KINDS, MIXED, Latency, Setting, World, uniform

FIXED = KINDS["fixed"]
OTHERS = [kind for kind in KINDS if kind not in ("fixed", "first request")]
SHORT = Setting(FIXED, from_s=10.0, to_s=30.0)


def lived(setting: Setting, seed: int = 1) -> World:
    """A run that has ended."""
    world = World(setting, seed)
    world.run()
    return world


def budget_of(world: World) -> Budget:
    return world.senders[0].gate.budget


def is_spending(of: Budget) -> bool:
    return window.is_on(of.window)


def spending(seed: int = 1) -> tuple[Budget, int]:
    """A budget in window mode, of which nothing is in flight, at the start of a window."""
    of = budget_of(lived(replace(SHORT, to_s=10.0), seed))
    assert is_spending(of)
    now_ms = next_window_ms(of)
    budget.claim(of, now_ms)
    budget.settle(of, answer(of, now_ms, remaining=99), now_ms + 100)
    of.window.strangers = 0.0  # what is in flight looks like a little of one
    return of, next_window_ms(of)


def next_window_ms(of: Budget) -> int:
    """When the window after the present one begins, in whole milliseconds."""
    return int(window.began_ms(of.window)) + window.WINDOW_MS + 1


def grants(of: Budget, from_ms: int, to_ms: int) -> list[int]:
    """When claims are granted to whom asks each millisecond."""
    return [now_ms for now_ms in range(from_ms, to_ms) if budget.claim(of, now_ms) == 0]


def answer(of: Budget, sent_ms: int, remaining: int = 50, limit: int = 100, later: int = 0) -> Feedback:
    """What upstream says to a request, `later` windows after the one that it should have arrived in."""
    number = int((sent_ms + of.window.offset_ms) // window.WINDOW_MS)
    return Feedback(Outcome.TAKEN, RateHeaders(limit, remaining, number + 1 + later), float(sent_ms))


# -- when it begins ------------------------------------------------------------------------------------


@pytest.mark.parametrize("latency", [uniform(0.004, 0.006), MIXED])
def test_a_fixed_window_is_recognised_within_seconds_and_then_spent_whole(latency: Latency) -> None:
    world = lived(replace(SHORT, from_s=8.0, latency=latency))
    assert is_spending(budget_of(world))
    assert world.tally.limited + world.tally.learning == 0
    assert min(world.tally.grants[8:30]) >= 97


@pytest.mark.parametrize("kind", OTHERS)
def test_no_other_kind_of_limit_is_taken_for_one(kind: str) -> None:
    world = World(replace(SHORT, limit=KINDS[kind]), 1)

    def look() -> None:
        assert not is_spending(budget_of(world))
        world.later(0.1, look)

    world.later(0.1, look)
    world.run()


@pytest.mark.parametrize(
    "unfit",
    [
        replace(SHORT, share=0.5),
        replace(SHORT, most_per_s=50.0),
        replace(SHORT, headers=cases.no_reset),
        replace(SHORT, headers=cases.random_reset),
        replace(SHORT, stranger_per_s=60.0),
    ],
    ids=[
        "a share",
        "more allowed than the operator allows",
        "no Reset",
        "a Reset that lies",
        "too many strangers",
    ],
)
def test_windows_are_not_spent_with(unfit: Setting) -> None:
    assert not is_spending(budget_of(lived(unfit)))


# -- what it does --------------------------------------------------------------------------------------


def test_a_window_lets_all_but_one_through_and_nothing_at_its_end() -> None:
    of, begins_ms = spending()
    sent = grants(of, begins_ms, begins_ms + window.WINDOW_MS - 1)
    assert len(sent) == 99
    assert sent[-1] < begins_ms + window.WINDOW_MS - window.GAP_MS


def test_the_next_window_begins_whole_whatever_was_never_heard_of_again() -> None:
    of, begins_ms = spending()
    grants(of, begins_ms, begins_ms + 100)  # too few to wonder why no answer comes
    again_ms = next_window_ms(of)
    assert len(grants(of, again_ms, again_ms + window.WINDOW_MS - 1)) == 99


def test_where_no_request_was_made_nothing_is_learned() -> None:
    of, begins_ms = spending()
    grants(of, begins_ms, begins_ms + 300)
    before = repr(of)
    budget.settle(of, Feedback(), begins_ms + 300)
    assert repr(of) == before


def test_requests_without_an_answer_count_in_their_window() -> None:
    of, begins_ms = spending()
    sent = grants(of, begins_ms, begins_ms + 400)
    for sent_ms in sent:
        budget.settle(of, Feedback(Outcome.FAILED, None, float(sent_ms)), begins_ms + 400)
    rest = grants(of, begins_ms + 400, begins_ms + window.WINDOW_MS - 1)
    assert len(sent) + len(rest) == 99


def test_what_strangers_take_is_left_to_them() -> None:
    world = lived(replace(SHORT, stranger_per_s=20.0, to_s=40.0))
    of = budget_of(world)
    assert is_spending(of)
    assert 12 < of.window.strangers < 28
    assert world.tally.refused < 0.002
    assert world.tally.used > 0.9


def test_a_request_that_misses_its_window_makes_the_gap_longer() -> None:
    of, begins_ms = spending()
    grants(of, begins_ms, begins_ms + 500)
    budget.settle(of, answer(of, begins_ms + 700, later=1), begins_ms + 900)
    assert of.window.gap_ms == pytest.approx(300 + window.GAP_SPARE_MS, abs=2)
    assert max(grants(of, begins_ms + 500, begins_ms + 999)) < begins_ms + 700


def tuned_and_answered(of: Budget, now_ms: int) -> None:
    """The operator allows less than upstream, and an answer says what upstream allows."""
    budget.tune(of, 50.0, 1.0)
    budget.settle(of, answer(of, now_ms), now_ms)


# -- what ends it --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        lambda of, now_ms: budget.tune(of, 100.0, 0.5),
        tuned_and_answered,
        lambda of, now_ms: budget.settle(of, answer(of, now_ms, limit=101), now_ms),
        lambda of, now_ms: budget.settle(of, answer(of, now_ms, limit=9), now_ms),
        lambda of, now_ms: budget.settle(of, answer(of, now_ms, later=3600), now_ms),
        lambda of, now_ms: budget.settle(of, answer(of, now_ms, later=-3600), now_ms),
        lambda of, now_ms: budget.settle(of, Feedback(Outcome.TAKEN, None, now_ms), now_ms + 3000),
    ],
    ids=[
        "a share",
        "a lower limit of the operator",
        "a higher limit",
        "a small limit",
        "a jump forth",
        "a jump back",
        "silence",
    ],
)
def test_it_ends_at_once_with(end: Callable[[Budget, int], None]) -> None:
    of, begins_ms = spending()
    grants(of, begins_ms, begins_ms + 300)
    end(of, begins_ms + 300)
    assert not is_spending(of)
    assert of.rate_per_s <= 92.0


@pytest.mark.parametrize("idle_ms", [window.JUMP_WINDOWS * window.WINDOW_MS + 1000, 3_600_000, -3_600_000])
def test_after_a_minute_without_a_request_or_a_jump_one_goes_and_the_others_a_second_later(
    idle_ms: int,
) -> None:
    of, now_ms = spending()
    sent = grants(of, now_ms + idle_ms, now_ms + idle_ms + 1500)
    assert not is_spending(of)
    assert sent[0] == now_ms + idle_ms
    assert sent[1] == sent[0] + budget.HOLD_MS
    assert len(sent) > 30


def test_what_a_claim_that_must_wait_has_changed_need_not_be_stored() -> None:
    stored, begins_ms = spending()
    kept = msgspec.msgpack.encode(stored)
    for now_ms in range(begins_ms, begins_ms + 5 * window.WINDOW_MS):
        forgetful = msgspec.msgpack.decode(kept, type=Budget)
        wait_ms = budget.claim(forgetful, now_ms)
        assert wait_ms == budget.claim(stored, now_ms)
        if wait_ms == 0:
            kept = msgspec.msgpack.encode(forgetful)


def test_three_seconds_with_429s_end_it_for_a_minute_and_one_does_not() -> None:
    of, now_ms = spending()
    for seconds in range(1, 5):
        now_ms += window.WINDOW_MS
        limited = replace(answer(of, now_ms, remaining=0), outcome=Outcome.RATE_LIMITED)
        budget.settle(of, limited, now_ms)
        budget.settle(of, limited, now_ms + 500)
        assert is_spending(of) == (seconds < 4)
    assert of.window.sureness == -window.LIMITED_WINDOWS


def test_it_ends_for_long_where_reset_is_not_the_boundary() -> None:
    """Answers come, but not from the windows that requests should have arrived in."""
    of, now_ms = spending()
    for sent_ms in grants(of, now_ms, now_ms + 900):
        budget.settle(of, answer(of, sent_ms, later=2), sent_ms + 50)
    budget.claim(of, now_ms + window.WINDOW_MS)
    assert of.window.sureness == -window.MISTAKEN_WINDOWS


@pytest.mark.parametrize(
    "change",
    [
        partial(cases.store_jump, cases.HOUR_S),
        partial(cases.store_jump, -cases.HOUR_S),
        partial(cases.upstream_jump, cases.HOUR_S),
        partial(cases.upstream_jump, -cases.HOUR_S),
    ],
    ids=["store +1 h", "store -1 h", "upstream +1 h", "upstream -1 h"],
)
def test_after_a_jump_of_an_hour_it_is_back_within_seconds(change: Callable[[World], None]) -> None:
    world = lived(replace(SHORT, changes=((15.3, change),)))
    assert is_spending(budget_of(world))
    assert min(map(sum, pairwise(world.tally.grants[12:30]))) >= 80
    assert world.tally.limited <= 1
