"""``outlit-proxy check``: whether the proxy would start here, and do what it is for."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict

import click

from proxy.checklist import Checked, Grade, error
from proxy.cli.client import printable
from proxy.cli.options import settings_or_errors
from proxy.cli.terminal import as_json, counted
from proxy.settings import Settings, SettingsError

_MARKS = {
    Grade.OK: ("√", "ok", "green"),
    Grade.WARNING: ("!", "!", "yellow"),
    Grade.ERROR: ("x", "x", "red"),
    Grade.SKIPPED: ("-", "-", None),
}
"""How each grade is shown: where everything can be written, where ASCII alone can, and in which colour."""

_NAME_WIDTH = 21
"""As wide as front.trusted_proxies, the longest of the usual names."""


@click.command()
@click.option("--offline", is_flag=True, help="Ask neither Redis nor upstream.")
@click.option("--strict", is_flag=True, help="Exit 1 for a warning (!), too.")
@click.option("--json", "in_json", is_flag=True, help="One JSON object at the end, for a script.")
@settings_or_errors
def check(*, settings: Settings | SettingsError, offline: bool, strict: bool, in_json: bool) -> None:
    """Look whether the proxy would start with these settings, and do what it is for.

    A line each for settings, listeners, disk or Redis, upstream, and what may not be meant: √ is well, ! is
    to be known, x is wrong; the line says what to do. Nothing is changed, and no event is sent: upstream gets
    one HEAD of its address, and gateway.api_key, where that is set, to say whether it is valid. What a proxy
    that runs already holds is a !.

    Exits 0, with 1 where something is wrong (with --strict also for a !), with 78 where settings are.

    \b
    outlit-proxy check --config outlit-proxy.toml
    outlit-proxy check --offline --strict
    """  # noqa: D301  # click's mark for "as it stands"
    say: Callable[[Checked], None] = _silent if in_json else _say
    if isinstance(settings, SettingsError):
        found = [error("settings", line) for line in settings.lines]
        for checked in found:
            say(checked)
    else:
        found = asyncio.run(_all(settings, say, offline=offline))
    count = {grade: sum(checked.grade is grade for checked in found) for grade in Grade}
    failed = bool(count[Grade.ERROR] or (strict and count[Grade.WARNING]))
    if in_json:
        click.echo(as_json({"ok": not failed, "checks": [asdict(checked) for checked in found]}))
    else:
        warnings, wrong = counted(count[Grade.WARNING], "warning"), count[Grade.ERROR]
        click.echo(f"\n{f'{wrong} wrong' if wrong else 'nothing is wrong'}, {warnings}")
    if isinstance(settings, SettingsError):
        sys.exit(os.EX_CONFIG)
    sys.exit(1 if failed else 0)


async def _all(settings: Settings, say: Callable[[Checked], None], *, offline: bool) -> list[Checked]:
    from proxy import log
    from proxy.checks import checks

    log.configure("auto", "error")  # what a look would warn of is a line of ours
    looks: AsyncIterator[Checked] = checks(settings, offline=offline)
    found = []
    async for checked in looks:
        say(checked)
        found.append(checked)
    return found


def _say(checked: Checked) -> None:
    sign, in_ascii, colour = _MARKS[checked.grade]
    mark = f"{sign if _can_write(sign) else in_ascii:<2}"
    is_terminal = sys.stdout is not None and sys.stdout.isatty()  # None: it was closed at the start
    if colour is not None and is_terminal and not os.environ.get("NO_COLOR"):
        mark = click.style(mark, fg=colour)
    text = f"{mark} {checked.name:<{_NAME_WIDTH}} {printable(checked.text)}"
    click.echo(text if _can_write(text) else text.encode("ascii", "backslashreplace").decode("ascii"))


def _can_write(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _silent(_checked: Checked) -> None:
    pass
