"""``outlit-proxy run``: front, flusher and operations in one process."""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import click
import structlog

from proxy import log
from proxy.buffer import BufferBroken
from proxy.cli.options import reloadable_settings_options
from proxy.cli.terminal import forget_unwritten
from proxy.engines import StartRefused
from proxy.service import Service, Supervisor
from proxy.settings import Settings

_THREADS_END_S = 0.5
"""How long threads may take to end when all else has: they have nothing to do, or hang."""


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
    log.configure(settings.log.format, settings.log.level)
    others = threading.enumerate()
    code = os.EX_OK if _served(settings, read_again) else 1
    _end_if_threads_hang(code, others)
    forget_unwritten()
    sys.exit(code)


def _served(settings: Settings, read_again: Callable[[], Settings]) -> bool:
    """Serve until told to stop; whether that went well. Where it did not, stderr says why."""
    try:
        asyncio.run(_serve(settings, read_again))
    except StartRefused as error:
        click.echo(f"outlit-proxy: {error}", err=True)
    except BaseExceptionGroup as group:
        broke = group.subgroup(BufferBroken)
        if broke is None:
            traceback.print_exception(group)
        else:
            click.echo(f"outlit-proxy: storage failed: {_first(broke)}", err=True)
    else:
        return True
    return False


def _end_if_threads_hang(code: int, others: Collection[threading.Thread]) -> None:
    """End the process here and now where threads hang, on a disk or a name server, that are not the others.

    The interpreter would wait for them, beyond `delivery.grace`; all that they could still do is done.
    """
    until = time.monotonic() + _THREADS_END_S
    hanging = []
    for thread in threading.enumerate():
        if not thread.daemon and thread not in others:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                hanging.append(thread.name)
    if hanging:
        structlog.get_logger("service").warning("ended without threads that hang", threads=hanging)
        logging.shutdown()
        forget_unwritten()
        os._exit(code)


class _Unawaited(ThreadPoolExecutor):
    """The event loop's threads; at its end they are waited for by `_end_if_threads_hang` alone."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002, FBT001, FBT002  # theirs
        super().shutdown(wait=False, cancel_futures=cancel_futures)


def _first(group: BaseExceptionGroup[BufferBroken]) -> BufferBroken:
    """One of them: they all say the same."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _serve(settings: Settings, read_again: Callable[[], Settings]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(_Unawaited(thread_name_prefix="beside"))
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
