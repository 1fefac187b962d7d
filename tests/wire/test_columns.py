"""What is ordinary is read at once, in columns, and comes to the same as when it is read event by event."""

import json
import re
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.wire.columns import Columns
from proxy.wire.envelope import Envelope, read_envelope, read_ordinary, read_tolerantly
from proxy.wire.events import Reading
from proxy.wire.fields import EMAIL_BUT_FOR_DOTS, Email, Flaw
from proxy.wire.redact import may_hold_secrets, redact_address
from tests.sandbox.bodies import SESSION, VISITOR, client, event, server
from tests.wire.spelling import ordinary_requests

NIL, MAX = "00000000-0000-0000-0000-000000000000", "FFFFFFFF-ffff-ffff-ffff-ffffffffffff"
UUID = "0190a1b2-0000-7000-8000-000000000009"


def body(posted: Any) -> bytes:
    return json.dumps(posted).encode()


@settings(max_examples=1000)
@given(ordinary_requests())
def test_a_request_comes_to_the_same_at_once_and_event_by_event(posted):
    at_once, one_by_one = read_ordinary(posted), read_tolerantly(posted)
    if not isinstance(at_once, Envelope):
        assert at_once is None or at_once == one_by_one
        return
    assert isinstance(one_by_one, Envelope)
    assert isinstance(at_once.events, Columns)
    assert [*at_once.events] == one_by_one.events
    assert [at_once.events[at] for at in range(len(at_once.events))] == one_by_one.events
    for name in ("fields", "source", "visitor_id", "identities", "repairs", "unknown_fields"):
        assert getattr(at_once, name) == getattr(one_by_one, name)
    # And in every column.
    readings = [reading for reading in one_by_one.events if isinstance(reading, Reading)]
    columns = at_once.events
    assert columns.canonical == [reading.canonical for reading in readings]
    assert columns.redacted == [reading.redacted() for reading in readings]
    assert columns.identities() == [reading.identity() for reading in readings]
    lacking = [at for at, r in enumerate(readings) if r.uuid is None or not r.has_timestamp]
    assert columns.incomplete == lacking
    for at, reading in enumerate(readings):
        if reading.uuid is not None:
            assert columns.uuids[16 * at : 16 * at + 16].hex() == reading.uuid.replace("-", "").lower()
    assert len(columns.uuids) == 16 * len(readings)


ORDINARY = {
    "a page view": client(event(referrer="", title="Pricing", utm={"source": "s"})),
    "of a session": client(event(), event(number=1), sessionId=SESSION),
    "upper case": client(event(uuid=UUID.upper()), visitorId=VISITOR.upper()),
    "parameters": client(event(url="https://a/?utm_source=x", referrer="https://b/?gclid=1")),
    "a secret": client(event(), event(url="https://a/?token=x")),
    "a form": client(event("form", formFields={"company": "Acme", "password": "x"})),
    "each type": client(*map(event, ("custom", "identify", "engagement", "calendar", "stage", "billing"))),
    "no uuid": client(event(uuid=...), event(uuid=..., timestamp=...), event(timestamp=...)),
    "a server's": server(
        event("custom", email="a@b.co", userId="u", properties={"a": [1.5, {"b": None}]}),
        event("custom", uuid=..., properties={"__email": "a@b.co", "__userId": None}),
        event("stage", userId="u", properties={"a": 1.5}),
        event("pageview", customerTraits={"a": True}),
    ),
    "an identity": server(event("custom"), userIdentity={"email": "a@b.co", "traits": {"a": 0.5}}),
    "an account": client(
        customerIdentity={"customerId": "c", "customerTraits": {"a": None}}, fingerprint="f"
    ),
    "a burst": client(*[event(number=n) for n in range(520)]),
}


@pytest.mark.parametrize("posted", ORDINARY.values(), ids=ORDINARY.keys())
def test_what_real_clients_send_is_ordinary(posted):
    made = read_ordinary(body(posted))
    assert isinstance(made, Envelope)
    assert isinstance(made.events, Columns)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (UUID[:-1], UUID[-1:] + UUID),
        (UUID + UUID[:1], UUID[1:]),
        (UUID + UUID, ""),
        (UUID + "\n" + UUID, ""),
        (UUID[:17], UUID[17:]),
        (UUID[:-1] + "\n", UUID),
        (UUID[:-1] + "٣", UUID),
        (UUID[:-1] + "g", UUID),
        (UUID.replace("-7", "-9"), UUID),
        (UUID.replace("-8", "-c"), UUID),
        (UUID.replace("-", "_"), UUID),
    ],
)
def test_uuids_that_are_right_only_together_are_each_refused(first, second):
    made = read_envelope(body(client(event(uuid=first), event(uuid=second), event())))
    assert isinstance(made, Envelope)
    for sent, reading in zip((first, second), made.events, strict=False):
        assert isinstance(reading, Reading if sent == UUID else Flaw), sent
        assert isinstance(reading, Reading) or reading.path == ("uuid",)
    assert isinstance(made.events[2], Reading)


@pytest.mark.parametrize("odd", [{"visitorId": UUID[:-1]}, {"sessionId": UUID + "0"}])
def test_uuids_of_the_envelope_are_no_part_of_those_of_its_events(odd):
    given = {"visitorId": VISITOR, "sessionId": SESSION, **odd}
    made = read_envelope(body(server(event(), **given)))
    assert isinstance(made, Envelope)
    assert [repair.path for repair in made.repairs] == [tuple(odd)]
    ordinary = read_envelope(body(server(event(), visitorId=VISITOR, sessionId=SESSION)))
    assert isinstance(ordinary, Envelope)
    assert isinstance(ordinary.events, Columns)
    assert ordinary.events.uuids.hex() == event()["uuid"].replace("-", "")


@pytest.mark.parametrize("nobodys", [NIL, MAX])
def test_a_uuid_of_nobodys_beside_others_is_missing(nobodys):
    made = read_envelope(body(client(event(), event(uuid=nobodys), visitorId=nobodys)))
    assert isinstance(made, Envelope)
    assert [reading.uuid for reading in made.events if isinstance(reading, Reading)] == [
        event()["uuid"],
        None,
    ]


_near_addresses = st.text(st.sampled_from("pastoken=&?;#%20_-\n/:Ab"), max_size=30)


@settings(max_examples=1000)
@example(["https://a/?", "token=x"])
@example(["?pass", "&token=x"])
@given(st.lists(_near_addresses, max_size=4))
def test_no_secret_is_missed_where_addresses_are_searched_together(addresses):
    redacted = [redact_address(address) for address in addresses]
    assert may_hold_secrets("\n".join(addresses)) or not any(redacted)


@settings(max_examples=1000)
@example("a..b@c.co")
@example("a@b..co")
@example("a@b.co\n..")
@given(st.text(st.sampled_from("aZ9.'+-_@\n é"), max_size=12).map(lambda text: text.replace("@@", "@b.co")))
def test_an_address_is_judged_alike_with_its_dots_looked_at_apart(text):
    whole = re.compile(Email.__metadata__[0].pattern)  # type: ignore[attr-defined]
    apart = ".." not in text and re.compile(EMAIL_BUT_FOR_DOTS).match(text)
    assert bool(whole.search(text)) == bool(apart)


@pytest.mark.parametrize(
    "large",
    [
        event("form", formFields={f"field {n}": "x" * 90 for n in range(1_000)} | {"password": "hunter2"}),
        event(url="https://a/?" + "&".join(f"a{n}=1" for n in range(20_000)) + "&token=hunter2"),
        event("custom", properties={f"{n}": [] for n in range(1_000)}),
    ],
    ids=["a form", "parameters", "arrays"],
)
def test_what_would_take_long_to_look_through_is_not_ordinary_and_read_all_the_same(large):
    posted = body(client(event(number=1), large))
    assert read_ordinary(posted) is None
    made = read_envelope(posted)
    assert isinstance(made, Envelope)
    assert isinstance(made.events[1], Reading)
    assert b"hunter2" not in made.events[1].stored(UUID, 0)


@pytest.mark.parametrize(
    "sent",
    [
        event("custom", properties={"a": "?"}),
        event("pageview", customerTraits={"a": "?"}),
        event("stage", properties={"a": "?"}),
        event("engagement", activeTimeMs="?"),
    ],
    ids=["anything", "traits", "properties", "a number"],
)
def test_no_number_takes_several_times_as_long_to_read_as_another(sent):
    """A megabyte of such numbers held up everything for a second, on whatever thread it was read."""

    def seconds(number: str) -> float:
        posted = json.dumps(client(*[sent] * 2_000)).replace('"?"', number).encode()
        best = 9.0
        for _ in range(3):
            started = time.process_time()
            assert isinstance(read_ordinary(posted), Envelope)
            best = min(best, time.process_time() - started)
        return best

    assert seconds("1.7976931348623157e308") < 2.5 * seconds("1.5")
