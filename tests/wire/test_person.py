"""Whom an event names: an erasure must find a person wherever the contract lets clients name one."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.wire.envelope import Envelope, read_envelope
from proxy.wire.events import Reading
from proxy.wire.person import Person
from tests.sandbox.bodies import SESSION, client, event, server
from tests.wire.spelling import any_text, envelopes, events, spelt

ANN = Person("email", "Ann@Acme.example")
U7 = Person("userId", "U-7")
UUID = "0190a1b2-0000-7000-8000-000000000001"

BY_EMAIL: list[dict[str, Any]] = [
    event("identify", email="ann@acme.EXAMPLE"),
    event("identify", email=..., userId="u", traits={"email": "ann@acme.example"}),
    event("custom", email="ann@acme.example"),
    event("custom", properties={"__email": "ann@acme.example", "__userId": None}),
    event("custom", properties={"email": "ANN@ACME.EXAMPLE", "nested": [{}]}),
    event("stage", email="ann@acme.example"),
    event("stage", properties={"__email": "ann@acme.example"}),
    event("calendar", inviteeEmail="ann@acme.example"),
    event("form", formFields={"Your e-mail": " ann@acme.example\n", "name": "Ann"}),
    event("brand_new_type", email="ann@acme.example"),
    event("custom", email="ann@acme.example", properties={"emoji": "\ud83d"}),
]
BY_USER_ID: list[dict[str, Any]] = [
    event("identify", email=..., userId="U-7"),
    event("custom", userId="U-7"),
    event("custom", properties={"__userId": "U-7"}),
    event("stage", userId="U-7"),
    event("stage", properties={"__userId": "U-7"}),
    event("brand_new_type", userId="U-7", odd=2**80),
]
NEITHER: list[Any] = [
    event(),
    event("custom", properties={"friend": "ann@acme.example", "userId": "U-7"}),
    event("custom", eventName="ann@acme.example U-7"),
    event("custom", email="ann@acme.example.org", userId="u-7"),
    event("custom", properties={"__userId": 7, "__email": ["ann@acme.example"]}),
    event("form", formFields={"note": "write to ann@acme.example", "ann@acme.example": "U-7"}),
    event(url="https://acme.example/?email=ann@acme.example", customerId="U-7"),
    event("identify", traits={"userId": "U-7", "customer": {"email": "ann@acme.example"}}, email="b@c.de"),
]


def stored(body: Any) -> tuple[bytes, bytes]:
    """The first event of a posted body and its envelope, as the front hands them to the buffer."""
    read = read_envelope(json.dumps(body).encode())
    assert isinstance(read, Envelope)
    [reading] = read.events
    assert isinstance(reading, Reading), reading
    return read.fields, reading.stored(UUID, 0)


@pytest.mark.parametrize("named", BY_EMAIL)
def test_an_event_is_found_by_the_address_wherever_it_stands(named: dict[str, Any]) -> None:
    fields, text = stored(client(named))
    assert ANN.is_named_by_event(text)
    assert not U7.is_named_by_event(text)
    assert not ANN.is_named_by_envelope(fields)


@pytest.mark.parametrize("named", BY_USER_ID)
def test_an_event_is_found_by_the_user_id_wherever_it_stands(named: dict[str, Any]) -> None:
    _, text = stored(client(named))
    assert U7.is_named_by_event(text)
    assert not ANN.is_named_by_event(text)


@pytest.mark.parametrize("other", NEITHER)
def test_an_event_of_somebody_else_is_left_alone(other: dict[str, Any]) -> None:
    _, text = stored(client(other))
    assert not ANN.is_named_by_event(text)
    assert not U7.is_named_by_event(text)


def test_a_user_id_is_told_by_its_letters_and_its_type() -> None:
    assert not Person("userId", "7").is_named_by_event(b'{"userId":7}')
    assert not Person("userId", "u-7").is_named_by_event(b'{"userId":"U-7"}')
    assert not Person("userId", "U-7").is_named_by_event(b'{"userId":" U-7"}')


def test_the_envelope_names_all_of_its_events() -> None:
    for identity, person in [
        ({"email": "ann@acme.example"}, ANN),
        ({"userId": "U-7", "traits": {"email": "b@c.de"}}, U7),
        ({"traits": {"email": "ANN@acme.example", "plan": None}}, ANN),
    ]:
        for body in (client(userIdentity=identity), server(userIdentity=identity, sessionId=SESSION)):
            fields, text = stored(body)
            assert person.is_named_by_envelope(fields)
            assert not person.is_named_by_event(text)


def test_an_envelope_names_nobody_but_its_person() -> None:
    fields, _ = stored(
        client(
            fingerprint="U-7",
            customerIdentity={"customerId": "U-7", "customerTraits": {"email": "ann@acme.example"}},
            userIdentity={"fingerprint": "ann@acme.example", "traits": {"userId": "U-7"}},
            email="ann@acme.example",
            userId="U-7",
        )
    )
    assert not ANN.is_named_by_envelope(fields)
    assert not U7.is_named_by_envelope(fields)


@pytest.mark.parametrize(
    "text", [b"", b"null", b"[]", b'"ann@acme.example"', b"{", b"\xff", b"[" * 100_000, b'{"email":{"a":1}}']
)
def test_what_is_no_event_names_nobody(text: bytes) -> None:
    for person in (ANN, U7):
        assert not person.is_named_by_event(text)
        assert not person.is_named_by_envelope(text)


PLACES: dict[str, list[tuple[str, ...]]] = {
    "email": [
        ("email",),
        ("inviteeEmail",),
        ("traits", "email"),
        ("properties", "email"),
        ("properties", "__email"),
        ("formFields", "any name"),
    ],
    "userId": [("userId",), ("properties", "__userId")],
}


def put(value: Any, place: tuple[str, ...], text: str) -> Any:
    """The event with a text at a place of it, which is made where it is not an object."""
    name, *rest = place
    held = value if isinstance(value, dict) else {}
    return {**held, name: put(held.get(name), tuple(rest), text) if rest else text}


@given(
    events(),
    st.sampled_from([(by, place) for by, places in PLACES.items() for place in places]),
    any_text.filter(str.strip),
    st.integers(),
)
@example({}, ("email", ("email",)), "\ud83d", 0)
@example({}, ("userId", ("properties", "__userId")), '"\\', 1)
def test_a_person_is_found_in_any_event_however_it_is_spelt(
    about: Any, named: tuple[Any, tuple[str, ...]], who: str, seed: int
) -> None:
    by, place = named
    text = spelt(put(about, place, who), Random(seed)).encode("utf-8")
    assert Person(by, who).is_named_by_event(text)
    assert not Person(by, who + "x").is_named_by_event(text)


@given(envelopes(), st.sampled_from(["email", "userId"]), any_text.filter(str.strip), st.integers())
def test_a_person_is_found_in_any_envelope_however_it_is_spelt(
    fields: dict[str, Any], by: Any, who: str, seed: int
) -> None:
    text = spelt(put(fields, ("userIdentity", by), who), Random(seed)).encode("utf-8")
    assert Person(by, who).is_named_by_envelope(text)
    assert not Person(by, who + "x").is_named_by_envelope(text)
