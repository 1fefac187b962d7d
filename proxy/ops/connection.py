"""Connections to the operations listener: bounded, and what is no HTTP is answered without a word of it.

aiohttp repeats the line that it could not read, in its answer and in its log; in that line there may be a
token or an API key. And it waits for a first request as long as one likes, on as many connections as there
are file descriptors, which the other listener needs, too.
"""

import asyncio
from itertools import chain
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from proxy.metrics import Metrics
from proxy.ops.answers import as_json

MAX_CONNECTIONS: Final = 512

_FIRST_REQUEST_S: Final = 10.0
_KEEPALIVE_S: Final = 75.0
_SHUTDOWN_S: Final = 2.0
_LINGERING_S: Final = 2.0
"""So long what is left of a request is read after its answer."""


class Runner(web.AppRunner):
    """Runs an app of `make_app`'s."""

    def __init__(self, app: web.Application, metrics: Metrics) -> None:
        self._metrics = metrics
        super().__init__(
            app,
            access_log=None,
            keepalive_timeout=_KEEPALIVE_S,
            shutdown_timeout=_SHUTDOWN_S,
            lingering_time=_LINGERING_S,
            # Nothing here needs it; it would inflate even what is left unread, while everything else waits.
            auto_decompress=False,
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        server = _Server(made.request_handler, request_factory=made.request_factory, **made._kwargs)  # noqa: SLF001  # how a server is made again, with a connection of ours
        server.metrics = self._metrics
        return server


class _Server(web.Server):
    metrics: Metrics

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(RequestHandler):
    __slots__ = ("_first_request", "_server")

    def __init__(self, server: _Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._first_request: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self._server.connections) > MAX_CONNECTIONS:
            # A probe must find a place, however many others hold one and do nothing with it.
            self._server.metrics.ops_connections_closed["at_the_bound"].inc()
            others = [each for each in self._server.connections if isinstance(each, _Connection)]
            others.remove(self)
            idle = (other for other in others if other.is_idle)
            slow = (other for other in others if other.is_slow)
            next(chain(idle, slow), self).drop()
        loop = asyncio.get_running_loop()
        self._first_request = loop.call_later(_FIRST_REQUEST_S, self._close_where_none_came)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._first_request is not None:
            self._first_request.cancel()
        super().connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """Whether it is open, and waits for a request."""
        return self.transport is not None and self._current_request is None and not self._messages

    @property
    def is_slow(self) -> bool:
        """Whether its peer has not read what was written."""
        transport = self.transport
        return isinstance(transport, asyncio.Transport) and transport.get_write_buffer_size() > 0

    def drop(self) -> None:
        """End it now: closing would wait for a peer that may read nothing."""
        transport = self.transport
        self.force_close()
        if isinstance(transport, asyncio.Transport):
            transport.abort()

    def _close_where_none_came(self) -> None:
        if not self._request_count:
            self._server.metrics.ops_connections_closed["no_request"].inc()
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status != 400 and not isinstance(exc, HttpProcessingError):
            return super().handle_error(request, status, exc, message)
        self._server.metrics.ops_connections_closed["no_http"].inc()
        answer = as_json({"error": "this is no valid HTTP request"}, status=400)
        answer.force_close()
        return answer
