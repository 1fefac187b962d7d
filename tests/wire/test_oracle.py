"""Two independent readings of the contract, ours and the sandbox's, hold the same things valid.

Where they differ on purpose, it is listed here, each with its reason; anything else is a misreading of one.
"""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.sandbox.outcome import Outcome, Rules, judged
from proxy.sandbox.violations import ViolationKind
from proxy.wire.envelope import Envelope, Unusable, read_envelope
from proxy.wire.events import Reading
from proxy.wire.request import body_of
from tests.sandbox.bodies import VISITOR
from tests.wire.spelling import envelopes, events

RECEIVED_MS = 1_795_000_000_000

# What our reading takes (or mends) and the sandbox refuses: each says how such an event is told.
WE_TAKE: dict[str, Callable[[dict[str, Any]], bool]] = {
    # The reference page lets it be missing, the published schema does not: we fill in the time of receipt.
    "timestamp": lambda event: "timestamp" not in event,
    # What a booking page says of its guest is no identity: it goes on, and if upstream refuses it, that event
    # alone is a dead letter.
    "inviteeEmail": lambda event: isinstance(event.get("inviteeEmail"), str),
}


def only_we_take_out(path: tuple[str | int, ...], value: Any) -> bool:
    """What the sandbox takes and we take out of the envelope: an object in `traits.customer`.

    Only `identify` events of Node 1.1.0-1.4.4 hold one there; in an envelope, where no client has it, one
    that is refused would take all events with it.
    """
    return path[1:] == ("traits", "customer") and isinstance(value["traits"]["customer"], dict)


EVENT = {"type": "pageview", "timestamp": 1, "url": "a:b", "path": ""}


def sandbox_says(body: bytes) -> Outcome:
    return judged(body, Rules())


def refused_events(outcome: Outcome) -> dict[int, Any]:
    return {
        violation.path[1]: violation.path[2:]
        for violation in outcome.violations
        if violation.kind is ViolationKind.EVENT and isinstance(violation.path[1], int)
    }


def refused_fields(outcome: Outcome) -> set[Any]:
    return {violation.path[0] for violation in outcome.violations if violation.kind is ViolationKind.ENVELOPE}


@settings(max_examples=500)
@given(envelopes(), st.lists(events(), min_size=1, max_size=6))
def test_both_refuse_the_same_events(fields, posted):
    body = json.dumps({**fields, "events": posted}).encode()
    ours = read_envelope(body)
    if not isinstance(ours, Envelope):
        return
    # Under our mended envelope, for the sandbox judges no event of a request whose envelope it refuses.
    theirs = sandbox_says(json.dumps({**json.loads(ours.fields), "events": posted}).encode())
    assert not refused_fields(theirs)
    refused = refused_events(theirs)
    for index, (sent, reading) in enumerate(zip(posted, ours.events, strict=True)):
        if isinstance(reading, Reading):
            place = refused.get(index)
            assert place is None or WE_TAKE[place[0]](sent), (sent, place)
        else:
            assert index in refused, (sent, reading)


@settings(max_examples=500)
@given(envelopes())
def test_both_refuse_the_same_fields_of_the_envelope(fields):
    """Field by field, since the sandbox names only the first that it refuses."""
    for name, value in fields.items():
        of_one = {"source": "server", "visitorId": VISITOR, name: value}
        body = json.dumps({**of_one, "events": [EVENT]}).encode()
        ours, theirs = read_envelope(body), refused_fields(sandbox_says(body))
        if of_one == {"source": "server", "visitorId": ""}:
            continue  # an empty string counts as missing, where it may be; the sandbox must not see it
        if isinstance(ours, Unusable):
            assert theirs
            continue
        taken_out = {repair.path[0] for repair in ours.repairs if not only_we_take_out(repair.path, value)}
        assert taken_out == theirs


@settings(max_examples=300)
@given(envelopes())
def test_both_hold_the_same_requests_unusable(fields):
    of_two = {name: fields[name] for name in ("source", "visitorId") if name in fields}
    body = json.dumps({**of_two, "events": [EVENT]}).encode()
    ours, theirs = read_envelope(body), refused_fields(sandbox_says(body))
    if isinstance(ours, Unusable):
        assert theirs
    elif of_two.get("visitorId") != "":
        assert theirs == {repair.path[0] for repair in ours.repairs}


@settings(max_examples=300)
@given(envelopes(), st.lists(events(), min_size=1, max_size=6))
def test_what_we_send_on_the_sandbox_takes(fields, posted):
    ours = read_envelope(json.dumps({**fields, "events": posted}).encode())
    if not isinstance(ours, Envelope):
        return
    readings = [reading for reading in ours.events if isinstance(reading, Reading)]
    if not readings:
        return
    texts = [reading.stored(reading.uuid or VISITOR, RECEIVED_MS) for reading in readings]
    theirs = sandbox_says(body_of(ours.fields, texts))
    for place in refused_events(theirs).values():
        assert place == ("inviteeEmail",)
    kinds = {violation.kind for violation in theirs.violations}
    assert kinds <= {ViolationKind.EVENT}, "no secret, no missing uuid, nothing wrong with the envelope"
