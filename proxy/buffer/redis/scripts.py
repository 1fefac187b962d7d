"""The engine's scripts: one Lua file an operation, read as package data."""

from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis gets it. `sha` is the name under which Redis knows it once it was loaded."""

    name: str
    text: bytes
    sha: str


def load(name: str) -> Script:
    """The script of the file `name`.lua: its first line, what all files share, and the rest of it."""
    folder = files("proxy.buffer.redis") / "lua"
    flags, rest = (folder / f"{name}.lua").read_bytes().split(b"\n", 1)
    shared = (folder / "shared.lua").read_bytes()
    text = flags + b"\n" + shared + rest
    return Script(name, text, sha1(text, usedforsecurity=False).hexdigest())
