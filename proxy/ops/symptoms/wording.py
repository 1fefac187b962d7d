"""Numbers and moments as people say them."""

from datetime import UTC, datetime


def events(count: int) -> str:
    """So many events."""
    return counted(count, "event")


def were(count: int) -> str:
    """So many events, and the verb of a sentence about what was done to them."""
    return f"{events(count)} {'was' if count == 1 else 'were'}"


def length(seconds: float) -> str:
    """A length of time for people: 4 s, 12 min, 3 h, 2 d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def counted(number: int, noun: str) -> str:
    """So many of something: "1 call", "3,412 calls"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def when(ms: int) -> str:
    """A moment for people, of Unix milliseconds: 2026-07-01 12:00 UTC."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
