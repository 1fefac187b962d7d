"""A deployment in which one server takes all writes: by itself, behind a socket file, or under Sentinels."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from hiredis import ReplyError

from proxy.buffer.contract import BufferUnavailable
from proxy.buffer.redis.link import calls, errors
from proxy.buffer.redis.link.contract import Argument, Link
from proxy.buffer.redis.link.sentinels import Sentinels
from proxy.buffer.redis.link.server import Server
from proxy.buffer.redis.scripts import Script

_FOLLOWED_S = 1.0
"""Between two questions to the Sentinels: for so long an ordered failover can lose what is acknowledged."""


class StandaloneLink(Link):
    """Takes over the server, and the Sentinels by which it is found.

    These are asked all the time: after a failover the old primary may go on taking writes for ten seconds,
    none of which the new one will ever have.
    """

    def __init__(self, primary: Server, sentinels: Sentinels | None = None) -> None:
        self._primary = primary
        self._sentinels = sentinels
        self._following: asyncio.Task[None] | None = None
        if sentinels is not None:
            self._following = asyncio.create_task(self._follow(sentinels), name="ask the Sentinels")
        self._closed = False

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        packed = calls.by_name(script, keys, args)
        return await self._do(packed, script.name, partial(calls.by_text, script, keys, args), kept=kept)

    async def ask(self, command: str, key: bytes, *args: Argument) -> Any:
        return await self._do(calls.command(command, key, *args), command)

    async def ask_each(self, commands: Sequence[tuple[str, bytes, *tuple[Argument, ...]]]) -> list[Any]:
        if not commands:
            return []
        answers = await self._primary.ask_each([calls.command(*command) for command in commands])
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, ReplyError):
                raise errors.refusal(answer, command[0], self._primary.where)
        return answers

    async def run_everywhere(self, script: Script, args: Sequence[Argument]) -> list[Any]:
        return [await self.run(script, (), args)]

    async def info(self) -> list[dict[str, str]]:
        return [calls.fields(await self._primary.ask("INFO"))]

    async def close(self) -> None:
        self._closed = True
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait((self._following,))
        await self._primary.quiet()
        await self._primary.close()
        if self._sentinels is not None:
            await self._sentinels.close()

    async def _follow(self, sentinels: Sentinels) -> None:
        """Leave the present primary as soon as the Sentinels name another."""
        primary = self._primary
        while True:
            await asyncio.sleep(_FOLLOWED_S)
            with suppress(BufferUnavailable):  # whoever needs a connection finds out, and is told
                address = await sentinels.primary()
                if primary.address not in {None, address}:
                    primary.leave()

    async def _do(
        self, packed: bytes, name: str, by_text: Callable[[], bytes] | None = None, *, kept: bool = False
    ) -> Any:
        """A call's answer. It is sent again only where the server has said that it did nothing."""
        primary = self._primary
        if self._following is not None and self._following.done() and not self._closed:
            self._following.result()  # it never ends but by a defect, which must not stay hidden
        may_have_moved = True
        if self._closed:
            raise BufferUnavailable("the buffer is closed")
        while True:
            wire = primary.free(kept=kept) or await primary.opened(kept=kept)
            answer = await primary.send(wire, packed, kept=kept)
            if not isinstance(answer, ReplyError):
                return answer
            match errors.code_of(answer):
                case "NOSCRIPT" if by_text is not None:
                    packed, by_text = by_text(), None
                case "READONLY" if may_have_moved:
                    # It was the primary once: ask the Sentinels, or the DNS, again.
                    primary.leave()
                    may_have_moved = False
                case _:
                    raise errors.refusal(answer, name, wire.where)
