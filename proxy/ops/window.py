"""How things move now, as values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.ledger import Answered

UNANSWERED = (Answered.FAILED, Answered.UNANSWERED, Answered.UNREACHED)
"""What says that upstream is away: 5xx and the like, a time-out, no connection."""

WINDOW_S = 10.0
"""Rates are means over so long; less while the process is younger."""


@dataclass(frozen=True, slots=True)
class Window:
    """How things move now. Numbers `_per_s` are means over the last `window_s` seconds.

    `budget_used`: requests of the key that sends most, as a part of what a key may send; None before the
    first look. `failed_in_a_row`: requests that upstream did not answer since it answered the last, by what
    became of them; the first of them was `failing_s` ago. `silent_s`: how long requests are under way of
    which none was answered. `recent`: what became more in the last minute, by its name, and by how much;
    `ago_s`: how long ago it last did, since the process began.
    """

    window_s: float = 0.0
    accepted_per_s: float = 0.0
    rejected_per_s: float = 0.0
    delivered_per_s: float = 0.0
    requests_per_s: float = 0.0
    failed_per_s: float = 0.0
    events_per_request: float = 0.0
    budget_used: float | None = None
    failed_in_a_row: Mapping[Answered, int] = field(default_factory=dict)
    failing_s: float = 0.0
    silent_s: float = 0.0
    in_flight: int = 0
    recent: Mapping[str, int] = field(default_factory=dict)
    ago_s: Mapping[str, float] = field(default_factory=dict)
