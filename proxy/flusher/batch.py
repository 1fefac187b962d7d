"""A batch: the head of a queue as one upstream request. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from proxy.buffer import Head
from proxy.lanes import Lane, lane_id
from proxy.ledger import Underfull
from proxy.wire.limits import EVENTS_PER_REQUEST, REQUEST_BYTES
from proxy.wire.request import body_bytes, body_of


class LaneFault(Exception):
    """An event at the head is not of the lane that its header says: it must not be sent under it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of one upstream request: `events` from the head of a queue, all of one lane.

    `accepted_ms`: when each was accepted, on the store's clock.
    """

    lane: Lane
    body: bytes
    events: int
    accepted_ms: Sequence[int]
    underfull: Underfull | None


def batch_of(head: Head, max_events: int, *, draining: bool = False) -> Batch:
    """The longest prefix of `head` that one request can carry. `draining`: it did not wait for its linger.

    Raises LaneFault where an entry does not carry the header's lane id: the last check before events of
    two visitors could leave under one envelope.
    """
    if set(head.lanes) != {lane_id(head.header)}:
        raise LaneFault
    lane = Lane.of_header(head.header)
    texts = list(head.texts[:EVENTS_PER_REQUEST])
    size = body_bytes(lane.envelope, sum(map(len, texts)), len(texts))
    more = head.more
    # One event alone always fits: the front refuses what no request could carry.
    while size > REQUEST_BYTES and len(texts) > 1:
        size -= len(texts.pop()) + 1
        more = "bytes"
    nothing_behind = Underfull.DRAIN if draining else Underfull.LINGER
    events = len(texts)
    return Batch(
        lane,
        body_of(lane.envelope, texts),
        events,
        head.accepted_ms[:events],
        _underfull(events, max_events, more, nothing_behind),
    )


def _underfull(events: int, max_events: int, more: str, nothing_behind: Underfull) -> Underfull | None:
    if events >= EVENTS_PER_REQUEST:
        return None
    if events >= max_events:
        return Underfull.LIMIT
    return {"lane": Underfull.LANE, "bytes": Underfull.BYTES}.get(more, nothing_behind)
