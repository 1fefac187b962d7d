"""What real clients send though it is odd, and what nobody can keep: it spoils its own event and no more."""

import json
import time
from typing import Any

import pytest

from proxy.wire.envelope import Envelope, read_envelope
from proxy.wire.events import Reading
from proxy.wire.fields import Flaw
from tests.sandbox.bodies import client, event

NEIGHBOUR = json.dumps(event(number=7))


def read_beside_a_neighbour(text: str | bytes) -> list[Reading | Flaw]:
    """The event of this JSON text, between two that are good."""
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    envelope = json.dumps(client(events=...)).encode()[:-1]
    good = NEIGHBOUR.encode()
    made = read_envelope(envelope + b', "events": [' + good + b"," + raw + b"," + good + b"]}")
    assert isinstance(made, Envelope)
    return [*made.events]


def custom(value: str) -> str:
    return json.dumps(event("custom", properties={"a": "?"})).replace('"?"', value)


def nested(levels: int) -> str:
    """An event that nests so many levels, its own two included."""
    return custom("[" * (levels - 2) + "]" * (levels - 2))


KEPT = {
    "a lone surrogate of a cut emoji": '"\\ud83d"',
    "a lone low surrogate": '"\\ude00\\ud83d"',
    "a whole emoji, escaped": '"\\ud83d\\ude00"',
    "NUL": '"\\u0000"',
    "a name with a lone surrogate": '{"\\ud83d": 1}',
    "2^63": str(2**63),
    "2^64": str(2**64),
    "beyond 2^64": str(2**70),
    "far below 0": str(-(2**70)),
    "4,300 digits": "9" * 4_300,
    "a long fraction": "0.1" + "0" * 400 + "1",
    "minus 0.0": "-0.0",
    "a large exponent": "1E5",
    "the largest": "1.7976931348623157e308",
    "the smallest": "5e-324",
    "nested": '{"a": [{"b": [[], {}, null, true]}]}',
    "28 KB": json.dumps({f"n{n}": {"deep": ["x" * 60, n, None]} for n in range(300)}),
    "empty names": '{"": {"": ""}}',
    "a prototype": '{"__proto__": {"admin": true}, "constructor": 1}',
    "line separators": '"\u2028\u2029\\u2028\x7f"',
    "escapes": '"\\/\\b\\f\\n\\r\\t\\\\\\""',
    "digits of every script": '"٠١٢"',
}


@pytest.mark.parametrize("value", KEPT.values(), ids=KEPT.keys())
@pytest.mark.parametrize("extra", ["", '"unknown_field": 1, '])
def test_odd_but_valid_output_arrives_as_it_was_sent(value, extra):
    text = "{" + extra + custom(value)[1:]
    before, reading, after = read_beside_a_neighbour(text)
    assert isinstance(reading, Reading)
    leaves = json.loads(reading.stored(str(reading.uuid), 0))
    assert leaves == json.loads(text)
    assert repr(leaves["properties"]["a"]) == repr(json.loads(value))  # 1 == 1.0 == True, and -0.0 == 0
    assert isinstance(before, Reading)
    assert isinstance(after, Reading)


UNKEEPABLE = {
    "NaN": custom("NaN"),
    "Infinity": custom("Infinity"),
    "-Infinity": custom("-Infinity"),
    "1e400": custom("1e400"),
    "-1e400": custom("[-1e400]"),
    "NaN as a timestamp": json.dumps(event(timestamp="?")).replace('"?"', "NaN"),
    "1e400 as a timestamp": json.dumps(event(timestamp="?")).replace('"?"', "1e400"),
    "4,301 digits": custom("9" * 4_301),
    "900,000 digits": custom("9" * 900_000),
    "201 levels": nested(201),
    "1,000 levels": nested(1_000),
    "100,000 levels": nested(100_000),
    "100,000 objects": custom('{"a":' * 100_000 + "1" + "}" * 100_000),
    "an event of 10,000 levels": "[" * 10_000 + "]" * 10_000,
    "bytes that are no UTF-8": custom('"?"').encode().replace(b"?", b"\xff"),
    "an encoded surrogate": custom('"\ud83d"'),
}


@pytest.mark.parametrize("text", UNKEEPABLE.values(), ids=UNKEEPABLE.keys())
def test_what_cannot_be_kept_spoils_its_own_event_only(text):
    before, flaw, after = read_beside_a_neighbour(text)
    assert isinstance(flaw, Flaw)
    assert isinstance(before, Reading)
    assert before == after


@pytest.mark.parametrize(
    ("kind", "field"),
    [("pageview", "timestamp"), ("pageview", "utm"), ("pageview", "customerTraits"),
     ("calendar", "provider"), ("calendar", "isRecurring"), ("engagement", "activeTimeMs"),
     ("custom", "properties"), ("pageview", "uuid"), ("identify", "email"), ("calendar", "startTime")],
)  # fmt: skip
def test_a_lone_surrogate_where_no_text_can_stand_spoils_its_own_event_only(kind, field):
    before, flaw, after = read_beside_a_neighbour(json.dumps({**event(kind), field: "\ud83d"}))
    assert isinstance(flaw, Flaw)
    assert isinstance(before, Reading)
    assert before == after


def test_200_levels_are_kept():
    _, reading, _ = read_beside_a_neighbour(nested(200))
    assert isinstance(reading, Reading)
    assert json.loads(reading.stored(str(reading.uuid), 0)) == json.loads(nested(200))


def test_events_of_several_oddities_are_judged_each_on_its_own():
    """Both ways in which a whole request has to be rewritten, at once."""
    envelope = json.dumps(client(events=...))[:-1]
    texts = [NEIGHBOUR, nested(100_000), custom("NaN"), custom('"\\ud83d"'), NEIGHBOUR]
    made = read_envelope(f'{envelope}, "events": [{",".join(texts)}]}}'.encode())
    assert isinstance(made, Envelope)
    assert [isinstance(reading, Reading) for reading in made.events] == [True, False, False, True, True]


@pytest.mark.parametrize("invisible", ["", ' "', ' \\"'])
def test_brackets_within_texts_are_no_levels(invisible):
    text = custom(json.dumps("[{" * 1_000 + invisible))
    _, reading, _ = read_beside_a_neighbour(text)
    assert isinstance(reading, Reading)


DOUBLED: list[tuple[str, dict[str, Any]]] = [
    ('"title": 7, "title": "b"', {"title": "b"}),
    ('"title": "a", "title": "b"', {"title": "b"}),
    ('"title": NaN, "title": "b"', {"title": "b"}),
    ('"title": 1e999, "title": "b"', {"title": "b"}),
    ('"utm": {"source": 1}, "utm": {"source": "a", "source": "b"}', {"utm": {"source": "b"}}),
    (
        '"uuid": "x", "uuid": "0190a1b2-0000-7000-8000-000000000009"',
        {"uuid": "0190a1b2-0000-7000-8000-000000000009"},
    ),
    ('"unknown": 1, "unknown": 2', {"unknown": 2}),
    ('"ti\\u0074le": 7, "title": "b"', {"title": "b"}),
]


@pytest.mark.parametrize(("doubled", "last"), DOUBLED)
def test_of_doubled_names_the_last_counts_and_the_others_do_not_leave(doubled, last):
    text = json.dumps(event())[:-1] + ", " + doubled + "}"
    _, reading, _ = read_beside_a_neighbour(text)
    assert isinstance(reading, Reading)
    leaves = json.loads(
        reading.stored(str(reading.uuid), 0), object_pairs_hook=lambda pairs: (len(pairs), dict(pairs))
    )
    assert leaves[0] == len(leaves[1])
    assert json.loads(reading.stored(str(reading.uuid), 0)) == {**event(), **last}


def test_a_doubled_type_is_read_as_the_last():
    text = '{"type": "pageview", ' + json.dumps(event("custom"))[1:]
    _, reading, _ = read_beside_a_neighbour(text)
    assert isinstance(reading, Reading)
    assert json.loads(reading.stored(str(reading.uuid), 0)) == event("custom")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 5_000_000,
        b'{"events":[' + b"[" * 5_000_000,
        b'{"a":"' + b'\\"' * 2_000_000,
        b'{"events":[' + b"9" * 5_000_000 + b"]}",
        b'{"events":[' + b'"{",' * 1_000_000 + b'"["]}',
        b'{"events":[' + b"NaN," * 5_000 + b"[" * 300_000 + b"]" * 300_000 + b"]}",
    ],
    ids=["brackets", "brackets of events", "an open string", "a number", "strings of brackets", "cut"],
)
def test_a_hostile_body_takes_time_in_proportion_to_its_size(body):
    started = time.process_time()
    read_envelope(body)
    assert time.process_time() - started < 3.0
