"""The gate against every kind of limit in virtual time: what it uses, and what it is refused.

Short runs of what `python -m tests.gate` shows at length; the figures demanded are those of the long runs,
less what a short one may differ.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest

from tests.gate import cases
from tests.gate.cases import CASES
from tests.gate.virtual import KINDS, Setting, Tally, World, run

LEAST = {"fixed": 0.975, "sliding log": 0.915, "sliding counter": 0.92, "bucket 100": 0.97, "bucket 10": 0.97}
"""What is used of each kind, alone, at 20 to 200 ms."""

each_kind = pytest.mark.parametrize("kind", LEAST)


def short(case: str, kind: str, *, from_s: float = 20.0, to_s: float = 50.0) -> Tally:
    """A run of a case, counted between the two."""
    return run(replace(CASES[case](KINDS[kind]), from_s=from_s, to_s=to_s), seed=1)


@each_kind
def test_alone_it_uses_what_the_limit_allows_and_causes_no_429(kind: str) -> None:
    tally = short("alone", kind, from_s=30.0, to_s=150.0)
    assert tally.limited + tally.learning == 0
    assert tally.used >= LEAST[kind]


@each_kind
def test_three_replicas_on_one_state_are_as_one(kind: str) -> None:
    tally = short("3 replicas", kind, to_s=60.0)
    assert tally.limited + tally.learning == 0
    assert tally.used >= LEAST[kind] - 0.01


@each_kind
def test_beside_a_stranger_of_30_a_second_hardly_anything_is_refused(kind: str) -> None:
    tally = short("stranger 30", kind, from_s=30.0, to_s=120.0)
    assert tally.refused <= 0.003  # over longer runs up to 0.0015
    assert tally.stranger_refused <= 0.02
    assert tally.used >= {"fixed": 0.85, "bucket 100": 0.95}.get(kind, 0.65)


@each_kind
def test_separate_senders_with_shares_are_hardly_ever_refused(kind: str) -> None:
    tally = short("3 separate, share 1/3", kind)
    assert tally.limited + tally.learning <= 3
    assert tally.used >= 0.9


@each_kind
def test_a_share_is_used_and_no_more(kind: str) -> None:
    tally = short("share 1/2", kind)
    assert tally.limited + tally.learning == 0
    assert 0.48 <= tally.used <= 0.501


@each_kind
def test_a_limit_that_is_lowered_and_raised_is_learned_and_back_in_use_within_a_minute(kind: str) -> None:
    changes = ((25.0, partial(cases.limit_to, 10)), (45.0, partial(cases.limit_to, 100)))
    tally = run(replace(CASES["alone"](KINDS[kind]), changes=changes, to_s=105.0), seed=1)
    before, lowered, after = (sum(tally.grants[at : at + 5]) for at in (19, 39, 99))
    in_flight = 25
    assert sum(tally.refusals[25:28]) <= in_flight
    assert sum(tally.refusals[28:]) <= 2
    assert lowered >= 0.6 * 10 * 5
    assert after >= 0.95 * before


@each_kind
@pytest.mark.parametrize("by_s", [cases.HOUR_S, -cases.HOUR_S])
@pytest.mark.parametrize("jump", [cases.store_jump, cases.upstream_jump])
def test_a_clock_that_jumps_forth_and_back_neither_stops_it_nor_opens_it(
    kind: str, jump: Callable[[float, World], None], by_s: float
) -> None:
    changes = ((12.3, partial(jump, by_s)), (24.8, partial(jump, -by_s)))
    tally = run(replace(CASES["alone"](KINDS[kind]), changes=changes, to_s=36.0), seed=1)
    assert sum(tally.refusals) <= 1
    assert min(map(sum, pairwise(tally.grants[5:36]))) >= 80


@each_kind
def test_a_remaining_that_lies_neither_stops_it_nor_opens_it(kind: str) -> None:
    assert short("Remaining always 0", kind).used >= 0.1
    tally = short("Remaining always 100", kind)
    assert tally.refused <= 0.01
    assert tally.used >= 0.75


@each_kind
def test_without_headers_the_rate_is_fixed(kind: str) -> None:
    tally = short("no headers", kind)
    assert tally.limited + tally.learning == 0
    assert tally.used == pytest.approx(0.92, abs=0.005)


@each_kind
@pytest.mark.parametrize("case", ["30 % without headers", "no Reset", "Reset random"])
def test_headers_that_are_partly_of_use_are_used(kind: str, case: str) -> None:
    tally = short(case, kind)
    assert tally.limited + tally.learning <= 1
    assert tally.used >= 0.9


@each_kind
def test_answers_that_are_slow_now_and_then_hardly_matter(kind: str) -> None:
    tally = short("alone, spiky", kind, to_s=80.0)
    assert tally.limited + tally.learning <= 1
    assert tally.used >= 0.9


@each_kind
def test_an_idle_key_is_not_greedy_when_work_comes(kind: str) -> None:
    tally = short("10 s on, 10 s off", kind)
    assert tally.limited + tally.learning == 0


def test_a_window_that_opens_with_a_request_costs_little() -> None:
    tally = short("alone", "first request", to_s=120.0)
    assert tally.refused <= 0.002
    assert tally.used >= 0.9


@pytest.mark.parametrize(("limit", "least"), [(1, 0.45), (3, 0.4), (10, 0.7)])
@each_kind
def test_small_limits_are_used(kind: str, limit: int, least: float) -> None:
    setting = Setting(replace(KINDS[kind], limit=limit), most_per_s=float(limit), to_s=90.0)
    tally = run(setting, seed=1)
    assert tally.limited + tally.learning <= 2
    assert tally.used >= least
