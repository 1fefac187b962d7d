"""The engine's scripts: one Lua file an operation, read as package data.

Before an operation's own text stands what it uses of the files that are shared, and no more: Lua makes every
function and every table of a script anew each time that it runs, and no operation needs all of the gate's.
(Of the 56 µs of processor time that a claim took in Redis this saved 9.)
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1
from importlib.resources import files

SHARED = ("shared", "budget", "standing", "gate")
"""Files that are no operations, each a row of definitions: what stands in one is known to those behind it."""

_DEFINITION = re.compile(r"^local .*\n(?:(?!local |--).*\n)*", re.MULTILINE)
"""A definition in such a file: from the first column on, to the next one, or to a comment there."""

_NAMES = re.compile(r"local (?:function )?(\w+(?:, \w+)*)")
_COMMENT = re.compile(r"--.*")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Script:
    """A script as Redis gets it. `sha` is the name under which Redis knows it once it was loaded."""

    name: str
    text: bytes
    sha: str


def load(name: str) -> Script:
    """The script of the file `name`.lua: its first line, what it uses of the shared files, and its rest."""
    flags, operation = read(name).split("\n", 1)
    definitions = "".join(map(read, SHARED))
    text = "\n".join((flags, *used(definitions, operation), operation)).encode()
    return Script(name, text, sha1(text, usedforsecurity=False).hexdigest())


def read(name: str) -> str:
    """The text of a file."""
    return (files("proxy.buffer.redis") / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def used(definitions: str, text: str) -> list[str]:
    """The definitions that a text uses, itself or by others of them, in their order."""
    words, found = set(_words(text)), list[str]()
    for definition in reversed(_DEFINITION.findall(definitions)):
        if not words.isdisjoint(_names(definition)):
            words.update(_words(definition))
            found.append(definition)
    return found[::-1]


def _names(definition: str) -> list[str]:
    match = _NAMES.match(definition)
    return match[1].split(", ") if match else []


def _words(text: str) -> Iterator[str]:
    return (match[0] for match in _WORD.finditer(_COMMENT.sub("", text)))
