"""One POST to the Ingest API: a batch out, an answer back, or none and the word whether it may have arrived.

Nothing here decides what an answer means. The HTTP client's habits that would harm are off: it follows no
redirect (a POST would become a GET to wherever it points), keeps no cookies, adds no User-Agent, reads a
bounded part of the answer, takes no other request's, and waits no longer than it is told.
"""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace, TracebackType
from typing import Self

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace
from tenacity import (
    AsyncRetrying,
    retry_if_result,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)
from yarl import URL

from proxy.lanes import Lane
from proxy.wire.answers import Answer, NoAnswer, printable
from proxy.wire.limits import PublicKey
from proxy.wire.rate_headers import read_rate_headers
from proxy.wire.request import events_path

MAX_ANSWER_BYTES = 262_144
"""How much of an answer is read: a long error for each of 100 events; the rest is not waited for."""

MAX_HEADER_BYTES = 65_536
"""Of one header line of an answer. With aiohttp's 8,190 a long security policy makes it no answer at all."""

MAX_HEADERS = 1_000

_KEEPALIVE_S = 4.0
"""Idle connections are closed before common servers close theirs (5 s and more): a request sent into a
closing connection may have arrived, and would be counted ambiguous for nothing."""

_CONNECT_ATTEMPTS = 3
_LEAST_S = 0.001  # aiohttp takes 0 for no time-out at all
_DNS_TTL_S = 30
_AS_MANY_AS_ASKED_FOR = 0  # aiohttp's word for no limit


class Upstream:
    """The way to one Ingest API. An async context manager; `post` may be called from many tasks at once.

    It has as many connections as there are calls of `post` at one time.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.go_by(url, timeout_s=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    def go_by(self, url: str, *, timeout_s: float) -> None:
        """Send there from the next request on, and wait so long for its answer."""
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=_AS_MANY_AS_ASKED_FOR, keepalive_timeout=_KEEPALIVE_S, ttl_dns_cache=_DNS_TTL_S
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding"),
            auto_decompress=False,
            trust_env=False,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            max_headers=MAX_HEADERS,
            trace_configs=[_noting_what_is_sent()],
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, key: PublicKey, lane: Lane, body: bytes) -> Answer | NoAnswer:
        """Send one batch. Within the time-out a connection is tried again as long as nothing was sent."""
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        url = URL(self._url + events_path(key), encoded=True)
        of_client = {
            "X-Forwarded-For": lane.client_ip,
            "User-Agent": lane.user_agent,
            "Origin": lane.origin,
        }
        headers = {name: value for name, value in of_client.items() if value is not None}
        headers["Content-Type"] = "application/json"
        attempts = AsyncRetrying(
            stop=stop_after_attempt(_CONNECT_ATTEMPTS) | stop_before_delay(self._timeout_s),
            wait=wait_random_exponential(multiplier=0.05, max=0.5),
            retry=retry_if_result(_was_not_sent),
            retry_error_callback=lambda state: state.outcome.result() if state.outcome else None,
        )
        return await attempts(self._attempt, url, headers, body, deadline)

    async def _attempt(
        self, url: URL, headers: dict[str, str], body: bytes, deadline: float
    ) -> Answer | NoAnswer:
        if self._session is None:
            raise RuntimeError("Upstream is an async context manager")
        left_s = max(_LEAST_S, deadline - asyncio.get_running_loop().time())
        sent = _Sent()
        try:
            response = await self._session.post(
                url,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=left_s),
                trace_request_ctx=sent,
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = _in_words(error, "answer" if sent.anything else "connection", self._timeout_s)
            return NoAnswer(may_have_arrived=sent.anything, error=printable(f"{type(error).__name__}{what}"))
        return await _read(response)


class _Connector(aiohttp.TCPConnector):
    """Gives no kept connection out on which something came that nobody had asked for.

    Load balancers send a 408 into connections that they give up; the next request would take it for its own
    answer, and a 200 of that kind for its delivery.
    """

    async def _get(self, key: ConnectionKey, traces: list[Trace]) -> Connection | None:
        while (connection := await super()._get(key, traces)) is not None:
            if connection.protocol is not None and not connection.protocol.should_close:
                break
            connection.close()
        return connection


@dataclass(slots=True)
class _Sent:
    """Whether anything of one request was written to a connection.

    The kind of an error does not say: a connection or a TLS handshake that hangs ends in the same time-out as
    an answer that does not come.
    """

    anything: bool = False


def _noting_what_is_sent() -> aiohttp.TraceConfig:
    async def note(_session: aiohttp.ClientSession, context: SimpleNamespace, _params: object) -> None:
        context.trace_request_ctx.anything = True

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(note)
    return trace


async def _read(response: aiohttp.ClientResponse) -> Answer:
    """The answer, with as much of its body as comes in time and fits."""
    body = bytearray()
    try:
        while len(body) < MAX_ANSWER_BYTES and (
            part := await response.content.read(MAX_ANSWER_BYTES - len(body))
        ):
            body += part
    except (aiohttp.ClientError, TimeoutError, OSError):
        response.close()  # the status came, and it decides
    else:
        if response.content.at_eof():
            response.release()
        else:
            response.close()
    return Answer(response.status, read_rate_headers(response.headers), bytes(body))


def _was_not_sent(outcome: Answer | NoAnswer) -> bool:
    return isinstance(outcome, NoAnswer) and not outcome.may_have_arrived


def _in_words(error: Exception, missing: str, timeout_s: float) -> str:
    """What the client library's error says; some have no words, or a whole message in their place."""
    match error:
        case TimeoutError():
            return f": no {missing} within {timeout_s:g} s"
        case aiohttp.ServerDisconnectedError() if not isinstance(error.message, str):
            return ": the connection was closed in the midst of the answer"
        case _:
            return f": {error}" if str(error) else ""
