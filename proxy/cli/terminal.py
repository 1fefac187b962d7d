"""What commands say and ask on a terminal."""

import json
import os
import sys
from collections.abc import Iterable, Sequence

import click

from proxy.cli.client import printable


def sure(question: str, *, yes: bool) -> None:
    """Return if the person at the terminal says yes, or has said so before; end the command if not.

    Where there is nobody to ask, that is wrong usage (exit code 2).
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask on: say --yes.")
    click.confirm(question, abort=True, err=True)


def counted(number: int, noun: str) -> str:
    """How many of something: "1 dead letter", "3,412 dead letters"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def lasting(seconds: float) -> str:
    """A length of time in its largest fitting unit: "0.4 s", "12 s", "3 min", "5 h", "2 d"."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"


def sized(bytes_: float) -> str:
    """A number of bytes in its largest fitting unit: "800 B", "1.2 MB", "4 GB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if bytes_ >= size:
            return f"{bytes_ / size:.3g} {unit}"
    return f"{bytes_:.0f} B"


def drawable() -> bool:
    """Whether stdout is a terminal on which things can be drawn, not only written."""
    return sys.stdout is not None and sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


def table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Aligned lines under their names, the last column as long as it is; nothing where there are no rows."""
    cells = [[printable(cell) for cell in row] for row in rows]
    if not cells:
        return []
    lines = [list(names), *cells]
    widths = [max(len(line[at]) for line in lines) for at in range(len(names) - 1)]
    return [
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]])
        for line in lines
    ]


def forget_unwritten() -> None:
    """Write what stdout and stderr still hold; what they do not take is forgotten.

    Tried once more when the interpreter ends, it would fail once more, and change the exit code.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed at the start
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def as_json(value: object) -> str:
    """One line that any terminal and any encoding can show."""
    return json.dumps(value)
