"""The events of a request made ready for the buffer.

Each is given its queue, its uuid, its final text, and an id that a retry of it is recognised by. A client's
retry must be recognised even where the client sends no uuid, so a missing one is derived from what the retry
repeats: the queue, the event as it was posted (before anything is filled in or redacted), and how many equal
events stood before it in the request. An event without a timestamp repeats nothing that would tell a retry
from a second click; it gets a fresh uuid and the time of receipt.

The dedup id is a hash of the uuid and of the event as it was posted; where that holds the client's own uuid,
of the event alone, so that for most requests it is one pass over the texts.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import uuid_utils
import xxhash
from msgspec import UNSET

from proxy.buffer import Portion
from proxy.lanes import LaneId, QueueId, QueueOf
from proxy.wire.columns import Columns
from proxy.wire.envelope import Envelope
from proxy.wire.events import TOO_LARGE, Reading, filled_in
from proxy.wire.fields import Flaw
from proxy.wire.limits import REQUEST_BYTES
from proxy.wire.request import body_bytes

_UUID_BYTES = 16

_MOST_FILLED_IN = 80
"""Bytes by which the text of an event grows at most."""

UNKNOWN_TYPE = Flaw(("type",), "unknown, and this proxy is set to refuse that")
UNKNOWN_FIELDS = Flaw((), "has unknown fields, and this proxy is set to refuse that")


@dataclass(slots=True)
class Sorted:
    """A request's events, sorted: what goes into the buffer, and what is bad."""

    portions: list[Portion]
    bad: Sequence[tuple[int, Flaw]] = ()
    too_large: int = 0
    unknown: int = 0


def sort(
    envelope: Envelope, lane: LaneId, header: bytes, received_ms: int, *, refuse_unknown: bool
) -> Sorted:
    """Sort the events of a request whose lane has this id and header.

    `refuse_unknown`: an event of an unknown type, or with unknown fields, is bad.
    """
    queue_of = QueueOf(envelope, lane)
    room = REQUEST_BYTES - body_bytes(envelope.fields, 0, 1)
    events = envelope.events
    if isinstance(events, Columns) and max(map(len, events.redacted)) + _MOST_FILLED_IN <= room:
        if queue_of.whole is not None and not events.incomplete:  # the columns are the portion's as they are
            ids = _dedup_ids(events.canonical)
            return Sorted([Portion(queue_of.whole, lane, header, events.uuids, ids, events.redacted)])
        ready = _Ready(queue_of.each(events), events.uuids, events.canonical, events.redacted)
        if events.incomplete:
            ready.complete(events, received_ms)
        return Sorted(ready.portions(lane, header))
    ready = _Ready([], bytearray(), [], [])
    fresh = _Uuids()
    bad: list[tuple[int, Flaw]] = []
    unknown = 0
    for index, reading in enumerate(events):
        if isinstance(reading, Flaw):
            bad.append((index, reading))
        elif refuse_unknown and (reading.unknown_type or reading.unknown_fields):
            unknown += 1
            bad.append((index, UNKNOWN_TYPE if reading.unknown_type else UNKNOWN_FIELDS))
        elif not ready.add(reading, queue_of(reading), fresh, received_ms, room):
            bad.append((index, TOO_LARGE))
    too_large = sum(flaw is TOO_LARGE for _, flaw in bad)
    return Sorted(ready.portions(lane, header), bad, too_large, unknown)


class _Uuids:
    """Makes the uuids that the events of one request lack."""

    __slots__ = ("_hashers", "_occurrences")

    def __init__(self) -> None:
        self._occurrences: dict[tuple[QueueId, bytes], int] = {}
        self._hashers: dict[tuple[QueueId, int], blake2b] = {}

    def make(self, queue: QueueId, canonical: bytes, *, has_timestamp: bool) -> uuid_utils.UUID:
        """That of the next event."""
        if not has_timestamp:
            return uuid_utils.uuid7()
        occurrence = self._occurrences.get((queue, canonical), 0)
        self._occurrences[queue, canonical] = occurrence + 1
        hasher = self._hashers.get((queue, occurrence))
        if hasher is None:
            hasher = blake2b(digest_size=_UUID_BYTES, key=queue, salt=b"%d" % occurrence)
            self._hashers[queue, occurrence] = hasher
        hasher = hasher.copy()  # half the price of setting one up
        hasher.update(canonical)
        return uuid_utils.UUID(bytes=hasher.digest(), version=8)  # 8: a UUID of the maker's own making


def _dedup_ids(identities: Sequence[bytes]) -> "array[int]":
    return array("q", b"".join(map(xxhash.xxh3_64_digest, identities)))


@dataclass(slots=True)
class _Ready:
    """Events in columns: queue, 16 bytes of uuid, what the dedup id is the hash of, and text of each."""

    queues: list[QueueId]
    uuids: bytes | bytearray
    identities: list[bytes]
    texts: list[bytes]

    def add(self, reading: Reading, queue: QueueId, fresh: _Uuids, received_ms: int, room: int) -> bool:
        """Add one, unless it is larger than `room`."""
        posted, identity = reading.uuid, reading.canonical
        if posted is None:
            made = fresh.make(queue, reading.canonical, has_timestamp=reading.has_timestamp)
            uuid, posted, identity = made.bytes, str(made), made.bytes + reading.canonical
        else:
            uuid = bytes.fromhex(posted.replace("-", ""))
        text = reading.stored(posted, received_ms)
        if len(text) > room:
            return False
        self.queues.append(queue)
        self.uuids += uuid
        self.identities.append(identity)
        self.texts.append(text)
        return True

    def complete(self, columns: Columns, received_ms: int) -> None:
        """Give the events of an ordinary request what they lack of uuid and timestamp."""
        self.uuids = uuids = bytearray(columns.uuids)
        self.identities, self.texts = [*columns.canonical], [*columns.redacted]
        fresh = _Uuids()
        for at in columns.incomplete:
            event, canonical, filled_uuid = columns.events[at], columns.canonical[at], None
            has_timestamp = event.timestamp is not UNSET
            if event.uuid is UNSET:
                made = fresh.make(self.queues[at], canonical, has_timestamp=has_timestamp)
                uuids[at * _UUID_BYTES : (at + 1) * _UUID_BYTES] = made.bytes
                self.identities[at] = made.bytes + canonical
                filled_uuid = str(made)
            self.texts[at] = filled_in(self.texts[at], filled_uuid, None if has_timestamp else received_ms)

    def portions(self, lane: LaneId, header: bytes) -> list[Portion]:
        """Them by their queues, in order."""
        queues, ids = self.queues, _dedup_ids(self.identities)
        if queues and queues.count(queues[0]) == len(queues):
            return [Portion(queues[0], lane, header, bytes(self.uuids), ids, self.texts)]
        places: dict[QueueId, list[int]] = {}
        for at, queue in enumerate(queues):
            places.setdefault(queue, []).append(at)
        uuids = [self.uuids[at : at + _UUID_BYTES] for at in range(0, len(self.uuids), _UUID_BYTES)]
        return [
            Portion(
                queue,
                lane,
                header,
                b"".join([uuids[at] for at in held]),
                array("q", [ids[at] for at in held]),
                [self.texts[at] for at in held],
            )
            for queue, held in places.items()
        ]
