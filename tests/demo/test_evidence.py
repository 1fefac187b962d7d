"""The sandbox's record as evidence: what each entry says of the events in it."""

from collections.abc import Mapping
from typing import Any

from proxy.demo.comparison import Sender
from proxy.demo.evidence import gather, others_in
from proxy.demo.marks import SECRET, Marks
from proxy.sandbox import Entry

MARKS = Marks("run1")
M1, M2 = MARKS.marker("v1", 1), MARKS.marker("v1", 2)
HEADERS = (("user-agent", "Firefox"), ("x-forwarded-for", "192.0.2.1"), ("host", "localhost"))


def entry(seq: int, *events: Any, taken: tuple[int, ...] | None = None, **changes: Any) -> Entry:
    whole: dict[str, Any] = {
        "headers": HEADERS,
        "envelope": {"visitorId": "ann", "source": "client"},
        "status": 200,
        **changes,
    }
    return Entry(
        seq=seq,
        received_at=0.0,
        public_key="pk_demo",
        body_bytes=1,
        events=events,
        taken=tuple(range(len(events))) if taken is None else taken,
        fault=None,
        violations=(),
        **whole,
    )


def event(marker: str, **fields: Any) -> Mapping[str, Any]:
    return {"type": "pageview", "title": marker, "uuid": f"u-{marker}", **fields}


def test_an_event_taken_is_an_arrival_under_its_requests_sender():
    (arrival,) = gather([entry(3, event(M1))], MARKS).arrivals
    assert (arrival.marker, arrival.request, arrival.uuid) == (M1, 3, f"u-{M1}")
    assert arrival.content == f'{{"title":"{M1}","type":"pageview"}}'
    assert arrival.sender == Sender('{"source":"client","visitorId":"ann"}', "192.0.2.1", "Firefox", None)


def test_a_marker_is_found_wherever_it_stands():
    places = ({"url": f"https://x/?m={M1}"}, {"properties": {"marker": M1}}, {"formFields": {"message": M1}})
    assert [MARKS.find(place) for place in places] == [M1, M1, M1]
    assert MARKS.find(event(MARKS.marker("v1", 12))) == MARKS.marker("v1", 12)


def test_events_of_others_and_of_earlier_runs_are_counted_apart():
    entries = [entry(1, event("hello"), event(M1), event(Marks("run0").marker("v1", 1)), "no object")]
    evidence = gather(entries, MARKS)
    assert (len(evidence.arrivals), evidence.others, others_in(entries, MARKS)) == (1, 3, 3)


def test_a_request_that_was_taken_and_left_without_an_answer_is_unanswered():
    taken = entry(1, event(M1), status=None)
    not_taken = entry(2, event(M1), status=None, taken=())
    evidence = gather([taken, not_taken, entry(3, event(M1))], MARKS)
    assert evidence.unanswered == {1}
    assert [arrival.request for arrival in evidence.arrivals] == [1, 3]


def test_only_a_refusal_that_is_about_the_events_is_one():
    refused = entry(1, event(M1), event(M2), taken=(1,), status=207)
    comes_again = [
        entry(2 + n, event(M2), taken=(), status=status) for n, status in enumerate((429, 503, 403))
    ]
    evidence = gather([refused, *comes_again], MARKS)
    assert evidence.refused == {M1}


def test_of_several_refused_together_only_the_bad_ones_are_never_taken():
    together = entry(1, event(M1), event(M2, eventName="poison_named"), taken=(), status=400)
    assert gather([together], MARKS).refused == {M2}
    assert gather([entry(1, event(M1), taken=(), status=400)], MARKS).refused == {M1}


def test_a_secret_is_seen_wherever_it_left():
    evidence = gather(
        [
            entry(1, event(M1, formFields={"password": f"{SECRET}x"}), taken=(), status=503),
            entry(2, event(M1), headers=(*HEADERS, ("cookie", f"login={SECRET}x"))),
            entry(3, event(M2), envelope={"userIdentity": {"traits": {"pin": f"{SECRET}x"}}}),
        ],
        MARKS,
    )
    assert evidence.exposed == (
        "request 1: a visitor's secret stands in event 0",
        "request 2: a visitor's secret stands in headers",
        "request 3: a visitor's secret stands in envelope",
    )
