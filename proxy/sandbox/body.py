"""A request's body, read as strictly as JSON is defined.

The standard ``json`` module is used on purpose: it keeps lone surrogates, NUL characters and integers of any
size exactly as they were sent, so that the record can be compared with what was accepted. What it tolerates
beyond JSON (a doubled name, ``NaN``, UTF-16) is refused here: readers disagree about such bodies, and a
sender that emits them has passed something on unread.
"""

import json
import math

DEPTH_MAX = 500
"""Objects and arrays inside one another. What is read must also be writable to the record; both ways recurse,
and the interpreter's own bound (1000 frames in all) depends on how deep the caller already is."""


class MalformedBodyError(ValueError):
    """The body is not JSON, or no object where one is due. The message says why and quotes no value."""


def read(raw: bytes) -> dict[str, object]:
    """Read `raw` as one JSON object. Raises MalformedBodyError, as `parse` does."""
    document = parse(raw)
    if not isinstance(document, dict):
        raise MalformedBodyError("The body must be a JSON object")
    return document


def parse(raw: bytes) -> object:
    """Read `raw` as JSON in UTF-8.

    Raises MalformedBodyError: not UTF-8, not JSON, a doubled name in any object, a number that is not finite
    or has over 4,300 digits, or more than `DEPTH_MAX` levels.
    """
    try:
        # Decoded here because json.loads(bytes) guesses UTF-16 and UTF-32 and lets encoded surrogates pass.
        document: object = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_object,
            parse_float=_finite,
            parse_constant=_no_constant,
        )
    except MalformedBodyError:
        raise
    except UnicodeDecodeError as error:
        raise MalformedBodyError("The body is not UTF-8") from error
    except RecursionError as error:
        raise MalformedBodyError("The body is nested too deeply") from error
    except ValueError as error:
        raise MalformedBodyError(f"The body is not JSON: {error}") from error
    # As many brackets as this can hold DEPTH_MAX levels; nearly every body has fewer and is not walked.
    if raw.count(b"{") + raw.count(b"[") > DEPTH_MAX and _is_deeper(document, DEPTH_MAX):
        raise MalformedBodyError("The body is nested too deeply")
    return document


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise MalformedBodyError(f"The name {doubled!a} stands twice in one object")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise MalformedBodyError("A number is too large")
    return number


def _no_constant(name: str) -> float:
    raise MalformedBodyError(f"{name} is no JSON number")


def _is_deeper(document: object, levels: int) -> bool:
    layer: list[object] = [document]
    for _ in range(levels + 1):
        below: list[object] = []
        for value in layer:
            if isinstance(value, dict):
                below.extend(value.values())
            elif isinstance(value, list):
                below.extend(value)
        if not below:
            return False
        layer = below
    return True
