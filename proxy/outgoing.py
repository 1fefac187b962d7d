"""How Outlit is asked over HTTP: the client library without those of its habits that would harm.

A session keeps no cookies, adds no headers of its own, takes no proxy from the environment, reads long header
lines, and gives no request another's answer. Redirects, time-outs and how much of an answer is read are its
user's business.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

MAX_HEADER_BYTES = 65_536
"""Of one header line of an answer. With aiohttp's 8,190 a long security policy makes it no answer at all."""

MAX_HEADERS = 1_000

CONNECT_ATTEMPTS = 3

_KEEPALIVE_S = 4.0
"""Idle connections are closed before common servers close theirs (5 s and more): a request sent into a
closing connection may have arrived, and would be counted ambiguous for nothing."""

_DNS_TTL_S = 30
_AS_MANY_AS_ASKED_FOR = 0  # aiohttp's word for no limit
_LEAST_S = 0.001


def open_session() -> aiohttp.ClientSession:
    """A session; give each request a `Sent` as its `trace_request_ctx`. Close it."""
    session = aiohttp.ClientSession(
        connector=_Connector(
            limit=_AS_MANY_AS_ASKED_FOR, keepalive_timeout=_KEEPALIVE_S, ttl_dns_cache=_DNS_TTL_S
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        auto_decompress=False,
        trust_env=False,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        max_headers=MAX_HEADERS,
        trace_configs=[_noting_what_is_sent()],
    )
    # Where a kept connection breaks it would send a PUT or DELETE again by itself, uncounted.
    session._retry_connection = False  # noqa: SLF001  # its one switch for that; tests notice when it is gone
    return session


@dataclass(slots=True)
class Sent:
    """Whether anything of one request was written to a connection.

    The kind of an error does not say: a connection or a TLS handshake that hangs ends in the same time-out as
    an answer that does not come.
    """

    anything: bool = False


class Outgoing:
    """What asks Outlit: an async context manager, which has a session while it is open."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = open_session()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.session.close()

    @property
    def session(self) -> aiohttp.ClientSession:
        """To ask by. Raises RuntimeError outside of the `async with`."""
        if self._session is None:
            raise RuntimeError(f"{type(self).__name__} is an async context manager")
        return self._session


def left_s(deadline_s: float) -> float:
    """What is left until a deadline of the event loop, as a time-out: 0 would be none at all."""
    return max(_LEAST_S, deadline_s - asyncio.get_running_loop().time())


def in_words(error: Exception, missing: str, timeout_s: float) -> str:
    """What the client library's error says; some have no words, or a whole message in their place."""
    match error:
        case TimeoutError():
            return f": no {missing} within {timeout_s:g} s"
        case aiohttp.ServerDisconnectedError() if not isinstance(error.message, str):
            return ": the connection was closed in the midst of the answer"
        case _:
            return f": {error}" if str(error) else ""


class _Connection(ResponseHandler):
    """One on which a reset is no end of an answer.

    Where an answer says no length its end is the connection's, and aiohttp takes a reset for that, too.
    """

    def connection_lost(self, exc: BaseException | None) -> None:
        if exc is not None and self._payload is not None and not self._payload.is_eof():
            self._payload.set_exception(aiohttp.ClientPayloadError("the connection was reset"), exc)
        super().connection_lost(exc)


class _Connector(aiohttp.TCPConnector):
    """Gives no kept connection out on which something came that nobody had asked for.

    Load balancers send a 408 into connections that they give up; the next request would take it for its own
    answer, and a 200 of that kind for its delivery.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        kind: type[ResponseHandler] = _Connection
        self._factory = partial(kind, loop=asyncio.get_running_loop())

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                break
            connection.close()
        return connection


def _noting_what_is_sent() -> aiohttp.TraceConfig:
    async def note(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.anything = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note)
    return trace
