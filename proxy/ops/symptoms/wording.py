"""Numbers as people say them."""


def events(count: int) -> str:
    """So many events."""
    return "1 event" if count == 1 else f"{count:,} events"


def were(count: int) -> str:
    """So many events, and the verb of a sentence about what was done to them."""
    return f"{events(count)} {'was' if count == 1 else 'were'}"


def length(seconds: float) -> str:
    """A length of time for people: 4 s, 12 min, 3 h, 2 d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
