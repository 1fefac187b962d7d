"""Each row of the contract's event tables: what is taken, what is refused and where, and what leaves."""

import json
from typing import Any

import pytest

from proxy.wire.envelope import Envelope, read_envelope
from proxy.wire.events import Reading
from proxy.wire.fields import Flaw
from tests.sandbox.bodies import SESSION, client, event, server

NIL, MAX = "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"
FILLED = "01900000-0000-7000-8000-000000000000"
RECEIVED_MS = 1_795_000_000_000

NOT_TEXT: list[Any] = [None, True, 7, 1.5, ["a"], {"a": "b"}]
NOT_NUMBER: list[Any] = [None, True, "7", [7], {}]
NOT_FILLED = ["", *NOT_TEXT]
NOT_MAP: list[Any] = [None, True, 7, "a", ["a"]]
NOT_SCALAR_MAP = [*NOT_MAP, {"a": [1]}, {"a": {}}]
SCALAR_MAPS = [{}, {"a": "b", "c": 1, "d": 1.5, "e": True, "f": None, "": 2**70}]
NOT_UUID = [
    *NOT_TEXT,
    "",
    "0190a1b2c3d47e5f8a6b0c1d2e3f4a5b",
    "{0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b}",
    "urn:uuid:0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b",
    "0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b\n",
    "0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5",
    "0190a1b2-c3d4-0e5f-8a6b-0c1d2e3f4a5b",
    "0190a1b2-c3d4-9e5f-8a6b-0c1d2e3f4a5b",
    "0190a1b2-c3d4-fe5f-8a6b-0c1d2e3f4a5b",
    "0190a1b2-c3d4-7e5f-7a6b-0c1d2e3f4a5b",
    "0190a1b2-c3d4-7e5f-ca6b-0c1d2e3f4a5b",
    "0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5g",
]
UUIDS = [
    f"0190a1b2-c3d4-{version}e5f-{variant}a6b-0c1d2e3f4a5b" for version in "12345678" for variant in "89aB"
]
EMAILS = ["a@b.co", "A.b-c_d'e+f@x-1.acme.example", "9@9.io", "o'neil@acme.example", "_@a.bc"]
NOT_EMAIL = [
    *NOT_TEXT,
    *("", "ann", "ann@acme", ".ann@acme.example", "ann.@acme.example", "ann'@acme.example"),
    *("a..b@acme.example", "ann@acme..example", "ann@acme.e", "ann@acme.ex4", "änn@acme.example"),
    *("ann@äcme.example", "a b@acme.example", "ann@acme.example\n", "a@b@acme.example", "@acme.example"),
    *("a#b@acme.example", "ann@-acme.example", "ann@.acme.example", "ann@localhost"),
]
URLS = [
    "https://a",
    "server://auth0|123",
    "server://user 1",
    "server://org:7",
    "a:b",
    "app+x.y-z://\n",
    "mailto:a@b",
]
NOT_URL = [
    *NOT_TEXT,
    "",
    "/pricing",
    "pricing",
    "://a",
    "1a://b",
    "server:",
    " https://a",
    "é://a",
    "https//a",
]
MOMENTS = [
    "2026-07-01",
    "2026-07-01T10:00:00Z",
    "2026-07-01T10:00:00.123+02:00",
    "2026-07-01 10:00",
    "2026-07-01T10:00-0500",
]
NOT_MOMENT = [
    *NOT_TEXT,
    "",
    "tomorrow",
    "01.07.2026",
    "2026-7-1",
    "2026-07-01T",
    "2026-07-01T10:00:00Z\n",
    "٢٠٢٦-07-01",
]

COMMON: dict[str, tuple[list[Any], list[Any]]] = {
    "timestamp": ([0, -1, 1_795_556_346_564, 1_795_556_346_564.25, 2**70, 1e300], NOT_NUMBER),
    "url": (URLS, NOT_URL),
    "path": (["", "/", "no slash", "\0"], NOT_TEXT),
    "uuid": (UUIDS, NOT_UUID),
    "referrer": (["", "https://b", "junk"], NOT_TEXT),
    "utm": (
        [{}, dict.fromkeys(("source", "medium", "campaign", "term", "content", "ref"), ""), {"odd": [1, {}]}],
        [*NOT_MAP, *({name: 1} for name in ("source", "medium", "campaign", "term", "content", "ref"))],
    ),
    "customerId": (["c"], NOT_FILLED),
    "customerTraits": (SCALAR_MAPS, NOT_SCALAR_MAP),
    "customerDomain": (["acme.example", ""], NOT_TEXT),
}
WHO = {
    "email": (EMAILS, NOT_EMAIL),
    "userId": (["u", "auth0|123"], NOT_FILLED),
    "fingerprint": (["f"], NOT_FILLED),
}
OWN: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
    "pageview": {"title": (["", "Pricing"], NOT_TEXT)},
    "custom": {
        "eventName": (["used", ""], NOT_TEXT),
        "properties": ([*SCALAR_MAPS, {"a": [1, {"b": None}], "c": {"d": {}}}], NOT_MAP),
        **WHO,
    },
    "form": {
        "formId": (["", "f"], NOT_TEXT),
        "formFields": ([{}, {"company": "Acme", "": ""}], [*NOT_MAP, {"a": 1}, {"a": None}, {"a": []}]),
    },
    "identify": {
        "traits": (
            [*SCALAR_MAPS, {"customer": {"id": "c", "deep": [1]}}, {"customer": "c"}],
            [*NOT_SCALAR_MAP, {"customer": [1]}, {"Customer": {}}],
        ),
        **WHO,
    },
    "engagement": {
        "activeTimeMs": ([0, 1.5], NOT_NUMBER),
        "totalTimeMs": ([0, 1.5], NOT_NUMBER),
        "sessionId": ([*UUIDS, NIL, MAX], NOT_UUID),
    },
    "calendar": {
        "provider": (["cal.com", "calendly", "unknown"], [*NOT_TEXT, "", "Cal.com", "outlook"]),
        "eventType": (["Demo", ""], NOT_TEXT),
        "startTime": (MOMENTS, NOT_MOMENT),
        "endTime": (MOMENTS, NOT_MOMENT),
        "duration": ([30, 0.5], NOT_NUMBER),
        "isRecurring": ([True, False], [None, 0, 1, "true", [], {}]),
        "inviteeEmail": ([*EMAILS, "whatever the page said"], NOT_TEXT),
        "inviteeName": (["Ann", ""], NOT_TEXT),
    },
    "stage": {
        "stage": (["activated", "engaged", "inactive"], [*NOT_TEXT, "", "discovered", "Activated"]),
        "properties": (SCALAR_MAPS, NOT_SCALAR_MAP),
        **WHO,
    },
    "billing": {
        "status": (["trialing", "paid", "churned"], [*NOT_TEXT, "", "PAID"]),
        "stripeCustomerId": (["cus_1"], NOT_FILLED),
        "domain": (["acme.example", ""], NOT_TEXT),
        "properties": (SCALAR_MAPS, NOT_SCALAR_MAP),
    },
    "brand_new_type": {},
}
REQUIRED = {
    "custom": ["eventName"],
    "engagement": ["activeTimeMs", "totalTimeMs", "sessionId"],
    "calendar": ["provider"],
    "stage": ["stage"],
    "billing": ["status"],
}

GOOD = [
    (kind, field, value)
    for kind, own in OWN.items()
    for field, (good, _) in {**COMMON, **own}.items()
    for value in good
]
BAD = [
    (kind, field, value)
    for kind, own in OWN.items()
    for field, (_, bad) in {**COMMON, **own}.items()
    for value in bad
]


def read(sent: Any, **envelope: Any) -> Reading | Flaw:
    """One event as it is read within a request."""
    made = read_envelope(json.dumps(client(sent, **envelope)).encode())
    assert isinstance(made, Envelope)
    (reading,) = made.events
    return reading


def stored(reading: Reading | Flaw) -> Any:
    """What leaves, as upstream reads it."""
    assert isinstance(reading, Reading), reading
    return json.loads(reading.stored(reading.uuid or FILLED, RECEIVED_MS))


@pytest.mark.parametrize("kind", OWN)
def test_each_type_is_taken_with_all_of_its_fields_and_with_the_required_alone(kind):
    whole = event(kind, **{field: good[0] for field, (good, _) in {**COMMON, **OWN[kind]}.items()})
    for sent in (event(kind), whole):
        reading = read(sent)
        assert stored(reading) == sent
        assert isinstance(reading, Reading)
        assert (reading.unknown_type, reading.unknown_fields) == (kind == "brand_new_type", 0)


@pytest.mark.parametrize(("kind", "field", "value"), GOOD, ids=lambda value: ascii(value)[:40])
def test_a_field_is_taken_with_every_value_of_its_type_and_leaves_unchanged(kind, field, value):
    sent = event(kind, **{field: value})
    assert stored(read(sent)) == sent


@pytest.mark.parametrize(("kind", "field", "value"), BAD, ids=lambda value: ascii(value)[:40])
def test_a_field_of_another_type_is_refused_and_named(kind, field, value):
    flaw = read(event(kind, **{field: value}))
    assert isinstance(flaw, Flaw)
    assert flaw.path[:1] == (field,)


@pytest.mark.parametrize(
    ("kind", "field"),
    [(kind, field) for kind in OWN for field in ("type", "url", "path", *REQUIRED.get(kind, []))],
)
def test_a_required_field_that_is_missing_is_named(kind, field):
    sent = event(kind)
    del sent[field]
    flaw = read(sent)
    assert flaw == Flaw((field,), "is required")


@pytest.mark.parametrize("value", NOT_TEXT)
def test_a_type_that_is_no_string_is_refused(value):
    flaw = read(event(type=value))
    assert isinstance(flaw, Flaw)
    assert flaw.path == ("type",)


@pytest.mark.parametrize("sent", [None, True, 7, "event", [], [event()]])
def test_what_is_no_object_is_no_event(sent):
    assert read(sent) == Flaw((), "expected an object")


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, False),
        ({"email": "a@b.co"}, True),
        ({"userId": "u"}, True),
        ({"fingerprint": "f"}, False),
        ({"customerId": "c"}, False),
    ],
)
def test_identify_needs_an_address_or_a_user(given, taken):
    assert isinstance(read(event("identify", **{"email": ..., **given})), Reading) is taken


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({}, False),
        ({"customerId": "c"}, True),
        ({"stripeCustomerId": "cus_1"}, True),
        ({"domain": "acme.example"}, True),  # Node 1.1.0
        ({"customerDomain": "acme.example"}, True),  # Node 1.4.5
        ({"properties": {"customerId": "c"}}, False),
    ],
)
def test_billing_needs_a_customer_in_a_new_or_an_old_form(given, taken):
    assert isinstance(read(event("billing", **{"customerId": ..., **given})), Reading) is taken


IDENTITIES = [
    ({"email": "a@b.co"}, {}),
    ({"userId": "u"}, {}),
    ({"fingerprint": "f"}, {}),
    ({"customerId": "c"}, {}),
    ({"properties": {"__email": "a@b.co", "__userId": None, "__fingerprint": None}}, {}),
    ({"properties": {"__email": None, "__userId": "u"}}, {}),
    ({"properties": {"__fingerprint": "f"}}, {}),
    ({}, {"userIdentity": {"email": "a@b.co"}}),
    ({}, {"userIdentity": {"userId": "u"}}),
    ({}, {"userIdentity": {"fingerprint": "f"}}),
    ({}, {"customerIdentity": {"customerId": "c"}}),
    ({}, {"fingerprint": "f"}),
]
NOBODY: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"properties": {"__email": None, "__userId": None, "__fingerprint": None}}, {}),
    ({"properties": {"__userId": ""}}, {}),
    ({"properties": {"__userId": 7}}, {}),
    ({"properties": {"email": "a@b.co"}}, {}),
    ({"properties": {"__customerId": "c"}}, {}),
    ({}, {"userIdentity": {"traits": {"a": 1}}, "customerIdentity": {"customerTraits": {}}}),
    ({}, {"userIdentity": {"email": "refused@localhost"}}),
]


@pytest.mark.parametrize("extra", [{}, {"unknown_field": 1}])
@pytest.mark.parametrize(("fields", "envelope"), IDENTITIES)
def test_a_servers_custom_event_that_names_somebody_is_taken(fields, envelope, extra):
    sent = event("custom", **fields, **extra)
    assert stored(read(sent, source="server", visitorId=..., **envelope)) == sent


@pytest.mark.parametrize("extra", [{}, {"unknown_field": 1}])
@pytest.mark.parametrize(("fields", "envelope"), NOBODY)
def test_a_servers_custom_event_of_nobody_is_refused(fields, envelope, extra):
    sent = event("custom", **fields, **extra)
    assert isinstance(read(sent, source="server", visitorId=..., **envelope), Flaw)
    assert isinstance(read(sent, source="integration", visitorId=..., **envelope), Reading)
    assert isinstance(read(sent, **envelope), Reading)


@pytest.mark.parametrize("kind", sorted(OWN.keys() - {"custom"}))
def test_a_servers_events_of_other_types_need_nobody(kind):
    made = read_envelope(json.dumps(server(event(kind))).encode())
    assert isinstance(made, Envelope)
    assert isinstance(made.events[0], Reading)


@pytest.mark.parametrize("extra", [{}, {"unknown_field": 1}])
@pytest.mark.parametrize("uuid", [..., NIL, MAX, MAX.upper()])
def test_a_uuid_of_nobodys_is_missing_and_is_filled_in(uuid, extra):
    reading = read(event(uuid=uuid, **extra))
    assert isinstance(reading, Reading)
    assert reading.uuid is None
    assert stored(reading) == {**event(), "uuid": FILLED, **extra}


@pytest.mark.parametrize("extra", [{}, {"unknown_field": 1}])
def test_a_uuid_stays_as_the_client_wrote_it(extra):
    sent = event(uuid="0190A1B2-c3d4-7E5F-8a6b-0c1d2e3f4a5b", **extra)
    assert stored(read(sent)) == sent


@pytest.mark.parametrize("extra", [{}, {"unknown_field": 1}])
def test_a_missing_timestamp_is_the_time_of_receipt(extra):
    assert stored(read(event(timestamp=..., **extra))) == {**event(), "timestamp": RECEIVED_MS, **extra}


@pytest.mark.parametrize("text", ["1795556346564", "1795556346564.0", "1.7955563465645e12"])
def test_whole_and_broken_numbers_stay_what_they_were(text):
    body = json.dumps(client(event(timestamp=...))).replace('"url"', f'"timestamp": {text}, "url"', 1)
    made = read_envelope(body.encode())
    assert isinstance(made, Envelope)
    timestamp = stored(made.events[0])["timestamp"]
    assert (timestamp, type(timestamp)) == (json.loads(text), type(json.loads(text)))


def test_unknown_fields_and_types_are_kept_and_counted():
    reading = read(event(unknown_field=[1], another=None, utm={"source": "a", "odd": 1}))
    assert isinstance(reading, Reading)
    assert (reading.unknown_type, reading.unknown_fields) == (False, 2)
    reading = read(event("brand_new_type", unknown_field={"a": 1}))
    assert isinstance(reading, Reading)
    assert (reading.unknown_type, reading.unknown_fields) == (True, 1)
    reading = read(event("pageview", eventName="of another type"))
    assert isinstance(reading, Reading)
    assert (reading.unknown_type, reading.unknown_fields) == (False, 1)


def test_each_event_is_judged_on_its_own():
    events = [
        event(number=1),
        event(path=7),
        "junk",
        event("custom", eventName=...),
        event(number=2),
        event(session=SESSION),
    ]
    made = read_envelope(json.dumps(client(*events)).encode())
    assert isinstance(made, Envelope)
    assert [isinstance(reading, Reading) for reading in made.events] == [
        True,
        False,
        False,
        False,
        True,
        True,
    ]
