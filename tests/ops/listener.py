"""The operations listener alone, over an empty buffer: for what needs no events, or an odd gateway."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from proxy.buffer import Terms
from proxy.buffer.sqlite import SqliteBuffer
from proxy.gateway import Figures, Gateway
from proxy.metrics import Metrics
from proxy.ops import Bookkeeper, Health, Status, go_by, make_app
from proxy.ops.access import Access, Handler
from proxy.ops.reloads import Reloads
from proxy.settings import Settings
from tests.stack import OPS_TOKEN, PATIENCE_S, Reply, read_reply

TOKEN = {"Authorization": f"Bearer {OPS_TOKEN}"}


class Stand:
    """In the gateway's place: has these figures, and answers its paths by this handler."""

    def __init__(self, figures: Figures | None = None, handler: Handler | None = None) -> None:
        self._figures = figures or Figures(
            api_key=True, tools=("*",), in_flight=0, refused=(), key_refused_at_ms=None
        )
        self._handler = handler
        self.retries = 0

    def mount(self, app: web.Application, _operators: Access) -> None:
        if self._handler is not None:
            app.router.add_post("/platform/api/tools/call", self._handler)

    def figures(self) -> Figures:
        return self._figures

    def retry(self) -> int:
        self.retries += 1
        return 3


class Listener:
    """One that listens."""

    def __init__(self, app: web.Application, http: TestClient[web.Request, web.Application]) -> None:
        self._app = app
        self._http = http

    def reload(self, *allowed_hosts: str) -> None:
        go_by(self._app, OPS_TOKEN, lease_s=1.0, allowed_hosts=allowed_hosts)

    async def ask(self, method: str, path: str, **headers: str) -> Reply:
        async with self._http.request(method, path, headers=headers) as response:
            return Reply(response.status, response.headers, await response.read())

    async def asked_under(self, *hosts: str, line: str = "GET /livez HTTP/1.1", **headers: str) -> Reply:
        """What is answered to bytes that no client would send; a Host header for each of `hosts`."""
        async with self._asking(line, hosts, headers) as reader:
            return await read_reply(reader)

    async def cut_off(self, line: str, **headers: str) -> bytes:
        """All that comes before the connection is closed."""
        async with self._asking(line, ("localhost",), headers) as reader, asyncio.timeout(PATIENCE_S):
            return await reader.read()

    @asynccontextmanager
    async def _asking(
        self, line: str, hosts: Sequence[str], headers: Mapping[str, str]
    ) -> AsyncIterator[asyncio.StreamReader]:
        server = self._http.server
        reader, writer = await asyncio.open_connection(server.host, server.port)
        given = [line, *(f"Host: {host}" for host in hosts), *(f"{n}: {v}" for n, v in headers.items())]
        try:
            writer.write("\r\n".join([*given, "", ""]).encode())
            yield reader
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def refused(self) -> float:
        """How many requests were refused for their host."""
        text = (await self.ask("GET", "/metrics", Host="127.0.0.1")).body.decode()
        (line,) = (
            line for line in text.splitlines() if line.startswith("outlit_proxy_ops_hosts_refused_total ")
        )
        return float(line.split()[1])


@asynccontextmanager
async def listening(
    folder: Path, *, gateway: Stand | None = None, token: str | None = OPS_TOKEN, **given: Any
) -> AsyncIterator[Listener]:
    """One over a buffer of its own; `given`: of `make_app`."""
    buffer = await SqliteBuffer.opened(folder / "buffer.db", Terms(), sync_every_commit=False)
    metrics, health = Metrics(), Health(started=True)
    books = Bookkeeper(buffer, metrics, retention_s=60.0)
    status = Status(buffer, books, metrics, health, Reloads(), Settings(), started_at_ms=0)
    app = make_app(
        buffer, books, metrics, health, token, status=status, gateway=cast("Gateway | None", gateway), **given
    )
    try:
        async with TestClient(TestServer(app)) as http:
            yield Listener(app, http)
    finally:
        await buffer.close()
