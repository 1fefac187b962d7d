"""A batch: what one upstream request carries, and what must never leave in one."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.buffer import Head
from proxy.flusher.batch import LaneFault, batch_of
from proxy.lanes import Lane, lane_id
from proxy.ledger import Underfull
from proxy.wire.limits import EVENTS_PER_REQUEST, REQUEST_BYTES

LANE = Lane(b'{"source":"server","visitorId":"v1"}', "192.0.2.1", "Mozilla/5.0", "https://acme.example")
BARE = Lane(b"{}")


def text(number: int, size: int = 0) -> bytes:
    begin = b'{"n":%d,"pad":"' % number
    return begin + b"x" * max(0, size - len(begin) - 2) + b'"}'


def head(texts: list[bytes], more: str = "none", lane: Lane = LANE) -> Head:
    header = lane.header()
    accepted_ms = [1_000 + at for at in range(len(texts))]
    return Head(
        header,
        [lane_id(header)] * len(texts),
        accepted_ms,
        bytes(16 * len(texts)),
        texts,
        more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("lane", [LANE, BARE])
def test_the_body_is_the_envelope_with_the_events_in_order(lane: Lane) -> None:
    texts = [text(n) for n in range(3)]
    batch = batch_of(head(texts, lane=lane), 100)
    assert json.loads(batch.body) == json.loads(lane.envelope) | {
        "events": [json.loads(each) for each in texts]
    }
    assert (batch.lane, batch.events, batch.accepted_ms) == (lane, 3, [1_000, 1_001, 1_002])


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_event_of_another_lane_stops_the_whole_batch(place: int) -> None:
    good = head([text(n) for n in range(3)])
    stranger = lane_id(replace(LANE, client_ip="192.0.2.2").header())
    lanes = [stranger if at == place else lane for at, lane in enumerate(good.lanes)]
    with pytest.raises(LaneFault):
        batch_of(replace(good, lanes=lanes), 100)


def test_a_header_of_another_lane_stops_the_batch() -> None:
    good = head([text(1)])
    with pytest.raises(LaneFault):
        batch_of(replace(good, header=replace(LANE, user_agent=None).header()), 100)


@pytest.mark.parametrize("lane", [LANE, BARE])
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_body_of_exactly_the_bound_leaves_whole_and_one_byte_more_does_not(lane: Lane, beyond: int) -> None:
    empty = len(batch_of(head([text(1)], lane=lane), 100).body) - len(text(1))
    first = text(1, 500_000)
    second = text(2, REQUEST_BYTES - empty - len(first) - 1 + beyond)
    batch = batch_of(head([first, second], lane=lane), 100)
    if beyond <= 0:
        assert (batch.events, len(batch.body)) == (2, REQUEST_BYTES + beyond)
    else:
        assert (batch.events, batch.accepted_ms, batch.underfull) == (1, [1_000], Underfull.BYTES)


@given(
    st.lists(
        st.sampled_from([20, 5_000, 30_000, 400_000, 900_000]) | st.integers(20, 20_000),
        min_size=1,
        max_size=120,
    )
)
def test_a_batch_is_the_longest_prefix_within_both_bounds(sizes: list[int]) -> None:
    texts = [text(n, size) for n, size in enumerate(sizes)]
    batch = batch_of(head(texts), 100)
    assert len(batch.body) <= REQUEST_BYTES
    assert 1 <= batch.events <= EVENTS_PER_REQUEST
    events = json.loads(batch.body)["events"]
    assert [each["n"] for each in events] == list(range(batch.events))
    if batch.events < min(len(texts), EVENTS_PER_REQUEST):
        assert len(batch.body) + 1 + len(texts[batch.events]) > REQUEST_BYTES


@pytest.mark.parametrize(
    ("events", "max_events", "more", "underfull"),
    [
        (100, 100, "none", None),
        (100, 100, "events", None),
        (100, 100, "lane", None),
        (3, 100, "none", Underfull.LINGER),
        (3, 100, "lane", Underfull.LANE),
        (3, 100, "bytes", Underfull.BYTES),
        (50, 50, "events", Underfull.LIMIT),
        (50, 50, "none", Underfull.LIMIT),
        (1, 1, "events", Underfull.LIMIT),
    ],
)
def test_a_batch_says_why_it_leaves_underfull(
    events: int, max_events: int, more: str, underfull: Underfull | None
) -> None:
    texts = [text(n) for n in range(events)]
    assert batch_of(head(texts, more), max_events).underfull == underfull
    draining = batch_of(head(texts, more), max_events, draining=True).underfull
    assert draining == (Underfull.DRAIN if underfull is Underfull.LINGER else underfull)


def test_each_reason_of_an_underfull_batch_can_be_the_one() -> None:
    """With these five there is always exactly one: what ended the batch, looked for in this order."""
    texts = [text(1)]
    reasons = {
        batch_of(head(texts, more), max_events, draining=draining).underfull
        for more in ("none", "lane", "bytes", "events")
        for max_events in (1, 2)
        for draining in (False, True)
    }
    assert reasons == set(Underfull)
