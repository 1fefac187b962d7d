"""The flags of commands that need settings: ``--config``, and one for each setting but secrets."""

import functools
import math
import os
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import click

from proxy.settings import SETTINGS, Setting, SettingsError, load, load_what_is_right


class Seconds(click.FloatRange):
    """A range of numbers without NaN, which click takes for one of any range: it is on neither side."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number that a text means; raises click.BadParameter."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is not a number.", param, ctx)
        return number


_FLAGGED = tuple(setting for setting in SETTINGS if not setting.secret)

_SECRETS_OF_THE_PROXY = frozenset(
    variable
    for setting in SETTINGS
    if setting.secret and setting.name != "ops.token"
    for variable in (setting.variable, setting.secret_file_variable)
)
"""What whoever asks a proxy that runs has no need of; the files may be readable for the proxy alone."""


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
    return _with_settings(command, _FLAGGED, wrong="pass")


def config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config` alone, for a command that asks a proxy that runs: it needs no more than to find that.

    Where settings are wrong, each gets a line on stderr, and the command goes on without them, unless they
    say where the proxy listens. A file that is broken after the start must not make a health check fail: the
    proxy goes by what it read before.
    """
    return _with_settings(command, (), wrong="warn")


def config_with_token_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a command that cannot do without ops.token: it does not run where that is wrong."""
    return _with_settings(command, (), wrong="warn", needed=("ops.token",))


def settings_to_ask(command: Callable[..., Any]) -> Callable[..., Any]:
    """The same with the flags of all settings."""
    return _with_settings(command, _FLAGGED, wrong="warn")


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
    wrong: Literal["end", "warn", "pass"] = "end",
    needed: Collection[str] = (),
) -> Callable[..., Any]:
    @functools.wraps(command)
    def with_settings(*args: Any, config: Path | None, **given: Any) -> Any:
        texts = {setting.name: given.pop(_parameter(setting)) for setting in flagged}
        flags = {name: text for name, text in texts.items() if text is not None}
        unneeded = _SECRETS_OF_THE_PROXY if wrong == "warn" else frozenset[str]()
        environ = {name: text for name, text in os.environ.items() if name not in unneeded}
        sources = (config, environ, flags)
        try:
            if wrong == "warn":
                settings, lines = load_what_is_right(*sources, needed=[*_needed(given), *needed])
                _say(lines)
            else:
                settings = load(*sources)
        except SettingsError as error:
            if wrong == "pass":
                return command(*args, settings=error, **given)
            _say(error.lines)
            sys.exit(os.EX_CONFIG)
        if reads_again:
            given["read_again"] = functools.partial(load, *sources)
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


def _needed(given: Mapping[str, Any]) -> list[str]:
    """The addresses that a command takes from the settings, for want of a flag that names them."""
    flags = {"ops.listen": "ops_url", "front.listen": "url"}
    return [name for name, flag in flags.items() if flag in given and given[flag] is None]


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"configuration: {line}", err=True)


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
