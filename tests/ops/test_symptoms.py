"""What an operator is told, by table: each symptom where it begins, and just before."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.buffer import KeyFigures
from proxy.gate import View
from proxy.gateway.figures import Figures, Refused
from proxy.ledger import Answered, Books, Dead, Pause, PlatformOutcome, Rejected, Unsafe
from proxy.ops.reloads import Reloads
from proxy.ops.symptoms import MAX_BY_KEY, MAX_EXHAUSTED, SECTION, Finding, Seen, Symptom, findings
from proxy.ops.trends import Trend
from proxy.ops.window import Window
from proxy.wire.limits import PublicKey

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
KEY, OTHER = PublicKey("pk_one"), PublicKey("pk_two")
WELL = Window(window_s=10.0, accepted_per_s=50.0, delivered_per_s=50.0, requests_per_s=20.0)
OPEN = View(rate_per_s=90.0, limit_per_s=100.0)


def key(
    held: int = 0,
    *,
    queues: int | None = None,
    stored_bytes: int = 0,
    oldest_held_ms: int | None = None,
    **gate: Any,
) -> KeyFigures:
    return KeyFigures(
        Books(accepted=held, held=held),
        queues=min(held, 1) if queues is None else queues,
        stored_bytes=stored_bytes,
        oldest_held_ms=oldest_held_ms,
        gate=replace(OPEN, **gate),
        succeeded=True,
    )


def seen(figures: Mapping[PublicKey, KeyFigures] | None = None, **given: Any) -> Seen:
    """A proxy that is well, except for what is given."""
    window = replace(WELL, **given.pop("window", {}))
    growth, stays_s = given.pop("growth_per_s", {}), given.pop("stays_s", 0.0)
    goes = given.pop("goes", True)
    trends = {each: Trend(growth.get(each), goes, stays_s) for each in (KEY, OTHER)}
    whole = {
        "checks": {"started": "ok", "running": "ok", "buffer": "ok"},
        "limit_per_s": 100.0,
        "max_bytes": 1_000,
        "max_bytes_per_key": 500,
        **given,
    }
    return Seen(window=window, trends=trends, figures={KEY: key(1)} if figures is None else figures, **whole)


def used_up(**changed: Any) -> Refused:
    """By the plan of gateway.api_key, until one second."""
    refused = Refused(
        code="plan_api_limit_exceeded",
        feature="api_calls",
        plan="growth",
        status=402,
        is_own=True,
        since_ms=0,
        until_ms=1_000,
        answered=0,
    )
    return replace(refused, **changed)


def gateway(*refused: Refused, **changed: Any) -> Figures:
    figures = Figures(api_key=True, tools=("*",), in_flight=0, refused=tuple(refused), key_refused_at_ms=None)
    return replace(figures, **changed)


def calls(**counts: int) -> dict[str, Any]:
    """Calls to the gateway in the last minute, by what became of them."""
    return {"recent": {f"platform_{PlatformOutcome(name)}": count for name, count in counts.items()}}


def named(those: Seen) -> set[Symptom]:
    return {finding.symptom for finding in findings(those)}


def only(those: Seen) -> Finding:
    (finding,) = findings(those)
    return finding


FAILED = {Answered.FAILED: 1}
PAUSED = [
    (Pause.KEY_REFUSED, Symptom.KEY_REFUSED, "error"),
    (Pause.UPSTREAM_FAILING, Symptom.UPSTREAM_FAILING, "error"),
    (Pause.REFUSAL_STORM, Symptom.REFUSAL_STORM, "error"),
    (Pause.RATE_LIMITED, Symptom.RATE_LIMITED, "warning"),
    (Pause.OPERATOR, Symptom.PAUSED_BY_OPERATOR, "warning"),
]

# What is seen, and which symptoms that is: the least that has each, and the most that does not.
CASES: list[tuple[str, Seen, set[Symptom]]] = [
    ("nothing", seen(), set()),
    # upstream
    ("a failure just now", seen(window={"failed_in_a_row": FAILED, "failing_s": 1.9}), set()),
    (
        "one failure, and since then nothing",
        seen(window={"failed_in_a_row": FAILED, "failing_s": 2.0}),
        {Symptom.UPSTREAM_NOT_ANSWERING},
    ),
    (
        "nine failures in a row",
        seen(window={"failed_in_a_row": {Answered.UNREACHED: 9}, "failing_s": 0.5}),
        set(),
    ),
    (
        "ten failures in a row, of two kinds",
        seen(
            window={"failed_in_a_row": {Answered.UNREACHED: 9, Answered.UNANSWERED: 1}, "failing_s": 0.5},
        ),
        {Symptom.UPSTREAM_NOT_ANSWERING},
    ),
    (
        "an outage after which nothing is held",
        seen({KEY: key()}, window={"failed_in_a_row": FAILED, "failing_s": 60.0}),
        set(),
    ),
    ("silent for a moment", seen(window={"silent_s": 2.9, "in_flight": 4}), set()),
    ("silent", seen(window={"silent_s": 3.0, "in_flight": 4}), {Symptom.UPSTREAM_NOT_ANSWERING}),
    ("a tenth fails", seen(window={"failed_per_s": 2.0}), set()),
    ("more fail", seen(window={"failed_per_s": 2.1}), {Symptom.UPSTREAM_UNSTEADY}),
    ("of few requests most fail", seen(window={"failed_per_s": 0.4, "requests_per_s": 0.5}), set()),
    (
        "of a few more",
        seen(window={"failed_per_s": 0.5, "requests_per_s": 0.6}),
        {Symptom.UPSTREAM_UNSTEADY},
    ),
    (
        "all fail",
        seen(window={"failed_per_s": 20.0, "failed_in_a_row": FAILED, "failing_s": 60.0}),
        {Symptom.UPSTREAM_NOT_ANSWERING},
    ),
    # keys
    *[(f"paused: {pause}", seen({KEY: key(paused=pause)}), {symptom}) for pause, symptom, _ in PAUSED],
    (
        "paused by the operator, and refused",
        seen({KEY: key(paused=Pause.KEY_REFUSED, by_operator=True)}),
        {Symptom.PAUSED_BY_OPERATOR},
    ),
    ("forbidden", seen({KEY: key(forbidden_origins=("https://a.example",))}), {Symptom.FORBIDDEN_ORIGINS}),
    # flood
    (
        "30 s to drain, hardly growing",
        seen({KEY: key(2_700, queues=2_700)}, growth_per_s={KEY: 17.9}),
        set(),
    ),
    (
        "steep, but no more than the linger explains",
        seen({KEY: key(225, queues=225)}, growth_per_s={KEY: 500.0}),
        set(),
    ),
    (
        "steep, long before it takes 30 s to drain",
        seen({KEY: key(226, queues=226)}, growth_per_s={KEY: 18.0}),
        {Symptom.FLOOD},
    ),
    (
        "steep because of a pause",
        seen({KEY: key(226, queues=226, paused=Pause.KEY_REFUSED)}, growth_per_s={KEY: 90.0}),
        {Symptom.KEY_REFUSED},
    ),
    (
        "more than 30 s to drain, growing",
        seen({KEY: key(2_701, queues=2_701)}, growth_per_s={KEY: 0.1}),
        {Symptom.FLOOD},
    ),
    (
        "full requests of one queue",
        seen({KEY: key(270_100, queues=1)}, growth_per_s={KEY: 1.0}),
        {Symptom.FLOOD},
    ),
    (
        "more than 30 s to drain, shrinking",
        seen({KEY: key(2_701, queues=2_701)}, growth_per_s={KEY: -1.0}),
        {Symptom.BACKLOG},
    ),
    (
        "more than 30 s to drain, not known which way",
        seen({KEY: key(2_701, queues=2_701)}),
        {Symptom.BACKLOG},
    ),
    (
        "a flood that is rate-limited now",
        seen({KEY: key(2_701, queues=2_701, paused=Pause.RATE_LIMITED)}, growth_per_s={KEY: 9.0}),
        {Symptom.RATE_LIMITED, Symptom.FLOOD},
    ),
    (
        "a pause's own length is no drain",
        seen({KEY: key(10, paused=Pause.RATE_LIMITED, paused_for_s=60.0)}),
        {Symptom.RATE_LIMITED},
    ),
    (
        "what waits because of the pause",
        seen({KEY: key(9_000, queues=9_000, paused=Pause.KEY_REFUSED)}, growth_per_s={KEY: 100.0}),
        {Symptom.KEY_REFUSED},
    ),
    (
        "what would wait without the pause, too",
        seen({KEY: key(9_000, queues=9_000, paused=Pause.KEY_REFUSED)}, growth_per_s={KEY: 101.0}),
        {Symptom.KEY_REFUSED, Symptom.FLOOD},
    ),
    (
        "an outage holds what the limit would let out",
        seen(
            {KEY: key(9_000, queues=9_000)},
            growth_per_s={KEY: 100.0},
            window={"failed_in_a_row": FAILED, "failing_s": 9.0},
        ),
        {Symptom.UPSTREAM_NOT_ANSWERING},
    ),
    (
        "a flood during an outage",
        seen(
            {KEY: key(9_000, queues=9_000)},
            growth_per_s={KEY: 101.0},
            window={"failed_in_a_row": FAILED, "failing_s": 9.0},
        ),
        {Symptom.UPSTREAM_NOT_ANSWERING, Symptom.FLOOD},
    ),
    (
        "what has gathered while it stood",
        seen({KEY: key(900, queues=900)}, growth_per_s={KEY: 80.0}, goes=False),
        set(),
    ),
    # a queue that waits by itself
    ("90 s old", seen({KEY: key(3, oldest_held_ms=0)}, now_ms=90_000, stays_s=5.0), set()),
    ("older", seen({KEY: key(3, oldest_held_ms=0)}, now_ms=90_001, stays_s=5.0), {Symptom.QUEUE_WAITS}),
    ("older, but it goes", seen({KEY: key(3, oldest_held_ms=0)}, now_ms=90_001, stays_s=4.9), set()),
    (
        "old because of a backlog",
        seen({KEY: key(2_701, queues=2_701, oldest_held_ms=0)}, now_ms=90_001, stays_s=5.0),
        {Symptom.BACKLOG},
    ),
    (
        "old because of a pause",
        seen({KEY: key(3, oldest_held_ms=0, paused=Pause.KEY_REFUSED)}, now_ms=90_001, stays_s=5.0),
        {Symptom.KEY_REFUSED},
    ),
    (
        "old because of its Origin",
        seen(
            {KEY: key(3, oldest_held_ms=0, forbidden_origins=("https://a.example",))},
            now_ms=90_001,
            stays_s=5.0,
        ),
        {Symptom.FORBIDDEN_ORIGINS},
    ),
    (
        "old because of an outage",
        seen(
            {KEY: key(3, oldest_held_ms=0)},
            now_ms=90_001,
            stays_s=5.0,
            window={"failed_in_a_row": FAILED, "failing_s": 9.0},
        ),
        {Symptom.UPSTREAM_NOT_ANSWERING},
    ),
    ("a quota", seen(window={"recent": {f"rejected_{Rejected.QUOTA}": 1}}), {Symptom.QUOTA_REACHED}),
    # the door
    (
        "a tenth is refused",
        seen(window={"recent": {f"rejected_{Rejected.INVALID}": 10, "accepted": 90}}),
        set(),
    ),
    (
        "more is refused",
        seen(window={"recent": {f"rejected_{Rejected.INVALID}": 11, "accepted": 89}}),
        {Symptom.EVENTS_REFUSED},
    ),
    (
        "the buffer is full",
        seen(window={"recent": {f"rejected_{Rejected.BUFFER_FULL}": 1}}),
        {Symptom.BUFFER_FULL},
    ),
    (
        "an undeclared load balancer",
        seen(window={"recent": {"untrusted": 1}}),
        {Symptom.FORWARDING_UNTRUSTED},
    ),
    ("a 500", seen(window={"ago_s": {"internal": 3_599.0}}), {Symptom.INTERNAL_ERROR}),
    ("a 500, an hour ago", seen(window={"ago_s": {"internal": 3_600.0}}), set()),
    # outcomes
    *[
        (f"dead: {reason}", seen(window={"recent": {f"dead_{reason}": 1}}), {Symptom.DEAD_LETTERS_GROWING})
        for reason in Dead
    ],
    ("a lost answer", seen(window={"recent": {"ambiguous": 1}}), {Symptom.AMBIGUOUS}),
    ("a stalled queue", seen(window={"ago_s": {"stalled": 3_899.0}}), {Symptom.QUEUES_STALLED}),
    ("one that was stalled", seen(window={"ago_s": {"stalled": 3_900.0}}), set()),
    ("another lane's event", seen(window={"ago_s": {"lane_faults": 5.0}}), {Symptom.LANE_FAULT}),
    # the buffer
    ("80 % full", seen({KEY: key(stored_bytes=400), OTHER: key(stored_bytes=400)}), set()),
    (
        "more",
        seen(
            {KEY: key(stored_bytes=400), OTHER: key(stored_bytes=400), PublicKey("pk_3"): key(stored_bytes=1)}
        ),
        {Symptom.BUFFER_NEARLY_FULL},
    ),
    ("a key that fills its part", seen({KEY: key(stored_bytes=401)}), {Symptom.BUFFER_NEARLY_FULL}),
    *[(f"unsafe: {reason}", seen(unsafe=(reason,)), {Symptom.BUFFER_UNSAFE}) for reason in Unsafe],
    ("a loss", seen(window={"ago_s": {"lost": 10.0}}), {Symptom.BUFFER_LOST}),
    (
        "differences that cancel each other",
        seen(
            {
                KEY: replace(key(), books=Books(difference=1)),
                OTHER: replace(key(), books=Books(difference=-1)),
            }
        ),
        {Symptom.LEDGER_DIFFERENCE},
    ),
    # the gateway
    ("a gateway that is well", seen(gateway=gateway(in_flight=9)), set()),
    ("a key that Outlit refuses", seen(gateway=gateway(key_refused_at_ms=0)), {Symptom.API_KEY_REFUSED}),
    (
        "one that is not set any more",
        seen(gateway=gateway(key_refused_at_ms=0, api_key=False)),
        set(),
    ),
    ("a plan used up", seen(gateway=gateway(used_up()), now_ms=999), {Symptom.PLAN_EXHAUSTED}),
    (
        "a caller's own",
        seen(gateway=gateway(used_up(is_own=False)), now_ms=999),
        {Symptom.PLAN_EXHAUSTED},
    ),
    ("a call failed", seen(window=calls(failed=1)), {Symptom.GATEWAY_FAILING}),
    ("a call got nowhere", seen(window=calls(unreachable=1)), {Symptom.GATEWAY_FAILING}),
    ("a call was cut off", seen(window=calls(broken=1)), {Symptom.GATEWAY_FAILING}),
    ("many failed, one was answered", seen(window=calls(failed=9, broken=9, answered=1)), set()),
    ("many failed, one was refused by Outlit", seen(window=calls(unreachable=9, refused=1)), set()),
    ("answered here", seen(window=calls(remembered=9, cached=9, rejected=9, abandoned=9)), set()),
    (
        "not ready",
        seen(checks={"started": "ok", "running": "ok", "buffer": "the disk is full"}),
        {Symptom.UNREADY},
    ),
    ("stopping", seen(checks={"started": "ok", "running": "stopping"}), {Symptom.UNREADY}),
    (
        "a bad reload",
        seen(reloads=Reloads(at_ms=1, successful=False, error="front.listen: no")),
        {Symptom.RELOAD_FAILED},
    ),
]


@pytest.mark.parametrize(("those", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_what_is_seen_is_said_from_its_boundary_on(those: Seen, expected: set[Symptom]):
    assert named(those) == expected


def test_every_symptom_is_in_the_table():
    assert set().union(*(expected for _, _, expected in CASES)) == set(Symptom)


@pytest.mark.parametrize("those", [case[1] for case in CASES], ids=[case[0] for case in CASES])
def test_everything_that_is_said_says_what_to_do(those: Seen):
    for finding in findings(those):
        for sentence in (finding.what, finding.what_to_do):
            assert re.fullmatch(r"[A-Z].*[.?]", sentence), sentence
            assert "  " not in sentence


@pytest.mark.parametrize("symptom", Symptom)
def test_every_symptom_points_to_a_section_of_the_readme(symptom: Symptom):
    headings = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert SECTION[symptom] in anchors


@pytest.mark.parametrize(("pause", "symptom", "severity"), PAUSED)
def test_a_pause_names_its_key_and_what_waits(pause: Pause, symptom: Symptom, severity: str):
    finding = only(seen({KEY: key(1_234, paused=pause), OTHER: key()}))
    assert (finding.symptom, finding.severity, finding.key) == (symptom, severity, KEY)
    assert "1,234 events wait" in finding.what


def test_an_outage_says_since_when_and_what_fails():
    away: dict[str, Any] = {
        "failed_in_a_row": {Answered.FAILED: 1_200, Answered.UNREACHED: 3},
        "failing_s": 200.0,
    }
    finding = only(seen(window=away))
    assert finding.severity == "error"
    assert "3 min" in finding.what
    assert "1,200 answered with a server error, 3 without a connection" in finding.what


def test_a_flood_says_how_much_waits_how_long_it_takes_and_how_it_grows():
    finding = only(seen({KEY: key(4_500, queues=4_500)}, growth_per_s={KEY: 812.4}))
    assert "4,500 requests wait, 50 s at 90 a second, and 812 more each second" in finding.what
    assert finding.key == KEY


def test_an_unready_buffer_says_why():
    finding = only(seen({}, checks={"started": "ok", "buffer": "no answer within 2 s"}))
    assert "buffer: no answer within 2 s" in finding.what


def test_a_refused_reload_says_why_in_one_line():
    reloads = Reloads(at_ms=1, successful=False, error="front.listen: no\nops.token: no")
    assert "front.listen: no ops.token: no" in only(seen(reloads=reloads)).what


def test_of_a_buffer_that_does_not_answer_nothing_is_made_up():
    those = Seen({"buffer": "away"}, WELL, None, 100.0, 1, 1, unsafe=(Unsafe.SAVING,))
    assert named(those) == {Symptom.UNREADY, Symptom.BUFFER_UNSAFE}


def test_a_used_up_plan_says_of_what_whose_until_when_and_what_it_spared():
    until_ms = 1_783_080_000_000
    plan = used_up(until_ms=until_ms, answered=1_234)
    finding = only(seen(gateway=gateway(plan), now_ms=until_ms - 7_200_000))
    assert finding.severity == "warning"
    assert finding.what == (
        "The plan growth of gateway.api_key has used up api_calls (402 plan_api_limit_exceeded) until"
        " 2026-07-03 12:00 UTC, 2 h from now; 1,234 calls answered here since."
    )
    assert "`outlit-proxy platform retry`" in finding.what_to_do


def test_a_used_up_plan_without_a_name_is_told_all_the_same():
    what = only(seen(gateway=gateway(used_up(plan=None, feature=None)))).what
    assert what.startswith("The plan of gateway.api_key has used up what it includes (402 ")


def test_many_plans_of_many_callers_are_one_finding_and_those_of_the_key_a_few():
    own = [used_up(feature=f"feature_{n}", until_ms=1_000 + n) for n in range(100)]
    others = [used_up(is_own=False, feature=f"theirs_{n}", answered=1) for n in range(100)]
    found = findings(seen(gateway=gateway(*others, *own)))
    assert len(found) == MAX_EXHAUSTED + 1
    assert "feature_0 " in found[0].what
    assert "(100 cases: theirs_0, theirs_1," in found[-1].what
    assert "theirs_5" not in found[-1].what
    assert "100 calls answered here since." in found[-1].what


def test_a_refused_api_key_is_an_error_and_says_that_the_token_is_not_meant():
    finding = only(seen(gateway=gateway(key_refused_at_ms=0), now_ms=240_000))
    assert finding.severity == "error"
    assert "4 min ago" in finding.what
    assert "not about their token" in finding.what
    assert "reload (SIGHUP), or restart where it comes as a variable or credential" in finding.what_to_do


def test_each_trouble_of_the_gateway_points_to_what_to_do_about_it():
    troubles = (Symptom.API_KEY_REFUSED, Symptom.PLAN_EXHAUSTED, Symptom.GATEWAY_FAILING)
    assert {SECTION[each] for each in troubles} == {"#when-the-gateway-is-the-trouble"}


def test_a_failing_platform_api_says_how_it_fails():
    finding = only(seen(window=calls(failed=1_200, unreachable=3)))
    assert finding.severity == "warning"
    assert "(1,200 answered with a server error, 3 without a connection)" in finding.what


def test_errors_come_first():
    those = seen(
        {KEY: key(1, by_operator=True), OTHER: key(paused=Pause.KEY_REFUSED)},
        window={"recent": {"ambiguous": 1}, "failed_in_a_row": FAILED, "failing_s": 9.0},
    )
    assert [finding.severity for finding in findings(those)] == ["error", "error", "warning", "warning"]
    assert findings(those)[0].symptom == Symptom.UPSTREAM_NOT_ANSWERING


def test_a_hundred_keys_in_the_same_trouble_leave_room_for_others():
    figures = {PublicKey(f"pk_{n}"): key(n, paused=Pause.KEY_REFUSED) for n in range(100)}
    found = findings(seen({**figures, KEY: key(by_operator=True)}))
    refused = [finding.key for finding in found if finding.symptom == Symptom.KEY_REFUSED]
    assert refused == [f"pk_{n}" for n in range(99, 99 - MAX_BY_KEY, -1)], "those that hold most"
    assert found[-1].key == KEY
