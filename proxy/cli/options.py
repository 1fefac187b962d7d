"""The flags of commands that need settings: ``--config``, and one for each setting but secrets."""

import functools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import click

from proxy.settings import SETTINGS, Setting, SettingsError, load

_FLAGGED = tuple(setting for setting in SETTINGS if not setting.secret)


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the flags to a command, and pass it the loaded `Settings` as `settings`.

    Where settings are wrong the command does not run: each gets a line on stderr, and the exit code is 78.
    """
    return _with_settings(command, _FLAGGED)


def reloadable_settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same, and as `read_again` what reads the same sources anew; it raises SettingsError."""
    return _with_settings(command, _FLAGGED, reads_again=True)


def settings_or_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `settings_options`; but where settings are wrong the command runs, and gets the SettingsError."""
    return _with_settings(command, _FLAGGED, takes_errors=True)


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same with `--config` alone: for a command that looks at a few settings of a proxy that runs."""
    return _with_settings(command, ())


def buffer_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same with those of the buffer alone; `--buffer` is short for the flag of its URL."""
    of_buffer = [setting for setting in _FLAGGED if setting.name.startswith("buffer.")]
    return _with_settings(command, of_buffer, {"buffer.url": "--buffer"})


def _with_settings(
    command: Callable[..., Any],
    flagged: Sequence[Setting],
    short: Mapping[str, str] = MappingProxyType({}),
    *,
    reads_again: bool = False,
    takes_errors: bool = False,
) -> Callable[..., Any]:
    @functools.wraps(command)
    def with_settings(*args: Any, config: Path | None, **given: Any) -> Any:
        texts = {setting.name: given.pop(_parameter(setting)) for setting in flagged}
        flags = {name: text for name, text in texts.items() if text is not None}
        read = functools.partial(load, config, dict(os.environ), flags)
        try:
            settings = read()
        except SettingsError as error:
            if takes_errors:
                return command(*args, settings=error, **given)
            for line in error.lines:
                click.echo(f"configuration: {line}", err=True)
            sys.exit(os.EX_CONFIG)
        if reads_again:
            given["read_again"] = read
        return command(*args, settings=settings, **given)

    # click shows the option that was added last first.
    for setting in reversed(flagged):
        flags_of = filter(None, (short.get(setting.name), setting.flag))
        add = click.option(*flags_of, _parameter(setting), metavar=_metavar(setting), help=_help(setting))
        with_settings = add(with_settings)
    overridden = (
        "The environment overrides it, flags override both." if flagged else "The environment overrides it."
    )
    return click.option(
        "--config",
        metavar="FILE",
        type=click.Path(path_type=Path),
        help=f"Settings in TOML; also OUTLIT_PROXY_CONFIG. {overridden}",
    )(with_settings)


def _parameter(setting: Setting) -> str:
    """The argument in which click passes the flag, such as front_listen."""
    return setting.name.replace(".", "_")


def _metavar(setting: Setting) -> str:
    if setting.choices:
        return f"[{'|'.join(setting.choices)}]"
    return "JSON" if setting.is_json else setting.type.upper().replace(" ", "-")


def _help(setting: Setting) -> str:
    bounds = f"; {setting.bounds}" if setting.bounds else ""
    return f"{setting.meaning[0].upper()}{setting.meaning[1:]}.  [default: {setting.default_text}{bounds}]"
