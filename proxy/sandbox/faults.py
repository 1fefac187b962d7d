"""The programme of faults: what goes wrong, for how long, and for whom, switched while the sandbox runs.

`Programme` decides; `outcome`, `sabotage` and `delivery` carry out. Three families, by the events' fate:

- *not taken*: ``status``, ``refuse_400``, ``hang_before``, ``reset_before``;
- *taken as they deserve, and told late, badly or not at all*: ``latency``, ``hang``, ``reset``,
  ``half_answer``. A sender cannot tell ``reset`` from ``reset_before``: its delivery is ambiguous.
  ``refuse_indices`` takes all but the named;
- *sabotage of the record*: ``drop``, ``double``, ``swap`` answer truly and record falsely. They exist to
  prove that a comparison with the record can fail.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final

from proxy.sandbox.schema import Path

FAULTS_MAX = 100
"""Faults switched on at once: every request looks through them."""
LATENCY_MS_MAX = 600_000
"""Ten minutes, beyond any sender's time-out."""
MOST = 1_000_000_000
"""Of seconds and of requests: for ever, in all but name."""


class FaultError(ValueError):
    """A fault that cannot be. The message says what is wrong with it and what could stand there."""


class What(StrEnum):
    """What goes wrong."""

    LATENCY = "latency"
    """Take the events at once, answer truly after `latency_ms`."""
    STATUS = "status"
    """Take nothing, answer `status`, with ``Retry-After`` when `retry_after_s` is given."""
    REFUSE_INDICES = "refuse_indices"
    """Take all but `indices`, answer 207 that names exactly these, be they in the request or not."""
    REFUSE_400 = "refuse_400"
    """Take nothing, answer 400 that names `paths`, or `indices`, or nothing at all."""
    HANG = "hang"
    """Take the events, never answer."""
    HANG_BEFORE = "hang_before"
    """Take nothing, never answer."""
    RESET = "reset"
    """Take the events, reset the connection without an answer."""
    RESET_BEFORE = "reset_before"
    """Take nothing, reset the connection without an answer."""
    HALF_ANSWER = "half_answer"
    """Take the events, send the headers and half of the body, close the connection."""
    DROP = "drop"
    """Answer truly, leave the first event taken out of the record."""
    DOUBLE = "double"
    """Answer truly, record the first event taken twice."""
    SWAP = "swap"
    """Answer truly, record the first event taken under another request's visitor."""

    @property
    def is_sabotage(self) -> bool:
        """Say whether it falsifies the record, which needs an event taken to work on."""
        return self in _SABOTAGE


_SABOTAGE: Final = frozenset({What.DROP, What.DOUBLE, What.SWAP})

# What each fault may be told beyond how long and for whom. Every one may also be late.
_DETAILS: Final[Mapping[What, frozenset[str]]] = {
    What.STATUS: frozenset({"status", "retry_after_s"}),
    What.REFUSE_INDICES: frozenset({"indices"}),
    What.REFUSE_400: frozenset({"indices", "paths"}),
}
_ALWAYS: Final = frozenset({"what", "latency_ms", "seconds", "requests", "public_key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault. It lasts until its `seconds` or its `requests` are used up, or until it is cleared."""

    what: What
    latency_ms: int = 0
    """How late the answer, or what takes its place, comes: 0 to `LATENCY_MS_MAX`."""
    status: int = 500
    """300 to 599: a 2xx without the events would be sabotage under another name."""
    retry_after_s: int | None = None
    indices: tuple[int, ...] = ()
    """Of events, 0 the first. Any integer: an answer with an index out of range is a fault worth having."""
    paths: tuple[Path, ...] = ()
    seconds: float | None = None
    """How long it lasts, from when it is switched on."""
    requests: int | None = None
    """How many requests it strikes, at least 1."""
    public_key: str | None = None
    """Whose requests it strikes, None for everyone's."""

    def __post_init__(self) -> None:
        """Refuse what could not be carried out."""
        wrong = next(self._wrong(), None)
        if wrong is not None:
            raise FaultError(wrong)

    def _wrong(self) -> Iterator[str]:
        allowed = _ALWAYS | _DETAILS.get(self.what, frozenset())
        for each in fields(self):
            if each.name not in allowed and getattr(self, each.name) != each.default:
                yield f"{self.what} takes no {each.name}"
        if self.what is What.LATENCY and self.latency_ms == 0:
            yield "latency needs latency_ms"
        if self.what is What.REFUSE_INDICES and not self.indices:
            yield "refuse_indices needs indices"
        if self.indices and self.paths:
            yield "refuse_400 takes indices or paths, not both: they are two forms of one answer"
        bounds = (
            ("latency_ms", self.latency_ms, 0, LATENCY_MS_MAX),
            ("status", self.status, 300, 599),
            ("retry_after_s", self.retry_after_s, 0, MOST),
            ("seconds", self.seconds, 0, MOST),
            ("requests", self.requests, 1, MOST),
        )
        for name, value, least, most in bounds:
            # Written so that NaN, too, is out of bounds.
            if value is not None and not least <= value <= most:
                yield f"{name} must be {least} to {most}, not {value}"

    def document(self) -> dict[str, object]:
        """Give the fault as the JSON object that `orders` reads."""
        return {
            each.name: getattr(self, each.name)
            for each in fields(self)
            if each.name == "what" or getattr(self, each.name) != each.default
        }


@dataclass(frozen=True, slots=True)
class Running:
    """A fault that is switched on, and what is left of it."""

    fault: Fault
    until: float | None
    """Unix seconds."""
    left: int | None
    """Requests it will still strike."""

    def document(self) -> dict[str, object]:
        """Give the fault and what is left of it as a JSON object."""
        return {**self.fault.document(), "until": self.until, "left": self.left}


class Programme:
    """The faults that are switched on, the oldest first. One request meets at most one of them."""

    def __init__(self) -> None:
        """Begin with none."""
        self._running: list[Running] = []

    def add(self, *faults: Fault, now: float) -> None:
        """Switch `faults` on at `now`, Unix seconds: all, or, where that is too many, none (FaultError)."""
        self._expire(now)
        if len(self._running) + len(faults) > FAULTS_MAX:
            raise FaultError(f"At most {FAULTS_MAX} faults can be on, and {len(self._running)} are")
        for fault in faults:
            until = None if fault.seconds is None else now + fault.seconds
            self._running.append(Running(fault, until, fault.requests))

    def next(self, public_key: str, now: float, *, takes: bool = True) -> Fault | None:
        """Say which fault strikes the request of `public_key` at `now`, and count it: the oldest that may.

        `takes`: whether an event of the request would be taken; where none is, sabotage waits for the next.
        """
        self._expire(now)
        for place, running in enumerate(self._running):
            fault = running.fault
            if fault.public_key not in (None, public_key) or (fault.what.is_sabotage and not takes):
                continue
            if running.left == 1:
                del self._running[place]
            elif running.left is not None:
                self._running[place] = Running(fault, running.until, running.left - 1)
            return fault
        return None

    def running(self, now: float) -> tuple[Running, ...]:
        """List what is on at `now`."""
        self._expire(now)
        return tuple(self._running)

    def clear(self) -> int:
        """Switch every fault off, and say how many there were."""
        cleared = len(self._running)
        self._running.clear()
        return cleared

    def _expire(self, now: float) -> None:
        self._running = [each for each in self._running if each.until is None or now < each.until]
