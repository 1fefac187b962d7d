"""Asking a buffer that may not answer."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog

from proxy.buffer import BufferUnavailable
from proxy.metrics import Metrics

_T = TypeVar("_T")

RETRY_S = 0.25
"""Between two tries of an operation that the buffer did not answer."""


class Asking:
    """Asks once, or until there is an answer, and says when the buffer begins and ceases to fail.

    While it owes the answer to a settle, nothing new may be claimed: a buffer that cannot settle would give
    the same batch out again.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = structlog.get_logger("flusher")
        self._well = True
        self._settling = 0
        self._nothing_owed = asyncio.Event()
        self._nothing_owed.set()

    @property
    def owes(self) -> bool:
        """Whether the buffer has failed to answer a settle, and has not answered it since."""
        return not self._nothing_owed.is_set()

    async def until_nothing_is_owed(self) -> None:
        """Wait for the answers to all settles."""
        await self._nothing_owed.wait()

    @asynccontextmanager
    async def settling(self) -> AsyncIterator[None]:
        """Around the settle of a lease."""
        self._settling += 1
        try:
            yield
        finally:
            self._settling -= 1
            if not self._settling:
                self._nothing_owed.set()

    async def until_answered(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask until there is an answer. All that is asked so may be asked again."""
        while True:
            try:
                return await self.once(ask)
            except BufferUnavailable:
                if self._settling:
                    self._nothing_owed.clear()
                await asyncio.sleep(RETRY_S)

    async def once(self, ask: Callable[[], Awaitable[_T]]) -> _T:
        """Ask once. Raises BufferUnavailable, of which the counter says how often."""
        try:
            answer = await ask()
        except BufferUnavailable as error:
            self._metrics.buffer_retries.inc()
            if self._well:
                self._log.warning("the buffer does not answer; it is asked again", error=str(error))
            self._well = False
            raise
        if not self._well:
            self._log.info("the buffer answers again")
        self._well = True
        return answer
