"""Answers: emitted so that every client can read them, read in both forms that upstream may use."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.wire.answers import STATUS, Code, Complaint, Said, accepted, read_answer, refused
from proxy.wire.fields import Flaw

BAD = [(2, Flaw(("type",), "is required")), (5, Flaw((), "expected an object"))]
REPAIR = Flaw(("userIdentity", "email"), "expected an e-mail address")


def test_a_request_taken_whole_is_answered_200():
    answer = accepted(3, [], [])
    assert (answer.status, json.loads(answer.body)) == (200, {"success": True, "processed": 3})


def test_bad_events_are_named_in_a_207_by_index_and_message_alone():
    answer = accepted(4, BAD, [])
    assert answer.status == 207
    assert json.loads(answer.body) == {
        "success": False,
        "processed": 4,
        "errors": [
            {"index": 2, "message": "type: is required"},
            {"index": 5, "message": "expected an object"},
        ],
    }


def test_what_was_taken_out_of_the_envelope_is_named_without_an_index_that_no_client_reads():
    body = json.loads(accepted(3, [], [REPAIR]).body)
    assert (body["success"], body["processed"]) == (True, 3)
    assert [(error["index"], error["message"]) for error in body["errors"]] == [
        (0, "taken out of the envelope: userIdentity.email: expected an e-mail address")
    ]
    assert accepted(3, [], [REPAIR]).status == 200
    # Beside bad events it must not seem that a further one was refused.
    assert {error["index"] for error in json.loads(accepted(1, BAD, [REPAIR]).body)["errors"]} == {2, 5}


def test_of_many_repairs_some_are_named_and_the_others_counted():
    """An envelope of 8 MB that was all bad was answered with 115 MB."""
    for repairs, more in ((20, []), (21, ["and 1 more"]), (860_000, ["and 859980 more"])):
        body = json.loads(accepted(3, BAD, [REPAIR] * repairs).body)
        taken_out = [
            error["message"].removeprefix("taken out of the envelope: ")
            for error in body["errors"]
            if error["message"].startswith("taken out of the envelope: ")
        ]
        assert taken_out == ["userIdentity.email: expected an e-mail address"] * 20 + more
        assert {error["index"] for error in body["errors"]} == {2, 5}


def test_each_refused_event_is_named_at_bounded_length():
    bad = [(n, Flaw(("a" * 100,) * 100, "b" * 10_000)) for n in range(5_000)]
    errors = json.loads(accepted(0, bad, []).body)["errors"]
    assert [error["index"] for error in errors] == list(range(5_000))
    assert max(len(error["message"]) for error in errors) <= 301


@given(
    processed=st.integers(0, 5_000),
    bad=st.lists(st.tuples(st.integers(0, 5_000), st.text(st.characters(exclude_categories=[])))),
    repairs=st.lists(st.text(st.characters(exclude_categories=[]))),
)
def test_every_2xx_holds_integers_where_clients_read_them_and_no_other_fields(processed, bad, repairs):
    answer = accepted(processed, [(n, Flaw((t,), t)) for n, t in bad], [Flaw((t,), t) for t in repairs])
    body = json.loads(answer.body)
    assert answer.status == (207 if bad else 200)
    assert body.keys() <= {"success", "processed", "errors"}
    assert body["processed"] == processed
    for error in body.get("errors", []):
        assert error.keys() == {"index", "message"}
        assert error["index"] >= 0
        assert isinstance(error["message"], str)


@pytest.mark.parametrize("code", Code)
def test_a_refusal_holds_both_forms_of_error_and_its_code(code):
    answer = refused(code, "why", ("events", 0, "type"))
    assert answer.status == STATUS[code]
    assert answer.code is code
    assert json.loads(answer.body) == {
        "success": False,
        "processed": 0,
        "message": "why",
        "code": str(code),
        "errors": [{"index": -1, "path": ["events", 0, "type"], "message": "why"}],
    }


def test_a_clients_own_words_are_repeated_in_part_only():
    assert len(refused(Code.INVALID_EVENTS, "why", ("x" * 10_000,)).body) < 500
    assert len(accepted(0, [(0, Flaw(("x" * 10_000,), "why"))], []).body) < 500


def complaint(index: int | None, message: str = "why", *, envelope: bool = False) -> Complaint:
    return Complaint(index, envelope, message)


@pytest.mark.parametrize(
    ("errors", "complaints"),
    [
        # the endpoint page's form
        ([{"index": 2, "message": "why"}], [complaint(2)]),
        (
            [{"index": 0, "message": "a"}, {"index": 99, "message": "b"}],
            [complaint(0, "a"), complaint(99, "b")],
        ),
        ([{"index": -1, "message": "why"}], [complaint(None)]),
        # the overview page's form
        ([{"path": ["events", 3, "type"], "message": "why"}], [complaint(3)]),
        ([{"path": ["events", 3], "message": "why"}], [complaint(3)]),
        ([{"path": ["visitorId"], "message": "why"}], [complaint(None, envelope=True)]),
        ([{"path": ["userIdentity", "email"], "message": "why"}], [complaint(None, envelope=True)]),
        ([{"path": ["events"], "message": "why"}], [complaint(None)]),
        ([{"path": [], "message": "why"}], [complaint(None)]),
        # both
        ([{"index": 1, "path": ["events", 1, "url"], "message": "why"}], [complaint(1)]),
        # what no page shows
        ([{"index": 2}], [complaint(2, "")]),
        ([{"index": 2, "message": {"a": 1}}], [complaint(2, "")]),
        ([{"index": True, "message": "why"}], [complaint(None)]),
        ([{"index": 1.0, "message": "why"}], [complaint(None)]),
        ([{"index": "1", "message": "why"}], [complaint(None)]),
        ([{"path": ["events", "1"], "message": "why"}], [complaint(None)]),
        ([{"path": ["events", -1], "message": "why"}], [complaint(None)]),
        ([{"path": "events.1", "message": "why"}], [complaint(None)]),
        ([{"path": [7], "message": "why"}], [complaint(None)]),
        (["why", None, 7], []),
        ("why", []),
        (None, []),
    ],
)
def test_errors_of_upstream_are_read_in_both_forms(errors, complaints):
    body = {"success": False, "processed": 3, "message": "Invalid", "errors": errors}
    assert read_answer(json.dumps(body).encode()) == Said(
        3, success=False, message="Invalid", complaints=tuple(complaints)
    )


@pytest.mark.parametrize(
    ("processed", "says"), [(0, 0), (3, 3), (-1, None), (True, None), ("3", None), (3.0, None), (None, None)]
)
def test_processed_is_a_count_or_says_nothing(processed, says):
    assert read_answer(json.dumps({"processed": processed}).encode()).processed == says


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"{", b"[]", b"null", b"7", b"\xff", b"[" * 10**5, b'{"a":NaN']
)
def test_an_answer_that_cannot_be_read_says_nothing(body):
    assert read_answer(body) == Said()


def test_upstreams_words_are_kept_in_part_only():
    said = read_answer(
        json.dumps({"message": "x" * 10_000, "errors": [{"index": 1, "message": "y" * 10_000}]}).encode()
    )
    assert (said.message, said.complaints[0].message) == ("x" * 500, "y" * 500)


@pytest.mark.parametrize(
    ("message", "kept"),
    [
        ("cut off \ud83d", "cut off  "),
        ("a\x00b\x1b[31mred\r\nnew line", "a b [31mred  new line"),
        ("\u202egnp.exe", " gnp.exe"),
        ("Ungültig: 日本 🦊", "Ungültig: 日本 🦊"),
    ],
)
def test_upstreams_words_can_be_stored_sent_and_shown(message, kept):
    """A lone surrogate once ended the flusher: no store takes one."""
    body = json.dumps({"message": message, "errors": [{"index": 0, "message": message}]}).encode()
    said = read_answer(body)
    assert (said.message, said.complaints[0].message) == (kept, kept)
    said.message.encode()


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (Said(), ""),
        (Said(message="Invalid"), "Invalid"),
        (Said(message="Invalid", complaints=(Complaint(0, envelope=False, message="bad"),)), "Invalid"),
        (
            Said(
                complaints=tuple(Complaint(0, envelope=False, message=text) for text in ("", "bad", "worse"))
            ),
            "bad",
        ),
    ],
)
def test_an_answer_has_one_word_for_people(said, word):
    assert said.word == word


_odd = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text() | st.just("events"),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["errors", "path", "index", "message", "processed", "success"]) | st.text(), inner
        )
    ),
)


@given(st.binary(max_size=200) | _odd.map(lambda value: json.dumps(value).encode()))
def test_no_answer_is_too_odd_to_be_read(body):
    said = read_answer(body)
    for complaint in said.complaints:
        assert complaint.index is None or complaint.index >= 0
        assert complaint.message.isprintable()


@given(st.lists(_odd, max_size=4), st.sampled_from(["path", "index"]), st.binary(max_size=3))
def test_errors_of_any_shape_are_read_or_passed_over(values, name, tail):
    errors = [{name: value, "message": value} for value in values]
    read_answer(json.dumps({"errors": errors}).encode() + tail)


@pytest.mark.parametrize("depth", [10, 10_000, 60_000])
@pytest.mark.parametrize("place", ["errors", "path", "message", "processed"])
def test_an_answer_that_nests_without_end_is_read_all_the_same(place, depth):
    nested = b"[" * depth + b"]" * depth
    inner = b'{"%s":%s,"index":1}' % (place.encode(), nested)
    read_answer(b'{"errors":[%s],"%s":%s}' % (inner, place.encode(), nested))
