"""Bodies that are inflated, and bodies that are refused before they cost anything."""

import gzip
import json
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache

import brotli  # type: ignore[import-untyped]  # it comes without types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.front.inflate import BodyRefused, BodyTooLarge, MalformedBody, UnsupportedEncoding, inflate

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STEP = 64 * 1024
MAX_BYTES = 10_000_000


def _raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


def _streamed_zstd(data: bytes) -> bytes:
    """A frame that does not say how long its content is."""
    stream = zstd.ZstdCompressor()
    return stream.compress(data) + stream.flush()


DEFLATERS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("x-gzip", gzip.compress),
    "zlib": ("deflate", zlib.compress),
    "raw deflate": ("deflate", _raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstd.compress),
    "zstd, streamed": ("zstd", _streamed_zstd),
}
each_coding = pytest.mark.parametrize(("coding", "deflate"), DEFLATERS.values(), ids=DEFLATERS.keys())
EVENTS = json.dumps([{"type": "pageview", "path": f"/{n}"} for n in range(100)]).encode()


@each_coding
@given(data=st.binary(max_size=2_000), repeat=st.sampled_from([1, 1, 1, 100]))
def test_what_was_deflated_comes_back(
    coding: str, deflate: Callable[[bytes], bytes], data: bytes, repeat: int
) -> None:
    data *= repeat
    assert inflate(deflate(data), coding, len(data)) == data


@each_coding
@pytest.mark.parametrize(
    "size", [STEP // 2 - 1, STEP // 2, STEP - 1, STEP, STEP + 1, 3 * STEP, 10 * STEP + 7]
)
@pytest.mark.parametrize("noise", [True, False])
def test_no_size_falls_between_two_steps(
    coding: str, deflate: Callable[[bytes], bytes], size: int, *, noise: bool
) -> None:
    """Whole steps in and out; noise has input to be cut into steps, zeros have output."""
    data = _noise(size) if noise else bytes(size)
    body = deflate(data)
    assert inflate(body, coding, size) == data
    with pytest.raises(BodyTooLarge):
        inflate(body, coding, size - 1)
    with pytest.raises(MalformedBody):
        inflate(body + b"\0", coding, size)


@cache
def _noise(size: int) -> bytes:
    state, words = 1, []
    for _ in range(size // 8 + 1):
        state = state * 6364136223846793005 + 1442695040888963407 & (1 << 64) - 1
        words.append((state ^ state >> 29).to_bytes(8, "big"))
    return b"".join(words)[:size]


@pytest.mark.parametrize("encoding", [None, "", " ", ",", "identity", "Identity, identity,identity", "\t"])
def test_a_body_without_a_coding_is_what_it_is(encoding: str | None) -> None:
    assert inflate(b"as it is", encoding, 8) == b"as it is"
    with pytest.raises(BodyTooLarge):
        inflate(b"as it is", encoding, 7)


@pytest.mark.parametrize(
    "encoding", ["gzip", "GZIP", " gzip\t", "identity, gzip", "gzip ,, identity", "X-Gzip"]
)
def test_a_coding_is_named_in_any_case_and_with_blanks(encoding: str) -> None:
    assert inflate(gzip.compress(EVENTS), encoding, MAX_BYTES) == EVENTS


def test_two_codings_are_undone_last_first() -> None:
    assert inflate(gzip.compress(gzip.compress(EVENTS)), "gzip, gzip", MAX_BYTES) == EVENTS
    assert inflate(brotli.compress(zlib.compress(EVENTS)), "deflate,identity,br", MAX_BYTES) == EVENTS
    with pytest.raises(MalformedBody):
        inflate(brotli.compress(zlib.compress(EVENTS)), "br, deflate", MAX_BYTES)


@pytest.mark.parametrize(
    "encoding",
    [
        "compress",
        "gzip, gzip, gzip",
        "gzip;q=1",
        "*",
        "x-br",
        "gzip gzip",
        "\udcff",
        "gzip\x00",
        "br, aes128gcm",
    ],
)
def test_what_is_not_known_is_refused_without_being_repeated(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding) as refused:
        inflate(gzip.compress(b""), encoding, MAX_BYTES)
    assert str(refused.value).isprintable()
    assert encoding == "*" or encoding not in str(refused.value)


@each_coding
def test_a_body_cut_short_anywhere_is_malformed(coding: str, deflate: Callable[[bytes], bytes]) -> None:
    body = deflate(EVENTS)
    for end in range(len(body)):
        with pytest.raises(MalformedBody):
            inflate(body[:end], coding, MAX_BYTES)


@each_coding
@pytest.mark.parametrize("junk", [b"\0", b"\n", b"junk", b"\x1f\x8b", bytes(STEP)])
def test_what_follows_the_end_makes_a_body_malformed(
    coding: str, deflate: Callable[[bytes], bytes], junk: bytes
) -> None:
    with pytest.raises(MalformedBody):
        inflate(deflate(EVENTS) + junk, coding, MAX_BYTES)


@each_coding
def test_what_follows_an_end_that_is_the_end_of_a_step_makes_a_body_malformed(
    coding: str, deflate: Callable[[bytes], bytes]
) -> None:
    data = next(data for n in range(100) if len(deflate(data := _noise(STEP - n))) == STEP)
    assert inflate(deflate(data), coding, STEP) == data
    with pytest.raises(MalformedBody):
        inflate(deflate(data) + b"junk", coding, STEP)


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("zstd", zstd.compress)])
def test_several_streams_in_a_row_are_one_body(coding: str, compress: Callable[[bytes], bytes]) -> None:
    parts = [EVENTS, b"", _noise(STEP), bytes(3 * STEP), b"x"]
    assert inflate(b"".join(map(compress, parts)), coding, MAX_BYTES) == b"".join(parts)


def test_a_zstd_frame_to_be_skipped_is_skipped() -> None:
    skippable = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    assert inflate(skippable + zstd.compress(EVENTS) + skippable, "zstd", MAX_BYTES) == EVENTS


@pytest.mark.parametrize(
    ("coding", "empty"),
    [("gzip", gzip.compress(b"")), ("zstd", zstd.compress(b""))],
    ids=["gzip", "zstd"],  # gzip writes the time of day
)
def test_members_without_end_are_refused_soon(coding: str, empty: bytes) -> None:
    assert inflate(empty * 1024, coding, MAX_BYTES) == b""
    bomb = empty * (MAX_BYTES // len(empty))
    began_at = time.perf_counter()
    with pytest.raises(MalformedBody, match="more than 1024"):
        inflate(bomb, coding, MAX_BYTES)
    assert time.perf_counter() - began_at < 0.5


@cache
def _bomb(coding: str) -> bytes:
    """A gigabyte of zeros in a megabyte or less."""
    match coding:
        case "gzip":
            return gzip.compress(bytes(100_000_000), 1) * 10
        case "deflate":
            return _raw_deflate(bytes(1_000_000_000))
        case "br":
            return bytes(brotli.compress(bytes(1_000_000_000), quality=1))
        case _:
            return zstd.compress(bytes(1_000_000_000))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_costs_no_more_than_the_bound(coding: str) -> None:
    """Memory: the bound and a few blocks and pieces. Time: far below that of a gigabyte."""
    bomb = _bomb(coding)
    assert len(bomb) < 6_000_000
    tracemalloc.start()
    began_at = time.perf_counter()
    with pytest.raises(BodyTooLarge):
        inflate(bomb, coding, 1_000_000)
    taken_s = time.perf_counter() - began_at
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 + 8 * STEP
    assert taken_s < 0.1


def test_a_bomb_within_an_honest_coding_is_held_to_the_bound_too() -> None:
    """The outer layer inflates to ten times the bound of gzip members that hold nothing."""
    hollow = gzip.compress(gzip.compress(b"") * 500_000)
    with pytest.raises(BodyTooLarge):
        inflate(hollow, "gzip, gzip", 1_000_000)
    with pytest.raises(BodyTooLarge):
        inflate(gzip.compress(gzip.compress(bytes(1_000_001))), "gzip, gzip", 1_000_000)


def test_a_zstd_window_of_more_than_the_bound_is_refused_and_one_of_the_content_is_taken() -> None:
    """RFC 9659 allows 8 MiB. A compressor that knows a longer content takes that for its window."""
    content = _noise(1_000) * 9_500
    highest = zstd.compress(content, options={zstd.CompressionParameter.compression_level: 22})
    assert inflate(highest, "zstd", MAX_BYTES) == content
    wide = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 27})
    body = wide.compress(content[:1_000]) + wide.flush()
    with pytest.raises(MalformedBody, match="window"):
        inflate(body, "zstd", MAX_BYTES)


def test_a_deflate_body_that_wants_a_dictionary_is_malformed() -> None:
    stream = zlib.compressobj(zdict=b"pageview")
    with pytest.raises(MalformedBody):
        inflate(stream.compress(b"pageview") + stream.flush(), "deflate", MAX_BYTES)


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (BodyTooLarge(7), "the body is larger than 7 bytes; send fewer events in a request"),
        (UnsupportedEncoding(), "Content-Encoding is not supported; send gzip, deflate, br, zstd or none"),
        (MalformedBody("gzip", "cut short"), "the body is not valid gzip: cut short"),
    ],
)
def test_a_refusal_says_what_to_do(refusal: BodyRefused, text: str) -> None:
    assert str(refusal) == text


_codings = st.sampled_from(["gzip", "x-gzip", "deflate", "br", "zstd", "identity", "compress", ""])


@given(
    body=st.binary(max_size=200)
    | st.builds(
        lambda kept, junk, pick: pick[1](EVENTS)[:kept] + junk,
        st.integers(0, 400),
        st.binary(max_size=50),
        st.sampled_from(list(DEFLATERS.values())),
    ),
    encoding=st.lists(_codings, max_size=3).map(", ".join) | st.text(st.characters(exclude_categories=[])),
    max_bytes=st.sampled_from([0, 1, 100, MAX_BYTES]),
)
def test_no_body_and_no_header_does_anything_but_inflate_or_be_refused(
    body: bytes, encoding: str, max_bytes: int
) -> None:
    with suppress(BodyTooLarge, UnsupportedEncoding, MalformedBody):
        assert len(inflate(body, encoding, max_bytes)) <= max_bytes


@each_coding
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_is_inflated_or_refused(
    coding: str, deflate: Callable[[bytes], bytes], at: int, bit: int
) -> None:
    """Not every coding has a checksum; none may raise anything else, run away or leave the bound."""
    damaged = bytearray(deflate(EVENTS))
    damaged[at % len(damaged)] ^= 1 << bit
    with suppress(MalformedBody):
        assert len(inflate(bytes(damaged), coding, MAX_BYTES)) <= MAX_BYTES


@each_coding
def test_each_block_is_announced_before_it_is_kept(coding: str, deflate: Callable[[bytes], bytes]) -> None:
    told: list[int] = []
    data = bytes(5 * STEP + 1)
    assert inflate(deflate(data), coding, MAX_BYTES, told.append) == data
    assert sum(told) == len(data)
    assert max(told) <= STEP

    def full(_: int) -> None:
        raise NotADirectoryError

    with pytest.raises(NotADirectoryError):
        inflate(deflate(data), coding, MAX_BYTES, full)
