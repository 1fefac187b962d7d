"""The commented example: every setting with its default, off, below what is to be known of it."""

import json
import textwrap
from collections.abc import Iterator

from proxy.settings.kinds import toml_text
from proxy.settings.notes import NOTES
from proxy.settings.setting import Setting
from proxy.settings.tables import SETTINGS, TABLES

_WIDTH = 118

_HEAD = """\
# Settings of the Outlit ingest proxy: every one of them, with its default.
#
#   outlit-proxy check --config outlit-proxy.toml
#   outlit-proxy run --config outlit-proxy.toml        or OUTLIT_PROXY_CONFIG=outlit-proxy.toml
#
# To change a setting, take the # before it away. What is set here is overridden by the environment
# (OUTLIT_PROXY_FRONT_LISTEN for front.listen; lists and tables as JSON), and that by flags (--front-listen).
# `outlit-proxy config show --origin` prints what is in force, and why.
#
# Durations: "250ms", "30s", "10m", "72h", "30d"; a number without a unit is refused.
# Sizes:     "10MB" is 10,000,000 bytes, "10MiB" is 10,485,760; a number is bytes.
#"""


def example() -> str:
    """The example as a file. As it is it changes nothing; it is the same at every call."""
    restarts = [setting.name for setting in SETTINGS if not setting.reloads]
    at_reload = f"A reload (SIGHUP) applies every setting but {', '.join(restarts)}: these need a restart."
    return "\n".join([_HEAD, *_comment(at_reload), "", *_body()])


def sentences(setting: Setting) -> str:
    """What a setting means, its bounds or choices, and of a list one that it may be: full sentences."""
    said = [f"{setting.meaning[0].upper()}{setting.meaning[1:]}."]
    if setting.choices:
        *others, last = map(json.dumps, setting.choices)
        said.append(f"{', '.join(others)} or {last}.")
    if setting.bounds:
        said.append(f"{setting.bounds[0].upper()}{setting.bounds[1:]}.")
    if setting.parts:
        said.append(f"{', '.join(f'{part.key}: {part.bounds}' for part in setting.parts)}.")
    elif setting.is_json:
        said.append(f"Such as {toml_text(setting.kind.example)}.")
    return " ".join(said)


def _body() -> Iterator[str]:
    for table in TABLES:
        yield f"\n[{table.name}]  # {table.meaning[0].lower()}{table.meaning[1:].rstrip('.')}\n"
        for setting in SETTINGS:
            if setting.table == table.name:
                yield from _of(setting)
                yield ""


def _of(setting: Setting) -> Iterator[str]:
    said = sentences(setting)
    if setting.secret:
        said += (
            " Not set by default, and better kept out of this file:"
            f" {setting.secret_file_variable} names a file that holds it."
        )
    for paragraph in (said, *NOTES.get(setting.name, "").splitlines()):
        yield from _comment(paragraph)
    value = '"…"' if setting.secret else setting.default_text
    yield f"#{setting.key} = {value}"


def _comment(paragraph: str) -> list[str]:
    if paragraph.startswith("  "):
        return [f"# {paragraph}"]
    return textwrap.wrap(
        paragraph,
        _WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )
