"""``outlit-proxy run``: front, flusher and operations in one process."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable

import click

from proxy import log
from proxy.buffer import BufferBroken
from proxy.cli.options import reloadable_settings_options
from proxy.engines import StartRefused
from proxy.service import Service, Supervisor
from proxy.settings import Settings


@click.command(short_help="Accept, keep and deliver events.")
@reloadable_settings_options
def run(*, settings: Settings, read_again: Callable[[], Settings]) -> None:
    """Accept events, keep them, deliver them; in the foreground, logs to stderr.

    SIGTERM or Ctrl-C stops it in order, a second one at once. SIGHUP reads the settings anew, from the same
    file, secrets' files, environment and flags; where one is wrong, all stay as they were.

    \b
    outlit-proxy run
    outlit-proxy run --config proxy.toml --front-listen 0.0.0.0:8080
    """  # noqa: D301  # click's mark for "as it stands"
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload
    log.configure(settings.log.format, settings.log.level)
    try:
        asyncio.run(_serve(settings, read_again))
    except StartRefused as error:
        sys.exit(f"outlit-proxy: {error}")
    except BaseExceptionGroup as group:
        broke = group.subgroup(BufferBroken)
        if broke is None:
            raise
        sys.exit(f"outlit-proxy: storage failed: {_first(broke)}")


def _first(group: BaseExceptionGroup[BufferBroken]) -> BufferBroken:
    """One of them: they all say the same."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _serve(settings: Settings, read_again: Callable[[], Settings]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    service = Service(settings, read_again=read_again, supervisor=Supervisor(os.environ))

    def ask_to_stop() -> None:
        stop.set()
        for again in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(again)  # the second time it ends the process as it would any other

    for asked in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(asked, ask_to_stop)
    loop.add_signal_handler(signal.SIGHUP, service.reload)
    try:
        await service.run(stop)
    finally:
        loop.remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it has stopped, and only has to end
