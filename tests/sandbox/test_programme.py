"""Whom a fault strikes, and when."""

import pytest

from proxy.sandbox import Fault, Names, OrderError, Programme, Seen, Stage, What
from tests.sandbox.bodies import OTHER_VISITOR, VISITOR, event

ASKED = Seen(
    public_key="pk_a",
    origin="https://a.example",
    visitor=VISITOR,
    events=(event("custom", 1, eventName="bought"), event("pageview", 2), "no object"),
    body_bytes=1_000,
)
OTHER = Seen(
    public_key="pk_b",
    origin="https://b.example",
    visitor=OTHER_VISITOR,
    events=(event("form", 3),),
    body_bytes=100,
)


def struck(programme, *seen, now=0.0):
    return [programme.next(each, now) is not None for each in seen]


@pytest.mark.parametrize(
    "condition",
    [
        {"public_key": "pk_a"},
        {"origin": "https://a.example"},
        {"visitor": VISITOR},
        {"event": "bought"},
        {"event": "pageview"},
        {"uuid": event(number=2)["uuid"]},
        {"event": "bought", "uuid": event(number=1)["uuid"], "public_key": "pk_a"},
    ],
    ids=str,
)
def test_a_fault_strikes_whom_its_conditions_name_and_nobody_else(condition):
    programme = Programme()
    programme.add(Fault(what=What.STATUS, **condition), now=0)
    assert struck(programme, OTHER, ASKED, OTHER) == [False, True, False]


@pytest.mark.parametrize(
    "condition",
    [
        {"event": "bought", "public_key": "pk_b"},
        {"event": "bought", "uuid": event(number=2)["uuid"]},
        {"origin": "https://A.example"},
    ],
    ids=str,
)
def test_conditions_must_all_be_met_and_by_the_same_event(condition):
    programme = Programme()
    programme.add(Fault(what=What.STATUS, **condition), now=0)
    assert struck(programme, ASKED, OTHER) == [False, False]


def test_every_nth_of_those_that_it_could_strike():
    programme = Programme()
    programme.add(Fault(what=What.STATUS, every=3, public_key="pk_a", requests=2), now=0)
    seen = [ASKED, OTHER, ASKED, ASKED, ASKED, ASKED, OTHER, ASKED, ASKED, ASKED, ASKED]
    assert [at for at, hit in enumerate(struck(programme, *seen)) if hit] == [3, 7]


def test_a_programme_in_time_begins_and_ends_by_the_clock():
    programme = Programme()
    first, second = Fault(what=What.HANG, after_s=10, seconds=5), Fault(what=What.RESET, after_s=12)
    programme.add(second, first, now=100)
    found = [programme.next(ASKED, now) for now in (109.9, 110, 113, 114.9, 115)]
    assert found == [None, first, first, first, second]
    assert [running.since for running in programme.running(115)] == [112]


def test_statuses_come_in_turn():
    programme = Programme()
    programme.add(Fault(what=What.STATUS, statuses=(503, 429, 502)), now=0)
    found = [programme.next(ASKED, 0) for _ in range(4)]
    assert [fault.status for fault in found if fault] == [503, 429, 502, 503]


@pytest.mark.parametrize(
    ("bound", "sizes"),
    [
        ({"max_events": 8, "shrink": 0.5}, [(9, 4), (5, 2), (3, 1), (2, 1), (2, 1)]),
        ({"max_bytes": 900, "shrink": 0.1}, [(901, 90), (91, 9), (10, 1), (2, 1)]),
        ({"max_events": 3}, [(4, 3), (4, 3)]),
    ],
    ids=str,
)
def test_a_bound_shrinks_with_every_refusal_but_lets_one_pass(bound, sizes):
    programme = Programme()
    programme.add(Fault(what=What.TOO_LARGE, **bound), now=0)
    for at, (refused, passes) in enumerate(sizes):
        assert struck(programme, sized(bound, refused), sized(bound, passes)) == [True, False], at


def sized(bound, size):
    if "max_bytes" in bound:
        return Seen(public_key="pk_a", body_bytes=size)
    return Seen(public_key="pk_a", events=({},) * size)


def test_early_faults_strike_before_the_body_is_read_and_the_others_after():
    programme = Programme()
    early, late, lying = (
        Fault(what=What.RESET_EARLY),
        Fault(what=What.RESET),
        Fault(what=What.HEADERS, headers={"Retry-After": "soon"}),
    )
    programme.add(early, late, lying, now=0)
    assert programme.next(ASKED, 0, Stage.UNREAD) is early
    assert programme.next(ASKED, 0, Stage.JUDGED) is late
    assert programme.next(ASKED, 0, Stage.LIMITED) is lying


@pytest.mark.parametrize(
    ("details", "message"),
    [
        ({"what": What.RESET_EARLY, "visitor": VISITOR}, "strikes before the body is read"),
        ({"what": What.RESET_MIDWAY, "event": "bought"}, "strikes before the body is read"),
        ({"what": What.REFUSE, "names": Names.PATHS}, "names needs event or uuid"),
        ({"what": What.REFUSE, "status": 500}, "status must be 400 to 499"),
        ({"what": What.STATUS, "status": 503, "statuses": (500,)}, "status or statuses"),
        ({"what": What.STATUS, "statuses": (503, 200)}, "status must be 300 to 599"),
        ({"what": What.TOO_LARGE}, "needs max_events or max_bytes"),
        ({"what": What.TOO_LARGE, "max_events": 5, "max_bytes": 5}, "one of the two"),
        ({"what": What.TOO_LARGE, "max_events": 5, "shrink": 1.5}, "shrink must be 0 to 1"),
        ({"what": What.DRIP}, "needs bytes_per_s"),
        ({"what": What.DRIP, "bytes_per_s": 0}, "bytes_per_s must be"),
        ({"what": What.ENDLESS, "answer_bytes": 0}, "answer_bytes must be 1 to"),
        ({"what": What.BODY}, "needs body"),
        ({"what": What.HEADERS}, "needs headers"),
        ({"what": What.HANG, "every": 0}, "every must be 1 to"),
        ({"what": What.HANG, "after_s": -1.0}, "after_s must be"),
        ({"what": What.LATENCY, "latency_ms": 50, "latency_to_ms": 40}, "latency_to_ms must be 50 to"),
        ({"what": What.HANG, "headers": {"Content-Length": "5"}}, "belongs to the connection"),
        ({"what": What.HANG, "headers": {"a b": "5"}}, "is no header's name"),
        ({"what": What.HANG, "headers": {"Date": "a\r\nb"}}, "printable ASCII"),
        ({"what": What.HANG, "headers": {"Date": "{nwo}"}}, "unknown place"),
        ({"what": What.HANG, "headers": {"Date": "{random:5..1}"}}, "has no integers"),
    ],
)
def test_a_fault_that_could_not_be_carried_out_is_refused(details, message):
    with pytest.raises(OrderError, match=message):
        Fault(**details)
