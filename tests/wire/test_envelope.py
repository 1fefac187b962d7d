"""The envelope: what is taken as it is, what is taken out and named, and what cannot be kept."""

import json
import tracemalloc
from typing import Any

import pytest

from proxy.wire.envelope import Envelope, Unusable, read_envelope
from proxy.wire.events import TOO_LARGE, Reading
from tests.sandbox.bodies import SESSION, VISITOR, client, event, server

NIL, MAX = "00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"
TWO = [event(number=1), event(number=2)]


def read(body: Any) -> Envelope | Unusable:
    return read_envelope(body if isinstance(body, bytes) else json.dumps(body).encode())


def usable(body: Any) -> Envelope:
    made = read(body)
    assert isinstance(made, Envelope), made
    return made


WHOLE = [
    client(),
    client(source=...),
    client(source="client", sessionId=SESSION, fingerprint="f"),
    client(visitorId=NIL, sessionId=MAX),
    client(
        userIdentity={"email": "a@b.co", "userId": "u", "fingerprint": "f", "traits": {"a": 1, "b": None}}
    ),
    client(userIdentity={}, customerIdentity={}),
    client(customerIdentity={"customerId": "c", "customerTraits": {"a": True, "b": 1.5}}),
    client(userIdentity={"traits": {}}),
    client(userIdentity={"nickname": "Ann"}, customerIdentity={"tier": [1, {}]}),
    client(whatever=[1, {"a": None}], __proto__={"a": 1}),
    server(),
    server(visitorId=VISITOR),
    server(source="integration"),
    client(userIdentity={"userId": "x\ud83d", "traits": {"a": 2**70, "nul": "\0"}}),
]


@pytest.mark.parametrize("body", WHOLE, ids=ascii)
def test_a_good_envelope_applies_to_its_events_as_it_was_posted(body):
    made = usable(body)
    assert json.loads(made.fields) == {name: value for name, value in body.items() if name != "events"}
    assert made.repairs == ()
    assert made.source == body.get("source", "client")
    assert made.visitor_id == body.get("visitorId")


NO_SOURCE: list[Any] = ["browser", None, 7, "", "Client"]
NO_UUID: list[Any] = ["", "s", None, 7, SESSION + "0"]
NO_NAME: list[Any] = ["", None, 7, []]
NO_OBJECT: list[Any] = [None, "ann", 7, []]
TAKEN_OUT: list[tuple[dict[str, Any], tuple[str, ...], dict[str, Any]]] = [
    *(({"source": value}, ("source",), {}) for value in NO_SOURCE),
    *(({"sessionId": value}, ("sessionId",), {}) for value in NO_UUID),
    *(({"fingerprint": value}, ("fingerprint",), {}) for value in NO_NAME),
    *(({"userIdentity": value}, ("userIdentity",), {}) for value in NO_OBJECT),
    *(({"customerIdentity": value}, ("customerIdentity",), {}) for value in NO_OBJECT),
    *(
        ({name: "\ud83d"}, (name,), {})
        for name in ("source", "sessionId", "userIdentity", "customerIdentity")
    ),
    ({"userIdentity": {"email": "\ud83d"}}, ("userIdentity", "email"), {}),
    ({"userIdentity": {"traits": "\ud83d"}}, ("userIdentity", "traits"), {}),
    ({"userIdentity": {"email": "ann@localhost"}}, ("userIdentity", "email"), {}),
    (
        {"userIdentity": {"email": "ann@localhost", "userId": "u"}},
        ("userIdentity", "email"),
        {"userIdentity": {"userId": "u"}},
    ),
    ({"userIdentity": {"userId": ""}}, ("userIdentity", "userId"), {}),
    ({"userIdentity": {"userId": 7}}, ("userIdentity", "userId"), {}),
    ({"userIdentity": {"fingerprint": ""}}, ("userIdentity", "fingerprint"), {}),
    ({"userIdentity": {"traits": "a"}}, ("userIdentity", "traits"), {}),
    (
        {"userIdentity": {"traits": {"plan": "pro", "a": [1]}}},
        ("userIdentity", "traits", "a"),
        {"userIdentity": {"traits": {"plan": "pro"}}},
    ),
    ({"customerIdentity": {"customerId": ""}}, ("customerIdentity", "customerId"), {}),
    (
        {"customerIdentity": {"customerTraits": {"a": {}}, "customerId": "c"}},
        ("customerIdentity", "customerTraits", "a"),
        {"customerIdentity": {"customerTraits": {}, "customerId": "c"}},
    ),
]


@pytest.mark.parametrize(("fields", "path", "kept"), TAKEN_OUT, ids=ascii)
def test_a_field_that_upstream_would_refuse_is_taken_out_and_named_and_the_events_go_on(fields, path, kept):
    made = usable(client(*TWO, **{"source": ..., **fields}))
    assert [repair.path for repair in made.repairs] == [path]
    assert json.loads(made.fields) == {"visitorId": VISITOR, **kept}
    assert len(made.events) == 2


def test_several_fields_are_taken_out_each_by_its_name():
    made = usable(
        client(sessionId="s", fingerprint="", userIdentity={"email": "x", "userId": "u", "traits": {"a": []}})
    )
    assert sorted(repair.path for repair in made.repairs) == [
        ("fingerprint",),
        ("sessionId",),
        ("userIdentity", "email"),
        ("userIdentity", "traits", "a"),
    ]
    assert json.loads(made.fields)["userIdentity"] == {"userId": "u", "traits": {}}


@pytest.mark.parametrize(
    "value", ["NaN", "-Infinity", "1e400", "9" * 5_000, "[" * 201 + "]" * 201, "[" * 10**5 + "]" * 10**5]
)
@pytest.mark.parametrize(
    ("place", "path"),
    [
        ('"unknown": %s', ("unknown",)),
        ('"sessionId": %s', ("sessionId",)),
        ('"userIdentity": {"traits": {"a": %s}}', ("userIdentity", "traits", "a")),
        ('"userIdentity": {"unknown": %s}', ("userIdentity", "unknown")),
    ],
)
def test_what_json_cannot_carry_further_is_taken_out(value, place, path):
    body = json.dumps(client(*TWO))[:-1] + ", " + place % value + "}"
    made = usable(body.encode())
    assert [repair.path for repair in made.repairs] == [path]
    assert json.loads(made.fields).keys() <= {"source", "visitorId", "userIdentity"}


@pytest.mark.parametrize("source", ["server", "integration"])
def test_an_empty_visitor_of_a_server_counts_as_missing(source):
    made = usable(server(source=source, visitorId=""))
    assert (made.visitor_id, made.repairs, made.fields) == (None, (), b'{"source":"%s"}' % source.encode())


def test_a_malformed_visitor_of_a_server_is_taken_out():
    made = usable(server(visitorId="me"))
    assert (made.visitor_id, [repair.path for repair in made.repairs]) == (None, [("visitorId",)])


@pytest.mark.parametrize("source", ["client", ..., "made up", None])
@pytest.mark.parametrize("visitor", [..., "", "me", None, 7, {}])
def test_client_traffic_without_its_visitor_cannot_be_kept(source, visitor):
    made = read(client(*TWO, source=source, visitorId=visitor))
    assert isinstance(made, Unusable)
    assert (made.reason, made.flaw.path, made.events) == ("visitor", ("visitorId",), 2)


@pytest.mark.parametrize("events", [..., [], None, {}, {"0": event()}, "events", 7])
def test_without_an_array_of_events_there_is_nothing_to_keep(events):
    made = read({**client(events=...), **({} if events is ... else {"events": events})})
    assert isinstance(made, Unusable)
    assert (made.reason, made.flaw.path, made.events) == ("events", ("events",), 0)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"null", b"[]", b'"x"', b"7", b"NaN", b"{", b"{}x", b"{'events': []}", b'{"events": [}'),
        b"[" * 10**5,
        b"[" * 10**5 + b"]" * 10**5,
        b'{"events":' * 10**5,
        b"\xff\xfe",
        b'{"visitorId":"\xff","events":[]}',
        json.dumps(client()).encode("utf-16"),
        json.dumps(client()).encode("utf-16-le"),
        json.dumps(client()).encode("utf-32"),
        b"\xef\xbb\xbf" * 2 + json.dumps(client()).encode(),
        b"event=pageview&url=https%3A%2F%2Fa",
    ],
    ids=lambda body: ascii(body)[:30],
)
def test_what_is_no_json_object_in_utf_8_is_malformed(body):
    made = read(body)
    assert isinstance(made, Unusable)
    assert (made.reason, made.events) == ("malformed", 0)


def test_a_byte_order_mark_says_nothing():
    plain = json.dumps(client(*TWO), ensure_ascii=False).encode()
    marked, made = usable(b"\xef\xbb\xbf" + plain), usable(plain)
    assert (marked.fields, [*marked.events]) == (made.fields, [*made.events])


def test_of_doubled_names_in_the_envelope_the_last_counts():
    body = json.dumps(client(*TWO)).encode()
    doubled = b'{"visitorId": "me", "source": "server", "events": [], "userIdentity": {"email": "a"},'
    made = usable(doubled + b' "userIdentity": {},' + body[1:])
    assert json.loads(made.fields) == {"visitorId": VISITOR, "source": "client", "userIdentity": {}}
    assert (len(made.events), made.repairs) == (2, ())


def test_the_canonical_fields_do_not_depend_on_order_or_spelling():
    fields = {
        "userIdentity": {"email": "a@b.co", "userId": "é"},
        "sessionId": SESSION,
        "zeta": {"b": 1, "a": 2},
    }
    one = json.dumps(client(**fields)).encode()
    other = json.dumps(dict(reversed(client(**fields).items())), ensure_ascii=False, indent=2).encode()
    assert usable(one).fields == usable(other).fields


DIFFERENT: list[Any] = [
    1,
    1.0,
    True,
    "1",
    None,
    "",
    0,
    False,
    [],
    {},
    [1],
    {"a": 1},
    2**53,
    2.0**53 + 2,
    "é",
    "e\u0301",
    "É",
]


@pytest.mark.parametrize("place", ["traits", "unknown"])
def test_values_that_look_alike_never_meet(place):
    """`1`, `true`, `"1"`, null, "", an absent field: all different, or two visitors could share a lane."""
    scalars = [value for value in DIFFERENT if place == "unknown" or not isinstance(value, list | dict)]
    envelopes = [client(userIdentity={"userId": "u", "traits": {"a": value}}) for value in scalars]
    if place == "unknown":
        envelopes = [client(unknown=value) for value in scalars]
    texts = {usable(body).fields for body in [client(), client(source=...), *envelopes]}
    assert len(texts) == len(scalars) + 2


def test_unknown_fields_of_the_envelope_and_of_identities_are_counted():
    assert usable(client(a=1, b=2, userIdentity={"c": 3}, customerIdentity={"d": 4})).unknown_fields == 4
    assert usable(client()).unknown_fields == 0


def test_whom_the_envelope_names_strongest_first():
    made = usable(
        server(
            fingerprint="outer",
            userIdentity={"fingerprint": "inner", "email": "a@b.co", "userId": "u"},
            customerIdentity={"customerId": "c"},
        )
    )
    assert list(made.identities.items()) == [
        ("userId", "u"),
        ("email", "a@b.co"),
        ("fingerprint", "outer"),
        ("customerId", "c"),
    ]
    assert usable(server(userIdentity={"fingerprint": "inner"})).identities == {"fingerprint": "inner"}
    assert usable(server(userIdentity={"email": "refused"})).identities == {}


# -- what is too much --------------------------------------------------------------------------------------

ODD = {
    "typed": {},
    "tolerantly": {"unknown": 1},
    "plainly": {"unknown": float("nan")},
    "large": {"unknown": "x" * 1_000_001},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_events_beyond_the_bound_are_counted_and_not_read(monkeypatch, odd):
    body = json.dumps(client(*[event(number=n) for n in range(4)], **odd)).encode()
    assert isinstance(read_envelope(body, 4), Envelope)
    for reader in ("columns_of", "read_event"):
        monkeypatch.setattr(f"proxy.wire.envelope.{reader}", None)
    made = read_envelope(body, 3)
    assert isinstance(made, Unusable)
    assert (made.reason, made.events, made.flaw.path) == ("too_many", 4, ("events",))


def test_absurdly_many_events_cost_no_more_than_their_text():
    body = b'{"events":[1' + b",1" * 4_900_000 + b"]}"
    tracemalloc.start()
    try:
        made = read_envelope(body, 5_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(made, Unusable)
    assert made.reason == "too_many"
    assert made.events > 5_000
    assert peak < 4 * len(body)


def test_few_events_with_many_values_are_not_too_many():
    many = [event("custom", number=n, properties={"a": [1] * 300_000}) for n in range(2)]
    made = read_envelope(json.dumps(client(*many)).encode(), 2)
    assert isinstance(made, Envelope)
    assert all(isinstance(reading, Reading) for reading in made.events)


def test_an_event_that_no_request_could_carry_is_not_even_read():
    large = event("custom", properties={"a": [[]] * 600_000})
    made = usable(client(event(number=1), large, event(number=2)))
    assert [reading is TOO_LARGE for reading in made.events] == [False, True, False]


def test_an_event_is_not_too_large_for_blanks_and_escapes():
    spread = event("custom", properties={"a": [1] * 100, "b": "\u044f" * 300_000})
    body = json.dumps(client(spread, event(number=1)), indent=2000).encode()
    assert len(body) > 2_000_000
    made = read_envelope(body)
    assert isinstance(made, Envelope)
    assert isinstance(made.events[0], Reading)
    assert json.loads(made.events[0].canonical) == spread


@pytest.mark.parametrize(
    "fields",
    [{"x": [[]] * 600_000}, {f"{n:x}": 1 for n in range(400_000)}],
    ids=["one field", "many fields"],
)
def test_an_envelope_that_no_request_could_carry_is_not_even_read(fields):
    made = read(client(event(), event(), **fields))
    assert isinstance(made, Unusable)
    assert (made.reason, made.flaw.path) == ("too_large", ())
    assert made.events == 2


def test_what_must_be_read_at_once_is_bounded():
    made = read(client(x=[float("nan"), *([[]] * 600_000)]))
    assert isinstance(made, Unusable)
    assert made.reason == "malformed"
