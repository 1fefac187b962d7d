"""Whose fault a refusal is: the rows about 400, 413, 422 and other 4xx, and what counts as proof."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.buffer import Outlook, Trouble
from proxy.flusher.refusals import HOPELESS_REQUESTS, LEAST_TRIES, PATIENT_TRIES
from proxy.flusher.values import Verdict
from proxy.gate import Evidence, Outcome
from proxy.ledger import Answered, Dead
from tests.flusher.answers import NOW, WELL, answer, judged, lasting, named, pathed, troubled

ALL = frozenset(range(5))
REFUSALS = [400, 405, 406, 409, 410, 411, 413, 415, 418, 422, 426, 431, 451, 499]

REFUSED = troubled(refused_ms=NOW - 9_000, suspects=5)
"""A head whose first five were first refused nine seconds ago."""

PROOF: dict[str, Any] = {
    "evidence": replace(WELL, proven_ms=NOW - 8_999),
    "trouble": {"refused_ms": NOW - 9_000, "suspects": 5},
}
"""… since when another request was claimed and taken."""

NAMING_NOTHING = [
    b"",
    b"<html>413 Request Entity Too Large</html>",
    b"[" * 200_000,
    b'{"errors": [{"index": 1, "mess',
    b"\xff\xfe",
    {"message": "Invalid body"},
    {"errors": []},
    {"errors": {"index": 1}},
    named(-1),
    named(5),
    named(2**70),
    named(True),
    named("1"),
    named(1.0),
    pathed([]),
    pathed(["events"]),
    pathed(["events", -1, "type"]),
    pathed(["events", 5, "type"]),
    pathed(["events", "1", "type"]),
    pathed(["events", True]),
    pathed("events"),
]


def fate(verdict: Verdict) -> tuple[set[int], frozenset[int], float | None, bool]:
    assert verdict.answered is Answered.REFUSED
    assert verdict.outcome is Outcome.REFUSED
    assert not verdict.ambiguous
    return set(verdict.dead), verdict.again, verdict.wait_s, verdict.failed


# -- with proof ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize(
    ("body", "dead"),
    [
        (named(1), {1}),
        (named(0, 4), {0, 4}),
        (named(1, -1, 7), {1}),
        (named(3, 3, 3), {3}),
        (named(0, 1, 2, 3, 4), {0, 1, 2, 3, 4}),
        (pathed(["events", 1, "type"], ["events", 3, "url"], ["events", 3, "path"]), {1, 3}),
        (pathed(["events", 1]), {1}),
    ],
)
def test_the_named_are_buried_and_the_rest_goes_again_at_once_and_whole(
    status: int, body: Any, dead: set[int]
) -> None:
    verdict = judged(answer(status, body), attempts=3, others=True, max_events=7, **PROOF)
    assert fate(verdict) == (dead, ALL - dead, None, False)
    assert {death.reason for death in verdict.dead.values()} == {Dead.REFUSED}
    assert verdict.outlook is not None
    assert verdict.outlook.max_events == 100
    assert (verdict.outlook.trouble is None) == (dead == ALL)


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize(
    "body",
    [
        pathed(["visitorId"]),
        pathed(["userIdentity", "email"]),
        pathed(["events", 1, "type"], ["userIdentity", "email"]),
    ],
)
def test_where_a_field_of_the_envelope_is_named_the_batch_is_buried(status: int, body: Any) -> None:
    verdict = judged(answer(status, body), others=True, **PROOF)
    assert fate(verdict) == (set(ALL), frozenset(), None, False)
    assert {(death.reason, death.message) for death in verdict.dead.values()} == {
        (Dead.ENVELOPE_REFUSED, "Invalid")
    }


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("body", [b"", {"message": "no"}, named(-1), named(1), pathed([])])
def test_a_batch_of_one_needs_no_name(status: int, body: Any) -> None:
    verdict = judged(answer(status, body), events=1, max_events=1, others=True, **PROOF)
    assert fate(verdict) == ({0}, frozenset(), None, False)
    assert verdict.dead[0].reason is Dead.REFUSED
    assert verdict.outlook == Outlook(2), "bad events like company: batches grow again step by step"


def test_who_was_refused_together_with_the_buried_stays_under_suspicion() -> None:
    """Upstream may have named the first only; those behind the batch that was refused are new."""
    trouble = {"refused_ms": NOW - 9_000, "suspects": 3}
    verdict = judged(answer(400, named(0)), evidence=PROOF["evidence"], trouble=trouble, others=True)
    assert verdict.outlook == Outlook(
        100, troubled(refused_ms=NOW - 9_000, suspects=2, requests=1_001, successes=1_000)
    )


@pytest.mark.parametrize(
    ("suspects", "names", "dead", "left"),
    [
        (1, (0, 1, 2), {0}, 2),
        (2, (1, 4), {1}, 4),
        (3, (0, 3), {0}, 3),
        (4, (0, 1, 2, 3), {0, 1, 2, 3}, 0),
        (5, (1,), {1}, 4),
        (9, (0, 4), {0, 4}, 7),
    ],
)
def test_proof_is_of_those_that_were_refused_before_it_and_of_no_others(
    suspects: int, names: tuple[int, ...], dead: set[int], left: int
) -> None:
    """A slip may begin between two answers: what is named for the first time waits for a proof of its own."""
    trouble = {"refused_ms": NOW - 9_000, "suspects": suspects}
    verdict = judged(answer(400, named(*names)), others=True, evidence=PROOF["evidence"], trouble=trouble)
    assert fate(verdict) == (dead, ALL - dead, None, False)
    since_ms = NOW - 9_000 if set(names) == dead else NOW + 100
    remembered = troubled(suspects=left, refused_ms=since_ms, requests=1_001, successes=1_000)
    assert verdict.outlook == Outlook(100, remembered if left else None)


@pytest.mark.parametrize("suspects", [0, 2])
def test_who_is_accused_beside_the_suspects_is_kept_whatever_is_proven(suspects: int) -> None:
    """Without suspects, too: an erasure took some of them, and nobody knows which."""
    trouble = {"refused_ms": NOW - 9_000, "suspects": suspects}
    verdict = judged(answer(400, named(2, 3)), others=True, evidence=PROOF["evidence"], trouble=trouble)
    assert fate(verdict) == (set(), ALL, None, False)
    assert verdict.outlook == Outlook(2, troubled(suspects=4, refused_ms=NOW + 100))


# -- what is no proof ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proven_ms", "trouble", "certain"),
    [
        (NOW - 8_999, REFUSED, True),
        (NOW - 9_000, REFUSED, False),
        (NOW - 9_500, REFUSED, False),
        (0, REFUSED, False),
        (NOW - 1, None, False),
        (NOW - 1, troubled(), False),
        (NOW - 1, troubled(forbidden=3), False),
        (NOW - 1, troubled(suspects=1), False),
    ],
)
@pytest.mark.parametrize("events", [1, 5])
def test_proof_is_a_success_claimed_after_the_answer_of_the_first_refusal(
    proven_ms: int, trouble: Trouble | None, certain: bool, events: int
) -> None:
    """Not one of before it, not one that was in flight with it, and not the trouble of another answer."""
    verdict = judged(
        answer(400, named(0)),
        events=events,
        outlook=Outlook(100, trouble),
        evidence=replace(WELL, proven_ms=proven_ms),
        others=True,
    )
    assert bool(verdict.dead) == certain


@pytest.mark.parametrize("attempts", range(PATIENT_TRIES))
@pytest.mark.parametrize("body", [named(0), named(0, 3), named(0, 1, 2, 3, 4), pathed(["visitorId"])])
def test_without_proof_all_of_it_waits_while_others_could_bring_one(attempts: int, body: Any) -> None:
    verdict = judged(answer(400, body), attempts=attempts, others=True, evidence=WELL)
    assert fate(verdict) == (set(), ALL, 2 * 2**attempts, True)
    assert lasting(verdict).refused_ms == NOW + 100


def test_the_first_refusal_is_remembered_and_not_the_latest() -> None:
    before = {"refused_ms": 77, "suspects": 5}
    assert lasting(judged(answer(400, named(4)), others=True, trouble=before)).refused_ms == 77
    assert lasting(judged(answer(400), trouble=before)).refused_ms == 77
    assert lasting(judged(answer(400), events=6, trouble=before)).refused_ms == NOW + 100, "one is new"
    begun = lasting(judged(answer(400), evidence=Evidence(7, 5)))
    assert begun == Trouble(NOW, 7, 5, suspects=5, refused_ms=NOW + 100)
    assert lasting(judged(answer(400), trouble={"forbidden": 4})).forbidden == 4


@pytest.mark.parametrize(("first", "last"), [(1, 1), (3, 4), (4, 4)])
def test_without_proof_what_stands_before_the_first_named_goes_alone_and_is_the_proof(
    first: int, last: int
) -> None:
    verdict = judged(answer(400, named(first, last)), others=True, evidence=WELL)
    assert fate(verdict) == (set(), ALL, None, False)
    assert verdict.outlook is not None
    assert verdict.outlook.max_events == first
    assert lasting(verdict).suspects == last + 1


def test_where_the_good_ones_are_refused_too_names_are_not_relied_on_any_more() -> None:
    """An upstream that always names the last would be asked a hundred times."""
    verdict = judged(answer(400, named(4)), others=True, outlook=Outlook(100, REFUSED))
    assert verdict.outlook == Outlook(2, REFUSED)


# -- with nobody who could bring a proof ---------------------------------------------------------------

ALONE = [{"others": False}, {"others": True, "attempts": PATIENT_TRIES}]


@pytest.mark.parametrize("alone", ALONE)
@pytest.mark.parametrize(
    ("evidence", "named_dies", "unnamed_dies"),
    [
        (Evidence(), True, False),
        (Evidence(judged=HOPELESS_REQUESTS - 1), True, False),
        (Evidence(judged=HOPELESS_REQUESTS), False, False),
        (Evidence(judged=HOPELESS_REQUESTS, taken=1), True, True),
        (Evidence(judged=3, taken=3), True, True),
        (Evidence(judged=3, taken=3, refused_elsewhere=True), False, False),
        (Evidence(judged=3, refused_elsewhere=True), False, False),
    ],
)
def test_who_is_alone_is_judged_by_the_keys_latest_requests(
    alone: dict[str, Any], evidence: Evidence, named_dies: bool, unnamed_dies: bool
) -> None:
    for body, dies in ((named(0), named_dies), (pathed(["visitorId"]), named_dies), (b"", unnamed_dies)):
        verdict = judged(answer(400, body), events=1, evidence=evidence, **alone)
        assert bool(verdict.dead) == dies
        if not dies:
            attempts = alone.get("attempts", 0)
            assert fate(verdict) == (set(), frozenset({0}), 2 * 2**attempts, True)


# -- the search ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 413, 422, 499])
@pytest.mark.parametrize("body", NAMING_NOTHING, ids=lambda body: repr(body)[:40])
@pytest.mark.parametrize("others", [False, True])
def test_a_refusal_that_names_nothing_halves_the_next_batch_at_once(
    status: int, body: Any, others: bool
) -> None:
    verdict = judged(answer(status, body), others=others, evidence=WELL, attempts=3, aged=5)
    assert fate(verdict) == (set(), ALL, None, False)
    assert verdict.outlook is not None
    assert verdict.outlook.max_events == 2
    left = lasting(verdict)
    expected = (0, 0, True) if status == 413 else (5, NOW + 100, False)
    assert (left.suspects, left.refused_ms, left.too_large) == expected


@given(st.integers(2, 100), st.integers(0, 100))
def test_suspects_are_those_that_were_refused_last(events: int, before: int) -> None:
    verdict = judged(answer(400), events=events, trouble={"suspects": before})
    assert verdict.outlook == Outlook(events // 2, troubled(suspects=events, refused_ms=NOW + 100))


# -- the maximum age -----------------------------------------------------------------------------------


@pytest.mark.parametrize("aged", range(6))
@pytest.mark.parametrize("attempts", [0, LEAST_TRIES - 2, LEAST_TRIES - 1, 50])
def test_who_waits_for_a_proof_in_vain_expires_like_any_other(attempts: int, aged: int) -> None:
    hopeless = Evidence(judged=HOPELESS_REQUESTS)
    verdict = judged(answer(400, named(0)), attempts=attempts, aged=aged, evidence=hopeless)
    dead = set(range(aged)) if attempts >= LEAST_TRIES - 1 else set()
    assert set(verdict.dead) == dead
    assert verdict.again == ALL - dead
    assert {death.reason for death in verdict.dead.values()} <= {Dead.EXPIRED}
    assert (verdict.wait_s is None) == (dead == set(ALL))
