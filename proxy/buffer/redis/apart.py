"""A store apart from all else in a Redis: for a demonstration, which must find and leave nothing.

Every key gets another name, so what a fleet keeps in the same Redis is never seen, let alone delivered to the
wrong upstream. Hash tags stay, and with them which keys lie in one slot.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from proxy.buffer.contract import BufferUnavailable
from proxy.buffer.redis.link import Argument, Ask, Greet, Link
from proxy.buffer.redis.scripts import Script

_OURS = b"outlit:"
_DELETED_AT_ONCE = 500


class Apart(Link):
    """A link to a store of that name. What it has written is taken out again when it is closed.

    `name`: letters, digits and dashes that nobody else uses. A process that is killed leaves `outlit:NAME:*`.
    """

    def __init__(self, inner: Link, name: str) -> None:
        self._inner = inner
        self._name = name
        self._used: set[bytes] = set()

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        return await self._inner.run(script, [self._renamed(key) for key in keys], args, kept=kept)

    async def ask(self, command: str, key: bytes, *args: Argument) -> Any:
        return await self._inner.ask(command, self._renamed(key), *args)

    async def ask_each(self, commands: Sequence[tuple[str, bytes, *tuple[Argument, ...]]]) -> list[Any]:
        return await self._inner.ask_each(
            [(command, self._renamed(key), *args) for command, key, *args in commands]
        )

    async def run_everywhere(self, script: Script, args: Sequence[Argument]) -> list[Any]:
        return await self._inner.run_everywhere(script, args)

    async def info(self) -> list[dict[str, str]]:
        return await self._inner.info()

    async def close(self) -> None:
        names = list(self._used)
        with suppress(BufferUnavailable):
            for start in range(0, len(names), _DELETED_AT_ONCE):
                await self._inner.ask_each(
                    [("DEL", name) for name in names[start : start + _DELETED_AT_ONCE]]
                )
        await self._inner.close()

    def _renamed(self, key: bytes) -> bytes:
        if not key.startswith(_OURS):
            return key  # no key, but what a command is about: CONFIG GET appendfsync
        name = renamed(key, self._name)
        self._used.add(name)
        return name


def greeting_apart(greet: Greet, name: str) -> Greet:
    """A greeting that finds its keys in the store of that name."""

    async def greeted(ask: Ask) -> None:
        async def ask_apart(command: str, *args: Any) -> Any:
            key, *others = args
            return await ask(command, renamed(key, name), *others)

        await greet(ask_apart)

    return greeted


def renamed(key: bytes, name: str) -> bytes:
    """The name of a key of ours in the store of that name."""
    return b"%s%s:%s" % (_OURS, name.encode("ascii"), key.removeprefix(_OURS))
