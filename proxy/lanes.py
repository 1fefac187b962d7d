"""Which lane a request's events travel in, and which queue each of them waits in.

A *lane* is everything that applies to a whole upstream request: the envelope without its events, and the
client's address, User-Agent and Origin. Two events may share a request only when their lanes are equal;
anything less would attribute one person's activity to another. Equality is that of a canonical form over
typed values, in which `1`, `true`, `"1"`, null, "" and an absent field are all different.

A *queue* holds the waiting events of one visitor, oldest first, whatever lanes they came in: so a
visitor's order survives a change of session, address or identity. Traffic of servers, which has no
visitor, is kept in order for each user of each sender.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import NewType

import msgspec

from proxy.wire.columns import Columns
from proxy.wire.envelope import Envelope
from proxy.wire.events import Reading

LaneId = NewType("LaneId", bytes)
"""128 bits that stand for a lane's canonical header."""

QueueId = NewType("QueueId", bytes)
"""128 bits that stand for a queue's identity within its public key."""

BUCKETS = 16
"""Queues into which one sender's unattributed events are spread: as many requests of it can fly at once."""

_ID_BYTES = 16


@dataclass(frozen=True, slots=True)
class Lane:
    """Everything that applies to a whole upstream request.

    `envelope` is the canonical JSON object of the envelope without `events`; the other three are header
    texts in the form in which they will be sent, None where the request had none.
    """

    envelope: bytes
    client_ip: str | None = None
    user_agent: str | None = None
    origin: str | None = None

    def header(self) -> bytes:
        """The lane as it is stored: equal for equal lanes, and for no others."""
        return lane_header(self.envelope, self.client_ip, self.user_agent, self.origin)

    @classmethod
    def of_header(cls, header: bytes) -> "Lane":
        """The lane that `header` stands for."""
        return cls(*_decode_header(header))


# MessagePack, in which the envelope is bytes that nobody reads again: as a part of a JSON text it would have
# to be valid for a second decoder, and an envelope with a lone surrogate never left the buffer.
_encode_header = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(tuple[bytes, str | None, str | None, str | None]).decode


def lane_header(envelope: bytes, client_ip: str | None, user_agent: str | None, origin: str | None) -> bytes:
    """The header of the lane of these, without the lane."""
    return _encode_header((envelope, client_ip, user_agent, origin))


_LANE = blake2b(digest_size=_ID_BYTES, person=b"lane")


def lane_id(header: bytes) -> LaneId:
    """The identity of the lane with this header. A keyless cryptographic hash: nobody can make two meet."""
    hasher = _LANE.copy()  # cheaper than setting one up
    hasher.update(header)
    return LaneId(hasher.digest())


class QueueOf:
    """Chooses the queue of each event of one request; `whole` is the queue of all, where they share one."""

    __slots__ = ("_buckets", "_lane", "_of_identity", "whole")

    def __init__(self, envelope: Envelope, lane: LaneId) -> None:
        self._lane = lane
        self.whole = _queue_of_envelope(envelope.visitor_id, envelope.identities)
        self._of_identity: dict[str, QueueId] = {}
        self._buckets: dict[int, QueueId] = {}

    def __call__(self, reading: Reading) -> QueueId:
        """The queue of this event of the request."""
        if self.whole is not None:
            return self.whole
        return self._of_sender(reading.identity(), reading.canonical)

    def each(self, columns: Columns) -> list[QueueId]:
        """The queue of each event of the request."""
        if self.whole is not None:
            return [self.whole] * len(columns)
        return [*map(self._of_sender, columns.identities(), columns.canonical)]

    def _of_sender(self, identity: str | None, canonical: bytes) -> QueueId:
        if identity is None:
            return self._bucket(canonical)
        queue = self._of_identity.get(identity)
        if queue is None:
            queue = self._bucket(identity.encode("utf-8", "surrogatepass"))
            self._of_identity[identity] = queue
        return queue

    def _bucket(self, own: bytes) -> QueueId:
        bucket = blake2b(own, digest_size=1).digest()[0] % BUCKETS
        queue = self._buckets.get(bucket)
        if queue is None:
            queue = self._buckets[bucket] = _queue(b"sender", self._lane + bytes((bucket,)))
        return queue


_VISITOR = blake2b(digest_size=_ID_BYTES, person=b"visitorId")


def visitor_queue(visitor_id: str) -> QueueId:
    """The queue of a visitor; the case of a UUID's letters says nothing."""
    hasher = _VISITOR.copy()
    hasher.update(visitor_id.lower().encode("ascii"))
    return QueueId(hasher.digest())


def _queue_of_envelope(visitor_id: str | None, identities: Mapping[str, str]) -> QueueId | None:
    if visitor_id is not None:
        return visitor_queue(visitor_id)
    for kind, value in identities.items():  # strongest first
        return _queue(kind.encode("ascii"), value.encode("utf-8", "surrogatepass"))
    return None


def _queue(kind: bytes, value: bytes) -> QueueId:
    return QueueId(blake2b(value, digest_size=_ID_BYTES, person=kind).digest())
