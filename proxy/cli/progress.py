"""Long work that is done in portions: how far it is, and Ctrl-C between two of them."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress(total: int, doing: str, *, hidden: bool = False) -> Iterator[Callable[[int], None]]:
    """Show how many of `total` are done; call what it gives with how many more are.

    On stderr, and only where that is a terminal that may be drawn on, and `hidden` does not forbid it.
    """
    drawn = sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    with click.progressbar(
        length=total, label=doing, file=sys.stderr, show_pos=True, hidden=hidden or not drawn
    ) as bar:
        yield bar.update


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """While this lasts Ctrl-C is a wish, to be asked for between two portions; a second one ends at once."""
    wished = False

    def wish(_signal: int, _frame: object) -> None:
        nonlocal wished
        wished = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, wish)
    try:
        yield lambda: wished
    finally:
        signal.signal(signal.SIGINT, before)
