"""What a tool is given: a JSON object, written on the command line, in a file, or on stdin."""

import glob
import json
import sys
from pathlib import Path
from typing import NoReturn

import click
from click.shell_completion import CompletionItem


def json_object(_context: click.Context, parameter: click.Parameter, value: str) -> bytes:
    """The JSON object that `{…}`, `@FILE` or `-` means, byte by byte as it is written there.

    Raises click.BadParameter, which says where it is wrong.
    """
    where = "stdin: " if value == "-" else f"{value[1:]}: " if value.startswith("@") else ""
    try:
        text = _read(value).decode("utf-8-sig")
        # Numbers stay as they are written: this is only to see whether it is JSON.
        read = json.loads(text, parse_int=str, parse_float=str, parse_constant=_no_number)
    except json.JSONDecodeError as error:
        why = f"no JSON: line {error.lineno}, column {error.colno}: {error.msg[0].lower()}{error.msg[1:]}"
    except UnicodeDecodeError as error:
        why = f"no UTF-8: byte {error.start}"
    except RecursionError:
        why = "nests too deeply"
    except OSError as error:
        why = (error.strerror or str(error)).lower()
    except ValueError as error:
        why = str(error)
    else:
        if isinstance(read, dict):
            return text.encode()
        why = 'no JSON object: write {"name": value, …}'
    raise click.BadParameter(f"{where}{why}", param=parameter)


def files_completed(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The files that an `@…` may mean."""
    if not incomplete.startswith("@"):
        return []
    found = sorted(glob.glob(f"{glob.escape(incomplete[1:])}*"))  # noqa: PTH207  # to stay as it was typed
    return [CompletionItem(f"@{name}{'/' if Path(name).is_dir() else ''}") for name in found]


def _read(value: str) -> bytes:
    if value == "@":
        raise click.BadParameter("name a file behind @.")
    if value.startswith("@"):
        return Path(value[1:]).read_bytes()
    if value != "-":
        return value.encode("utf-8", "surrogateescape")
    if sys.stdin is None:  # as it is where it was closed at the start
        raise ValueError("is closed")
    return sys.stdin.buffer.read()


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"no JSON: {constant}")
