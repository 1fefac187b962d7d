"""Links for tests: the real one to a real server, and one around another."""

from collections.abc import Sequence
from typing import Any

from proxy.buffer.redis.link import Argument, Link, open_link
from proxy.buffer.redis.scripts import Script
from proxy.settings.redis_url import parse_target
from tests.redis_servers import Deployment


async def linked(deployment: Deployment) -> Link:
    """A link as the service opens it."""
    return await open_link(parse_target(deployment.url))


class LinkAround(Link):
    """Everything goes through to `inner`, but for what its heirs do."""

    def __init__(self, inner: Link) -> None:
        self.inner = inner

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        return await self.inner.run(script, keys, args, kept=kept)

    async def ask(self, command: str, key: bytes, *args: Argument) -> Any:
        return await self.inner.ask(command, key, *args)

    async def ask_each(self, commands: Sequence[tuple[str, bytes, *tuple[Argument, ...]]]) -> list[Any]:
        return await self.inner.ask_each(commands)

    async def run_everywhere(self, script: Script, args: Sequence[Argument]) -> list[Any]:
        return await self.inner.run_everywhere(script, args)

    async def info(self) -> list[dict[str, str]]:
        return await self.inner.info()

    async def close(self) -> None:
        await self.inner.close()
