"""What a single field may hold: one `Check` for each kind of value of the published schema."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

UUID = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[1-8][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
    r"|0{8}-0{4}-0{4}-0{4}-0{12}"
    r"|f{8}-f{4}-f{4}-f{4}-f{12}",
    re.IGNORECASE | re.ASCII,
)
"""The text form of RFC 9562, versions 1 to 8 with its variant, or nil, or max."""

EMAIL = re.compile(
    r"(?!\.)(?!.*\.\.)[A-Za-z0-9_'+.-]*[A-Za-z0-9_+-]@(?:[A-Za-z0-9][A-Za-z0-9-]*\.)+[A-Za-z]{2,}",
)
"""The published rule: ASCII; the local part of letters, digits and ``_ ' + - .``, not beginning with a dot,
not ending in a dot or apostrophe; no two dots in a row anywhere; a domain of labels ending in two letters."""

ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:.+", re.DOTALL)
"""A scheme and something after it. No more: servers send ``server://`` and their raw user id."""


@dataclass(frozen=True, slots=True)
class Check:
    """Whether a value may stand in a field, and what the service says when it may not."""

    holds: Callable[[object], bool]
    message: str


def one_of(*values: str) -> Check:
    """Accept exactly the given strings."""
    allowed = frozenset(values)
    listed = ", ".join(repr(value) for value in values)
    return Check(lambda value: isinstance(value, str) and value in allowed, f"Must be one of {listed}")


def _is_string(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    # bool is an int to Python, not to JSON.
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_scalar(value: object) -> bool:
    return value is None or isinstance(value, str | int | float)


def _is_iso_8601(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _is_scalar_map(value: object) -> bool:
    return isinstance(value, dict) and all(map(_is_scalar, value.values()))


def _is_traits(value: object) -> bool:
    # Node 1.1.0 to 1.4.4 put the customer as an object under traits.customer.
    return isinstance(value, dict) and all(
        _is_scalar(item) or (name == "customer" and isinstance(item, dict)) for name, item in value.items()
    )


def _is_utm(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value[name], str)
        for name in ("source", "medium", "campaign", "term", "content", "ref")
        if name in value
    )


STRING = Check(_is_string, "Must be a string")
NAME = Check(lambda value: isinstance(value, str) and value != "", "Must be a non-empty string")
NUMBER = Check(_is_number, "Must be a number")
BOOLEAN = Check(lambda value: isinstance(value, bool), "Must be a boolean")
OBJECT = Check(lambda value: isinstance(value, dict), "Must be an object")
UUID_TEXT = Check(lambda value: isinstance(value, str) and UUID.fullmatch(value) is not None, "Invalid UUID")
EMAIL_TEXT = Check(
    lambda value: isinstance(value, str) and EMAIL.fullmatch(value) is not None, "Invalid email"
)
URL = Check(lambda value: isinstance(value, str) and ABSOLUTE_URI.fullmatch(value) is not None, "Invalid URL")
MOMENT = Check(_is_iso_8601, "Must be an ISO 8601 date and time")
SCALARS = Check(_is_scalar_map, "Must map names to strings, numbers, booleans or null")
TRAITS = Check(_is_traits, "Must map names to strings, numbers, booleans or null")
STRINGS = Check(
    lambda value: isinstance(value, dict) and all(map(_is_string, value.values())),
    "Must map names to strings",
)
UTM = Check(_is_utm, "Must be an object of strings")
