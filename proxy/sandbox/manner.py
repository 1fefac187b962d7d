"""How an answer is sent: late, in part, without end, or not at all. `delivery` does it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

ENDLESS_BYTES: Final = 1_000_000_000


class Break(StrEnum):
    """What becomes of an answer that does not go out whole and at once."""

    HANG = "hang"
    """It never comes."""
    RESET = "reset"
    """The connection is reset in its place."""
    RESET_ANSWER = "reset_answer"
    """Its headers come, then the connection is reset."""
    HALF_HEAD = "half_head"
    """Half of its headers come, then the connection is closed."""
    HALF_ANSWER = "half_answer"
    """Its headers and half of its body come, then the connection is closed."""
    DRIP = "drip"
    """All of it comes, at `bytes_per_s`."""
    ENDLESS = "endless"
    """It is followed by `answer_bytes` spaces."""


_UNANSWERED: Final = (Break.HANG, Break.RESET, Break.HALF_HEAD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How one answer is sent; by default whole and at once."""

    latency_ms: int = 0
    """How late it, or what takes its place, comes."""
    latency_to_ms: int | None = None
    """With it, the latency is by chance, evenly from `latency_ms` to this."""
    breaks: Break | None = None
    bytes_per_s: int = 1
    """Of DRIP, at least 1."""
    answer_bytes: int = ENDLESS_BYTES
    """Of ENDLESS."""

    @property
    def tells_status(self) -> bool:
        """Say whether a sender learns the answer's status."""
        return self.breaks not in _UNANSWERED
