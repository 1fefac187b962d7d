"""How often the same may be said: what repeats is counted, and written now and then.

A thousand posts a second that fail for one reason would otherwise be a thousand lines a second, and out of
file descriptors the event loop writes ten thousand tracebacks. The first few of a kind are written at once;
then silence, until a line that is written again says how many were left out.

Only warnings and errors are held back: what an operator did, or how the process starts and stops, is said
each time.
"""

import logging
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

import structlog
from structlog.typing import EventDict, WrappedLogger

WINDOW_S = 10.0
IN_A_WINDOW = 5
"""Lines of one kind (its text and, where it is about one, its public key) in a window."""

_KINDS = 1_000
"""Kinds that are remembered. Beyond, all are forgotten, and may be said again sooner."""

_LEVELS = ("warning", "error")


@dataclass(slots=True)
class _Kind:
    """Guarded by the interpreter's lock alone: two threads at once may let a line too many through."""

    since_s: float
    said: int = 0
    left_out: int = 0


_Count = Callable[[str, bool], None]
_count: list[_Count] = []
"""Who counts the lines: nobody, until there are metrics. Logging is the process's, and so is this."""


def count_lines(count: _Count) -> None:
    """Call this for each warning and error from now on: its level, and whether it is written."""
    _count[:] = [count]


class Repeats:
    """Judges the lines of one way out. `now_s`: any clock that does not go back."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._kinds: dict[Hashable, _Kind] = {}

    def of_ours(self, _logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        """For structlog: end the way of a line that repeats, or say in it how many were left out."""
        level = event["level"]
        if level not in _LEVELS:
            return event
        left_out = self._said(level, (event.get("event"), event.get("key")))
        if left_out is None:
            raise structlog.DropEvent
        if left_out:
            event["left_out"] = left_out
        return event

    def of_libraries(self, record: logging.LogRecord) -> bool:
        """For `logging`, as a filter. Of one kind are lines of one text; its arguments are what differs."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        return self._said(level, (record.name, str(record.msg))) is not None

    def _said(self, level: str, kind: Hashable) -> int | None:
        """How many like it were left out before it; None to leave it out too."""
        now = self._now_s()
        known = self._kinds.get(kind)
        if known is None:
            if len(self._kinds) >= _KINDS:
                self._kinds.clear()
            known = self._kinds[kind] = _Kind(now)
        left_out = 0
        if now - known.since_s >= WINDOW_S:
            left_out = known.left_out
            known.since_s, known.said, known.left_out = now, 0, 0
        is_written = known.said < IN_A_WINDOW
        known.said += is_written
        known.left_out += not is_written
        for count in _count:
            count(level, is_written)
        return left_out if is_written else None
