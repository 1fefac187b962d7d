"""A front alone behind a socket, whose ingest keeps nothing: what HTTP itself does, to the byte."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from proxy.front import Front
from proxy.metrics import Metrics
from proxy.settings import FrontSettings
from proxy.wire.answers import ClientAnswer, accepted
from tests.stack import PATIENCE_S


class Taken:
    """An ingest that keeps nothing, and remembers which keys were posted to."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def take(self, key: str, *_: object) -> ClientAnswer:
        self.keys.append(key)
        await asyncio.sleep(0)
        return accepted(1, [], [])


@asynccontextmanager
async def connected(
    ingest: Any = None, **settings: Any
) -> AsyncIterator[tuple[web.Server, Any, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A server, its one connection, and the other end of that."""
    ingest = Taken() if ingest is None else ingest
    server = Front(FrontSettings(**settings), ingest, Metrics()).server()
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*listening.sockets[0].getsockname())
    async with asyncio.timeout(PATIENCE_S):
        while not server.connections or server.connections[0]._waiter is None:  # noqa: ASYNC110  # aiohttp's
            await asyncio.sleep(0)
    try:
        yield server, server.connections[0], reader, writer
    finally:
        writer.close()
        await server.shutdown(1.0)
        listening.close()
