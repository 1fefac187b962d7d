"""The upstream request: its body is the envelope with its events, its size known beforehand."""

import json

import pytest

from proxy.wire.limits import PublicKey, public_key
from proxy.wire.request import body_bytes, body_of, events_path


@pytest.mark.parametrize("envelope", [{}, {"source": "server"}, {"a": [1], "visitorId": "v"}])
@pytest.mark.parametrize("events", [1, 2, 100])
def test_a_body_is_the_envelope_with_its_events_in_order(envelope, events):
    texts = [json.dumps({"n": n}).encode() for n in range(events)]
    head = json.dumps(envelope).encode()
    body = body_of(head, texts)
    assert json.loads(body) == {**envelope, "events": [{"n": n} for n in range(events)]}
    assert len(body) == body_bytes(head, sum(map(len, texts)), events)


@pytest.mark.parametrize("text", ["pk_a", "pk_" + "x" * 64, "pk_A-z_0"])
def test_a_public_key_needs_no_encoding_in_a_path(text):
    assert public_key(text) == text
    assert events_path(PublicKey(text)) == f"/api/i/v1/{text}/events"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pk_",
        "PK_a",
        "ok_a",
        "pk_a b",
        "pk_a/b",
        "pk_" + "x" * 65,
        "pk_é",
        "pk_a\n",
        " pk_a",
        "pk_٣",
        "pk_%61",
    ],
)
def test_what_is_no_public_key_is_none(text):
    assert public_key(text) is None
