"""JSON as this product reads and writes it: never another number, never another string, never a crash.

Two decoders stand behind it. msgspec is fast and refuses what RFC 8259 leaves open; the standard `json`
module is slow and keeps what real clients send all the same: lone surrogates (a cut emoji), integers of
any size. What neither JSON nor its readers can keep (NaN, 1e400, nesting beyond `MAX_DEPTH`) comes out of
`decode` as a float that is not finite, which `encode` refuses: so one such value spoils its own event
and not the request it came in.
"""

import json
import re
from math import nan
from typing import Any

import msgspec

MAX_DEPTH = 200
"""Deepest nesting that is kept. Readers further on (orjson writes 254 levels) would refuse more."""

_CUT_DEPTH = MAX_DEPTH + 2
"""Where a whole request is cut: its events lie two levels down."""

_CUTTABLE_BYTES = 2_000_000
"""Largest text that is searched bracket by bracket for what nests too deep: 0.1 µs a bracket."""

_STRING_OR_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]', re.DOTALL)

_STRING_OR_SEPARATOR = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]|,', re.DOTALL)


def finite(digits: str) -> float:
    """The float that a JSON number stands for. Raises ValueError where none is large enough."""
    number = float(digits)
    if number - number != 0.0:
        raise ValueError("a number that JSON cannot carry")
    return number


_fast = msgspec.json.Encoder()
_fast_sorted = msgspec.json.Encoder(order="sorted")


class Unreadable(ValueError):
    """The text is no JSON. Its message says where."""


class Unkeepable(ValueError):
    """The value holds something that JSON cannot carry further. Its message says what."""


def decode(text: bytes) -> Any:
    """Read `text` with all tolerance that changes no value; the last of doubled keys counts.

    Raises Unreadable.
    """
    try:
        return _decode(text)
    except RecursionError:
        if len(text) > _CUTTABLE_BYTES:
            raise Unreadable("nested too deeply") from None
        return _decode(_cut_what_nests_too_deep(text))


def encode(value: Any, *, sort_keys: bool = False) -> bytes:
    """Write `value` compactly, with `sort_keys` in the one canonical form of equal typed values.

    Raises Unkeepable.
    """
    encoder = _fast_sorted if sort_keys else _fast
    try:
        text = encoder.encode(value)
    except (UnicodeEncodeError, OverflowError, RecursionError):
        return _encode_tolerantly(value, sort_keys=sort_keys)
    # msgspec writes NaN and infinities as null, which would be another value; only floats can be those.
    if b"null" in text and not _all_finite(value):
        raise Unkeepable("a number that JSON cannot carry, or nesting too deep")
    return text


def encode_part(value: Any) -> bytes:
    """Write a part of what `decode` read, so that reading it again gives the same, NaN and all."""
    try:
        return json.dumps(value, separators=(",", ":")).encode("ascii")
    except RecursionError:
        return b"NaN"


def nests_too_deep(text: bytes) -> bool:
    """Whether valid JSON `text` nests deeper than `MAX_DEPTH`; nearly free where it holds few brackets."""
    if text.count(b"{") + text.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = text[match.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif first in b"]}":
            depth -= 1
    return False


def least_bytes(text: bytes) -> int:
    """A size, found at little cost, that valid JSON `text` keeps however compactly it is written."""
    return sum(map(text.count, (b",", b"[", b"{", b'"')))


def holds_more_than(array: bytes, elements: int) -> bool:
    """Whether the text of a valid array holds more elements; looks no further than that takes."""
    depth = commas = 0
    for match in _STRING_OR_SEPARATOR.finditer(array):
        first = array[match.start()]
        if first in b"[{":
            depth += 1
        elif first in b"]}":
            depth -= 1
        elif first == 0x2C and depth == 1:
            commas += 1
            if commas >= elements:
                return True
    return False


def _decode(text: bytes) -> Any:
    try:
        return json.loads(
            text.decode("utf-8-sig"),
            parse_int=_integer,
            parse_constant=lambda _name: nan,
        )
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Unreadable(str(error)) from None


def _integer(digits: str) -> int | float:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts (4,300), which guards against quadratic time
        return nan


def _encode_tolerantly(value: Any, *, sort_keys: bool) -> bytes:
    try:
        text = json.dumps(value, sort_keys=sort_keys, separators=(",", ":"), allow_nan=False)
    except ValueError as error:
        raise Unkeepable("a number that JSON cannot carry, or nesting too deep") from error
    except RecursionError as error:
        raise Unkeepable("nested too deeply") from error
    return text.encode("ascii")


def _all_finite(value: Any) -> bool:
    """Whether no float in a tree of plain values is NaN or infinite."""
    match value:
        case float():
            return value - value == 0.0
        case dict():
            return all(map(_all_finite, value.values()))
        case list():
            return all(map(_all_finite, value))
        case _:
            return True


def _cut_what_nests_too_deep(text: bytes) -> bytes:
    """`text` with each value that nests deeper than `_CUT_DEPTH` replaced by NaN."""
    pieces: list[bytes] = []
    depth = kept_from = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        first = text[match.start()]
        if first in b"[{":
            depth += 1
            if depth == _CUT_DEPTH + 1:
                pieces.append(text[kept_from : match.start()])
        elif first in b"]}":
            if depth == _CUT_DEPTH + 1:
                pieces.append(b"NaN")
                kept_from = match.end()
            depth -= 1
    if depth > _CUT_DEPTH:
        return b""  # never closed: no JSON
    pieces.append(text[kept_from:])
    return b"".join(pieces)
