"""Sending an answer, or failing to in the way a fault asks for."""

import asyncio
import socket
import struct
from collections.abc import Mapping
from typing import Final, cast

from aiohttp import web

from proxy.sandbox.answers import Answer
from proxy.sandbox.faults import Fault, What

_LINGER_0: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing sends a reset and discards what is unsent."""


async def deliver(
    request: web.Request,
    answer: Answer,
    headers: Mapping[str, str],
    fault: Fault | None,
    stopping: asyncio.Event,
) -> web.StreamResponse:
    """Send `answer` as `fault` would have it: late, in half, or not at all.

    When `stopping` is set, whatever waits here ends at once, its connection dropped unanswered.
    """
    if fault is not None and fault.latency_ms and await _stopped_within(fault.latency_ms / 1000, stopping):
        return _cut(request)
    response = web.Response(
        status=answer.status, text=answer.text, content_type="application/json", headers=headers
    )
    match fault.what if fault is not None else None:
        case What.HANG | What.HANG_BEFORE:
            await stopping.wait()
            return _cut(request)
        case What.RESET | What.RESET_BEFORE:
            return _reset(request)
        case What.HALF_ANSWER:
            return await _half(request, answer, headers)
        case _:
            return response


async def _stopped_within(seconds: float, stopping: asyncio.Event) -> bool:
    try:
        await asyncio.wait_for(stopping.wait(), seconds)
    except TimeoutError:
        return False
    return True


def _reset(request: web.Request) -> web.Response:
    transport = request.transport
    if transport is not None:
        connection = cast("socket.socket", transport.get_extra_info("socket"))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    return _cut(request)


def _cut(request: web.Request) -> web.Response:
    if isinstance(request.transport, asyncio.Transport):
        request.transport.abort()
    # The server wants an answer back; on an aborted connection it writes none and says nothing.
    return web.Response()


async def _half(request: web.Request, answer: Answer, headers: Mapping[str, str]) -> web.StreamResponse:
    body = answer.text.encode("ascii")
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_type = "application/json"
    response.content_length = len(body)
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    if request.transport is not None:
        # Closing flushes the half first; the sender then waits in vain for the rest that was announced.
        request.transport.close()
    return response
