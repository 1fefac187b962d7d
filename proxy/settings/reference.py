"""The reference of all settings, as Markdown; and, run as a program, what writes it and the example down.

    python -m proxy.settings.reference [FOLDER]        writes FOLDER/reference.md and FOLDER/outlit-proxy.toml

FOLDER is `config` without one.
"""

import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from proxy.settings.example import example
from proxy.settings.notes import NOTES
from proxy.settings.setting import Setting
from proxy.settings.sources import CONFIG_VARIABLE
from proxy.settings.tables import SETTINGS, TABLES

_HEAD = f"""\
# Settings

Generated from the settings' declarations (`make reference`); do not edit. The commented example is
[outlit-proxy.toml](outlit-proxy.toml).

A setting may stand in one TOML file (`--config FILE` or `{CONFIG_VARIABLE}`), in the environment, and in a
flag: the later wins. `front.listen` is `listen` below `[front]` in the file. `outlit-proxy config show
--origin` prints what is in force and where it comes from; `outlit-proxy config schema` prints the file's JSON
Schema, for editors.

- Lists and tables are JSON in the environment and in flags: `OUTLIT_PROXY_FRONT_PUBLIC_KEYS='["pk_abc"]'`.
- Durations have a unit: `250ms`, `30s`, `10m`, `72h`, `30d`. Sizes: `10MB` is 10,000,000 bytes, `10MiB` is
  10,485,760; a number is bytes.
- A secret has no flag, for every user of a machine sees its command lines. `…_FILE` names a file that holds
  it.
- An unknown name is an error with a suggestion, wherever it stands, as is an empty value. Only the variables
  that Kubernetes sets for a Service called `outlit-proxy` are passed over.
- Wrong settings are reported all at once, a line each, and the exit code is 78.
- Where "restart" stands in the last column, only a start reads the setting. All others also take effect at a
  reload (SIGHUP), without a lost connection; one wrong setting, and all stay as they were.
"""

_COLUMNS = "| setting, variable, flag | value | default | meaning | taken over at a |\n|---|---|---|---|---|"


def reference() -> str:
    """The reference as a file; it is the same at every call."""
    return "\n".join([_HEAD, *_body()])


def _body() -> Iterator[str]:
    for table in TABLES:
        settings = [setting for setting in SETTINGS if setting.table == table.name]
        yield f"## [{table.name}]\n\n{table.meaning}\n\n{_COLUMNS}"
        yield from map(_row, settings)
        yield ""
        for setting in settings:
            yield from _note(setting)


def _row(setting: Setting) -> str:
    names = [setting.name, setting.variable, setting.secret_file_variable if setting.secret else setting.flag]
    cells = [
        "<br>".join(f"`{name}`" for name in names),
        _value(setting),
        "" if setting.default is None else f"`{setting.default_text}`",
        f"{setting.meaning[0].upper()}{setting.meaning[1:]}.",
        "reload" if setting.reloads else "restart",
    ]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _value(setting: Setting) -> str:
    """Of what type it is, and its bounds."""
    if setting.choices:
        return ", ".join(f"`{choice}`" for choice in setting.choices)
    if setting.parts:
        return "<br>".join(
            f"`{part.key}`: {part.type}, {part.bounds}; {part.meaning}" for part in setting.parts
        )
    return f"{setting.kind.name}, {setting.bounds}" if setting.bounds else setting.kind.name


def _note(setting: Setting) -> Iterator[str]:
    """What does not fit into its row; lines that are to stand as they are become code."""
    if setting.name not in NOTES:
        return
    begin = f"**`{setting.name}`**: "
    for is_code, lines in groupby(NOTES[setting.name].splitlines(), lambda line: line.startswith("  ")):
        if is_code:
            yield "```text\n" + "\n".join(line.strip() for line in lines) + "\n```\n"
        else:
            yield begin + "\n\n".join(lines) + "\n"
        begin = ""


def write(folder: Path) -> None:
    """Write both files. Raises OSError."""
    (folder / "reference.md").write_text(reference(), encoding="utf-8")
    (folder / "outlit-proxy.toml").write_text(example(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "config"))
