"""What every order can be told that strikes requests: how the answer is sent, on how many it falls, and when.

The `faults` and the Platform API's `incidents` add what happens and to whom. Both use the same words for the
same trouble with an answer: what these mean for its sending stands here.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from itertools import chain
from typing import ClassVar, Final

from proxy.sandbox import lies
from proxy.sandbox.bounds import MOST, OrderError, bounded, check_latency, check_times
from proxy.sandbox.manner import ENDLESS_BYTES, Break, Manner

_BREAKS: Final[Mapping[str, Break]] = {
    **{str(each): each for each in Break},
    "hang_before": Break.HANG,
    "reset_before": Break.RESET,
    "reset_early": Break.RESET,
    "reset_midway": Break.RESET,
}
_DETAILS: Final[Mapping[str, frozenset[str]]] = {
    Break.DRIP: frozenset({"bytes_per_s"}),
    Break.ENDLESS: frozenset({"answer_bytes"}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike(ABC):
    """One such order. It lasts until its `seconds` or its `requests` are used up, or until it is cleared.

    Raises OrderError for what could not be carried out.
    """

    DETAILS: ClassVar[Mapping[str, frozenset[str]]]
    """The fields that are for some values of `what` alone, by these."""

    what: StrEnum
    # How the answer is sent:
    latency_ms: int = 0
    """How late the answer, or what takes its place, comes."""
    latency_to_ms: int | None = None
    """With it, the latency is by chance, evenly from `latency_ms` to this."""
    headers: Mapping[str, str | None] = field(default_factory=dict)
    """Sent with the answer, or instead of its own; None leaves one out. `lies` says what a value may hold."""
    bytes_per_s: int | None = None
    answer_bytes: int = ENDLESS_BYTES
    # On how many it falls:
    every: int = 1
    """Strike the n-th, the 2n-th … of the requests that it could."""
    requests: int | None = None
    """How many requests it strikes, at least 1."""
    # When:
    after_s: float = 0.0
    """How long after it was ordered it begins."""
    seconds: float | None = None
    """How long it lasts from then on."""

    def __post_init__(self) -> None:
        """Refuse what could not be carried out."""
        wrong = next(chain(self._misplaced(), self._wrong(), self._missing()), None)
        if wrong is not None:
            raise OrderError(wrong)
        check_times(self.after_s, self.seconds)
        check_latency(self.latency_ms, self.latency_to_ms)
        bounded("bytes_per_s", self.bytes_per_s, 1, MOST)
        bounded("answer_bytes", self.answer_bytes, 1, 1_000 * MOST)
        bounded("every", self.every, 1, MOST)
        bounded("requests", self.requests, 1, MOST)
        self._check_figures()
        for name, value in self.headers.items():
            lies.check(name, value)

    @property
    def manner(self) -> Manner:
        """Give how the answer is sent."""
        return Manner(
            latency_ms=self.latency_ms,
            latency_to_ms=self.latency_to_ms,
            breaks=_BREAKS.get(self.what),
            bytes_per_s=self.bytes_per_s or 1,
            answer_bytes=self.answer_bytes,
        )

    def document(self) -> dict[str, object]:
        """Give the order as the JSON object that `orders` reads: what differs from its defaults."""
        said = ((each, getattr(self, each.name)) for each in fields(self))
        return {
            each.name: value
            for each, value in said
            if each.name == "what"
            or value != (each.default_factory() if each.default_factory is not MISSING else each.default)
        }

    @abstractmethod
    def _wrong(self) -> Iterator[str]:
        """Say what else cannot stand in an order like this, or is missing in it."""

    @abstractmethod
    def _check_figures(self) -> None:
        """Raise OrderError for a figure, of those that are no strike's in general, that is out of bounds."""

    def _misplaced(self) -> Iterator[str]:
        details = {**_DETAILS, **self.DETAILS}
        others = frozenset().union(*details.values()) - details.get(self.what, frozenset())
        for each in fields(self):
            if each.name in others and getattr(self, each.name) != each.default:
                yield f"{self.what} takes no {each.name}"

    def _missing(self) -> Iterator[str]:
        if self.what == "latency" and self.latency_ms == 0 and self.latency_to_ms is None:
            yield "latency needs latency_ms"
        if self.what == Break.DRIP and self.bytes_per_s is None:
            yield "drip needs bytes_per_s"
