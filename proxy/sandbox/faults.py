"""The faults: what can go wrong with a request, and what each may be told.

`conditions` say whom a fault strikes, `programme` says when; `outcome`, `sabotage` and `delivery` carry it
out. By the events' fate there are three families:

- *not taken*: ``status``, ``refuse``, ``too_large``, ``hang_before``, ``reset_early``, ``reset_midway``,
  ``reset_before``;
- *taken as they deserve, and told late, falsely, badly or not at all*: ``latency``, ``headers``, ``body``,
  ``drip``, ``endless``, ``half_answer``, ``half_head``, ``reset_answer``, ``hang``, ``reset``. A sender
  cannot tell ``reset`` from ``reset_before``: its delivery is ambiguous. ``refuse_indices`` takes all but the
  named;
- *sabotage of the record*: ``drop``, ``double``, ``swap`` answer truly and record falsely. They exist to
  prove that a comparison with the record can fail.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum, auto
from typing import ClassVar, Final, TypeAlias

from proxy.sandbox.bounds import MOST, bounded
from proxy.sandbox.conditions import marks
from proxy.sandbox.schema import Path
from proxy.sandbox.strike import Strike

Index: TypeAlias = int | float | str | bool | None
"""What an answer may give as an index: events are numbered from 0, and a confused service says anything."""


class Stage(Enum):
    """How far a request has come when a fault may strike it."""

    UNREAD = auto()
    """Its headers are there, its body is not."""
    LIMITED = auto()
    """It is beyond the limit, and refused unread."""
    JUDGED = auto()
    """It is read, and what it deserves is known."""


class What(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"
    """Take the events at once, answer truly after `latency_ms`."""
    STATUS = "status"
    """Take nothing, answer `status`, or `statuses` in turn; ``Retry-After`` if `retry_after_s` is given."""
    REFUSE = "refuse"
    """Take nothing, answer 400 (or `status`) that names `paths`, or `indices`, or nothing at all. With
    `names` it names the events that the fault asks for by `event` or `uuid`."""
    REFUSE_INDICES = "refuse_indices"
    """Take all but `indices`, answer 207 that names exactly these, be they in the request, repeated, or no
    integers at all. Without them: the events that the fault asks for by `event` or `uuid`."""
    TOO_LARGE = "too_large"
    """Take nothing, answer 413 (or `status`) to a request of more than `max_events` or `max_bytes`. After
    each such answer the bound is `shrink` times what it was, and at least 1."""
    HEADERS = "headers"
    """Take the events and answer truly, but for `headers`. The one fault that strikes a limited request."""
    BODY = "body"
    """Take the events, answer with the status that they deserve and the text `body`."""
    HANG = "hang"
    """Take the events, never answer."""
    HANG_BEFORE = "hang_before"
    """Take nothing, never answer."""
    RESET = "reset"
    """Take the events, reset the connection without an answer."""
    RESET_BEFORE = "reset_before"
    """Take nothing, reset the connection without an answer, once the request is read."""
    RESET_EARLY = "reset_early"
    """Take nothing, reset the connection once the request's headers are read."""
    RESET_MIDWAY = "reset_midway"
    """Take nothing, reset the connection when half of the request's body is read."""
    RESET_ANSWER = "reset_answer"
    """Take the events, send the headers of the answer, reset the connection."""
    HALF_ANSWER = "half_answer"
    """Take the events, send the headers and half of the body, close the connection."""
    HALF_HEAD = "half_head"
    """Take the events, send half of the headers, close the connection."""
    DRIP = "drip"
    """Take the events, send the answer, headers and all, at `bytes_per_s`."""
    ENDLESS = "endless"
    """Take the events, answer truly, with spaces behind the JSON: `answer_bytes` of them, or a billion."""
    DROP = "drop"
    """Answer truly, leave the first event taken out of the record."""
    DOUBLE = "double"
    """Answer truly, record the first event taken twice."""
    SWAP = "swap"
    """Answer truly, record the first event taken under another request's visitor."""

    @property
    def is_sabotage(self) -> bool:
        """Say whether it falsifies the record, which needs an event taken to work on."""
        return self in (What.DROP, What.DOUBLE, What.SWAP)

    def strikes_at(self, stage: Stage) -> bool:
        """Say whether it can strike a request that has come so far."""
        match stage:
            case Stage.UNREAD:
                return self in _EARLY
            case Stage.LIMITED:
                return self is What.HEADERS
            case Stage.JUDGED:
                return self not in _EARLY


_EARLY: Final = (What.RESET_EARLY, What.RESET_MIDWAY)


class Names(StrEnum):
    """How a refusal names the events that it is about."""

    PATHS = "paths"
    INDICES = "indices"


_OF_THE_BODY: Final = ("visitor", "event", "uuid")
_STATUSES: Final[Mapping[What, tuple[int, int, int]]] = {
    # A 2xx without the events would be sabotage under another name.
    What.STATUS: (500, 300, 599),
    What.REFUSE: (400, 400, 499),
    What.TOO_LARGE: (413, 400, 499),
}
"""The status of a fault that is told none, and the bounds of what it may be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Strike):
    """One fault, as it was ordered."""

    DETAILS: ClassVar[Mapping[str, frozenset[str]]] = {
        What.STATUS: frozenset({"status", "statuses", "retry_after_s", "body"}),
        What.REFUSE: frozenset({"status", "indices", "paths", "names"}),
        What.REFUSE_INDICES: frozenset({"indices"}),
        What.TOO_LARGE: frozenset({"status", "max_events", "max_bytes", "shrink"}),
        What.BODY: frozenset({"body"}),
    }

    what: What
    # What is answered:
    status: int | None = None
    statuses: tuple[int, ...] = ()
    """One request after the other gets the next of them, and then the first again."""
    retry_after_s: int | None = None
    body: str | None = None
    indices: tuple[Index, ...] = ()
    paths: tuple[Path, ...] = ()
    names: Names | None = None
    max_events: int | None = None
    max_bytes: int | None = None
    """Of the request's body."""
    shrink: float = 1.0
    """From 0 to 1."""
    # Whom it strikes; see `Conditions`:
    public_key: str | None = None
    origin: str | None = None
    visitor: str | None = None
    event: str | None = None
    uuid: str | None = None

    def _wrong(self) -> Iterator[str]:
        yield from self._unread()
        match self.what:
            case What.STATUS if self.status is not None and self.statuses:
                yield "status takes status or statuses, not both"
            case What.REFUSE if sum(map(bool, (self.indices, self.paths, self.names))) > 1:
                yield "refuse takes one of indices, paths and names: an answer has one form"
            case What.REFUSE if self.names is not None and not marks(self):
                yield "names needs event or uuid: they say which events are named"
            case What.REFUSE_INDICES if not self.indices and not marks(self):
                yield "refuse_indices needs indices, or event or uuid"
            case What.TOO_LARGE if (self.max_events is None) is (self.max_bytes is None):
                yield "too_large needs max_events or max_bytes, one of the two"
            case What.HEADERS if not self.headers:
                yield "headers needs headers, such as {'X-RateLimit-Remaining': '0'}"
            case What.BODY if self.body is None:
                yield "body needs body, a text"

    def _unread(self) -> Iterator[str]:
        if self.what in _EARLY:
            for name in _OF_THE_BODY:
                if getattr(self, name) is not None:
                    yield f"{self.what} takes no {name}: it strikes before the body is read"

    def _check_figures(self) -> None:
        _, least, most = _STATUSES.get(self.what, (0, 0, 0))
        for status in (*self.statuses, self.status):
            bounded("status", status, least, most)
        bounded("retry_after_s", self.retry_after_s, 0, MOST)
        bounded("max_events", self.max_events, 1, MOST)
        bounded("max_bytes", self.max_bytes, 1, MOST)
        bounded("shrink", self.shrink, 0, 1)

    def status_of(self, struck: int) -> int:
        """Give the status of its answer to a request, after it has struck so many."""
        if self.statuses:
            return self.statuses[struck % len(self.statuses)]
        return self.status if self.status is not None else _STATUSES[self.what][0]

    def exceeds(self, events: Sequence[object], body_bytes: int, struck: int) -> bool:
        """Say whether a request exceeds its bound, after it has struck so many. Without one all do."""
        for bound, size in ((self.max_events, len(events)), (self.max_bytes, body_bytes)):
            if bound is not None:
                return size > max(1, int(bound * self.shrink**struck))
        return True
