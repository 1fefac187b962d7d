"""The upstream request: its path, and its body put together from texts that are ready."""

from collections.abc import Sequence

from proxy.wire.limits import PublicKey

_OPEN, _CLOSE = b'"events":[', b"]}"


def events_path(key: PublicKey) -> str:
    """The path to post to. Such a key needs no encoding."""
    return f"/api/i/v1/{key}/events"


def body_of(envelope: bytes, events: Sequence[bytes]) -> bytes:
    """The body of a request: `envelope` (a JSON object without `events`) and the events' texts."""
    return b"".join((_head(envelope), b",".join(events), _CLOSE))


def body_bytes(envelope: bytes, events_bytes: int, events: int) -> int:
    """The size of a body with so many events whose texts have so many bytes together."""
    return len(_head(envelope)) + events_bytes + max(0, events - 1) + len(_CLOSE)


def _head(envelope: bytes) -> bytes:
    return (b"{" if envelope == b"{}" else envelope[:-1] + b",") + _OPEN
