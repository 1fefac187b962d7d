"""Where lines go: a stream that may be gone or full, and must not take the proxy with it."""

from collections.abc import Callable
from typing import TextIO

_count: list[Callable[[], None]] = []
"""Who counts what could not be written: nobody, until there are metrics."""


def count_unwritten(count: Callable[[], None]) -> None:
    """Call this for each line from now on that could not be written."""
    _count[:] = [count]


class Output:
    """A stream whose disk may be full and whose reader may be gone: a line it does not take is counted.

    Neither keeps the proxy from what it is for. None, where stderr was closed at the start, takes no line.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        """Whether a person may be looking."""
        return self._stream is not None and self._stream.isatty()

    def write(self, line: str) -> None:
        """Write a line, through to the system."""
        try:
            if self._stream is not None:
                self._stream.write(line)
                self._stream.flush()
                return
        except (OSError, ValueError):  # the latter of a closed file
            pass
        for count in _count:
            count()

    def flush(self) -> None:
        """Nothing is left to be written."""
