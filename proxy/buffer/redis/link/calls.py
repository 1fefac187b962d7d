"""Calls as Redis reads them."""

from collections.abc import Callable, Sequence
from typing import cast

from hiredis import pack_command

from proxy.buffer.redis.link.contract import Argument
from proxy.buffer.redis.scripts import Script

pack = cast(Callable[[tuple[Argument, ...]], bytes], pack_command)
"""A command and its arguments in Redis's protocol."""


def by_name(script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> bytes:
    """Run a script that Redis knows already. If it does not, it answers NOSCRIPT and has done nothing."""
    return pack((b"EVALSHA", script.sha, len(keys), *keys, *args))


def by_text(script: Script, keys: Sequence[bytes], args: Sequence[Argument]) -> bytes:
    """Run a script, and have Redis know it from now on."""
    return pack((b"EVAL", script.text, len(keys), *keys, *args))


def command(name: str, *args: Argument) -> bytes:
    """A command; the name may be of two words."""
    return pack((*name.split(), *args))


def fields(info: bytes) -> dict[str, str]:
    """What INFO answers: field to text."""
    lines = info.decode("utf-8", "replace").splitlines()
    parts = (line.partition(":") for line in lines if not line.startswith("#"))
    return {name: value for name, separator, value in parts if separator}
