"""What each upstream answer means: a test for each row of the table in `proxy.flusher.verdict`."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.flusher.verdict import BACK_OFF_S, JITTER, MAX_BACK_OFF_S, Verdict, judge
from proxy.ledger import Answered, Dead
from proxy.wire.answers import Answer, NoAnswer
from proxy.wire.rate_headers import RateHeaders

ALL = frozenset(range(5))


def answer(status: int, body: Any = b"", **rate: Any) -> Answer:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, RateHeaders(**rate), text)


def judged(of: Answer | NoAnswer, *, events: int = 5, attempts: int = 0, jitter: float = 0.0) -> Verdict:
    return judge(of, events, attempts, jitter)


def named(*indices: Any) -> dict[str, Any]:
    return {"processed": 0, "errors": [{"index": index, "message": f"bad {index}"} for index in indices]}


def pathed(*paths: Any) -> dict[str, Any]:
    return {"message": "Invalid body", "errors": [{"path": path, "message": "Invalid"} for path in paths]}


# -- 2xx -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [200, 201, 202, 204, 226, 299])
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
    assert (verdict.answered, verdict.dead, verdict.again) == (Answered.DELIVERED, {}, frozenset())
    assert (verdict.wait_s, verdict.failed, verdict.ambiguous) == (None, False, False)
    assert verdict.inconsistent == inconsistent


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
def test_207_buries_the_named_and_delivers_the_rest(body: Any, dead: set[int], inconsistent: bool) -> None:
    verdict = judged(answer(207, body))
    assert (verdict.answered, set(verdict.dead)) == (Answered.PARTLY_DELIVERED, dead)
    assert {death.reason for death in verdict.dead.values()} <= {Dead.REFUSED}
    assert verdict.inconsistent == inconsistent


@given(
    st.binary()
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps).map(str.encode)
)
def test_207_never_sends_anything_again(body: bytes) -> None:
    verdict = judged(answer(207, body))
    assert (verdict.again, verdict.wait_s, verdict.failed, verdict.ambiguous) == (
        frozenset(),
        None,
        False,
        False,
    )


def test_a_dead_event_keeps_upstreams_own_words() -> None:
    assert judged(answer(207, named(2))).dead[2].message == "bad 2"
    assert judged(answer(400, named(2))).dead[2].message == "bad 2"
    unsaid = {"message": "Invalid body", "errors": [{"path": ["events", 1, "type"]}]}
    assert judged(answer(400, unsaid)).dead[1].message == "Invalid body"


# -- refusals ------------------------------------------------------------------------------------------

REFUSALS = [400, 405, 406, 409, 410, 411, 413, 415, 418, 422, 451, 499]


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize(
    ("body", "dead"),
    [
        (named(1), {1}),
        (named(0, 4), {0, 4}),
        (named(1, -1, 7), {1}),
        (named(0, 1, 2, 3, 4), {0, 1, 2, 3, 4}),
        (pathed(["events", 1, "type"], ["events", 3, "url"], ["events", 3, "path"]), {1, 3}),
        (pathed(["events", 1]), {1}),
    ],
)
def test_a_refusal_that_names_events_buries_them_and_sends_the_rest_at_once(
    status: int, body: Any, dead: set[int]
) -> None:
    verdict = judged(answer(status, body), attempts=3)
    assert (verdict.answered, set(verdict.dead), verdict.again) == (Answered.REFUSED, dead, ALL - dead)
    assert {death.reason for death in verdict.dead.values()} == {Dead.REFUSED}
    assert (verdict.wait_s, verdict.failed, verdict.ambiguous) == (None, False, False)


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize(
    "body",
    [
        pathed(["visitorId"]),
        pathed(["userIdentity", "email"]),
        pathed(["events", 1, "type"], ["userIdentity", "email"]),
    ],
)
def test_a_refusal_that_names_a_field_of_the_envelope_buries_the_batch(status: int, body: Any) -> None:
    verdict = judged(answer(status, body))
    assert (verdict.answered, set(verdict.dead), verdict.again) == (Answered.REFUSED, set(ALL), frozenset())
    assert {(death.reason, death.message) for death in verdict.dead.values()} == {
        (Dead.ENVELOPE_REFUSED, "Invalid")
    }
    assert (verdict.wait_s, verdict.failed) == (None, False)


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>413 Request Entity Too Large</html>",
        {"message": "Invalid body"},
        {"errors": []},
        named(-1),
        named(5),
        pathed([]),
        pathed(["events"]),
        pathed(["events", -1, "type"]),
        pathed(["events", 5, "type"]),
        pathed(["events", "1", "type"]),
    ],
)
def test_a_refusal_that_names_nothing_sends_all_again_after_a_wait(status: int, body: Any) -> None:
    verdict = judged(answer(status, body))
    assert (verdict.answered, verdict.dead, verdict.again) == (Answered.REFUSED, {}, ALL)
    assert (verdict.wait_s, verdict.failed, verdict.ambiguous) == (BACK_OFF_S, True, False)


# -- 429 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", named(1), pathed(["visitorId"])])
def test_429_sends_all_again_without_a_failed_try_and_tells_the_gate(body: Any) -> None:
    verdict = judged(answer(429, body, retry_after_s=7.0), attempts=5)
    assert (verdict.answered, verdict.dead, verdict.again) == (Answered.RATE_LIMITED, {}, ALL)
    assert (verdict.wait_s, verdict.failed, verdict.ambiguous) == (None, False, False)
    assert verdict.feedback.rate_limited
    assert verdict.feedback.headers == RateHeaders(retry_after_s=7.0)


# -- failures ------------------------------------------------------------------------------------------

FAILURES = [
    101,
    300,
    301,
    302,
    303,
    304,
    307,
    308,
    401,
    402,
    403,
    404,
    408,
    425,
    500,
    501,
    502,
    503,
    504,
    599,
    600,
    999,
]


@pytest.mark.parametrize("status", FAILURES)
@pytest.mark.parametrize("body", [b"", named(1), pathed(["visitorId"])])
def test_a_failure_says_nothing_of_the_events_and_backs_off(status: int, body: Any) -> None:
    verdict = judged(answer(status, body))
    assert (verdict.answered, verdict.dead, verdict.again) == (Answered.FAILED, {}, ALL)
    assert (verdict.wait_s, verdict.failed, verdict.ambiguous) == (BACK_OFF_S, True, False)
    assert not verdict.feedback.rate_limited


@pytest.mark.parametrize(
    ("retry_after_s", "wait_s"), [(None, BACK_OFF_S), (0.0, BACK_OFF_S), (1.0, BACK_OFF_S), (60.0, 60.0)]
)
def test_a_failures_retry_after_makes_the_wait_longer_and_never_shorter(
    retry_after_s: float | None, wait_s: float
) -> None:
    assert judged(answer(503, retry_after_s=retry_after_s)).wait_s == wait_s


# -- no answer -----------------------------------------------------------------------------------------


def test_no_answer_where_nothing_was_sent_backs_off() -> None:
    verdict = judged(NoAnswer(may_have_arrived=False, error="refused"))
    assert (verdict.answered, verdict.dead, verdict.again) == (Answered.UNREACHED, {}, ALL)
    assert (verdict.wait_s, verdict.failed, verdict.ambiguous) == (BACK_OFF_S, True, False)


def test_no_answer_where_it_may_have_arrived_is_ambiguous_too() -> None:
    verdict = judged(NoAnswer(may_have_arrived=True, error="reset"))
    assert (verdict.answered, verdict.dead, verdict.again) == (Answered.UNANSWERED, {}, ALL)
    assert (verdict.wait_s, verdict.failed, verdict.ambiguous) == (BACK_OFF_S, True, True)


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
_answers = st.builds(answer, st.integers(100, 999), _bodies).flatmap(
    lambda of: _rates.map(lambda rate: Answer(of.status, rate, of.body))
) | st.builds(NoAnswer, st.booleans(), st.just("lost"))


@given(_answers, st.integers(1, 5), st.integers(0, 10_000), st.floats(-1, 1))
def test_every_event_of_a_batch_has_exactly_one_fate(
    of: Answer | NoAnswer, events: int, attempts: int, jitter: float
) -> None:
    verdict = judge(of, events, attempts, jitter)
    everything = set(range(events))
    assert set(verdict.dead) <= everything
    assert verdict.again <= everything
    assert not verdict.again & set(verdict.dead)
    delivered = events - len(verdict.dead) - len(verdict.again)
    taken = isinstance(of, Answer) and 200 <= of.status < 300
    assert delivered == (events - len(verdict.dead) if taken else 0)
    # Whoever must wait failed, and only what goes again waits.
    assert (verdict.wait_s is not None) == verdict.failed
    assert not verdict.failed or verdict.again == everything
    assert not verdict.ambiguous or isinstance(of, NoAnswer)


@given(_answers, st.integers(0, 10_000), st.floats(-1, 1))
def test_a_back_off_lies_within_its_bounds(of: Answer | NoAnswer, attempts: int, jitter: float) -> None:
    wait_s = judge(of, 5, attempts, jitter).wait_s
    assert wait_s is None or BACK_OFF_S * (1 - JITTER) <= wait_s <= MAX_BACK_OFF_S * (1 + JITTER)


def test_back_offs_double_up_to_the_longest_and_are_spread() -> None:
    lost = NoAnswer(may_have_arrived=True, error="reset")
    waits = [judged(lost, attempts=attempts).wait_s for attempts in range(12)]
    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300, 300]
    assert judged(lost, attempts=2, jitter=-1).wait_s == pytest.approx(8 * 0.8)
    assert judged(lost, attempts=2, jitter=1).wait_s == pytest.approx(8 * 1.2)
    assert judged(lost, attempts=10**9).wait_s == 300
