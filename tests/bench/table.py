"""Tables on the terminal, row by row as they are measured; pasted into a document they are Markdown."""

import statistics
from collections.abc import Sequence


class Table:
    """`columns`: titles. The first column stands left, the others right: numbers, as text."""

    def __init__(self, *columns: str, first_width: int = 0) -> None:
        self._widths = [max(len(title), 5) for title in columns]
        self._widths[0] = max(self._widths[0], first_width)
        print()
        self.row(*columns)
        print(f"|{'-' * (self._widths[0] + 2)}|" + "".join(f"{'-' * (w + 1)}:|" for w in self._widths[1:]))

    def row(self, *cells: str) -> None:
        first, *rest = (cell.rjust(width) for cell, width in zip(cells, self._widths, strict=True))
        print("| " + " | ".join([first.strip().ljust(self._widths[0]), *rest]) + " |", flush=True)


def ratio(ones: Sequence[float], others: Sequence[float]) -> tuple[str, str]:
    """The median of the rounds' ratios, and their least and greatest."""
    ratios = [one / other for one, other in zip(ones, others, strict=True)]
    return f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f}-{max(ratios):.2f}"
