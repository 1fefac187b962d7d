"""What the buffer is given of a request: the same whichever way it was read, and the same of a retry."""

import json
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import msgspec
import pytest
import uuid_utils
from hypothesis import given, settings

from proxy.buffer import Portion
from proxy.front.portions import Sorted, sort
from proxy.lanes import Lane, lane_id, visitor_queue
from proxy.wire.columns import Columns
from proxy.wire.envelope import Envelope, read_envelope, read_ordinary, read_tolerantly
from proxy.wire.events import TOO_LARGE
from proxy.wire.limits import REQUEST_BYTES
from proxy.wire.request import body_of
from tests.sandbox.bodies import OTHER_VISITOR, VISITOR, client, event, server
from tests.wire.spelling import ordinary_requests

RECEIVED_MS = 1_795_000_000_000
NIL = "00000000-0000-0000-0000-000000000000"
FRESH = uuid_utils.UUID("01900000-0000-7000-8000-000000000000")


def sorted_(made: Any, *, refuse_unknown: bool = False) -> Sorted:
    assert isinstance(made, Envelope)
    header = Lane(made.fields, "192.0.2.1", "agent", None).header()
    return sort(made, lane_id(header), header, RECEIVED_MS, refuse_unknown=refuse_unknown)


def posted(request: dict[str, Any]) -> Sorted:
    return sorted_(read_envelope(json.dumps(request, separators=(",", ":")).encode()))


def portion(request: dict[str, Any]) -> Portion:
    (only,) = posted(request).portions
    return only


def uuids(portion: Portion) -> list[str]:
    return [str(UUID(bytes=portion.uuids[at : at + 16])) for at in range(0, len(portion.uuids), 16)]


def texts(portion: Portion) -> list[Any]:
    return [json.loads(text) for text in portion.texts]


@pytest.fixture(scope="module", autouse=True)
def _same_fresh_uuid() -> Iterator[None]:
    """The uuid of an event without uuid and timestamp is made up; here always the same."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("uuid_utils.uuid7", lambda: FRESH)
        yield


@settings(max_examples=1000)
@given(ordinary_requests())
def test_the_buffer_is_given_the_same_whichever_way_a_request_was_read(body):
    at_once = read_ordinary(body)
    if not isinstance(at_once, Envelope):
        return
    assert isinstance(at_once.events, Columns)
    as_readings = msgspec.structs.replace(at_once, events=[*at_once.events])
    for refuse_unknown in (False, True):
        expected = sorted_(read_tolerantly(body), refuse_unknown=refuse_unknown)
        for made in (at_once, as_readings):
            found = sorted_(made, refuse_unknown=refuse_unknown)
            assert found.portions == expected.portions
            assert (*found.bad,) == (*expected.bad,)
            assert (found.too_large, found.unknown) == (expected.too_large, expected.unknown)


@settings(max_examples=300)
@given(ordinary_requests())
def test_of_each_event_the_columns_hold_one_value(body):
    made = read_envelope(body)
    if not isinstance(made, Envelope):
        return
    result = sorted_(made)
    assert sum(len(each.texts) for each in result.portions) + len(result.bad) == len(made.events)
    assert len({each.queue for each in result.portions}) == len(result.portions)
    for each in result.portions:
        assert len(each.uuids) == 16 * len(each.texts)
        assert len(each.dedup_ids) == len(each.texts)
        assert each.dedup_ids.typecode == "q"
        for uuid, text in zip(uuids(each), texts(each), strict=True):
            assert text["uuid"].lower() == uuid
            assert "timestamp" in text


# -- what a retry is recognised by -------------------------------------------------------------------------


def test_a_retry_is_recognised_event_by_event():
    request = client(event(number=1), event(number=2), event(uuid=..., title="a"), event(uuid=..., title="b"))
    assert portion(request) == portion(request)
    assert len(set(portion(request).dedup_ids)) == 4


def test_one_uuid_over_two_texts_is_two_events():
    (first, second) = portion(client(event(title="a"), event(title="b"))).dedup_ids
    assert first != second


def test_one_text_under_two_uuids_is_two_events():
    (first, second) = portion(client(event(number=1), event(number=2))).dedup_ids
    assert first != second


def test_what_is_recognised_is_the_event_as_it_was_posted():
    """Redacted the two are equal, but they were two events."""
    held = portion(client(event(url="https://a/?token=x"), event(url="https://a/?token=y")))
    assert held.texts[0] == held.texts[1]
    assert held.dedup_ids[0] != held.dedup_ids[1]


@pytest.mark.parametrize("beside", [event(number=7), event(unknown=1), event("new"), 7])
def test_an_event_is_recognised_whatever_it_is_sent_together_with(beside):
    for sent in (event(), event(uuid=...), event("custom", uuid=NIL), event(url="https://a/?token=x")):
        alone = portion(client(sent))
        together = portion(client(sent, beside))
        assert alone.dedup_ids[0] == together.dedup_ids[0]
        assert alone.texts[0] == together.texts[0]
        assert alone.uuids == together.uuids[:16]


def test_equal_events_without_a_uuid_are_told_apart_by_their_place_among_their_equals():
    twice = portion(client(event(uuid=...), event(number=1), event(uuid=...)))
    once = portion(client(event(uuid=...)))
    assert uuids(twice)[0] == uuids(once)[0] != uuids(twice)[2]
    assert twice.dedup_ids[0] == once.dedup_ids[0] != twice.dedup_ids[2]


def test_a_made_uuid_stays_the_same_from_version_to_version():
    """An update must not double what clients send again."""
    made = portion(client(event(uuid=...), event(uuid=...), event("custom", uuid=..., unknown=1)))
    assert uuids(made) == [
        "8e9f531d-cd42-861b-814e-c9feacb86c1b",
        "08a2573b-6b38-8ebb-a707-87165ed21b5b",
        "9e38d510-2803-86cf-9ce8-b6694d192aad",
    ]
    for text in uuids(made):
        assert (UUID(text).version, UUID(text).variant) == (8, "specified in RFC 4122")


def test_a_made_uuid_differs_between_queues():
    one = portion(client(event(uuid=...)))
    other = portion(client(event(uuid=...), visitorId=OTHER_VISITOR))
    assert one.uuids != other.uuids


@pytest.mark.parametrize("beside", [[], [event(unknown=1)]])
def test_without_a_timestamp_an_event_gets_a_fresh_uuid_and_the_time_of_receipt(beside):
    made = portion(client(event(uuid=..., timestamp=...), *beside))
    assert uuids(made)[0] == str(FRESH)
    assert texts(made)[0] == event(uuid=str(FRESH), timestamp=RECEIVED_MS)


@pytest.mark.parametrize("beside", [[], [event(unknown=1)]])
def test_the_letters_of_a_uuid_count_for_the_text_but_not_for_its_bytes(beside):
    lower, upper = (portion(client(event(uuid=uuid), *beside)) for uuid in (VISITOR, VISITOR.upper()))
    assert lower.uuids == upper.uuids
    assert lower.dedup_ids[0] != upper.dedup_ids[0]
    assert texts(upper)[0]["uuid"] == VISITOR.upper()


# -- where they go -----------------------------------------------------------------------------------------


def test_a_visitors_events_are_one_portion_in_order():
    events = [event(number=n) for n in range(120)]
    made = portion(client(*events))
    assert texts(made) == events
    assert made.queue == visitor_queue(VISITOR)
    assert Lane.of_header(made.header) == Lane(
        b'{"source":"client","visitorId":"%s"}' % VISITOR.encode(), "192.0.2.1", "agent", None
    )
    assert made.lane == lane_id(made.header)


@pytest.mark.parametrize("without", [{}, {"uuid": ...}])
@pytest.mark.parametrize("beside", [[], [event(unknown=1)]])
def test_a_servers_events_are_a_portion_a_queue_each_users_in_order(without, beside):
    events = [
        event("custom", number=n, userId=f"u{n % 5}", properties={"n": n}, **without) for n in range(100)
    ]
    made = posted(server(*events, *beside)).portions
    assert len(made) > 1
    seen: dict[str, list[int]] = {}
    for each in made:
        for text in texts(each):
            if "userId" in text:
                seen.setdefault(text["userId"], []).append(text["properties"]["n"])
    assert seen == {f"u{user}": [*range(user, 100, 5)] for user in range(5)}
    queues = {text["userId"]: each.queue for each in made for text in texts(each) if "userId" in text}
    assert len(queues) == 5


# -- what does not fit -------------------------------------------------------------------------------------


def padded(padding: int, **fields: Any) -> dict[str, Any]:
    return event("custom", number=1, properties={"a": "x" * padding}, **fields)


@pytest.mark.parametrize("without", [{}, {"uuid": ...}, {"timestamp": ...}, {"uuid": ..., "timestamp": ...}])
def test_an_event_is_kept_up_to_the_byte_at_which_no_request_could_carry_it(without):
    envelope = b'{"source":"client","visitorId":"%s"}' % VISITOR.encode()
    (text,) = portion(client(padded(900_000, **without))).texts
    padding = 900_000 + REQUEST_BYTES - len(body_of(envelope, [text]))
    for others in ([], [event()]):
        held = portion(client(*others, padded(padding, **without)))
        assert len(held.texts) == len(others) + 1
        assert len(body_of(envelope, held.texts[-1:])) == REQUEST_BYTES
        result = posted(client(*others, padded(padding + 1, **without)))
        assert sum(len(each.texts) for each in result.portions) == len(others)
        assert (result.bad, result.too_large) == ([(len(others), TOO_LARGE)], 1)


def test_a_request_of_nothing_good_makes_no_portion():
    result = posted(client(event(path=7), event(url="/")))
    assert (result.portions, len(result.bad)) == ([], 2)
