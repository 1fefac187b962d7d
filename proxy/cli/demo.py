"""``outlit-proxy demo``: the promise, proven in front of your eyes."""

import asyncio
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from proxy import log
from proxy.buffer import BufferBroken
from proxy.cli.options import Seconds
from proxy.cli.terminal import drawable
from proxy.demo import (
    SABOTAGE,
    Moment,
    Opening,
    Outcome,
    Plan,
    Show,
    closing_lines,
    demonstrate,
    failures,
    ledger_lines,
    opening_lines,
)
from proxy.engines import StartRefused
from proxy.settings import (
    BufferSettings,
    BufferUrl,
    FrontSettings,
    ListenAddress,
    OpsSettings,
    parse_buffer_url,
    parse_listen,
)

if TYPE_CHECKING:
    from rich.live import Live


def _address(_context: click.Context, parameter: click.Parameter, text: str | None) -> ListenAddress | None:
    try:
        return None if text is None else parse_listen(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


def _buffer_url(_context: click.Context, parameter: click.Parameter, text: str | None) -> BufferUrl | None:
    try:
        return None if text is None else BufferSettings(url=parse_buffer_url(text)).url
    except ValidationError as error:
        raise click.BadParameter(str(error.errors()[0]["ctx"]["error"]), param=parameter) from None
    except ValueError as error:
        raise click.BadParameter(str(error), param=parameter) from None


@click.command(short_help="See it work, with nothing configured.")
@click.option(
    "--seconds",
    type=Seconds(1, 600),
    default=20,
    show_default=True,
    help="How long the clients post.",
)
@click.option(
    "--visitors",
    type=click.IntRange(1, 200),
    default=40,
    show_default=True,
    help="Visitors at one time, besides three servers. More than about 80 fill the limit, and a queue grows.",
)
@click.option(
    "--buffer",
    "buffer_url",
    metavar="URL",
    callback=_buffer_url,
    help="sqlite:///FILE, or a Redis, in which nothing is touched or left; else a file that is removed.",
)
@click.option(
    "--front-listen",
    "front",
    metavar="HOST:PORT",
    callback=_address,
    help=f"Where clients connect, on this machine.  [default: {FrontSettings().listen}, or a free port]",
)
@click.option(
    "--ops-listen",
    "ops",
    metavar="HOST:PORT",
    callback=_address,
    help=f"Where operators connect.  [default: {OpsSettings().listen}, or a free port]",
)
@click.option(
    "--sabotage",
    type=click.Choice(sorted(SABOTAGE)),
    help="Prove that the comparison can fail: the stand-in drops, doubles or swaps one event. Exits 1.",
)
def demo(
    *,
    seconds: float,
    visitors: int,
    buffer_url: BufferUrl | None,
    front: ListenAddress | None,
    ops: ListenAddress | None,
    sabotage: str | None,
) -> None:
    """Run the whole path with nothing configured, and prove that nothing is lost.

    Visitors and servers post to the proxy; it keeps, batches and delivers to a stand-in for Outlit that has
    the real limit and fails at times. At the end, every acknowledged event is looked up in what the stand-in
    received. Exits 0 only if none is lost, doubled without saying so, misattributed or out of order.

    Ctrl-C ends it early and compares all the same, a second one at once. Settings of the environment are not
    read.

    \b
    outlit-proxy demo
    outlit-proxy demo --seconds 60 --visitors 60
    outlit-proxy demo --buffer redis://localhost
    outlit-proxy demo --sabotage swap
    """  # noqa: D301  # click wants the character itself before a paragraph that it is not to wrap
    with tempfile.TemporaryDirectory(prefix="outlit-proxy-demo-") as folder, _display() as show:
        plan = Plan(
            run_s=seconds,
            visitors=visitors,
            sabotage=sabotage,
            front=front or _free(FrontSettings().listen, "the front", show),
            ops=ops or _free(OpsSettings().listen, "operations", show),
            buffer_url=buffer_url or parse_buffer_url(f"sqlite:///{Path(folder, 'buffer.db')}"),
        )
        outcome = _run(plan, show)
    for line in closing_lines(outcome):
        click.echo(line)
    sys.exit(1 if failures(outcome) else 0)


def _run(plan: Plan, show: Show) -> Outcome:
    """Run the plan; what prevents that ends the process with one line."""
    prevented: BaseException
    try:
        return asyncio.run(_demonstrate(plan, show))
    except* (StartRefused, BufferBroken, BrokenPipeError) as group:
        prevented = _first(group)
    if isinstance(prevented, BrokenPipeError):
        raise prevented  # nobody reads any more (`demo | head`): click ends quietly for that
    sys.exit(f"outlit-proxy demo: {prevented}")


async def _demonstrate(plan: Plan, show: Show) -> Outcome:
    end_early = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_end() -> None:
        end_early.set()
        show.say("ending early")
        for again in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(again)  # the second time it ends the process as it would any other

    for asked in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(asked, ask_to_end)
    return await demonstrate(plan, show, end_early)


def _free(wanted: ListenAddress, whose: str, show: Show) -> ListenAddress:
    """`wanted`, or any free port of its host where it is taken: a demonstration must not fail for that."""
    try:
        socket.create_server((wanted.host, wanted.port)).close()
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        show.say(f"{wanted} cannot be had ({why}): {whose} will listen on a free port instead")
        return ListenAddress(wanted.host, 0)
    return wanted


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


# -- showing it ----------------------------------------------------------------------------------------


@contextmanager
def _display() -> Iterator[Show]:
    """The display that the terminal can carry. Logs, from warnings up, pass it without disturbing it."""
    if not drawable():
        log.configure("text", "warning")
        yield _Lines()
        return
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    # Within Live, what is written to stderr appears above the ledger, if both go to this terminal.
    with Live(console=console, auto_refresh=False, redirect_stderr=sys.stderr.isatty()) as live:
        log.configure("text", "warning")
        yield _Terminal(live)
    log.configure("text", "warning")


class _Lines:
    """For pipes and files: a line a second."""

    every_s = 1.0

    def opening(self, opening: Opening) -> None:
        for line in opening_lines(opening):
            self.say(line)

    def say(self, text: str) -> None:
        click.echo(text)

    def moment(self, moment: Moment) -> None:
        click.echo("   ".join(ledger_lines(moment)))


class _Terminal:
    """For terminals: the ledger stays at the bottom."""

    every_s = 0.25

    def __init__(self, live: "Live") -> None:
        self._live = live

    def opening(self, opening: Opening) -> None:
        for line in opening_lines(opening):
            self.say(line)

    def say(self, text: str) -> None:
        # Uncut and unstyled: the command is to be pasted.
        self._live.console.print(text, markup=False, soft_wrap=True)

    def moment(self, moment: Moment) -> None:
        from rich.text import Text

        line = "   ".join(ledger_lines(moment))
        if len(line) > self._live.console.width:
            line = "\n".join(ledger_lines(moment))
        self._live.update(Text(line), refresh=True)
