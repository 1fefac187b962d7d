"""Samples of events as they pass, for an operator who looks: a stream of JSON lines."""

import asyncio
from collections.abc import Sequence
from socket import IPPROTO_TCP, TCP_USER_TIMEOUT

import orjson
import structlog
from aiohttp import web

from proxy.ledger import Sampled
from proxy.log import short_key
from proxy.ops.answers import as_json, moment
from proxy.ops.parameters import Parameters, read_key, up_to
from proxy.tap import MAX_EVERY, MAX_TAPS, Sample, Tap, Taps, TooManyTaps

_LOOK_S = 1.0
"""Between two looks whether there is still somebody who reads."""

_SIGN_OF_LIFE_S = 10.0
"""So often a reader gets a line at least, so that each side knows of the other."""

_SLOW_S = 10.0
"""A reader that takes nothing for so long is given up."""

_GONE_MS = 30_000
"""A reader whose machine confirms nothing for so long is given up: lines so few never make a write wait."""

_REVOKED = b'{"ended":"ops.token was changed"}\n'


class Tapping:
    """Answers `/tap`."""

    def __init__(self, taps: Taps) -> None:
        self._taps = taps
        self._closing = asyncio.Event()
        self._writing: set[asyncio.Transport] = set()
        self._log = structlog.get_logger("ops")

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """What happens to events from now on: a line a sample, and now and then how many were left out."""
        given = Parameters.of_query(request)
        fits = given.take("outcome", _outcomes) or frozenset(Sampled)
        key = given.take("key", read_key)
        every = given.take("every", up_to(MAX_EVERY)) or 1
        limit = given.take("limit", up_to(MAX_EVERY))
        given.refuse_others()
        try:
            tap = self._taps.add(fits, key, every)
        except TooManyTaps:
            return as_json({"error": f"{MAX_TAPS} taps are open already: close one"}, status=429)
        self._log.info("a tap is opened", key="all" if key is None else short_key(key))
        try:
            return await self._streamed(request, tap, limit)
        finally:
            self._taps.remove(tap)

    def revoke(self) -> None:
        """End those that are open, each with a last line that says why: their token is none any more."""
        for tap in [*self._taps.open]:
            self._taps.remove(tap)
            tap.end()

    async def close(self, _app: web.Application) -> None:
        """End them all: whoever is still reading gets the end of the stream, whoever is not is cut off."""
        self._closing.set()
        for tap in self._taps.open:
            tap.end()
        for transport in self._writing:
            transport.abort()

    async def _streamed(self, request: web.Request, tap: Tap, limit: int | None) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"}
        )
        await response.prepare(request)
        if request.transport is not None:
            request.transport.get_extra_info("socket").setsockopt(IPPROTO_TCP, TCP_USER_TIMEOUT, _GONE_MS)
        loop = asyncio.get_running_loop()
        said_at, left = loop.time(), limit
        while left != 0 and tap in self._taps.open and not self._closing.is_set() and _is_there(request):
            samples, left_out = await tap.take(_LOOK_S)
            lines = [_line(sample) for sample in samples[:left]]
            if left is not None:
                left -= len(lines)
            if left_out or (not lines and loop.time() - said_at >= _SIGN_OF_LIFE_S):
                lines.append(b'{"not_shown":%d}\n' % left_out)
            if lines:
                said_at = loop.time()
                if not await self._written(request, response, lines):
                    return response
        if tap not in self._taps.open:
            await self._written(request, response, [_REVOKED])
        return response

    async def _written(
        self, request: web.Request, response: web.StreamResponse, lines: Sequence[bytes]
    ) -> bool:
        """Whether the reader took it."""
        transport = request.transport
        if transport is None:
            return False
        self._writing.add(transport)
        try:
            async with asyncio.timeout(_SLOW_S):
                await response.write(b"".join(lines))
        except TimeoutError:
            transport.abort()
            return False
        except ConnectionError:
            return False
        finally:
            self._writing.discard(transport)
        return True


def _is_there(request: web.Request) -> bool:
    return request.transport is not None and not request.transport.is_closing()


def _outcomes(text: str) -> frozenset[Sampled]:
    """Some of them, with commas between."""
    try:
        return frozenset(map(Sampled, text.split(",")))
    except ValueError:
        raise ValueError(f"not one or several of {', '.join(Sampled)}: write some, with commas") from None


def _line(sample: Sample) -> bytes:
    shown = {
        "at": moment(sample.at_ms),
        "outcome": sample.outcome,
        "reason": sample.reason,
        "detail": sample.detail,
        "key": short_key(sample.key),
        "type": sample.kind,
        "event_name": sample.event_name,
        "uuid": sample.uuid,
    }
    return orjson.dumps(shown) + b"\n"
