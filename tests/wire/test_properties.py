"""What holds for whatever is posted, and for whatever it is posted together with."""

import json
from random import Random
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxy.front.portions import sort
from proxy.lanes import Lane, lane_id
from proxy.wire import jsontext
from proxy.wire.envelope import Envelope, read_envelope
from proxy.wire.events import Reading
from proxy.wire.limits import REQUEST_BYTES
from proxy.wire.redact import is_secret_name, is_secret_value, redact_address
from tests.sandbox.bodies import VISITOR, client, event, server
from tests.wire.spelling import any_text, envelopes, events, json_values, odd_values, spelt

RECEIVED_MS = 1_795_000_000_000
dice = st.integers(0, 2**32).map(Random)


@given(odd_values)
def test_no_json_value_is_too_odd_to_be_read_as_a_body(value):
    read_envelope(json.dumps(value).encode())


@given(st.lists(odd_values), odd_values)
def test_no_json_value_is_too_odd_to_be_read_as_an_event_or_a_field(posted, value):
    read_envelope(json.dumps(client(*posted, extra=value)).encode())
    fields = ("source", "visitorId", "sessionId", "fingerprint", "userIdentity", "customerIdentity")
    for name in fields:
        read_envelope(json.dumps(client(*posted, **{name: value})).encode())
        read_envelope(json.dumps(client(userIdentity={name: value}, customerIdentity={name: value})).encode())


@given(st.binary(max_size=300))
def test_no_bytes_are_too_odd_to_be_read(body):
    read_envelope(body)


@given(st.data())
def test_no_damage_to_a_good_body_is_too_odd_to_be_read(data):
    body = bytearray(
        json.dumps(
            client(event("custom", properties={"a": "é\ud83d"}), event("form")), ensure_ascii=True
        ).encode()
    )
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        until = data.draw(st.integers(at, min(len(body), at + 30)))
        body[at:until] = data.draw(
            st.binary(max_size=6) | st.sampled_from([b'"', b"\\", b"{", b"]", b"\\ud8", b"1e999", b"NaN"])
        )
    read_envelope(bytes(body))


def without_secrets(posted: dict[str, Any]) -> dict[str, Any]:
    """The event with what the redaction's own rule takes out; that rule has its tests in test_redact."""
    kept = dict(posted)
    for name in ("url", "path", "referrer"):
        if isinstance(kept.get(name), str):
            kept[name] = redact_address(kept[name]) or kept[name]
    if isinstance(fields := kept.get("formFields"), dict):
        kept["formFields"] = {
            name: value
            for name, value in fields.items()
            if not is_secret_name(name) and not (isinstance(value, str) and is_secret_value(value))
        }
    return kept


def exactly(value: Any) -> str:
    """A text in which 1, 1.0 and true differ; the order of names says nothing."""
    return json.dumps(value, sort_keys=True)


@settings(max_examples=300)
@given(st.lists(events(), min_size=1, max_size=5), dice)
def test_what_is_stored_of_a_valid_event_is_what_was_posted(posted, random):
    text = (
        json.dumps(server(userIdentity={"userId": "u"}, events=...))[:-1]
        + ', "events": '
        + spelt(posted, random)
        + "}"
    )
    made = read_envelope(text.encode())
    assert isinstance(made, Envelope)
    assert len(made.events) == len(posted)
    for sent, reading in zip(posted, made.events, strict=True):
        if isinstance(reading, Reading):
            leaves = json.loads(reading.stored(reading.uuid or VISITOR, RECEIVED_MS))
            assert UUID(leaves.pop("uuid")) is not None
            expected = without_secrets(sent)
            expected.pop("uuid", None)
            assert exactly(leaves) == exactly({"timestamp": RECEIVED_MS, **expected})


COMPANY = [
    json.dumps(event()),
    json.dumps(event("brand_new_type")),
    json.dumps(event(unknownField=1)),
    json.dumps(event("custom", properties={"cut": "x\ud83d"})),
    json.dumps(event("custom", properties={"a": float("nan")})),
    json.dumps(event("custom", properties={"a": 2**70})),
    json.dumps(event("custom", properties={"a": "?"})).replace('"?"', "[" * 2_000 + "]" * 2_000),
    "7",
]


def entries_of(texts: list[str], at: int, fields: dict[str, Any], sender: Lane) -> Any:
    """All that decides where the event at `at` of such a request goes and what it is recognised by."""
    head = json.dumps({**fields, "events": 0})[:-2]
    made = read_envelope(f"{head}[{','.join(texts)}]}}".encode())
    if not isinstance(made, Envelope):
        return made.reason
    header = Lane(made.fields, sender.client_ip, sender.user_agent, sender.origin).header()
    lane = lane_id(header)
    reading = made.events[at]
    if not isinstance(reading, Reading):
        return reading.path[:1], header
    # Without what stands before it, among which may be its equal.
    alone = msgspec.structs.replace(made, events=[reading])
    (portion,) = sort(alone, lane, header, RECEIVED_MS, refuse_unknown=False).portions
    # Without a timestamp a fresh uuid is made each time.
    if reading.uuid is None and not reading.has_timestamp:
        return header, portion.queue, reading.canonical
    return header, portion, reading.canonical


@settings(max_examples=300)
@example([], event("custom", number=1), {}, Random(1))
@given(st.lists(st.sampled_from(COMPANY), max_size=4), events(), envelopes(), dice)
def test_an_event_is_read_alike_whatever_it_is_sent_together_with(company, posted, fields, random):
    """Alone it may take the fast decoder's way, beside an odd one the tolerant: a retry must not notice."""
    text = spelt(posted, random)
    sender = Lane(b"{}", "192.0.2.1", "agent", None)
    alone = entries_of([text], 0, fields, sender)
    before = random.randint(0, len(company))
    together = entries_of([*company[:before], text, *company[before:]], before, fields, sender)
    assert alone == together


@given(envelopes(), dice)
def test_a_lane_and_its_queues_do_not_depend_on_the_spelling_of_the_envelope(fields, random):
    sender = Lane(b"{}", "192.0.2.1", "agent", None)
    text = json.dumps(event("custom", userId="u"))
    made = entries_of([text], 0, fields, sender)
    shuffled = list(fields.items())
    random.shuffle(shuffled)
    body = spelt(dict(shuffled), random)[:-1] + (", " if fields else "") + f'"events": [{text}]}}'
    other = read_envelope(body.encode())
    if isinstance(other, Envelope):
        assert made[0] == Lane(other.fields, "192.0.2.1", "agent", None).header()
    else:
        assert made == other.reason


@given(
    st.lists(
        st.tuples(
            st.dictionaries(any_text, json_values, max_size=3), st.none() | any_text, st.none() | any_text
        ),
        min_size=2,
        max_size=2,
    )
)
def test_two_lanes_have_one_header_only_if_they_are_equal(two):
    """Unknown envelope fields and headers of every kind, compared as typed values."""
    headers, values = [], []
    for extra, agent, origin in two:
        made = read_envelope(json.dumps(client(unknown=extra)).encode())
        assert isinstance(made, Envelope)
        cleaned = [
            None if text is None else text.encode("utf-8", "replace").decode() for text in (agent, origin)
        ]
        headers.append(Lane(made.fields, None, *cleaned).header())
        values.append((exactly(extra), *cleaned))
    assert (headers[0] == headers[1]) == (values[0] == values[1])


@given(st.lists(events(), max_size=3))
def test_no_event_grows_by_more_than_what_is_filled_in(posted):
    """A body that fits upstream's bound may lead to one that does not only by uuid and timestamp."""
    made = read_envelope(json.dumps(client(*posted), ensure_ascii=True).encode())
    if isinstance(made, Envelope):
        for reading in made.events:
            if isinstance(reading, Reading):
                text = reading.stored(reading.uuid or VISITOR, RECEIVED_MS)
                assert (
                    len(text)
                    <= len(reading.canonical) + len(',"uuid":""') + 36 + len(',"timestamp":') + 13 + 8 * 3
                )
                assert len(text) < REQUEST_BYTES


@given(
    array=st.lists(
        st.recursive(
            st.one_of(st.integers(), st.text(st.sampled_from(',[]{}"\\a'))),
            lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(), inner)),
        )
    ),
    bound=st.integers(1, 8),
)
def test_elements_are_counted_without_being_read(array, bound):
    text = json.dumps(array).encode()
    assert jsontext.holds_more_than(text, bound) == (len(array) > bound)
    assert jsontext.least_bytes(text) <= len(json.dumps(array, separators=(",", ":"), ensure_ascii=False))
