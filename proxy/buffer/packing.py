"""Events' texts in columns, large bodies compressed: what engines store of the events of one request.

The texts of one client's request are much alike: 36 kB of page views take 13 µs to compress to a tenth.
"""

import sys
from array import array
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import msgspec
import xxhash

from proxy.buffer.contract import FULL_BATCH
from proxy.buffer.values import Trouble

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RUN_BYTES = 250_000
"""A run's body is cut at this size: reading a batch then never loads much more than it sends."""

PACKED_BYTES = 1_000
"""Bodies from this size on are compressed; below it costs more than it saves."""

_LEVEL = 1

_decode_trouble = msgspec.msgpack.Decoder(Trouble).decode

_compressor = zstd.ZstdCompressor(level=_LEVEL)  # used on the event loop only
_swap = sys.byteorder != "little"


class Damaged(Exception):
    """What is stored is not what was written."""


class Packed(NamedTuple):
    """The columns of a run that hold its texts. `checksum` covers them and the uuids: 8 bytes of XXH3."""

    lengths: bytes
    packed: bool
    body: bytes
    checksum: bytes


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


def cuts(texts: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Where a request is cut into runs."""
    if len(texts) <= FULL_BATCH and sum(map(len, texts)) <= RUN_BYTES:
        yield 0, len(texts)
        return
    start = bytes_ = 0
    for at, text in enumerate(texts):
        if at > start and (at - start == FULL_BATCH or bytes_ + len(text) > RUN_BYTES):
            yield start, at
            start, bytes_ = at, 0
        bytes_ += len(text)
    yield start, len(texts)


def fitting(
    texts: Sequence[bytes], max_events: int, max_bytes: int, *, alone: bool
) -> tuple[int, Literal["none", "events", "bytes"]]:
    """How many of a run's events still go into a batch, and what ends it. `alone`: its first always does."""
    if len(texts) <= max_events and sum(map(len, texts)) + len(texts) <= max_bytes:
        return len(texts), "none"
    used_bytes = 0
    for at, text in enumerate(texts):
        if at == max_events:
            return at, "events"
        used_bytes += len(text) + 1  # the comma between two
        if used_bytes > max_bytes and not (alone and at == 0):
            return at, "bytes"
    return len(texts), "none"


def pack_trouble(trouble: Trouble | None) -> bytes:
    """What is remembered of a queue's head, as it is stored; nothing for nothing."""
    return b"" if trouble is None else msgspec.msgpack.encode(trouble)


def unpack_trouble(text: bytes) -> Trouble | None:
    """The same, read again. Raises Damaged."""
    try:
        return _decode_trouble(text) if text else None
    except msgspec.MsgspecError as error:
        raise Damaged(f"a queue's trouble cannot be read: {error}") from error
