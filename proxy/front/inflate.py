"""Undo the Content-Encoding of a request body, within a bound that no body can exceed.

A few hundred bytes can stand for gigabytes, so a body is never inflated first and measured afterwards.
Each coding is a generator of blocks of at most `_STEP_BYTES`; whoever takes the blocks stops at the bound,
and what has not been taken has not been inflated. So a bomb costs what an honest body of the permitted size
costs, whatever it would have become: at most `max_bytes` and one block, once for each coding.

Input is fed in pieces of `_STEP_BYTES` as well. All three libraries copy the input they have not used yet
once a step; given a whole body at once, that is quadratic in its length.

    BodyRefused
    ├── BodyTooLarge         413
    ├── UnsupportedEncoding  415
    └── MalformedBody        400
"""

import sys
import zlib
from collections.abc import Callable, Generator, Iterator
from typing import Final

import brotli  # type: ignore[import-untyped]  # it comes without types

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_STEP_BYTES: Final = 64 * 1024

# brotli's `output_buffer_limit` stops its output buffer from growing, not from being filled: the first
# buffer holds nearly 32 KiB, the second would make it 96. Below the first one's size, a step is 32 KiB.
_BROTLI_LIMIT_BYTES: Final = 16 * 1024

# A gzip or zstd body may be several streams one after the other; bgzip makes one of every 64 KiB, so an
# honest body of 10 MB has some 160. An empty member is 20 bytes and costs a whole decompressor.
_MAX_MEMBERS: Final = 1024

# No client is known to compress twice; a middlebox might, once.
_MAX_CODINGS: Final = 2

# RFC 9659 holds zstd as a content coding to a window of 8 MiB, which a decoder must allocate on the
# sender's word. Compressors of whole buffers set the window to the size of the content when it is larger.
_ZSTD_WINDOW_LOG: Final = 23
_ZSTD_WINDOW_LOG_CEILING: Final = 27

_ZLIB_WBITS: Final = 15
_GZIP_WBITS: Final = 16 + 15
_RAW_DEFLATE_WBITS: Final = -15
_ZLIB_METHOD: Final = 8


class BodyRefused(Exception):
    """The body cannot be taken; the text is fit for the answer: it repeats nothing the sender wrote."""


class BodyTooLarge(BodyRefused):
    """The body, or what one of its codings inflates to, is larger than `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the body is larger than {max_bytes} bytes; send fewer events in a request")
        self.max_bytes = max_bytes


class UnsupportedEncoding(BodyRefused):
    """Content-Encoding names a coding that is not known here, or more than two."""

    def __init__(self) -> None:
        super().__init__("Content-Encoding is not supported; send gzip, deflate, br, zstd or none")


class MalformedBody(BodyRefused):
    """The body is not what its Content-Encoding says: damaged, cut short, or followed by something else."""

    def __init__(self, coding: str, what: str) -> None:
        super().__init__(f"the body is not valid {coding}: {what}")


def inflate(
    body: bytes,
    content_encoding: str | None,
    max_bytes: int,
    keep: Callable[[int], None] = lambda _bytes: None,
) -> bytes:
    """The body as it was before its codings, at most `max_bytes` long.

    `keep` is told the size of each block that comes out, before it is kept; what it raises ends the work.

    `content_encoding`: the header's value, several lines joined by commas; None, empty or `identity` means
    that the body is what it is. gzip and x-gzip (also of several members), deflate (in zlib's wrapping, as
    RFC 9110 has it, or bare, as some send it), br and zstd (also of several frames) are known, in any case,
    and up to two of them one over the other.

    Costs at most O(len(body) + max_bytes) for each coding, so a large body is better inflated in a thread:
    nothing is shared, and the libraries let go of the interpreter lock while they work.
    Raises BodyTooLarge, UnsupportedEncoding or MalformedBody, and nothing else of its own, for any bytes and
    any text.
    """
    for coding in reversed(_codings(content_encoding)):
        # Each layer has the whole bound, and is held to it: an inner bomb may be wrapped so that the
        # outermost layer comes out small, and an honest layer is smaller than what it holds.
        body = _joined(_blocks(coding, body, max_bytes), max_bytes, keep)
    if len(body) > max_bytes:
        raise BodyTooLarge(max_bytes)
    return body


def _codings(content_encoding: str | None) -> list[str]:
    """The codings in the order they were applied, `identity` left out (RFC 9110, 8.4)."""
    if not content_encoding:
        return []
    named = (name.strip(" \t") for name in content_encoding.lower().split(","))
    codings = [name for name in named if name not in ("", "identity")]
    if len(codings) > _MAX_CODINGS:
        raise UnsupportedEncoding
    return codings


def _blocks(coding: str, body: bytes, max_bytes: int) -> Iterator[bytes]:
    match coding:
        case "gzip" | "x-gzip":
            return _gzip(body)
        case "deflate":
            return _deflate(body)
        case "br":
            return _brotli(body)
        case "zstd":
            return _zstd(body, max_bytes)
        case _:
            raise UnsupportedEncoding


def _joined(blocks: Iterator[bytes], max_bytes: int, keep: Callable[[int], None]) -> bytes:
    """All blocks as one; leaves the iterator where the bound is passed."""
    taken: list[bytes] = []
    size = 0
    for block in blocks:
        size += len(block)
        if size > max_bytes:
            raise BodyTooLarge(max_bytes)
        keep(len(block))
        taken.append(block)
    return b"".join(taken)


def _gzip(body: bytes) -> Iterator[bytes]:
    at = 0
    for _ in range(_MAX_MEMBERS):
        at = yield from _zlib_stream(body, at, _GZIP_WBITS, "gzip")
        if at == len(body):
            return
    raise MalformedBody("gzip", f"more than {_MAX_MEMBERS} members")


def _deflate(body: bytes) -> Iterator[bytes]:
    # A bare stream whose first byte says "method 8" would begin with a stored block with a padding bit set;
    # no encoder writes that.
    wrapped = bool(body) and body[0] & 0x0F == _ZLIB_METHOD
    end = yield from _zlib_stream(body, 0, _ZLIB_WBITS if wrapped else _RAW_DEFLATE_WBITS, "deflate")
    if end != len(body):
        raise MalformedBody("deflate", "something follows its end")


def _zlib_stream(body: bytes, at: int, wbits: int, coding: str) -> Generator[bytes, None, int]:
    """Inflate the one stream that begins at `at`; returns where it ends."""
    stream = zlib.decompressobj(wbits)
    block = piece = b""
    try:
        while not stream.eof:
            # A full block may have left output behind, though all input was taken.
            if not piece and len(block) < _STEP_BYTES:
                piece, at = _next_piece(body, at, coding)
            block = stream.decompress(piece, _STEP_BYTES)
            piece = stream.unconsumed_tail
            yield block
    except zlib.error as error:
        raise MalformedBody(coding, "damaged") from error
    return at - len(stream.unused_data)


def _brotli(body: bytes) -> Iterator[bytes]:
    stream = brotli.Decompressor()
    at = 0
    block = b""
    try:
        while not stream.is_finished():
            piece = b""
            # Only when nothing more comes out, has all input been taken: `can_accept_more_data` says so while
            # output is still left behind, and how full a block is depends on the library's buffers.
            if not block:
                piece, at = _next_piece(body, at, "br")
            # What follows the end within the piece is an error to the library.
            block = stream.process(piece, output_buffer_limit=_BROTLI_LIMIT_BYTES)
            yield block
    except brotli.error as error:
        raise MalformedBody("br", "damaged, or something follows its end") from error
    if at != len(body):
        raise MalformedBody("br", "something follows its end")


def _zstd(body: bytes, max_bytes: int) -> Iterator[bytes]:
    window_log = min(max(_ZSTD_WINDOW_LOG, max_bytes.bit_length()), _ZSTD_WINDOW_LOG_CEILING)
    at = 0
    for _ in range(_MAX_MEMBERS):
        at = yield from _zstd_frame(body, at, window_log)
        if at == len(body):
            return
    raise MalformedBody("zstd", f"more than {_MAX_MEMBERS} frames")


def _zstd_frame(body: bytes, at: int, window_log: int) -> Generator[bytes, None, int]:
    """Inflate the one frame that begins at `at`; returns where it ends."""
    frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: window_log})
    try:
        while not frame.eof:
            piece = b""
            if frame.needs_input:
                piece, at = _next_piece(body, at, "zstd")
            yield frame.decompress(piece, _STEP_BYTES)
    except zstd.ZstdError as error:
        raise MalformedBody("zstd", "damaged, or its window is too large") from error
    return at - len(frame.unused_data)


def _next_piece(body: bytes, at: int, coding: str) -> tuple[bytes, int]:
    """The next input, never empty, and where it ends; a stream that wants more than there is was cut."""
    if at == len(body):
        raise MalformedBody(coding, "cut short")
    end = min(at + _STEP_BYTES, len(body))
    return body[at:end], end
