"""What is taken and what is refused, by envelope and by type of event, through HTTP."""

import json
from pathlib import Path
from typing import Any

import pytest

from proxy.sandbox import Rules
from tests.sandbox.bodies import SESSION, VISITOR, client, event, server

RECORDED = Path(__file__).parent.parent / "data" / "recorded"
NIL, MAX = "00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"

TAKEN = [
    event("pageview"),
    event("pageview", title="Pricing", referrer="", utm={"source": "x", "odd": 1}, path=""),
    event("pageview", uuid=...),
    event("pageview", uuid=NIL),
    event("pageview", uuid=MAX),
    event("pageview", url="server://auth0|123"),
    event("pageview", url="server://user 1"),
    event("pageview", timestamp=1.5),
    event("pageview", customerId="c", customerTraits={"a": None, "b": 1, "c": "d", "e": True}),
    event("pageview", customerDomain="acme.example"),
    event("pageview", unknownField=[1]),
    event("custom"),
    event(
        "custom",
        properties={"nested": {"deep": [1, {"a": None}]}, "cut": "x\ud83d", "nul": "\0", "big": 2**70},
    ),
    event("custom", email="o'neil+tag@mail.acme.example", userId="u", fingerprint="f"),
    event("form", formId="f", formFields={"company": "Acme", "size": "11-50"}),
    event("form"),
    event("identify", traits={"plan": "pro", "seats": 3, "none": None}),
    event("identify", email=..., userId="usr_1", fingerprint="f"),
    event("identify", traits={"customer": {"id": "c", "domain": "acme.example"}}),
    event("engagement"),
    event("calendar"),
    event(
        "calendar",
        eventType="Demo",
        startTime="2026-07-01T10:00:00Z",
        endTime="2026-07-01T10:30:00+02:00",
        duration=30,
        isRecurring=False,
        inviteeEmail="a@b.co",
        inviteeName="Ann",
    ),
    event("stage", properties={"__email": "a@b.co", "__userId": None}, userId="u"),
    event("billing", properties={"a": 1}),
    event("billing", customerId=..., stripeCustomerId="cus_1"),
    event("billing", customerId=..., domain="acme.example"),
    event("billing", customerId=..., customerDomain="acme.example"),
    event("brand_new_type", whatever={"a": 1}),
]

REFUSED: list[tuple[Any, list[str | int]]] = [
    ("no object", []),
    (event(type=...), ["type"]),
    (event(type=7), ["type"]),
    (event(timestamp=...), ["timestamp"]),
    (event(timestamp="1795556346564"), ["timestamp"]),
    (event(timestamp=True), ["timestamp"]),
    (event(timestamp=None), ["timestamp"]),
    (event(url=...), ["url"]),
    (event(url="/pricing"), ["url"]),
    (event(url="server:"), ["url"]),
    (event(path=...), ["path"]),
    (event(path=None), ["path"]),
    (event(uuid="0190a1b2c3d47e5f8a6b0c1d2e3f4a5b"), ["uuid"]),
    (event(uuid="0190a1b2-c3d4-9e5f-8a6b-0c1d2e3f4a5b"), ["uuid"]),
    (event(uuid="0190a1b2-c3d4-7e5f-ca6b-0c1d2e3f4a5b"), ["uuid"]),
    (event(uuid=VISITOR + "\n"), ["uuid"]),
    (event(uuid=None), ["uuid"]),
    (event(referrer=1), ["referrer"]),
    (event(utm={"source": None}), ["utm"]),
    (event(utm="google"), ["utm"]),
    (event(customerId=""), ["customerId"]),
    (event(customerTraits={"a": {}}), ["customerTraits"]),
    (event("pageview", title=None), ["title"]),
    (event("custom", eventName=...), ["eventName"]),
    (event("custom", properties=[1]), ["properties"]),
    (event("custom", userId=""), ["userId"]),
    (event("custom", fingerprint=""), ["fingerprint"]),
    (event("form", formFields={"a": 1}), ["formFields"]),
    (event("identify", email=...), []),
    (event("identify", traits={"a": {"b": 1}}), ["traits"]),
    (event("identify", traits={"customer": [1]}), ["traits"]),
    (event("engagement", activeTimeMs=...), ["activeTimeMs"]),
    (event("engagement", totalTimeMs="1"), ["totalTimeMs"]),
    (event("engagement", sessionId=...), ["sessionId"]),
    (event("engagement", sessionId=""), ["sessionId"]),
    (event("calendar", provider="outlook"), ["provider"]),
    (event("calendar", provider=["cal.com"]), ["provider"]),
    (event("calendar", startTime="tomorrow"), ["startTime"]),
    (event("calendar", isRecurring=0), ["isRecurring"]),
    (event("calendar", duration=True), ["duration"]),
    (event("stage", stage="discovered"), ["stage"]),
    (event("stage", properties={"a": []}), ["properties"]),
    (event("billing", status=...), ["status"]),
    (event("billing", customerId=...), []),
    (event("brand_new_type", path=...), ["path"]),
]


@pytest.mark.parametrize("sent", TAKEN, ids=lambda sent: f"{sent['type']}: {list(sent)[4:]!a}"[:60])
async def test_a_valid_event_is_taken_and_recorded_unchanged(post, sandbox, sent):
    reply = await post(client(sent))
    assert (reply.status, reply.body) == (200, {"success": True, "processed": 1})
    assert sandbox.record.entries[0].taken_events == (sent,)


@pytest.mark.parametrize(("sent", "field"), REFUSED, ids=lambda value: ascii(value)[-50:])
async def test_a_bad_event_is_named_and_its_neighbours_are_taken(post, sandbox, sent, field):
    reply = await post(client(event(number=1), sent, event(number=2)))
    assert reply.status == 207
    assert reply.body["success"] is False
    assert reply.body["processed"] == 2
    assert [error["index"] for error in reply.body["errors"]] == [1]
    assert reply.body["errors"][0].keys() == {"index", "message"}
    entry = sandbox.record.entries[0]
    assert entry.taken == (0, 2)
    assert [violation.path for violation in entry.violations if violation.kind == "event"] == [
        ("events", 1, *field)
    ]


@pytest.mark.parametrize(
    "email",
    ["a@b.co", "A.b-c_d'e+f@x-1.acme.example", "9@9.io"],
)
async def test_an_address_by_the_published_rule_is_taken(post, email):
    assert (await post(client(event("identify", email=email)))).status == 200


@pytest.mark.parametrize(
    "email",
    [
        "",
        "ann",
        "ann@acme",
        ".ann@acme.example",
        "ann.@acme.example",
        "ann'@acme.example",
        "a..b@acme.example",
        "ann@acme..example",
        "ann@acme.e",
        "ann@acme.ex4",
        "änn@acme.example",
        "ann@äcme.example",
        "a b@acme.example",
        "ann@acme.example\n",
        "a@b@acme.example",
        "@acme.example",
        "a#b@acme.example",
    ],
)
async def test_an_address_against_the_published_rule_is_refused(post, email):
    assert (await post(client(event("identify", email=email)))).status == 207


GOOD_ENVELOPES = [
    client(),
    client(source=...),
    client(sessionId=SESSION, fingerprint="f", whatever=[1]),
    client(userIdentity={"email": "a@b.co", "userId": "u", "fingerprint": "f", "traits": {"a": 1}}),
    client(userIdentity={}, customerIdentity={"customerId": "c", "customerTraits": {"a": None}}),
    client(visitorId=NIL),
    server(),
    server(source="integration"),
]
BAD_ENVELOPES: list[tuple[Any, list[str]]] = [
    (client(events=...), ["events"]),
    (client(events=[]), ["events"]),
    (client(events={"0": event()}), ["events"]),
    (client(*[event(number=n) for n in range(101)]), ["events"]),
    (client(source="browser"), ["source"]),
    (client(source=None), ["source"]),
    (client(visitorId=...), ["visitorId"]),
    (client(source=..., visitorId=...), ["visitorId"]),
    (client(visitorId=""), ["visitorId"]),
    (client(visitorId="me"), ["visitorId"]),
    (server(visitorId=""), ["visitorId"]),
    (client(sessionId="s"), ["sessionId"]),
    (client(fingerprint=""), ["fingerprint"]),
    (client(userIdentity="ann"), ["userIdentity"]),
    (client(userIdentity=None), ["userIdentity"]),
    (client(userIdentity={"email": "ann@localhost"}), ["userIdentity", "email"]),
    (client(userIdentity={"userId": ""}), ["userIdentity", "userId"]),
    (client(userIdentity={"traits": {"a": []}}), ["userIdentity", "traits"]),
    (client(customerIdentity={"customerId": ""}), ["customerIdentity", "customerId"]),
    (client(customerIdentity={"customerTraits": 1}), ["customerIdentity", "customerTraits"]),
]


@pytest.mark.parametrize("body", GOOD_ENVELOPES, ids=ascii)
async def test_a_valid_envelope_is_taken_and_recorded(post, sandbox, body):
    assert (await post(body)).status == 200
    assert sandbox.record.entries[0].envelope == {name: body[name] for name in body if name != "events"}


@pytest.mark.parametrize(("body", "path"), BAD_ENVELOPES, ids=lambda value: ascii(value)[-60:])
async def test_a_bad_envelope_refuses_the_whole_request(post, sandbox, body, path):
    reply = await post(body)
    assert reply.status == 400
    assert reply.body["success"] is False
    assert isinstance(reply.body["message"], str)
    assert [error["path"] for error in reply.body["errors"]] == [path]
    entry = sandbox.record.entries[0]
    assert entry.taken == ()
    assert [(each.kind, list(each.path)) for each in entry.violations if each.kind == "envelope"] == [
        ("envelope", path)
    ]


async def test_a_hundred_events_are_taken(post):
    reply = await post(client(*[event(number=n) for n in range(100)]))
    assert reply.body == {"success": True, "processed": 100}


@pytest.mark.parametrize(
    ("identity", "envelope"),
    [
        ({"email": "a@b.co"}, {}),
        ({"userId": "u"}, {}),
        ({"fingerprint": "f"}, {}),
        ({"customerId": "c"}, {}),
        ({"properties": {"__email": "a@b.co", "__userId": None, "__fingerprint": None}}, {}),
        ({"properties": {"__email": None, "__userId": "u"}}, {}),
        ({"properties": {"__fingerprint": "f"}}, {}),
        ({}, {"userIdentity": {"email": "a@b.co"}}),
        ({}, {"userIdentity": {"fingerprint": "f"}}),
        ({}, {"customerIdentity": {"customerId": "c"}}),
        ({}, {"fingerprint": "f"}),
    ],
)
async def test_a_servers_custom_event_is_taken_with_an_identity(post, identity, envelope):
    assert (await post(server(event("custom", **identity), **envelope))).status == 200


@pytest.mark.parametrize(
    ("fields", "envelope"),
    [
        ({}, {}),
        ({"properties": {"__email": None, "__userId": None, "__fingerprint": None}}, {}),
        ({"properties": {"__userId": ""}}, {}),
        ({"properties": {"email": "a@b.co"}}, {}),
        ({}, {"userIdentity": {"traits": {"a": 1}}, "customerIdentity": {"customerTraits": {}}}),
    ],
)
async def test_a_servers_custom_event_of_nobody_is_refused(post, fields, envelope):
    assert (await post(server(event("custom", **fields), **envelope))).status == 207


async def test_other_sources_and_types_need_no_identity(post):
    assert (await post(server(event("custom"), source="integration"))).status == 200
    assert (await post(client(event("custom")))).status == 200
    assert (await post(server(event("pageview"), event("stage")))).status == 200


@pytest.mark.parametrize(
    "sent",
    [
        event("brand_new_type"),
        event("pageview", unknownField=1),
        event("pageview", eventName="of another type"),
    ],
)
async def test_strict_closes_events(post, start, sent):
    strict = await start(rules=Rules(strict=True))
    assert (await post(client(sent), to=strict)).status == 207
    assert (await post(client(sent))).status == 200


@pytest.mark.parametrize("name", ["userIdentity", "customerIdentity"])
async def test_strict_closes_identities_and_leaves_the_envelope_open(post, start, name):
    strict = await start(rules=Rules(strict=True))
    reply = await post(client(**{name: {"nickname": "Ann"}}), to=strict)
    assert (reply.status, reply.body["errors"][0]["path"]) == (400, [name, "nickname"])
    assert (await post(client(**{name: {"nickname": "Ann"}}))).status == 200
    assert (await post(client(whatever=1), to=strict)).status == 200


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["payloads-node-1.1.0.jsonl", "payloads-rust-shape.jsonl"])
async def test_every_recorded_body_of_an_older_client_is_taken_whole(post, start, name, strict):
    sandbox = await start(rules=Rules(strict=strict))
    lines = (RECORDED / name).read_bytes().splitlines()
    for line in lines:
        reply = await post(line, to=sandbox)
        assert reply.body == {"success": True, "processed": len(json.loads(line)["events"])}
    assert [list(entry.taken_events) for entry in sandbox.record.entries] == [
        json.loads(line)["events"] for line in lines
    ]
    # These clients send no uuid, and that is all that is wrong with them.
    assert {violation.kind for entry in sandbox.record.entries for violation in entry.violations} == {
        "no_uuid"
    }


async def test_without_partial_one_bad_event_refuses_all(post, start):
    whole = await start(rules=Rules(partial=False))
    reply = await post(client(event(), event(path=...), event(type=1)), to=whole)
    assert reply.status == 400
    assert [error["path"] for error in reply.body["errors"]] == [["events", 1, "path"], ["events", 2, "type"]]
    assert whole.record.entries[0].taken == ()


async def test_the_endpoint_form_names_indices(post, start):
    other = await start(rules=Rules(partial=False, error_form="endpoint"))
    reply = await post(client(event(), event(path=...)), to=other)
    assert reply.status == 400
    assert reply.body == {
        "success": False,
        "processed": 0,
        "errors": [{"index": 1, "message": "Required"}],
    }
    assert [error["index"] for error in (await post(client(visitorId=""), to=other)).body["errors"]] == [-1]
    assert [error["index"] for error in (await post(b"[]", to=other)).body["errors"]] == [-1]
