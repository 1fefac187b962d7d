"""The command line: ``outlit-proxy``, and ``python -m proxy``."""

import errno
import os
import signal
import sys
from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import Any

import click

from proxy import __version__

_LIBRARIES = ("aiohttp", "click", "hiredis", "msgspec", "orjson", "prometheus-client", "pydantic", "redis")

_NAMES = (
    "run",
    "check",
    "demo",
    "sandbox",
    "healthcheck",
    "config",
    "send",
    "status",
    "top",
    "tap",
    "dead",
    "keys",
    "erase",
    "platform",
    "drain",
    "bench",
    "completion",
)
"""The commands; each is what its module is called."""


class _Commands(MutableMapping[str, click.Command]):
    """Each is imported when it is first asked for: a health check must not cost what all of them do."""

    def __init__(self) -> None:
        self._commands: dict[str, click.Command | None] = dict.fromkeys(_NAMES)

    def __getitem__(self, name: str) -> click.Command:
        command = self._commands[name]
        if command is None:
            command = self._commands[name] = getattr(import_module(f"proxy.cli.{name}"), name)
        return command

    def __setitem__(self, name: str, command: click.Command) -> None:
        self._commands[name] = command

    def __delitem__(self, name: str) -> None:
        del self._commands[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __len__(self) -> int:
        return len(self._commands)


class _Group(click.Group):
    """The commands, and how each is set off."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Have `run` pass over SIGHUP until it reloads by it: a signal during its imports would end it."""
        if args[0] == "run":
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Do it, and write all that it said."""
        done = super().invoke(ctx)
        if sys.stdout is not None:  # as it is where it was closed at the start
            sys.stdout.flush()
        return done

    def main(self, *args: Any, **given: Any) -> Any:
        """Do what the command line asks for; where the output has no room, say so in one line."""
        try:
            return super().main(*args, **given)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            from proxy.cli.terminal import forget_unwritten

            forget_unwritten()
            where = error.filename or "the output"
            sys.exit(f"outlit-proxy: {where} is not whole: {os.strerror(error.errno).lower()}")


def _show_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:  # noqa: FBT001  # click's callback
    if not wanted or context.resilient_parsing:
        return
    import platform
    from importlib.metadata import version

    import apsw

    click.echo(f"outlit-proxy {__version__}")
    click.echo(f"Python {platform.python_version()}, SQLite {apsw.sqlite_lib_version()}")
    click.echo(", ".join(f"{library} {version(library)}" for library in _LIBRARIES))
    context.exit()


@click.group(cls=_Group, commands=_Commands(), context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_show_version,
    help="Show the versions of it, of Python, SQLite and the main libraries.",
)
def main() -> None:
    """A first-party ingest proxy for Outlit: keeps events, and delivers them in order within its limits.

    \b
    outlit-proxy demo                  see it work, with nothing configured
    outlit-proxy run                   accept, keep and deliver events
    outlit-proxy status                what a running one holds, and what is wrong with it
    outlit-proxy dead list --help      each command shows examples

    Exit codes: 0 done, 1 failed while running (or the answer is no), 2 used wrongly, 78 wrong settings.
    """  # noqa: D301  # click's mark for "as it stands"
