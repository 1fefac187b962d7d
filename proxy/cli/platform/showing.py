"""How Outlit's answers are written: for people on a terminal, and byte by byte everywhere else."""

import sys
from collections.abc import Iterable
from email.message import Message

import click
import msgspec

from proxy.cli.client import printable


def write(parts: Iterable[bytes], headers: Message, *, in_json: bool) -> None:
    """Write a body as it comes; to a terminal when it is whole, and indented unless `in_json`.

    Raises what `parts` raise: Failed where it breaks off.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        body = b"".join(parts)
        _write_to_terminal(body if in_json else _indented(body))
        return
    last = b""
    for part in parts:
        click.echo(part, nl=False)
        last = part
    # A line of JSON that does not end is lost on `while read line`; of anything else no byte is added.
    if headers.get_content_subtype() == "json" and not last.endswith(b"\n"):
        click.echo()


def _indented(body: bytes) -> bytes:
    """The same JSON on more lines, not a number or string of it changed; what is no JSON as it is."""
    try:
        return msgspec.json.format(body, indent=2)
    except (msgspec.DecodeError, RecursionError):
        return body


def _write_to_terminal(body: bytes) -> None:
    """Write text of others': it neither colours nor moves anything, whatever it holds."""
    text = body.decode(errors="backslashreplace").replace("\r\n", "\n").rstrip("\n")
    shown = "\n".join(map(printable, text.split("\n")))
    encoding = sys.stdout.encoding
    click.echo(shown.encode(encoding, "backslashreplace").decode(encoding))
