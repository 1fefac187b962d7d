"""How each key's backlog moves from one look at the buffer to the next. Pure: the looks come in."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from proxy.buffer import KeyFigures
from proxy.ops.backlog import DRAIN_S, drain_s, requests_needed
from proxy.wire.limits import PublicKey

LEAST_APART_S = 0.5
"""Looks that are nearer to each other say nothing of how things move."""

STANDS_S = 2.5
"""A key of which nothing came to an end for so long stands. What gathers then is no flood when it goes on."""

WAITS_S = 90.0
STAYS_S = 5.0
"""An event older than this, and for so long the oldest of its key, waits for a reason of its own: longer than
any linger, and than a lease as it is set as a rule."""

LEAST_S = 2.0
WINDOW_S = 10.0
"""Growth is a mean over so long at least, and at most: within a second or two chance decides."""


@dataclass(frozen=True, slots=True)
class Trend:
    """How a key's backlog moves.

    `growth_per_s`: by how many requests a second more wait, since the key last began to go, or to stand; None
    where that is not known yet. `is_going`: whether any of its events came to an end just now. `stays_s`: so
    long its oldest event has been the same at every look.
    """

    growth_per_s: float | None = None
    is_going: bool = False
    stays_s: float = 0.0


@dataclass(slots=True)
class _History:
    """`ended`: events that came to an end. `looks`: when, and how many requests waited, in this state."""

    ended: int
    oldest_ms: int | None
    oldest_from_s: float
    moved_s: float = -inf
    is_going: bool = False
    looks: deque[tuple[float, int]] = field(default_factory=deque)

    def trend(self) -> Trend:
        """As it was at the last look."""
        (first_s, first), (last_s, last) = self.looks[0], self.looks[-1]
        growth = (last - first) / (last_s - first_s) if last_s - first_s >= LEAST_S else None
        return Trend(growth, self.is_going, last_s - self.oldest_from_s)


class Trends:
    """Remembers the looks of one process."""

    def __init__(self) -> None:
        self._looked_s = -inf
        self._histories: Mapping[PublicKey, _History] = {}

    def look(self, now_s: float, figures: Mapping[PublicKey, KeyFigures]) -> None:
        """Remember how things stand. `now_s`: of a clock that never goes back."""
        if now_s - self._looked_s >= LEAST_APART_S:
            self._looked_s = now_s
            before = self._histories
            self._histories = {key: _after(before.get(key), now_s, of) for key, of in figures.items()}

    def of(self, key: PublicKey) -> Trend:
        """How the backlog of a key moves, as far as that is known."""
        history = self._histories.get(key)
        return Trend() if history is None else history.trend()


def waits_by_itself(of: KeyFigures, trend: Trend, now_ms: int) -> bool:
    """Whether the oldest event of a key waits though the key sends, and no backlog is before it.

    Its queue was refused, or failed, and is tried again when its back-off is over.
    """
    gate = of.gate
    if of.oldest_held_ms is None or gate.paused is not None or gate.by_operator or gate.forbidden_origins:
        return False
    is_old = now_ms - of.oldest_held_ms > WAITS_S * 1000
    return is_old and trend.stays_s >= STAYS_S and drain_s(of) <= DRAIN_S


def _after(history: _History | None, now_s: float, of: KeyFigures) -> _History:
    ended = of.books.delivered + of.books.dead + of.books.dropped
    if history is None:
        history = _History(ended, of.oldest_held_ms, now_s)
    if ended > history.ended:
        history.ended, history.moved_s = ended, now_s
    if of.oldest_held_ms != history.oldest_ms:
        history.oldest_ms, history.oldest_from_s = of.oldest_held_ms, now_s
    is_going = now_s - history.moved_s < STANDS_S
    if is_going != history.is_going:
        history.is_going = is_going
        history.looks.clear()
    history.looks.append((now_s, requests_needed(of)))
    while history.looks[0][0] < now_s - WINDOW_S and len(history.looks) > 2:
        history.looks.popleft()
    return history
