"""An answer of Outlit's on its way to the caller: as it is, as it comes, and no longer than it may be."""

import asyncio
import socket
import struct
from typing import Final

import aiohttp
from aiohttp import web

from proxy.gateway.answers import own_answer
from proxy.gateway.client import Got
from proxy.gateway.headers import back
from proxy.ledger import OwnCode, PlatformOutcome

MAX_ANSWER_BYTES: Final = 50_000_000

_BODILESS: Final = (204, 304)
"""What they say of a length is about another answer."""

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing resets."""


async def pass_on(
    request: web.Request, got: Got, upstream_url: str, prefix: str, deadline_s: float
) -> tuple[web.StreamResponse, PlatformOutcome, OwnCode | None]:
    """Pass an answer on until `deadline_s` of the event loop.

    Returns what was sent, how it ended, and the code where that is an answer of the gateway's own.

    Once its head is sent, what is wrong can only be told by cutting the answer off.
    """
    headers = back(got.response.headers, upstream_url, prefix, is_decoded=got.is_decoded)
    outcome = _outcome(got.status)
    if got.is_whole:
        return web.Response(status=got.status, headers=headers, body=got.start), outcome, None
    length = None if got.status in _BODILESS else got.response.content_length
    if length is not None and length > MAX_ANSWER_BYTES:
        got.close()
        code = OwnCode.ANSWER_TOO_LARGE
        return own_answer(code), PlatformOutcome.BROKEN, code
    answer = web.StreamResponse(status=got.status, headers=headers)
    answer.content_length = length
    is_whole = False
    try:
        async with asyncio.timeout_at(deadline_s):
            await answer.prepare(request)
            is_whole = await _copy(got, answer)
            if is_whole:
                await answer.write_eof()
    except aiohttp.ClientConnectionResetError:  # the caller's
        return answer, PlatformOutcome.ABANDONED, None
    except (aiohttp.ClientError, TimeoutError, OSError):
        is_whole = False
        if request.transport is None:  # one that was waited for, to take more
            return answer, PlatformOutcome.ABANDONED, None
    finally:
        if not is_whole:
            got.close()
            if answer.prepared:
                _cut_off(request)
    return answer, outcome if is_whole else PlatformOutcome.BROKEN, None


async def _copy(got: Got, answer: web.StreamResponse) -> bool:
    """Returns False where there is more than may be."""
    left_bytes = MAX_ANSWER_BYTES - len(got.start)
    if got.start:
        await answer.write(got.start)
    while part := await got.response.content.readany():
        left_bytes -= len(part)
        if left_bytes < 0:
            return False
        await answer.write(part)
    return True


def _cut_off(request: web.Request) -> None:
    """Reset the caller's connection: half an answer must not be taken for all; to some a close ends it."""
    transport = request.transport
    if transport is None:
        return
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def _outcome(status: int) -> PlatformOutcome:
    if status < 400:
        return PlatformOutcome.ANSWERED
    return PlatformOutcome.REFUSED if status < 500 else PlatformOutcome.FAILED
