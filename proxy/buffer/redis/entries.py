"""What stands in a queue's list and in a key's records, as bytes. Lua reads no more of them than their heads.

A queue's list holds lane headers and *runs*, oldest first. A run belongs to the lane of the header nearest
before it, and says its id once more. All numbers are big-endian.

    header   "H" · lane 16 · the lane's header
    run      "R" · accepted_ms 8 · first 8 · lane 16 · events 2 · flags 1 · checksum 8
             · uuids 16 each · places 1 each (flag 2) · lengths 4 each · body (flag 1: a zstd frame)
    letter   died_ms 8 · bytes 4 · MessagePack of what died
    batch    settled_ms 8 · MessagePack of what became of it

`first` numbers a run's first event among all that the key ever accepted; an event's place is counted from it,
so each keeps its number when others of its run have gone. `accepted_ms`, `first`, `died_ms` and `settled_ms`
are written by the scripts, which know the time.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple, Self

import msgspec

from proxy.buffer.packing import Damaged, Packed, pack, unpack
from proxy.buffer.values import Batch, DeadLetter
from proxy.lanes import LaneId, QueueId
from proxy.ledger import Answered, Dead
from proxy.wire.limits import PublicKey

LANE_OVERHEAD = 60
"""Bytes counted for a lane header beside its text."""

RUN_OVERHEAD = 80
"""Bytes counted for a run beside its columns."""

EVENT_OVERHEAD = 50
"""Bytes counted for an event beside its text: uuid, length, dedup id."""

QUEUE_OVERHEAD = 800
"""Bytes counted for a queue that holds events: its list, dedup ids and entries in the key's collections."""

DEAD_OVERHEAD = 300
"""Bytes counted for a dead letter beside its texts."""

_STAMP = Struct(">cQQ")
_FIXED = Struct(">16sHB8s")
_LETTER = Struct(">QI")
_SETTLED = Struct(">Q")
_RECORD = Struct(">IHHBBBB")
_COMPRESSED, _PLACED = 1, 2


def header_entry(lane: bytes, header: bytes) -> bytes:
    """A lane's header as it stands in a list."""
    return b"H" + lane + header


def header_bytes(header: bytes) -> int:
    """What is counted for a header entry."""
    return LANE_OVERHEAD + len(header)


class Header(NamedTuple):
    """A header entry that was read."""

    lane: LaneId
    header: bytes

    @property
    def entry(self) -> bytes:
        """As it stands in a list."""
        return header_entry(self.lane, self.header)

    @property
    def stored_bytes(self) -> int:
        """What is counted for it."""
        return header_bytes(self.header)


@dataclass(frozen=True, slots=True)
class Run:
    """A run that was read. Without `places` its events stand in their first places."""

    accepted_ms: int
    first: int
    lane: LaneId
    uuids: bytes
    places: bytes
    packed: Packed

    @property
    def events(self) -> int:
        return len(self.uuids) // 16

    @property
    def stored_bytes(self) -> int:
        """What is counted for it."""
        return run_bytes(self.events, len(self.packed.body))

    def texts(self) -> list[bytes]:
        """The events' texts. Raises Damaged."""
        return unpack(self.uuids, *self.packed)

    def number(self, at: int) -> int:
        """The number of an event, by its position, among all that the key ever accepted."""
        return self.first + (self.places[at] if self.places else at)

    def kept(self, positions: Sequence[int]) -> Self:
        """The run with only the events at these positions."""
        texts = self.texts()
        uuids = b"".join([self.uuids[16 * at : 16 * at + 16] for at in positions])
        places = bytes(self.number(at) - self.first for at in positions)
        packed = pack(uuids, [texts[at] for at in positions])
        return type(self)(self.accepted_ms, self.first, self.lane, uuids, places, packed)

    @property
    def entry(self) -> bytes:
        """As it stands in a list."""
        stamp = _STAMP.pack(b"R", self.accepted_ms, self.first)
        return stamp + _unstamped(self.lane, self.uuids, self.places, self.packed)


def run_bytes(events: int, body_bytes: int) -> int:
    """What is counted for a run of so many events with such a body."""
    return RUN_OVERHEAD + EVENT_OVERHEAD * events + body_bytes


def unstamped_run(lane: bytes, uuids: bytes, texts: Sequence[bytes]) -> tuple[bytes, int]:
    """A new run without the stamp that `append` puts before it, and what is counted for it."""
    packed = pack(uuids, texts)
    return _unstamped(lane, uuids, b"", packed), run_bytes(len(texts), len(packed.body))


def _unstamped(lane: bytes, uuids: bytes, places: bytes, packed: Packed) -> bytes:
    flags = (_COMPRESSED if packed.packed else 0) | (_PLACED if places else 0)
    fixed = _FIXED.pack(lane, len(uuids) // 16, flags, packed.checksum)
    return b"".join((fixed, uuids, places, packed.lengths, packed.body))


def read_entry(entry: bytes) -> Header | Run:
    """An entry of a queue's list. Raises Damaged."""
    kind = entry[:1]
    if kind == b"H" and len(entry) > 17:
        return Header(LaneId(entry[1:17]), entry[17:])
    if kind != b"R" or len(entry) < _STAMP.size + _FIXED.size:
        raise Damaged("an entry of a queue is neither a header nor a run")
    _, accepted_ms, first = _STAMP.unpack_from(entry)
    lane, events, flags, checksum = _FIXED.unpack_from(entry, _STAMP.size)
    at = _STAMP.size + _FIXED.size
    uuids, at = entry[at : at + 16 * events], at + 16 * events
    places = b""
    if flags & _PLACED:
        places, at = entry[at : at + events], at + events
    lengths, at = entry[at : at + 4 * events], at + 4 * events
    packed = Packed(lengths, bool(flags & _COMPRESSED), entry[at:], checksum)
    return Run(accepted_ms, first, LaneId(lane), uuids, places, packed)


class QueueRecord(NamedTuple):
    """What the key's `queues` say of a queue (`read_record` in shared.lua)."""

    held: int
    attempts: int
    expired: int
    max_events: int
    unsettled: int
    backs_off: int
    token: bytes
    trouble: bytes


def read_record(value: bytes) -> QueueRecord:
    """A stored record of a queue."""
    held, attempts, expired, max_events, unsettled, backs_off, token_bytes = _RECORD.unpack_from(value)
    at = _RECORD.size + token_bytes
    token, trouble = value[_RECORD.size : at], value[at:]
    return QueueRecord(held, attempts, expired, max_events, unsettled, backs_off, token, trouble)


# -- dead letters and batches --------------------------------------------------------------------------


class Letter(NamedTuple):
    """A dead letter without its id and time, as MessagePack. `number`: as `Run.number`."""

    number: int
    queue: bytes
    lane_header: bytes
    uuid: bytes
    text: bytes
    reason: str
    message: str
    attempts: int
    first_tried_ms: int


_encode = msgspec.msgpack.Encoder().encode
_decode_letter = msgspec.msgpack.Decoder(tuple[int, bytes, bytes, bytes, bytes, str, str, int, int]).decode
_decode_batch = msgspec.msgpack.Decoder(tuple[str, bytes, bytes]).decode


def unstamped_letter(letter: Letter) -> bytes:
    """A letter without the stamp that `settle` puts before it."""
    return _encode(tuple(letter))


def letter_bytes(letter: Letter) -> int:
    """What is counted for a letter."""
    return DEAD_OVERHEAD + len(letter.lane_header) + len(letter.text)


def read_letter(id_: int, key: PublicKey, value: bytes) -> tuple[DeadLetter, int]:
    """A stored letter, and the number of its event."""
    died_ms, _ = _LETTER.unpack_from(value)
    letter = Letter(*_decode_letter(value[_LETTER.size :]))
    dead = DeadLetter(
        id_,
        key,
        QueueId(letter.queue),
        letter.lane_header,
        letter.uuid,
        letter.text,
        Dead(letter.reason),
        letter.message,
        letter.attempts,
        letter.first_tried_ms,
        died_ms,
    )
    return dead, letter.number


def unstamped_batch(answered: Answered | None, uuids: bytes, fates: bytes) -> bytes:
    """A batch's record without the stamp that `settle` puts before it."""
    return _encode((answered or "", uuids, fates))


def read_batch(key: PublicKey, value: bytes, *, ambiguous: bool) -> Batch:
    """A stored record of a batch, from the list of the ambiguous ones or of the others."""
    (settled_ms,) = _SETTLED.unpack_from(value)
    answered, uuids, fates = _decode_batch(value[_SETTLED.size :])
    return Batch(key, settled_ms, Answered(answered) if answered else None, ambiguous, uuids, fates)
