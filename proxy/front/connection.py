"""A client's connection: from bytes on a socket to whole requests, within bounds.

aiohttp leaves open how long headers may take and how many connections there are, answers what is no HTTP in
plain text with a traceback in the log, and at a stop forgets requests that it has read. This closes those.
"""

import asyncio
from typing import Any, Protocol

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from proxy.metrics import Metrics
from proxy.settings import FrontSettings
from proxy.wire.answers import ClientAnswer, Code, refused

KEEPALIVE_S = 75.0
"""Idle connections stay open longer than those of the usual load balancers (60 s): who closes first must
be the side that sends."""

MAX_HEADER_BYTES = 65_536
"""Of one header line: beacons carry the site's cookies, which may be large."""

LINGERING_S = 2.0
"""How long a refused body or connection is read on, so that its sender sees the answer instead of a reset."""

MAX_TURNED_AWAY = 256
"""Of the connections beyond the bound, so many at once are told why; what comes on top is reset."""

_AT_ONCE_S = 0.01
"""As good as no time: aiohttp takes 0 seconds for no bound."""


class Answering(Protocol):
    """Who answers what comes over the connections."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""

    def respond(
        self, request: web.BaseRequest, answer: ClientAnswer | None, lines: str
    ) -> web.StreamResponse:
        """The response of an answer; `lines` are header lines."""

    def unasked(self, code: Code, message: str) -> bytes:
        """The bytes of an answer to who sent no whole request."""


class Server(web.Server):
    """aiohttp's low-level server with our connection: there are two routes, and no framework between."""

    def __init__(self, front: Answering, metrics: Metrics, settings: FrontSettings) -> None:
        super().__init__(front.handle)
        self.front = front
        self.metrics = metrics
        self.settings = settings
        self.turned_away = 0
        """Connections beyond the bound that still read why."""
        self.is_closing = False
        """Each connection ends with what it is answered next; set when no new one is taken any more."""
        metrics.connections.set_function(lambda: len(self.connections) - self.turned_away)

    def pre_shutdown(self) -> None:
        """Close what is idle; what is owed an answer gets it first."""
        for connection in list(self.connections):
            if isinstance(connection, Connection):
                connection.end()

    def __call__(self) -> RequestHandler:
        return Connection(
            self,
            loop=self._loop,
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGERING_S,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            auto_decompress=False,
            access_log=None,
        )


class Connection(RequestHandler):
    """A connection whose headers must come in time, and whose errors are answered in JSON and counted.

    Every request whose headers were read is answered, also where the connection is told to close meanwhile:
    aiohttp's would answer the one in hand, and drop what still comes of its body and the ones behind it.
    """

    __slots__ = (
        "_answered",
        "_ends_when_answered",
        "_has_begun",
        "_header_timer",
        "_is_turned_away",
        "_server",
    )

    def __init__(self, server: Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._server = server
        self._header_timer: asyncio.TimerHandle | None = None
        self._answered = 0  # of the `_request_count` whose headers were read
        self._ends_when_answered = False
        self._has_begun = False  # some of the headers that are waited for came
        self._is_turned_away = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        server = self._server
        if len(server.connections) - server.turned_away > server.settings.max_connections:
            server.metrics.connections_refused.inc()
            self._turn_away()
        else:
            self._expect_headers()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._headers_came()
        if self._is_turned_away:
            self._is_turned_away = False
            self._server.turned_away -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        # A waiter that still waits has got no whole request from all that came: headers are on their way.
        if self._is_waiting():
            if not self._is_turned_away:
                self._expect_headers()
                self._has_begun = True
        elif self._header_timer is not None:
            self._headers_came()

    def close(self) -> None:
        """Take no request but those whose headers were read, and end when they are answered."""
        if self._answered < self._request_count:
            self._ends_when_answered = True
        else:
            super().close()

    def end(self) -> None:
        """Close, an idle connection at once: what still comes on it is reset, not read and dropped."""
        self.close()
        if not self._ends_when_answered and not self._is_turned_away and self.transport is not None:
            self.transport.close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; the last one of a connection that is to end says so."""
        ends = self._ends_when_answered or self._server.is_closing
        if ends and self._answered + 1 == self._request_count:
            resp.force_close()
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._answered += 1
            if self._ends_when_answered:
                self.close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Close; requests whose headers were read are answered first, if it takes at most `timeout` s."""
        self.close()
        if self._ends_when_answered and self._task_handler is not None:
            loop = asyncio.get_running_loop()
            started_at = loop.time()
            await asyncio.wait([self._task_handler], timeout=timeout)
            if timeout is not None:
                timeout = max(_AT_ONCE_S, timeout - (loop.time() - started_at))
        await super().shutdown(timeout)

    def _turn_away(self) -> None:
        """Say why, and end with the client or after a while; what it sends until then is read and dropped."""
        server, transport = self._server, self.transport
        if transport is None or server.turned_away >= MAX_TURNED_AWAY:
            self.force_close()
            return
        self._is_turned_away = True
        server.turned_away += 1
        transport.write(server.front.unasked(Code.OVERLOADED, "too many connections: come again later"))
        if transport.can_write_eof():
            transport.write_eof()
        self.close()  # nothing that comes is parsed
        asyncio.get_running_loop().call_later(LINGERING_S, self.force_close)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # it may repeat what came in
    ) -> web.StreamResponse:
        front = self._server.front
        if status == 400 or isinstance(exc, HttpProcessingError):
            code, text = Code.MALFORMED_REQUEST, "this is no valid HTTP request"
        else:
            code, text = Code.INTERNAL, "an error of the proxy's own; it is logged and counted"
            structlog.get_logger("front").error("a request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("part of an answer was sent already")
        self._server.metrics.refused[code].inc()
        response = front.respond(request, refused(code, text), "")
        response.force_close()
        return response

    def _is_waiting(self) -> bool:
        waiter = self._waiter
        return waiter is not None and not waiter.done()

    def _expect_headers(self) -> None:
        if self._header_timer is None:
            loop = asyncio.get_running_loop()
            self._header_timer = loop.call_later(self._server.settings.header_timeout_s, self._headers_late)

    def _headers_came(self) -> None:
        self._has_begun = False
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _headers_late(self) -> None:
        self._header_timer = None
        if not self._is_waiting():
            return
        if self._has_begun and self.transport is not None:
            late = self._server.front.unasked(Code.REQUEST_TIMEOUT, "the headers did not come in time")
            self.transport.write(late)
        else:
            self._server.metrics.refused[Code.REQUEST_TIMEOUT].inc()
        self.force_close()
