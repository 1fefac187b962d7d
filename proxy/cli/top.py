"""``outlit-proxy top``: a proxy that runs, looked at again and again."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import click

from proxy.cli.client import Failed, Misused
from proxy.cli.operations import Operations, open_operations_options
from proxy.cli.snapshot import Line, Snapshot, Tone, lines_of, summary
from proxy.cli.terminal import drawable, lasting
from proxy.settings.values import parse_duration

if TYPE_CHECKING:
    from rich.live import Live

_TIMEOUT_S = 3.0

_STYLES: Final[dict[Tone, str]] = {
    "plain": "",
    "strong": "bold",
    "warning": "yellow",
    "error": "bold red",
    "dim": "dim",
}


def _interval(_context: click.Context, parameter: click.Parameter, text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None
    if not 0.2 <= seconds <= 3600:
        raise click.BadParameter("write one from 200ms to 1h", param=parameter)
    return seconds


@click.command(short_help="Watch a running proxy.")
@click.option(
    "--interval",
    "interval_s",
    default="1s",
    show_default=True,
    metavar="DURATION",
    callback=_interval,
    help="From one look to the next.",
)
@open_operations_options
def top(*, operations: Operations, interval_s: float) -> None:
    """Watch a running proxy: rates, what waits, the gate of each key, and at the top what is wrong.

    Off a terminal, a line each time. q or Ctrl-C ends it. A proxy that goes away is waited for.

    \b
    outlit-proxy top
    outlit-proxy top --interval 5s --ops-url http://10.0.0.7:9090 >> proxy.log
    """  # noqa: D301  # click's mark for "as it stands"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave the terminal as it was found
    try:
        with _display() as (show, is_left_within):
            _watch(operations, interval_s, show, is_left_within)
    except KeyboardInterrupt:
        return


class Show(Protocol):
    """How it is shown."""

    def seen(self, snapshot: Snapshot) -> None:
        """The proxy has answered."""

    def missed(self, why: str, for_s: float, last: Snapshot | None) -> None:
        """It did not, for so long; `last`: what it said last."""


def _watch(
    operations: Operations, interval_s: float, show: Show, is_left_within: Callable[[float], bool]
) -> None:
    """Look until somebody leaves."""
    last: Snapshot | None = None
    answered_at = next_at = time.monotonic()
    while True:
        try:
            last = operations.status(_TIMEOUT_S)
        except Misused:
            raise
        except Failed as error:
            show.missed(error.message, time.monotonic() - answered_at, last)
        else:
            answered_at = time.monotonic()
            show.seen(last)
        next_at = max(next_at + interval_s, time.monotonic())
        if is_left_within(max(0.0, next_at - time.monotonic())):  # a moment has passed since it was compared
            return


class _Lines:
    """For pipes and files."""

    def seen(self, snapshot: Snapshot) -> None:
        click.echo(summary(snapshot))

    def missed(self, why: str, for_s: float, last: Snapshot | None) -> None:
        del last
        click.echo(_absent(why, for_s).text)


class _Screen:
    """For terminals: the whole of it, drawn anew each time."""

    def __init__(self, live: "Live") -> None:
        self._live = live

    def seen(self, snapshot: Snapshot) -> None:
        self._draw([*lines_of(snapshot)])

    def missed(self, why: str, for_s: float, last: Snapshot | None) -> None:
        before = [] if last is None else [Line(line.text, "dim", line.flows) for line in lines_of(last)]
        self._draw([_absent(why, for_s), Line(""), *before])

    def _draw(self, lines: Sequence[Line]) -> None:
        from rich.console import Group
        from rich.text import Text

        self._live.update(
            Group(
                *(
                    Text(
                        line.text,
                        _STYLES[line.tone],
                        no_wrap=not line.flows,
                        overflow="fold" if line.flows else "ellipsis",
                    )
                    for line in lines
                )
            ),
            refresh=True,
        )


def _absent(why: str, for_s: float) -> Line:
    return Line(f"the proxy does not answer, for {lasting(for_s)}: {why}", "error", flows=True)


@contextmanager
def _display() -> Iterator[tuple[Show, Callable[[float], bool]]]:
    """What can be drawn on stdout; and how to wait for so many seconds, or until somebody leaves."""
    if not drawable():
        yield _Lines(), _sleep
        return
    from rich.console import Console
    from rich.live import Live

    with (
        _keyboard() as is_left_within,
        Live(console=Console(highlight=False), screen=True, auto_refresh=False) as live,
    ):
        yield _Screen(live), is_left_within


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


@contextmanager
def _keyboard() -> Iterator[Callable[[float], bool]]:
    """Whether q is pressed within so many seconds; where nobody can press anything, nobody does."""
    if not sys.stdin.isatty():
        yield _sleep
        return
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setcbreak(keyboard)
        yield lambda seconds: _is_q_pressed(keyboard, time.monotonic() + seconds)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def _is_q_pressed(keyboard: int, until: float) -> bool:

    while (left := until - time.monotonic()) > 0:
        if select.select([keyboard], [], [], left)[0]:
            pressed = os.read(keyboard, 64)
            if not pressed or b"q" in pressed.lower():
                return True
    return False
