"""Sending an answer, or failing to in the way a fault asks for.

What no correct server can send is written past it, to the connection itself, which is then closed.
"""

import asyncio
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from random import Random
from typing import Final, assert_never, cast

from aiohttp import web

from proxy.sandbox import lies
from proxy.sandbox.answers import Answer
from proxy.sandbox.manner import Break, Manner

_LINGER_0: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing sends a reset and discards what is unsent."""
_APART_S: Final = 0.02
"""From a head to the reset behind it, so that the head is there first."""
_DRIPS_PER_S: Final = 20
_SPACES: Final = b" " * 65_536
_LEFT_OUT: Final = web.RequestKey("headers left out", tuple)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer as it goes out."""

    status: int
    headers: Mapping[str, str]
    left_out: tuple[str, ...]
    """Headers that the server would add, and must not."""
    body: bytes

    @property
    def head(self) -> bytes:
        """Give the status line and headers as they stand on the wire, with the length of the body."""
        reason = HTTPStatus(self.status).phrase if self.status in set(HTTPStatus) else "Unknown"
        headers = {**self.headers, "Content-Length": str(len(self.body)), "Connection": "close"}
        lines = [f"HTTP/1.1 {self.status} {reason}", *(f"{name}: {text}" for name, text in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def leave_out(request: web.Request, response: web.StreamResponse) -> None:
    """Take out of a response what its reply leaves out: a signal of the server's, called last of all."""
    for name in request.get(_LEFT_OUT, ()):
        response.headers.popall(name, None)


def composed(answer: Answer, told: Mapping[str, str | None], now: float, chance: Random) -> Reply:
    """Give `answer` as it goes out at `now`, Unix seconds; `told`: what a fault says in its headers."""
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        **answer.headers,
        # The server's own Date would not follow the clock, and a Reset is to be read against it.
        "Date": formatdate(now, usegmt=True),
    }
    # What a fault says takes the place of what is true, whatever the case of its letters.
    replaced = {name.lower() for name in told}
    headers = {name: value for name, value in headers.items() if name.lower() not in replaced}
    for name, value in told.items():
        if value is not None:
            headers[name] = lies.told(value, now, chance)
    left_out = tuple(name for name, value in told.items() if value is None)
    return Reply(answer.status, headers, left_out, answer.text.encode("utf-8", "surrogatepass"))


async def deliver(
    request: web.Request, reply: Reply, manner: Manner, chance: Random, stopping: asyncio.Event
) -> web.StreamResponse:
    """Send `reply` in this `manner`: late, in part, without end, or not at all.

    When `stopping` is set, whatever waits here ends at once, its connection dropped unanswered.
    """
    if await travels(manner.latency_ms, manner.latency_to_ms, chance, stopping):
        return cut(request)
    request[_LEFT_OUT] = reply.left_out
    match manner.breaks:
        case None:
            return web.Response(status=reply.status, headers=reply.headers, body=reply.body)
        case Break.HANG:
            await stopping.wait()
            return cut(request)
        case Break.RESET:
            return reset(request)
        case Break.RESET_ANSWER:
            _write(request, reply.head)
            await asyncio.sleep(_APART_S)
            return reset(request)
        case Break.HALF_HEAD:
            return _closed_after(request, reply.head[: len(reply.head) // 2])
        case Break.HALF_ANSWER:
            return _closed_after(request, reply.head + reply.body[: len(reply.body) // 2])
        case Break.DRIP:
            return await _drip(request, reply.head + reply.body, manner.bytes_per_s, stopping)
        case Break.ENDLESS:
            return await _without_end(request, reply, manner.answer_bytes, stopping)
        case _:
            assert_never(manner.breaks)


async def travels(
    latency_ms: int, latency_to_ms: int | None, chance: Random, stopping: asyncio.Event, share: float = 1.0
) -> bool:
    """Wait for this `share` of a latency, drawn evenly from its range. True: `stopping` cut it short."""
    wait_ms = latency_ms if latency_to_ms is None else chance.uniform(latency_ms, latency_to_ms)
    return wait_ms > 0 and await _stopped_within(share * wait_ms / 1000, stopping)


def headers_of(request: web.Request) -> tuple[tuple[str, str], ...]:
    """Give a request's headers in order, names in lower case. Bytes not of UTF-8 stand as lone surrogates."""
    return tuple(
        (name.decode("utf-8", "surrogateescape").lower(), value.decode("utf-8", "surrogateescape"))
        for name, value in request.raw_headers
    )


async def body_of(request: web.Request) -> bytes | None:
    """Read a request's body; None: it is larger than the server takes, and not read to its end."""
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        return None


async def half_of_the_body(request: web.Request) -> int:
    """Read half of a request's body, and say how many bytes that were."""
    read = 0
    while read * 2 < (request.content_length or 2):
        part = await request.content.readany()
        if not part:
            break
        read += len(part)
    return read


def reset(request: web.Request) -> web.Response:
    """Reset the request's connection."""
    transport = request.transport
    if transport is not None:
        connection = cast("socket.socket", transport.get_extra_info("socket"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    return cut(request)


def cut(request: web.Request) -> web.Response:
    """Drop the request's connection."""
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()
    # The server wants an answer back; on an aborted connection it writes none and says nothing.
    return web.Response()


async def _stopped_within(seconds: float, stopping: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _write(request: web.Request, text: bytes) -> None:
    if isinstance(request.transport, asyncio.Transport):
        request.transport.write(text)


def _closed_after(request: web.Request, text: bytes) -> web.Response:
    _write(request, text)
    if request.transport is not None:
        # Closing sends first what was written; the sender then waits in vain for what was announced.
        request.transport.close()
    return web.Response()


async def _drip(request: web.Request, text: bytes, bytes_per_s: int, stopping: asyncio.Event) -> web.Response:
    drop = max(1, bytes_per_s // _DRIPS_PER_S)
    for start in range(0, len(text), drop):
        _write(request, text[start : start + drop])
        if await _stopped_within(drop / bytes_per_s, stopping):
            return cut(request)
    return _closed_after(request, b"")


async def _without_end(
    request: web.Request, reply: Reply, answer_bytes: int, stopping: asyncio.Event
) -> web.StreamResponse:
    """Stream the answer and `answer_bytes` spaces behind it, as fast as they are read."""
    response = web.StreamResponse(status=reply.status, headers=reply.headers)
    response.enable_chunked_encoding()
    await response.prepare(request)
    await response.write(reply.body)
    left = answer_bytes
    while left > 0 and not stopping.is_set():
        await response.write(_SPACES[:left])
        left -= len(_SPACES)
        # A write to a fast reader never waits, and nobody else would be served.
        await asyncio.sleep(0)
    return response
