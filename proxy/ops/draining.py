"""``/drain``: begin to empty the buffer while posts are still accepted, before the process must stop."""

from collections.abc import Callable

import structlog
from aiohttp import web

from proxy.buffer import Buffer, BufferUnavailable
from proxy.ops.answers import as_json
from proxy.ops.parameters import Parameters


class Draining:
    """Answers `/drain`. `on_drain(begins)` is called where it is to begin, or to end; also repeatedly."""

    def __init__(self, buffer: Buffer, on_drain: Callable[[bool], None]) -> None:
        self._buffer = buffer
        self._on_drain = on_drain
        self._log = structlog.get_logger("ops")
        self._is_on = False

    async def begin(self, request: web.Request) -> web.Response:
        """From now on no event waits for company: all leave as fast as the gates allow."""
        return await self._turned(request, is_on=True)

    async def end(self, request: web.Request) -> web.Response:
        """Let events wait for `delivery.linger` again."""
        return await self._turned(request, is_on=False)

    async def _turned(self, request: web.Request, *, is_on: bool) -> web.Response:
        Parameters.of_query(request).refuse_others()
        self._on_drain(is_on)
        if is_on != self._is_on:
            self._is_on = is_on
            self._log.info(
                "draining: nothing lingers, posts are accepted as before" if is_on else "no longer draining"
            )
        return as_json({"draining": is_on, "held": await self._held()})

    async def _held(self) -> int | None:
        """How many events are still held; None where the buffer does not say."""
        try:
            return sum(of.books.held for of in (await self._buffer.figures()).values())
        except BufferUnavailable:
            return None
