"""How a quantity or a name that an operator writes becomes a value, and how a value is written back.

Each ``parse_*`` takes whatever a source gave and returns the value, or raises ValueError with the end of a
sentence whose beginning names the place: what is wrong, then what to write instead. None repeats the value:
whoever prints the sentence knows whether it may be shown. (ValueError for a wrong type, too: it is the one
that pydantic collects.)
"""

import re
from fractions import Fraction

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?")

# Largest first: the first unit that divides a size evenly is the one it is shown in.
_BYTES = {
    "TiB": 1024**4,
    "TB": 1000**4,
    "GiB": 1024**3,
    "GB": 1000**3,
    "MiB": 1024**2,
    "MB": 1000**2,
    "KiB": 1024,
    "KB": 1000,
}
_BYTES_BY_LETTERS = {unit.lower(): size for unit, size in _BYTES.items()} | {"b": 1, "": 1}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([A-Za-z]{0,3})")

_PUBLIC_KEY = re.compile(r"pk_[A-Za-z0-9_-]{1,64}")
_PATH_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_TOOL = re.compile(r"(?!ok_)[A-Za-z0-9_.:-]{1,64}")


def parse_whole(value: object) -> int:
    """A count. Refuses true and false, which Python would take for 1 and 0."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}", value):
        return int(value)
    raise ValueError("not a whole number: write digits only, such as 100")


def parse_number(value: object) -> float:
    """A number that need not be whole; neither infinite nor NaN."""
    text = "" if isinstance(value, bool) else str(value)
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", text):
        raise ValueError("not a number: write one such as 0.5")
    return float(text)


def parse_duration(value: object) -> float:
    """Seconds from "250ms", "1s", "10m", "72h" or "30d". A number is taken as seconds, as code gives it.

    What an operator writes arrives here as text, numbers of a TOML file included: "5" of what is a guess that
    nobody should have to make.
    """
    if isinstance(value, int | float):
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('not a duration: write a number and ms, s, m, h or d, such as "250ms" or "30s"')
    number, unit = match.groups()
    if unit is None:
        raise ValueError(f'a duration needs a unit: write "{number}s" for seconds, or ms, m, h, d')
    return float(number) / 1_000 if unit == "ms" else float(number) * _SECONDS[unit]


def show_duration(seconds: float) -> str:
    """The shortest text that parses back to these seconds: 600.0 is "10m", 0.25 is "250ms"."""
    for unit, length in _SECONDS.items():
        if seconds and seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds * 1_000:.6f}".rstrip("0").rstrip(".") + "ms" if seconds else "0s"


def parse_size(value: object) -> int:
    """Bytes from "10MB" (10,000,000), "1MiB" (1,048,576) or a whole number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    unit = _BYTES_BY_LETTERS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError('not a size: write "10MB" (10,000,000), "1MiB" (1,048,576) or a number of bytes')
    size = Fraction(match[1]) * unit
    if size.denominator != 1:
        raise ValueError('not a whole number of bytes: write "10MB", "1MiB" or a whole number')
    return int(size)


def show_size(size: int) -> str | int:
    """The size in its largest even unit, or as a number of bytes: 4000000000 is "4GB", 1500 stays 1500."""
    for unit, length in _BYTES.items():
        if size and size % length == 0:
            return f"{size // length}{unit}"
    return size


def parse_public_key(value: object) -> str:
    """`pk_` and 1 to 64 letters, digits, `_` or `-`."""
    if not isinstance(value, str) or not _PUBLIC_KEY.fullmatch(value):
        raise ValueError('not a public key: write "pk_" and 1 to 64 letters, digits, "_" or "-"')
    return value


def parse_path_prefix(value: object) -> str:
    """A path of plain segments, without a slash at its end: one that every router reads in the same way."""
    form = 'write one that begins with "/" and does not end with it, such as "/t/v1"'
    if not isinstance(value, str) or not _PATH_PREFIX.fullmatch(value) or {".", ".."} & {*value.split("/")}:
        raise ValueError(f"not a path prefix: {form}")
    return value


def parse_tool(value: object) -> str:
    """The name of a tool of Outlit's Platform API, or "*". No API key: metrics have the names as labels."""
    if not isinstance(value, str) or (value != "*" and not _TOOL.fullmatch(value)):
        raise ValueError(
            'not the name of a tool: write 1 to 64 letters, digits, "_", ".", ":" or "-", as in'
            ' "outlit_list_customers", or "*"'
        )
    return value
