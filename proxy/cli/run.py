"""``outlit-proxy run``: front, flusher and operations in one process."""

import asyncio
import signal
import sys

import click

from proxy import log
from proxy.buffer import BufferBroken
from proxy.cli.options import settings_options
from proxy.engines import StartRefused
from proxy.service import Service
from proxy.settings import Settings


@click.command()
@settings_options
def run(*, settings: Settings) -> None:
    """Accept events, keep them, deliver them; in the foreground, logs to stderr.

    SIGTERM or Ctrl-C stops it in order, a second one at once.

    \b
    outlit-proxy run
    outlit-proxy run --config proxy.toml --front-listen 0.0.0.0:8080
    """  # noqa: D301  # click's mark for "as it stands"
    log.configure(settings.log.format, settings.log.level)
    try:
        asyncio.run(_serve(settings))
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


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask_to_stop() -> None:
        stop.set()
        for again in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(again)  # the second time it ends the process as it would any other

    for asked in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(asked, ask_to_stop)
    await Service(settings).run(stop)
