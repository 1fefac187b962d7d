"""What never leaves and is never stored: secrets in form fields and in the parameters of addresses."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.envelope import Envelope, read_envelope
from proxy.wire.events import Reading
from tests.sandbox.bodies import client, event

NAMES = [
    "password",
    "passwd",
    "pass",
    "pwd",
    "token",
    "secret",
    "api_key",
    "credit_card",
    "cc_number",
    "card_number",
    "cvv",
    "cvc",
    "ssn",
    "social_security",
    "bank_account",
    "routing_number",
]
HARMLESS = [
    "email",
    "company",
    "pas",
    "tok",
    "card",
    "account",
    "key",
    "api",
    "number",
    "social",
    "routing",
    "Name",
]
SECRET = "hunter2"


def leaves(sent: Any) -> dict[str, Any]:
    """What is stored of an event, and nothing of the secret anywhere in its text."""
    raw = sent if isinstance(sent, str) else json.dumps(sent)
    envelope = json.dumps(client(events=...))[:-1]
    made = read_envelope(f'{envelope}, "events": [{raw}]}}'.encode())
    assert isinstance(made, Envelope)
    (reading,) = made.events
    assert isinstance(reading, Reading), reading
    text = reading.stored(str(reading.uuid), 0)
    assert SECRET.encode() not in text
    found: dict[str, Any] = json.loads(text)
    return found


def spellings(name: str) -> list[str]:
    spaced = name.replace("_", " ")
    return [
        name,
        name.upper(),
        name.replace("_", ""),
        name.replace("_", "-"),
        spaced,
        name.replace("_", "\u00a0"),
        name.title().replace("_", ""),
        f"user[{name}]",
        f"{name}_confirmation",
        f"my{name}2",
        "-".join(name),
        " ".join(name),
    ]


@pytest.mark.parametrize("extra", [{}, {"unknown_field": 1}])
@pytest.mark.parametrize("name", [spelt for name in NAMES for spelt in spellings(name)])
def test_a_form_field_with_a_secret_name_does_not_leave(name, extra):
    sent = event("form", formFields={"company": "Acme", name: SECRET}, **extra)
    assert leaves(sent)["formFields"] == {"company": "Acme"}


@pytest.mark.parametrize("name", [spelt for name in HARMLESS for spelt in spellings(name)])
def test_a_form_field_with_a_harmless_name_stays(name):
    sent = event("form", formFields={name: "x"})
    assert leaves(sent) == sent


@pytest.mark.parametrize(
    "fields",
    [
        '{"p\\u0061ssword": "hunter2"}',
        '{"\\u0070\\u0061\\u0073\\u0073\\u0077\\u006f\\u0072\\u0064": "hunter2"}',
        '{"password": "hunter2", "password": "hunter2"}',
        '{"ｐassword_token": "hunter2"}',
        '{"a\\ud83d": "b", "password": "hunter2"}',
        '{"PASS\\u017fword": "hunter2"}',
    ],
)
def test_no_spelling_of_the_json_hides_a_secret(fields):
    text = json.dumps(event("form", formFields="?")).replace('"?"', fields)
    assert SECRET not in json.dumps(leaves(text))


@pytest.mark.parametrize("extra", ["", '"unknown_field": 1, '])
def test_a_doubled_key_hides_no_password(extra):
    """A parser sees the second `formFields` only; the client's own bytes hold both."""
    text = "{" + extra + json.dumps(event("form"))[1:-1]
    text += ', "formFields": {"password": "hunter2"}, "formFields": {"company": "Acme"}}'
    assert leaves(text)["formFields"] == {"company": "Acme"}


DIGITS = [
    "123456789",
    "123-45-6789",
    "123 45 6789",
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "4111\u00a01111\u00a01111\u00a01111",
    " 1234567890123 ",
    "1234567890123456789",
]


@pytest.mark.parametrize("value", DIGITS)
def test_a_form_field_that_looks_like_a_card_or_an_account_does_not_leave(value):
    assert leaves(event("form", formFields={"company": "Acme", "field": value}))["formFields"] == {
        "company": "Acme"
    }


@pytest.mark.parametrize(
    "value",
    [
        "",
        "12345678",
        "1234567890",
        "123456789012",
        "12345678901234567890",
        "123456789a",
        "+123456789",
        "12.3456789",
    ],
)
def test_other_digits_stay(value):
    sent = event("form", formFields={"field": value})
    assert leaves(sent) == sent


@pytest.mark.parametrize("place", ["url", "referrer"])
@pytest.mark.parametrize("extra", [{}, {"unknown_field": 1}])
@pytest.mark.parametrize("name", [spelt for name in NAMES for spelt in spellings(name)])
def test_a_parameter_with_a_secret_name_leaves_without_its_value(name, place, extra):
    sent = {**event(**extra), place: f"https://a/?plan=pro&{name}={SECRET}&next=1#top"}
    assert leaves(sent)[place] == f"https://a/?plan=pro&{name}=redacted&next=1#top"


@pytest.mark.parametrize(
    ("address", "redacted"),
    [
        ("https://a/?token=hunter2", "https://a/?token=redacted"),
        ("https://a/?%74oken=hunter2", "https://a/?%74oken=redacted"),
        ("https://a/?%74%6F%6b%65%6E=hunter2", "https://a/?%74%6F%6b%65%6E=redacted"),
        ("https://a/?api%20key=hunter2", "https://a/?api%20key=redacted"),
        ("https://a/?api+key=hunter2", "https://a/?api+key=redacted"),
        ("https://a/?user%5Bpassword%5D=hunter2", "https://a/?user%5Bpassword%5D=redacted"),
        ("https://a/?a=1;token=hunter2", "https://a/?a=1;token=redacted"),
        ("https://a/#access_token=hunter2", "https://a/#access_token=redacted"),
        ("https://a/#/route?token=hunter2&b=1", "https://a/#/route?token=redacted&b=1"),
        ("https://a/?token=hunter2?x=hunter2", "https://a/?token=redacted"),
        ("https://a/?token==hunter2", "https://a/?token=redacted"),
        ("https://a/?token=hunter2&token=hunter2&b=2", "https://a/?token=redacted&token=redacted&b=2"),
        ("server://user 1?token=hunter2", "server://user 1?token=redacted"),
        ("https://[not-an-address/?token=hunter2", "https://[not-an-address/?token=redacted"),
        ("https://a/?token=hunter2\ud83d", "https://a/?token=redacted"),
        ("https://a/?\ud83dtoken=hunter2", "https://a/?\ud83dtoken=redacted"),
        ("https://a/?%fftoken=hunter2", "https://a/?%fftoken=redacted"),
        ("https://a/?a=token&b=secret=1", "https://a/?a=token&b=secret=1"),
        ("https://a/token=1?b=2", "https://a/token=1?b=2"),
        ("https://a/?passenger", "https://a/?passenger"),
        ("https://a/?q=token", "https://a/?q=token"),
    ],
)
def test_an_address_is_redacted_however_it_is_written(address, redacted):
    assert leaves(event(url=address))["url"] == redacted


def test_the_path_is_redacted_where_it_holds_parameters():
    assert leaves(event(path="/reset?token=hunter2"))["path"] == "/reset?token=redacted"


def test_an_unknown_type_is_redacted_as_well():
    sent = event("form_v2", formFields={"password": SECRET, "n": 1}, url=f"https://a/?pwd={SECRET}")
    assert leaves(sent)["formFields"] == {"n": 1}


def test_redaction_changes_nothing_else():
    sent = event(
        "form", formFields={"a": "b", "password": SECRET}, url=f"https://a/?token={SECRET}", title="x"
    )
    assert leaves(sent) == {**sent, "formFields": {"a": "b"}, "url": "https://a/?token=redacted"}


@given(
    before=st.text(max_size=20),
    name=st.sampled_from(NAMES),
    after=st.text(st.characters(exclude_characters="=&#?;%+"), max_size=10),
)
def test_no_address_keeps_the_value_of_a_secret_parameter(before, name, after):
    leaves(event(url=f"https://a/{before}&{after}{name}{after}={SECRET}&b=2"))


def test_names_that_clients_make_up_do_not_stay_in_memory():
    def redact_some(start: int) -> None:
        for n in range(start, start + 2_000):
            name = f"{n}" + "x" * 5_000
            leaves(event("form", formFields={name: "a"}, url=f"https://a/?{name}=b"))

    redact_some(0)
    tracemalloc.start()
    try:
        redact_some(2_000)
        held_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held_bytes < 2_000_000
