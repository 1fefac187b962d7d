"""What the headers of an answer say about the limit, on the answer's own clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from multidict import MultiMapping

MAX_LIMIT = 1_000_000
"""Beyond this a limit or a remainder is taken for a mistake."""

MAX_WAIT_S = 300.0
"""Beyond this a wait is cut: a wrong header must not stop a key for longer."""

_MAX_RESET_AWAY_S = 86_400.0
"""A reset further from the answer's `Date` than this is no moment in seconds: milliseconds, say, or 2099."""


@dataclass(frozen=True, slots=True)
class RateHeaders:
    """Usable values only; what is malformed or absurd is None and counted in `malformed`.

    `reset_in_s` and `retry_after_s` are seconds from the answer's own `Date`: the local clock may be off.
    `reset_at` is the reset in Unix seconds of upstream's clock, for who compares one answer with another.
    """

    limit: int | None = None
    remaining: int | None = None
    reset_at: int | None = None
    reset_in_s: float | None = None
    retry_after_s: float | None = None
    malformed: int = 0


def read_rate_headers(headers: Mapping[str, str]) -> RateHeaders:
    """Read the `X-RateLimit-*` and `Retry-After` headers of an answer (names in any case).

    A header that came twice with different values says nothing, and neither does more left than the limit.
    """
    malformed = 0
    dated = _date(headers.get("Date"))

    def number(name: str, least: float, most: float) -> int | None:
        nonlocal malformed
        text = _only(headers, name)
        if text is None:
            return None
        value = _integer(text)
        if value is not None and least <= value <= most:
            return value
        malformed += 1
        return None

    limit = number("X-RateLimit-Limit", 1, MAX_LIMIT)
    remaining = number("X-RateLimit-Remaining", 0, MAX_LIMIT if limit is None else limit)
    reset_at, reset_in_s = None, None
    if dated is not None:
        now = dated.timestamp()
        reset_at = number("X-RateLimit-Reset", now - _MAX_RESET_AWAY_S, now + _MAX_RESET_AWAY_S)
        reset_in_s = None if reset_at is None else min(max(0.0, reset_at - now), MAX_WAIT_S)
    retry_after_s = None
    if (text := _only(headers, "Retry-After")) is not None:
        retry_after_s = _wait(text, dated)
        malformed += retry_after_s is None
    return RateHeaders(limit, remaining, reset_at, reset_in_s, retry_after_s, malformed)


def _only(headers: Mapping[str, str], name: str) -> str | None:
    """The header's value; all its different ones as one text, which is none that anything can be made of."""
    if isinstance(headers, MultiMapping):
        return ", ".join(dict.fromkeys(headers.getall(name, []))) if name in headers else None
    return headers.get(name)


def _wait(text: str, dated: datetime | None) -> float | None:
    seconds = _integer(text)
    if seconds is None and dated is not None and (until := _date(text)) is not None:
        seconds = int((until - dated).total_seconds())
    return None if seconds is None or seconds < 0 else min(float(seconds), MAX_WAIT_S)


def _integer(text: str) -> int | None:
    text = text.strip()
    return int(text) if text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 15 else None


def _date(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        parsed = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
