"""A run as it is stored: the events of one request in one queue, in columns; large bodies compressed.

The texts of one client's request are much alike: 36 kB of page views take 13 µs to compress to a tenth, and
would take 80 µs to write to the log and the file as they are.
"""

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import xxhash

from proxy.buffer.sqlite.files import Damaged
from proxy.buffer.sqlite.store import Store

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACKED_BYTES = 1_000
"""Bodies from this size on are compressed; below it costs more than it saves."""

_LEVEL = 1

RUN_OVERHEAD = 120
"""Bytes counted for a run beside its columns: its row, index entry and share of the queue's row."""

EVENT_OVERHEAD = 50
"""Bytes counted for an event beside its text: uuid, length, place, dedup id."""

_compressor = zstd.ZstdCompressor(level=_LEVEL)  # used on the event loop only
_swap = sys.byteorder != "little"


class Packed(NamedTuple):
    """The columns of a run that hold its texts. `checksum` covers them and the uuids: 8 bytes of XXH3."""

    lengths: bytes
    packed: bool
    body: bytes
    checksum: bytes

    def stored_bytes(self, events: int) -> int:
        """What is counted for the run."""
        return run_bytes(events, len(self.body))


def run_bytes(events: int, body_bytes: int) -> int:
    """What is counted for a run of so many events with such a body."""
    return RUN_OVERHEAD + EVENT_OVERHEAD * events + body_bytes


def pack(uuids: bytes, texts: Sequence[bytes]) -> Packed:
    """Columns of the texts."""
    sizes = array("I", map(len, texts))
    if _swap:
        sizes.byteswap()
    lengths = sizes.tobytes()
    body = b"".join(texts)
    packed = False
    if len(body) >= PACKED_BYTES:
        frame = _compressor.compress(body, zstd.ZstdCompressor.FLUSH_FRAME)
        if len(frame) < len(body):
            packed, body = True, frame
    return Packed(lengths, packed, body, _checksum(uuids, lengths, body))


def unpack(uuids: bytes, lengths: bytes, packed: int, body: bytes, checksum: bytes) -> list[bytes]:
    """The texts. May be called on any thread. Raises Damaged."""
    if _checksum(uuids, lengths, body) != checksum:
        raise Damaged("a run of events is not as it was written")
    sizes = array("I", lengths)
    if _swap:
        sizes.byteswap()
    if packed:
        body = zstd.decompress(body)
    if len(sizes) == 1:
        return [body]
    return [body[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


def _checksum(uuids: bytes, lengths: bytes, body: bytes) -> bytes:
    return xxhash.xxh3_64_digest(uuids + lengths + body)


@dataclass(frozen=True, slots=True)
class Run:
    """A stored run."""

    id: int
    queue_id: int
    lane: bytes
    accepted_ms: int
    events: int
    uuids: bytes
    places: bytes | None
    packed: Packed

    def texts(self) -> list[bytes]:
        """The events' texts. Raises Damaged."""
        return unpack(self.uuids, *self.packed)

    def first_places(self) -> bytes:
        """Where each event stood in the run at first."""
        return bytes(range(self.events)) if self.places is None else self.places

    @property
    def stored_bytes(self) -> int:
        """What is counted for it."""
        return self.packed.stored_bytes(self.events)


def read_runs(execute: Callable[..., Any], where: str, values: tuple[object, ...]) -> Iterator[Run]:
    """The runs that an SQL condition (ours) names; read one by one, so nothing may be written meanwhile."""
    sql = (
        "SELECT id, queue_id, lane, accepted_ms, events, uuids, places, lengths, packed, body, checksum"
        f" FROM run WHERE {where}"
    )
    for id_, queue_id, lane, accepted_ms, events, uuids, places, *packed in execute(sql, values):
        yield Run(id_, queue_id, lane, accepted_ms, events, uuids, places, Packed(*packed))


class Runs:
    """Rewrites runs of which events are gone."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def keep(self, run: Run, kept: Sequence[int]) -> int:
        """Leave only the events at the positions `kept`. Returns the bytes that are no longer counted."""
        if len(kept) == run.events:
            return 0
        if not kept:
            self._store.execute("DELETE FROM run WHERE id = ?", (run.id,))
            return run.stored_bytes + self._store.leave_lane(run.queue_id, run.lane, 1)
        texts, places = run.texts(), run.first_places()
        uuids = b"".join([run.uuids[16 * at : 16 * at + 16] for at in kept])
        rest = pack(uuids, [texts[at] for at in kept])
        self._store.execute(
            "UPDATE run SET events = ?, uuids = ?, places = ?, lengths = ?, packed = ?, body = ?,"
            " checksum = ? WHERE id = ?",
            (
                len(kept),
                uuids,
                bytes([places[at] for at in kept]),
                *rest,
                run.id,
            ),
        )
        return run.stored_bytes - rest.stored_bytes(len(kept))
