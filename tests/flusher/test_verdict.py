"""What each upstream answer means: a test for each row of the table in `proxy.flusher.verdict`.

The rows about refusals are in `test_refusals`, whole queues in `test_search`.
"""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.buffer import Outlook, Trouble
from proxy.flusher import verdict as verdict_module
from proxy.flusher.outlooks import BACK_OFF_S, JITTER, MAX_BACK_OFF_S
from proxy.flusher.values import Case, Verdict
from proxy.flusher.verdict import FORBIDDEN_S, KEY_GIVEN_UP_MS, MAX_FORBIDDEN_S, judge
from proxy.gate import Evidence, Outcome
from proxy.ledger import Answered, Dead
from proxy.wire.answers import Answer, NoAnswer
from proxy.wire.rate_headers import RateHeaders
from tests.flusher.answers import (
    FIVE,
    HOUR,
    LOST,
    NOW,
    UNREACHED,
    WELL,
    answer,
    judged,
    lasting,
    named,
    pathed,
    troubled,
)

ALL = frozenset(range(5))
NOTHING: frozenset[int] = frozenset()


def fate(verdict: Verdict) -> tuple[Answered, set[int], frozenset[int]]:
    return verdict.answered, set(verdict.dead), verdict.again


def test_the_readmes_table_is_the_verdicts() -> None:
    table = [line for line in (inspect.getdoc(verdict_module) or "").splitlines() if line.startswith("|")]
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    section = readme.split("\n## What each answer of Outlit's means\n")[1].split("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("|")] == table
    assert len(table) > 15


# -- 2xx -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 206, 208, 226, 299])
@pytest.mark.parametrize(
    ("body", "inconsistent"),
    [
        ({"success": True, "processed": 5}, False),
        ({"success": True}, False),
        (b"", False),
        (b"<html>", False),
        (b"[]", False),
        ({"success": True, "processed": 4}, True),
        ({"success": False, "processed": 5}, True),
        ({"success": False}, True),
        ({"success": True, "processed": 0}, True),
        ({"success": True, "processed": True}, False),
        ({"success": True, "processed": "5"}, False),
        ({"processed": 3, "errors": [{"index": 0, "message": "bad"}]}, True),
    ],
)
def test_2xx_delivers_all_whatever_the_body_says(status: int, body: Any, inconsistent: bool) -> None:
    verdict = judged(answer(status, body))
    assert fate(verdict) == (Answered.DELIVERED, set(), NOTHING)
    assert (verdict.wait_s, verdict.failed, verdict.ambiguous) == (None, False, False)
    assert verdict.outcome is Outcome.TAKEN
    assert verdict.inconsistent == inconsistent


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 4), (50, 100), (51, 100), (100, 100)])
def test_a_success_doubles_what_the_next_batch_may_hold(before: int, after: int) -> None:
    assert judged(answer(200), max_events=before, events=1).outlook == Outlook(after)


def test_a_success_of_innocents_leaves_the_other_suspects_and_the_search_goes_on() -> None:
    trouble = {"suspects": 13, "refused_ms": NOW - 9_000}
    verdict = judged(
        answer(200), events=6, max_events=6, attempts=4, trouble=trouble, evidence=Evidence(700, 600)
    )
    assert verdict.outlook == Outlook(
        4, troubled(suspects=7, refused_ms=NOW - 9_000, requests=701, successes=601)
    ), "and whoever is the head now is measured by the others from now on"


@pytest.mark.parametrize("trouble", [{}, {"suspects": 5}, {"suspects": 3, "forbidden": 4}])
def test_a_success_of_all_suspects_ends_the_trouble(trouble: dict[str, int]) -> None:
    assert judged(answer(200), max_events=10, trouble=trouble).outlook == Outlook(20)


@pytest.mark.parametrize(
    ("before", "after"), [(1, 2), (2, 3), (8, 9), (9, 11), (50, 57), (88, 99), (89, None), (100, None)]
)
def test_after_a_body_that_was_too_large_batches_grow_slowly_until_they_are_full(
    before: int, after: int | None
) -> None:
    """The bound is likely to stay: doubled, every other request would be refused."""
    trouble = {"too_large": True}
    left = judged(answer(200), events=1, max_events=before, trouble=trouble).outlook
    assert left == (Outlook(100) if after is None else Outlook(after, troubled(**trouble)))


# -- 207 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "dead", "inconsistent"),
    [
        ({**named(2), "processed": 4}, {2}, False),
        ({**named(0, 4), "processed": 3}, {0, 4}, False),
        ({"errors": named(1)["errors"]}, {1}, False),
        ({**named(0, 1, 2, 3, 4), "processed": 0}, {0, 1, 2, 3, 4}, False),
        (pathed(["events", 3, "type"]), {3}, False),
        ({**named(2), "processed": 5}, {2}, True),
        ({**named(2, 2), "processed": 4}, {2}, True),
        ({**named(2, 5), "processed": 4}, {2}, True),
        ({**named(2, -1), "processed": 4}, {2}, True),
        (named(-1), set(), True),
        (named(99), set(), True),
        (named(True), set(), True),
        (named("1"), set(), True),
        (named(1.0), set(), True),
        (named(2**70), set(), True),
        (pathed(["visitorId"]), set(), True),
        ({"processed": 5}, set(), True),
        (b"", set(), True),
        (b'{"processed": 4, "errors": [{"ind', set(), True),
    ],
)
def test_207_buries_the_named_without_proof_and_delivers_the_rest(
    body: Any, dead: set[int], inconsistent: bool
) -> None:
    verdict = judged(answer(207, body), others=True)
    assert fate(verdict) == (Answered.PARTLY_DELIVERED, dead, NOTHING)
    assert {death.reason for death in verdict.dead.values()} <= {Dead.REFUSED}
    assert verdict.inconsistent == inconsistent
    assert verdict.outcome is (Outcome.REFUSED if len(dead) == 5 else Outcome.TAKEN)


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_207_never_sends_anything_again(body: bytes) -> None:
    verdict = judged(answer(207, body))
    assert (verdict.again, verdict.wait_s) == (NOTHING, None)
    assert not verdict.failed
    assert not verdict.ambiguous


def test_a_dead_event_keeps_upstreams_own_words() -> None:
    assert judged(answer(207, named(2))).dead[2].message == "bad 2"
    assert judged(answer(400, named(2))).dead[2].message == "bad 2"
    unsaid = {"message": "Invalid body", "errors": [{"path": ["events", 1, "type"]}]}
    for status in (207, 400):
        assert judged(answer(status, unsaid)).dead[1].message == "Invalid body"
    assert judged(answer(422, named()), events=1, evidence=WELL).dead[0].message == "status 422"


def test_a_verdict_repeats_what_upstream_says_to_people() -> None:
    assert judged(answer(403, {"message": "Domain is not authorized"})).message == "Domain is not authorized"
    assert judged(answer(400, named(-1))).message == "bad -1"
    assert judged(answer(400, b"<html>")).message == ""
    assert judged(LOST).message == "reset"


# -- the key -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 307, 308, 399, 401, 402, 404])
@pytest.mark.parametrize("body", [b"", named(1), pathed(["visitorId"])])
@pytest.mark.parametrize("trouble", [None, {"suspects": 5}])
def test_an_answer_about_the_key_sends_all_again_and_leaves_waiting_to_the_gate(
    status: int, body: Any, trouble: Any
) -> None:
    verdict = judged(answer(status, body, retry_after_s=60.0), attempts=50, aged=5, trouble=trouble)
    assert fate(verdict) == (Answered.KEY_REFUSED, set(), ALL)
    assert (verdict.wait_s, verdict.failed, verdict.ambiguous, verdict.outlook) == (None, False, False, None)
    assert verdict.outcome is Outcome.KEY_REFUSED


REFUSED_FOR_AN_HOUR = Evidence(requests=100, refused_since_ms=NOW - KEY_GIVEN_UP_MS)


def test_401_for_an_hour_of_a_key_that_was_never_confirmed_buries_what_it_sent() -> None:
    verdict = judged(answer(401, {"message": "Invalid key"}), evidence=REFUSED_FOR_AN_HOUR)
    assert fate(verdict) == (Answered.KEY_REFUSED, set(ALL), NOTHING)
    assert {(death.reason, death.message) for death in verdict.dead.values()} == {
        (Dead.KEY_REFUSED, "Invalid key")
    }
    assert verdict.outcome is Outcome.KEY_REFUSED


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (401, {"confirmed": True}),
        (401, {"evidence": Evidence(refused_since_ms=NOW - KEY_GIVEN_UP_MS + 1)}),
        (401, {"evidence": Evidence(refused_since_ms=0)}),
        (402, {}),
        (404, {}),
        (302, {}),
    ],
)
def test_no_other_key_loses_anything_to_a_refusal_of_itself(status: int, changes: dict[str, Any]) -> None:
    verdict = judged(answer(status), **({"evidence": REFUSED_FOR_AN_HOUR} | changes))
    assert fate(verdict) == (Answered.KEY_REFUSED, set(), ALL)


# -- 403 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "wait_s"), [(0, 60), (1, 120), (2, 240), (5, 1920), (6, 3600), (99, 3600)]
)
def test_403_holds_its_queue_back_longer_each_time_without_a_failed_try(before: int, wait_s: float) -> None:
    verdict = judged(answer(403), attempts=50, trouble={"forbidden": before})
    assert fate(verdict) == (Answered.FORBIDDEN, set(), ALL)
    assert (verdict.wait_s, verdict.failed) == (wait_s, False)
    assert lasting(verdict) == troubled(forbidden=before + 1)
    assert verdict.outcome is Outcome.FORBIDDEN


def test_403_is_remembered_from_the_first_on_and_its_waits_are_spread() -> None:
    verdict = judged(answer(403), evidence=Evidence(7, 5), jitter=1.0)
    assert verdict.wait_s == pytest.approx(1.2 * FORBIDDEN_S)
    assert lasting(verdict) == Trouble(NOW, 7, 5, forbidden=1)
    longest = judged(answer(403), jitter=1.0, trouble={"forbidden": 50}).wait_s
    assert longest == pytest.approx(1.2 * MAX_FORBIDDEN_S)


@pytest.mark.parametrize("aged", range(6))
def test_403_buries_what_has_reached_the_maximum_age_and_keeps_the_rest(aged: int) -> None:
    verdict = judged(answer(403, {"message": "Not this domain"}), aged=aged)
    assert fate(verdict) == (Answered.FORBIDDEN, set(range(aged)), frozenset(range(aged, 5)))
    assert {(death.reason, death.message) for death in verdict.dead.values()} <= {
        (Dead.FORBIDDEN, "Not this domain")
    }
    assert (verdict.wait_s is None) == (aged == 5), "the next ones may be of another Origin"
    assert verdict.outlook is not None
    assert (verdict.outlook.trouble is None) == (aged == 5), "and were not tried yet"


@pytest.mark.parametrize(("aged", "suspects"), [(0, 3), (1, 2), (2, 1), (3, 0), (4, 0)])
@pytest.mark.parametrize("of", [answer(403), answer(503), answer(400, named(0, 2))])
def test_suspects_that_die_of_their_age_leave_no_others_in_their_place(
    of: Answer, aged: int, suspects: int
) -> None:
    """An event that was never refused must not be found guilty by the proof against those before it."""
    trouble = {"suspects": 3, "refused_ms": NOW - 9_000}
    others_fail = Evidence(judged=20)
    left = lasting(judged(of, aged=aged, attempts=50, trouble=trouble, evidence=others_fail))
    assert (left.suspects, left.refused_ms) == (suspects, NOW - 9_000 if suspects else 0)


# -- 429 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", named(1), pathed(["visitorId"])])
def test_429_sends_all_again_without_a_failed_try_and_tells_the_gate(body: Any) -> None:
    verdict = judged(answer(429, body, retry_after_s=7.0), attempts=50, aged=5, trouble={"suspects": 5})
    assert fate(verdict) == (Answered.RATE_LIMITED, set(), ALL)
    assert (verdict.wait_s, verdict.failed, verdict.ambiguous, verdict.outlook) == (None, False, False, None)
    assert verdict.outcome is Outcome.RATE_LIMITED


# -- failures ------------------------------------------------------------------------------------------

FAILED = [answer(status) for status in (100, 101, 199, 408, 425, 500, 501, 502, 503, 504, 599, 600, 999)]
FAILURES = [*FAILED, UNREACHED, LOST]


@pytest.mark.parametrize("of", FAILURES, ids=repr)
def test_a_failure_says_nothing_of_the_events_and_backs_off(of: Answer | NoAnswer) -> None:
    verdict = judged(of, evidence=Evidence(7, 5))
    assert (set(verdict.dead), verdict.again) == (set(), ALL)
    assert (verdict.wait_s, verdict.failed) == (BACK_OFF_S, True)
    assert verdict.outcome is Outcome.FAILED
    assert verdict.outlook == Outlook(100, Trouble(NOW, 7, 5))


@pytest.mark.parametrize("body", [named(1), pathed(["visitorId"])])
def test_what_a_failures_body_names_is_not_believed(body: Any) -> None:
    verdict = judged(answer(500, body))
    assert fate(verdict) == (Answered.FAILED, set(), ALL)


@pytest.mark.parametrize(
    ("of", "name", "ambiguous"),
    [
        (answer(503), Answered.FAILED, False),
        (UNREACHED, Answered.UNREACHED, False),
        (LOST, Answered.UNANSWERED, True),
    ],
)
def test_only_what_may_have_arrived_unanswered_is_ambiguous(
    of: Answer | NoAnswer, name: Answered, ambiguous: bool
) -> None:
    verdict = judged(of)
    assert (verdict.answered, verdict.ambiguous) == (name, ambiguous)


@pytest.mark.parametrize(
    ("attempts", "retry_after_s", "wait_s"),
    [(0, None, 2), (0, 0.0, 2), (0, 1.0, 2), (0, 60.0, 60), (0, 300.0, 300), (20, 60.0, 300)],
)
def test_a_failures_retry_after_makes_the_wait_longer_and_never_shorter(
    attempts: int, retry_after_s: float | None, wait_s: float
) -> None:
    assert judged(answer(503, retry_after_s=retry_after_s), attempts=attempts).wait_s == wait_s


def test_back_offs_double_up_to_the_longest_and_are_spread() -> None:
    waits = [judged(LOST, attempts=attempts).wait_s for attempts in range(12)]
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]
    assert judged(LOST, attempts=2, jitter=-1).wait_s == pytest.approx(8 * 0.8)
    assert judged(LOST, attempts=2, jitter=1).wait_s == pytest.approx(8 * 1.2)
    assert judged(LOST, attempts=10**9).wait_s == 300


# -- poison --------------------------------------------------------------------------------------------


def others(requests: int, successes: int, *, attempts: int) -> Evidence:
    """So many requests of other queues since the trouble began, beside this head's own failed tries."""
    return Evidence(500 + attempts + requests, 500 + successes)


@pytest.mark.parametrize("of", [answer(500), LOST, UNREACHED], ids=repr)
@pytest.mark.parametrize("events", [2, 5, 100])
def test_from_the_4th_failure_on_a_batch_is_halved_while_the_others_succeed(
    of: Answer | NoAnswer, events: int
) -> None:
    for attempts in range(20):
        evidence = others(100, 100, attempts=attempts)
        verdict = judged(of, events=events, attempts=attempts, evidence=evidence, trouble={})
        assert (verdict.dead, verdict.failed) == ({}, True)
        assert verdict.wait_s == min(300, 2 * 2**attempts)
        if attempts < 3:
            assert verdict.outlook == Outlook(100, troubled())
        else:
            assert verdict.outlook == Outlook(events // 2, troubled(suspects=events))


def test_where_one_is_suspect_already_each_failure_halves() -> None:
    trouble = {"suspects": 3, "refused_ms": NOW - 9_000}
    verdict = judged(LOST, evidence=others(10, 10, attempts=0), trouble=trouble)
    assert verdict.outlook == Outlook(2, troubled(suspects=5)), "and what was refused before proves nothing"


@pytest.mark.parametrize(("requests", "successes"), [(0, 0), (9, 9), (20, 18), (100, 94), (100, 0)], ids=str)
def test_while_the_others_fare_no_better_nothing_is_halved_and_nothing_dies(
    requests: int, successes: int
) -> None:
    for attempts in range(40):
        evidence = others(requests, successes, attempts=attempts)
        for events in (1, 5):
            verdict = judged(
                LOST,
                events=events,
                attempts=attempts,
                evidence=evidence,
                trouble={"suspects": 5},
                max_events=9,
            )
            assert verdict.dead == {}
            assert verdict.outlook == Outlook(9, troubled(suspects=5))


@pytest.mark.parametrize("of", [answer(502, {"message": "no"}), LOST], ids=repr)
@pytest.mark.parametrize("attempts", range(14))
def test_an_event_alone_is_poison_at_its_10th_failure_and_no_earlier(
    of: Answer | NoAnswer, attempts: int
) -> None:
    evidence = others(20, 19, attempts=attempts)
    verdict = judged(
        of, events=1, attempts=attempts, evidence=evidence, trouble={"suspects": 1}, max_events=1
    )
    assert bool(verdict.dead) == (attempts >= 9)
    if verdict.dead:
        assert verdict.dead[0].reason is Dead.POISON
        assert verdict.dead[0].message == ("no" if isinstance(of, Answer) else "reset")
        assert (verdict.again, verdict.wait_s, verdict.failed) == (NOTHING, None, False)
        assert verdict.outlook == Outlook(2)
        assert verdict.ambiguous == isinstance(of, NoAnswer)


def test_a_head_whose_first_failure_this_is_has_no_others_to_be_measured_by() -> None:
    assert judged(LOST, events=1, attempts=30, evidence=WELL).dead == {}


# -- the maximum age -----------------------------------------------------------------------------------


@pytest.mark.parametrize("of", FAILURES, ids=repr)
@pytest.mark.parametrize(("attempts", "aged"), [(8, 5), (9, 0), (9, 3), (9, 5), (40, 1)])
def test_a_failing_head_expires_after_ten_tries_and_the_maximum_age(
    of: Answer | NoAnswer, attempts: int, aged: int
) -> None:
    verdict = judged(of, attempts=attempts, aged=aged)
    dead = set(range(aged)) if attempts >= 9 else set()
    assert (set(verdict.dead), verdict.again) == (dead, ALL - dead)
    assert {death.reason for death in verdict.dead.values()} <= {Dead.EXPIRED}
    assert verdict.failed == (dead != set(ALL))


# -- every answer --------------------------------------------------------------------------------------

_indices = st.integers(-2, 6) | st.sampled_from([None, True, "1", 1.5, 2**70])
_errors = st.fixed_dictionaries(
    {},
    optional={
        "index": _indices,
        "path": st.lists(st.sampled_from(["events", "visitorId", 0, 1, 5, -1, None]), max_size=3) | _indices,
        "message": st.text(max_size=3) | st.none(),
    },
)
_bodies = st.binary(max_size=20) | st.fixed_dictionaries(
    {},
    optional={
        "processed": st.integers(-1, 7) | st.none(),
        "message": st.text(max_size=3) | st.integers(),
        "errors": st.lists(_errors | st.none() | st.integers(), max_size=4) | st.none(),
    },
)
_rates = st.builds(RateHeaders, retry_after_s=st.none() | st.floats(0, 300))
_answers = st.builds(
    answer, st.sampled_from([200, 207, 400, 401, 403, 413, 429, 500]) | st.integers(100, 999), _bodies
)
_any = _answers.flatmap(lambda of: _rates.map(lambda rate: Answer(of.status, rate, of.body))) | st.builds(
    NoAnswer, st.booleans(), st.just("lost")
)
_moments = st.sampled_from([0, NOW - 2 * HOUR, NOW - 1, NOW, NOW + 99, NOW + 101])
_troubles = st.builds(
    Trouble,
    st.sampled_from([NOW - HOUR, NOW]),
    st.integers(0, 50),
    st.integers(0, 50),
    st.integers(0, 100),
    st.integers(0, 100),
    _moments,
)
_evidence = st.builds(
    Evidence,
    st.integers(0, 500),
    st.integers(0, 500),
    _moments,
    st.integers(0, 20),
    st.integers(0, 20),
    st.booleans(),
    _moments,
)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any state that a queue can be found in, likely or not."""
    events = draw(st.integers(1, 5) | st.just(100))
    return Case(
        events,
        draw(st.integers(0, 12) | st.integers(0, 10_000)),
        draw(st.integers(0, events)),
        NOW,
        NOW + 100,
        Outlook(draw(st.integers(events, 100)), draw(st.none() | _troubles)),
        draw(_evidence),
        draw(st.booleans()),
        draw(st.booleans()),
    )


@given(_any, cases(), st.floats(-1, 1))
def test_every_event_of_a_batch_has_exactly_one_fate(
    of: Answer | NoAnswer, case: Case, jitter: float
) -> None:
    verdict = judge(of, case, jitter)
    everything = case.everything
    assert verdict.dead.keys() <= everything
    assert verdict.again <= everything
    assert not verdict.again & verdict.dead.keys()
    delivered = case.events - len(verdict.dead) - len(verdict.again)
    taken = isinstance(of, Answer) and 200 <= of.status < 300
    assert delivered == (case.events - len(verdict.dead) if taken else 0)
    assert not (taken and verdict.again)
    assert not verdict.ambiguous or isinstance(of, NoAnswer)
    # Only what goes again waits, and a try that failed always does.
    assert verdict.again or verdict.wait_s is None
    assert not verdict.failed or verdict.wait_s is not None


@given(_any, cases(), st.floats(-1, 1))
def test_what_is_left_to_the_next_delivery_makes_sense(
    of: Answer | NoAnswer, case: Case, jitter: float
) -> None:
    verdict = judge(of, case, jitter)
    if verdict.outlook is not None:
        assert 1 <= verdict.outlook.max_events <= 100
        trouble = verdict.outlook.trouble
        assert trouble is None or 0 <= trouble.suspects <= 100
        # Who goes again without a wait is another batch than this one: nothing is repeated without end.
        if verdict.again == case.everything and verdict.wait_s is None:
            assert verdict.outlook.max_events < case.events
            assert verdict.outcome is Outcome.REFUSED
    else:
        assert verdict.outcome in (Outcome.RATE_LIMITED, Outcome.KEY_REFUSED), "the gate makes these wait"


@given(_any, cases(), st.floats(-1, 1))
def test_a_wait_lies_within_its_bounds(of: Answer | NoAnswer, case: Case, jitter: float) -> None:
    wait_s = judge(of, case, jitter).wait_s
    longest = MAX_FORBIDDEN_S if isinstance(of, Answer) and of.status == 403 else MAX_BACK_OFF_S
    assert wait_s is None or BACK_OFF_S * (1 - JITTER) <= wait_s <= longest * (1 + JITTER)


@given(_any, cases(), st.floats(-1, 1))
def test_only_a_207_and_a_key_that_nobody_confirmed_bury_without_proof_or_patience(
    of: Answer | NoAnswer, case: Case, jitter: float
) -> None:
    """Of what waits beside others and is neither old nor has failed long, only proven suspects die."""
    verdict = judge(of, case, jitter)
    if verdict.answered in (Answered.PARTLY_DELIVERED, Answered.KEY_REFUSED):
        return
    if case.others and case.attempts < 5 and not case.aged:
        trouble = case.outlook.trouble
        are_proven = trouble is not None and 0 < trouble.refused_ms < case.evidence.proven_ms
        suspects = trouble.suspects if trouble is not None and are_proven else 0
        assert verdict.dead.keys() <= set(range(suspects))


def test_the_constants_have_the_values_that_the_table_says() -> None:
    assert (BACK_OFF_S, MAX_BACK_OFF_S, FORBIDDEN_S, MAX_FORBIDDEN_S) == (2, 300, 60, 3600)
    assert KEY_GIVEN_UP_MS == HOUR
    assert FIVE.events == 5
