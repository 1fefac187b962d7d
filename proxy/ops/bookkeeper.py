"""Looks at the buffer's books: for each scrape what they say, and now and then whether they are true."""

import asyncio
from collections.abc import Mapping
from math import ceil

import structlog

from proxy.buffer import Buffer, BufferUnavailable, KeyFigures
from proxy.ledger import Books
from proxy.metrics import Metrics
from proxy.wire.limits import EVENTS_PER_REQUEST, PublicKey

RECOUNT_S = 120.0
"""Between two recounts, by whichever process of a fleet. One takes about a second for a million events."""


class Bookkeeper:
    """Brings the buffer's figures to the metrics, and recounts its data in the background."""

    def __init__(self, buffer: Buffer, metrics: Metrics) -> None:
        self._buffer = buffer
        self._metrics = metrics
        self._log = structlog.get_logger("books")

    async def run(self) -> None:
        """Recount until cancelled."""
        while True:
            try:
                if await self._buffer.may_recount(0.9 * RECOUNT_S):
                    await self.show(recount=True)
            except BufferUnavailable as error:
                self._metrics.buffer_retries.inc()
                self._log.warning("recount failed", error=str(error))
            await asyncio.sleep(RECOUNT_S)

    async def show(self, *, recount: bool = False) -> Mapping[PublicKey, KeyFigures]:
        """Bring the buffer's figures to the metrics, and return them."""
        figures = await self._buffer.figures(recount=recount)
        books = sum((of.books for of in figures.values()), Books())
        self._metrics.set_books(books)
        self._metrics.set_buffer(
            stored_bytes=sum(of.stored_bytes for of in figures.values()),
            queues=sum(of.queues for of in figures.values()),
            oldest_held_ms=min(
                (of.oldest_held_ms for of in figures.values() if of.oldest_held_ms is not None), default=None
            ),
            drain_s=max(map(_drain_s, figures.values()), default=0.0),
        )
        for key, of in figures.items():
            self._metrics.set_gate(
                self._metrics.key_label(key, succeeded=of.succeeded), of.rate_per_s, of.paused
            )
        if recount and books.difference:
            self._log.error("the books do not balance: a defect", difference=books.difference)
        return figures


def _drain_s(of: KeyFigures) -> float:
    """How long the key's held events take at its rate: each queue needs a request of its own."""
    return max(of.queues, ceil(of.books.held / EVENTS_PER_REQUEST)) / of.rate_per_s
