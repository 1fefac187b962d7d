"""Tables on the terminal, row by row as they are measured; pasted into a document they are Markdown."""

import statistics
import sys
from collections.abc import Callable, Sequence


class Table:
    """`columns`: titles. The first column stands left, the others right: numbers, as text."""

    def __init__(self, *columns: str, first_width: int = 0, say: Callable[[str], None] | None = None) -> None:
        self._say = say = say or _line
        self._widths = [max(len(title), 5) for title in columns]
        self._widths[0] = max(self._widths[0], first_width)
        say("")
        self.row(*columns)
        say(f"|{'-' * (self._widths[0] + 2)}|" + "".join(f"{'-' * (w + 1)}:|" for w in self._widths[1:]))

    def row(self, *cells: str) -> None:
        """One row."""
        first, *rest = (cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True))
        self._say("| " + " | ".join([first.strip().ljust(self._widths[0]), *rest]) + " |")


def _line(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def ratio(ones: Sequence[float], others: Sequence[float]) -> tuple[str, str]:
    """The median of the rounds' ratios, and their least and greatest."""
    ratios = [one / other for one, other in zip(ones, others, strict=True)]
    return f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}-{max(ratios):.2f}"
