"""Which events may share a request, and which wait in one queue: identity over typed values."""

import json
import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.lanes import BUCKETS, Lane, LaneId, QueueId, QueueOf, lane_id, visitor_queue
from proxy.wire.envelope import Envelope, read_envelope
from proxy.wire.events import Reading

VISITOR = "0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b"
PAGEVIEW = {"type": "pageview", "url": "https://acme.example/", "path": "/"}
NEWER = {"type": "scroll", "url": "https://acme.example/", "path": "/"}
"""An event of an unknown type: it has its whole request read in the tolerant way."""


def read(fields: Mapping[str, Any], *events: Mapping[str, Any], seed: int = 0) -> Envelope:
    """An envelope as read from the wire; `seed` chooses its keys' order and its text's spelling."""
    chance = random.Random(seed)
    posted = _shuffled({**fields, "events": list(events) or [PAGEVIEW]}, chance)
    body = json.dumps(posted, indent=chance.choice([None, 1]))
    raw = json.dumps(posted, ensure_ascii=False)
    # A lone surrogate can only be sent as an escape.
    if chance.random() < 0.5 and not any("\ud800" <= char <= "\udfff" for char in raw):
        body = raw
    envelope = read_envelope(body.encode())
    assert isinstance(envelope, Envelope)
    return envelope


def _shuffled(value: Any, chance: random.Random) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        chance.shuffle(items)
        return {name: _shuffled(member, chance) for name, member in items}
    return [_shuffled(member, chance) for member in value] if isinstance(value, list) else value


def lane_of(fields: Mapping[str, Any], *events: Mapping[str, Any], seed: int = 0) -> LaneId:
    return lane_id(Lane(read(fields, *events, seed=seed).fields).header())


def typed(value: Any) -> Any:
    """Equal for equal typed values only; Python's own == takes 1, 1.0 and True for one."""
    match value:
        case dict():
            return "object", frozenset((name, typed(member)) for name, member in value.items())
        case list():
            return "array", tuple(map(typed, value))
        case float():
            return "float", repr(value)
        case _:
            return type(value).__name__, value


# -- lanes ---------------------------------------------------------------------------------------------

ALIKE = [
    *(1, 1.0, True, "1", "true", "1.0", "01", 0, 0.0, -0.0, False, "0", None, "null", "", " "),
    *(2**53, 2**53 + 1, float(2**53), 2**64, float(2**64), 2**70),
    *("é", "e\u0301", "É", "a", "A", "\u00e5", "\u212b", "\ufb01", "fi", "\ud83d", "a\x00"),
]
_alike = st.sampled_from(ALIKE)
_names = st.sampled_from(["a", "A", "é", "e\u0301", "", "1"])
_json = st.recursive(
    _alike,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_names, inner, max_size=2),
    max_leaves=4,
)
_maps = st.dictionaries(_names, _alike, max_size=2)
_envelopes = st.fixed_dictionaries(
    {"source": st.sampled_from(["server", "integration"])},
    optional={
        "userIdentity": st.fixed_dictionaries(
            {}, optional={"userId": st.sampled_from(["1", "01", "é", "e\u0301"]), "traits": _maps, "x": _json}
        ),
        "customerIdentity": st.fixed_dictionaries(
            {}, optional={"customerId": st.sampled_from(["1", "01"]), "customerTraits": _maps}
        ),
        "newer": _json,
        "Newer": _json,
    },
)


@given(_envelopes, _envelopes, st.integers(), st.sampled_from([PAGEVIEW, NEWER]))
def test_two_envelopes_are_of_one_lane_exactly_when_their_typed_values_are_equal(
    one: dict[str, Any], other: dict[str, Any], seed: int, event: dict[str, Any]
) -> None:
    assert lane_of(one) == lane_of(one, event, seed=seed)
    assert (lane_of(one) == lane_of(other, event, seed=seed)) == (typed(one) == typed(other))


@pytest.mark.parametrize(
    "place", ["newer", "userIdentity.traits.plan", "customerIdentity.customerTraits.plan", "newer.0.deep"]
)
def test_values_that_look_alike_never_share_a_lane(place: str) -> None:
    """Every pair of ALIKE, and the field's absence, in each place of an envelope."""

    def envelope(*held: Any) -> dict[str, Any]:
        match place:
            case "newer":
                return {"source": "server", **({"newer": held[0]} if held else {})}
            case "newer.0.deep":
                return {"source": "server", "newer": [{"deep": held[0]} if held else {}]}
            case _:
                identity, traits, name = place.split(".")
                return {"source": "server", identity: {traits: {name: held[0]} if held else {}}}

    lanes = [lane_of(envelope()), *(lane_of(envelope(value)) for value in ALIKE)]
    assert len(set(lanes)) == len(ALIKE) + 1


def test_an_absent_object_an_empty_one_and_one_with_an_empty_member_are_three_lanes() -> None:
    server = {"source": "server"}
    envelopes: list[dict[str, Any]] = [
        server,
        server | {"userIdentity": {}},
        server | {"userIdentity": {"traits": {}}},
    ]
    assert len({lane_of(envelope) for envelope in envelopes}) == 3


def test_sessions_sources_and_visitors_part_lanes() -> None:
    session = "0190a1b2-0000-7000-8000-000000000001"
    other = VISITOR[:-1] + "c"
    lanes = {
        lane_of({"visitorId": VISITOR}),
        lane_of({"visitorId": other}),
        lane_of({"visitorId": VISITOR, "sessionId": session}),
        lane_of({"visitorId": VISITOR, "sessionId": session[:-1] + "2"}),
        lane_of({"visitorId": VISITOR, "source": "client"}),
        lane_of({"visitorId": VISITOR, "source": "server"}),
    }
    assert len(lanes) == 6


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("userIdentity", "email"),
        ("userIdentity", "userId"),
        ("userIdentity", "fingerprint"),
        ("customerIdentity", "customerId"),
    ],
)
def test_an_identity_that_differs_in_one_field_parts_lanes(part: str, name: str) -> None:
    known = {"email": "ann@acme.example", "userId": "u1", "fingerprint": "f1"}
    if part == "customerIdentity":
        known = {"customerId": "c1"}
    lanes = {
        lane_of({"visitorId": VISITOR, part: identity})
        for identity in (
            known,
            known | {name: "bob@acme.example"},
            {other: value for other, value in known.items() if other != name},
        )
    }
    assert len(lanes) == 3


def test_an_empty_visitor_is_an_absent_one() -> None:
    assert lane_of({"source": "server", "visitorId": ""}) == lane_of({"source": "server"})


_texts = st.none() | st.sampled_from(["", "a", "A", "é", "e\u0301", '"', "\\", "null"]) | st.text(max_size=5)
_lanes = st.builds(
    Lane,
    st.sampled_from([b"{}", b'{"a":1}', b'{"a":"1"}', b'{"client_ip":null}']),
    client_ip=_texts,
    user_agent=_texts,
    origin=_texts,
)


@given(_lanes, _lanes)
def test_headers_are_equal_exactly_when_all_of_the_lane_is(one: Lane, other: Lane) -> None:
    assert (one.header() == other.header()) == (one == other)
    assert (lane_id(one.header()) == lane_id(other.header())) == (one == other)


@given(_lanes)
def test_a_lane_comes_back_from_its_header(lane: Lane) -> None:
    assert Lane.of_header(lane.header()) == lane


@given(_envelopes)
def test_an_envelope_comes_back_from_a_header_byte_for_byte(fields: dict[str, Any]) -> None:
    """With a lone surrogate too: its batch once stopped the flusher at each start."""
    text = read(fields).fields
    assert Lane.of_header(Lane(text, "192.0.2.1").header()).envelope == text


def test_a_lane_id_has_128_bits() -> None:
    assert len(lane_id(b"{}")) == 16


# -- queues --------------------------------------------------------------------------------------------


def queues(
    fields: Mapping[str, Any], *events: Mapping[str, Any], user_agent: str | None = None
) -> list[QueueId]:
    """The queue of each event of a request."""
    envelope = read(fields, *events)
    queue_of = QueueOf(envelope, lane_id(Lane(envelope.fields, user_agent=user_agent).header()))
    readings = [reading for reading in envelope.events if isinstance(reading, Reading)]
    assert len(readings) == len(envelope.events)
    return [queue_of(reading) for reading in readings]


def queue(fields: Mapping[str, Any], *events: Mapping[str, Any], user_agent: str | None = None) -> QueueId:
    (only,) = set(queues(fields, *events, user_agent=user_agent))
    return only


STRONGEST_FIRST: list[tuple[str, dict[str, Any]]] = [
    ("visitorId", {"visitorId": VISITOR}),
    ("userId", {"userIdentity": {"userId": "u1"}}),
    ("email", {"userIdentity": {"email": "ann@acme.example"}}),
    ("fingerprint", {"fingerprint": "f1"}),
    ("customerId", {"customerIdentity": {"customerId": "c1"}}),
]


def together(*parts: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"source": "server"}
    for part in parts:
        for name, value in part.items():
            fields[name] = {**fields[name], **value} if isinstance(fields.get(name), dict) else value
    return fields


@pytest.mark.parametrize("stronger", range(len(STRONGEST_FIRST)))
def test_the_strongest_identity_of_the_envelope_chooses_the_queue(stronger: int) -> None:
    _, alone = STRONGEST_FIRST[stronger]
    expected = queue(together(alone))
    for _, weaker in STRONGEST_FIRST[stronger + 1 :]:
        assert queue(together(weaker, alone)) == expected
        assert queue(together(weaker)) != expected
    assert queue(together(*(fields for _, fields in STRONGEST_FIRST[stronger:]))) == expected


def test_one_value_under_two_kinds_of_identity_is_two_queues() -> None:
    one: list[dict[str, Any]] = [
        {"userIdentity": {"userId": "one"}},
        {"fingerprint": "one"},
        {"customerIdentity": {"customerId": "one"}},
    ]
    assert len({queue(together(fields)) for fields in one}) == 3


def test_the_fingerprint_of_the_user_identity_counts_like_the_envelopes() -> None:
    assert queue(together({"userIdentity": {"fingerprint": "f1"}})) == queue(together({"fingerprint": "f1"}))


def test_a_visitor_keeps_one_queue_over_sessions_identities_agents_and_sources() -> None:
    requests: list[dict[str, Any]] = [
        {"visitorId": VISITOR},
        {"visitorId": VISITOR.upper()},
        {"visitorId": VISITOR, "sessionId": "0190a1b2-0000-7000-8000-000000000001"},
        {"visitorId": VISITOR, "userIdentity": {"email": "ann@acme.example"}},
        {"visitorId": VISITOR, "source": "server"},
    ]
    agents = [None, "", "Mozilla/5.0"]
    found = {queue(fields, user_agent=agent) for fields in requests for agent in agents}
    assert found == {visitor_queue(VISITOR)}


def test_an_identity_that_an_event_names_does_not_part_a_visitors_queue() -> None:
    identify = PAGEVIEW | {"type": "identify", "email": "ann@acme.example"}
    assert queue({"visitorId": VISITOR}, PAGEVIEW, identify, NEWER) == visitor_queue(VISITOR)


def custom(**fields: Any) -> dict[str, Any]:
    return PAGEVIEW | {"type": "custom", "eventName": "used", **fields}


def test_a_servers_user_keeps_one_queue_whatever_happened() -> None:
    of_user = [custom(userId="u1", properties={"n": n}) for n in range(20)]
    assert len(set(queues({"source": "server"}, *of_user))) == 1


def test_a_servers_events_without_an_envelope_identity_are_spread_over_the_senders_queues() -> None:
    of_many = [custom(userId=f"u{n}") for n in range(500)]
    assert len(set(queues({"source": "server"}, *of_many))) == BUCKETS


def test_two_senders_share_no_queue_for_events_of_nobody_in_the_envelope() -> None:
    of_many = [custom(userId=f"u{n}") for n in range(200)]
    one = queues({"source": "server"}, *of_many, user_agent="one")
    other = queues({"source": "server"}, *of_many, user_agent="other")
    assert not set(one) & set(other)


def test_old_clients_identities_in_the_properties_choose_the_queue_too() -> None:
    fields = {"source": "server"}
    for n in range(20):
        old = custom(properties={"__userId": f"u{n}", "__email": None, "n": n})
        assert queue(fields, old) == queue(fields, custom(userId=f"u{n}"))


def test_a_retry_waits_in_the_queue_of_its_first_try() -> None:
    events = [PAGEVIEW | {"title": f"page {n}"} for n in range(50)]
    fields = {"source": "integration"}
    assert queues(fields, *events) == queues(fields, *events)
    assert len(set(queues(fields, *events))) > 1
