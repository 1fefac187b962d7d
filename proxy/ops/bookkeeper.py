"""Looks at the buffer's books: what they say, whether they are true, and what has had its time."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import inf

import structlog

from proxy.buffer import Buffer, BufferUnavailable, KeyFigures, Which
from proxy.clock import wall_ms
from proxy.gate import View
from proxy.ledger import Books, Dropped, Pause
from proxy.log import short_key
from proxy.metrics import Metrics
from proxy.ops.backlog import drain_s
from proxy.ops.pauses import WORDS
from proxy.ops.trends import Trends
from proxy.wire.limits import PublicKey

LOOK_S = 10.0
"""Between two looks at the gates, so that a pause is in the log soon, whether anybody scrapes or not."""

RECOUNT_S = 120.0
"""Between two recounts, by whichever process of a fleet. One takes about a second for a million events."""

_CHEAP_S = 0.1
"""A look that takes longer (hundreds of thousands of queues) is used again for as long as it took, so that
whoever asks without end keeps the machine busy half of the time at most."""

PAUSES_TOLD = (Pause.KEY_REFUSED, Pause.UPSTREAM_FAILING, Pause.REFUSAL_STORM)
"""Pauses that are said in the log: 429s are a matter of seconds, and who paused a key knows it."""


class Bookkeeper:
    """Brings the buffer's figures to the metrics, recounts its data, and lets old dead letters go.

    `retention_s`: how long these are kept. `max_bytes`, `max_bytes_per_key`: the bounds on stored bytes.
    `now_ms`: the time of day, to tell their age by.
    """

    def __init__(
        self,
        buffer: Buffer,
        metrics: Metrics,
        *,
        retention_s: float,
        max_bytes: float = inf,
        max_bytes_per_key: float = inf,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._buffer = buffer
        self._metrics = metrics
        self.set_bounds(retention_s, max_bytes, max_bytes_per_key)
        self._now_ms = now_ms
        self._recounted_at = -inf
        self._shown: asyncio.Task[Mapping[PublicKey, KeyFigures]] | None = None  # the newest look
        self._good_until_s = -inf
        self.trends = Trends()
        self._pauses: dict[PublicKey, Pause] = {}  # that were said in the log
        self._log = structlog.get_logger("books")

    def set_bounds(self, retention_s: float, max_bytes: float, max_bytes_per_key: float) -> None:
        """Go by these from now on."""
        self._retention_ms = int(retention_s * 1000)
        self._max_bytes = max_bytes
        self._max_bytes_per_key = max_bytes_per_key

    async def run(self) -> None:
        """Look, and every now and then recount and clear up, until cancelled."""
        while True:
            try:
                await self._look_around()
            except BufferUnavailable as error:
                self._metrics.buffer_retries.inc()
                self._log.warning("the books could not be looked at", error=str(error))
            await asyncio.sleep(LOOK_S)

    async def show(self) -> Mapping[PublicKey, KeyFigures]:
        """Bring the buffer's figures to the metrics, and return them.

        Those who ask at once share one look, and each may be cancelled without the others. Raises
        BufferUnavailable: the metrics then say that the buffer is away, and nothing of it.
        """
        shown = self._shown
        if shown is None or (shown.done() and asyncio.get_running_loop().time() >= self._good_until_s):
            shown = self._shown = asyncio.create_task(self._look(), name="look at the books")
            shown.add_done_callback(_retrieve)
        return await asyncio.shield(shown)

    async def recount(self) -> Mapping[PublicKey, KeyFigures]:
        """The same, with what is stored counted anew: seconds, where much is. Raises BufferUnavailable."""
        return await self._bring(recount=True)

    async def clear_up(self) -> None:
        """Give up the dead letters that are older than they are kept."""
        old = Which(died_before_ms=self._now_ms() - self._retention_ms)
        given_up = 0
        while purged := await self._buffer.purge(old):
            given_up += purged
            self._metrics.dropped[Dropped.DEAD_EXPIRED].inc(purged)
        if given_up:
            self._log.info("dead letters older than dead.retention were given up", events=given_up)

    async def _look_around(self) -> None:
        now = asyncio.get_running_loop().time()
        recount = now - self._recounted_at >= RECOUNT_S
        if recount:
            self._recounted_at = now
            recount = await self._buffer.may_recount(0.9 * RECOUNT_S)
        if not recount:
            await self.show()
            return
        await self.recount()
        await self.clear_up()

    async def _look(self) -> Mapping[PublicKey, KeyFigures]:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        figures = await self._bring(recount=False)
        took_s = loop.time() - began_s
        if took_s > _CHEAP_S:
            self._good_until_s = loop.time() + took_s
        return figures

    async def _bring(self, *, recount: bool) -> Mapping[PublicKey, KeyFigures]:
        try:
            figures = await self._buffer.figures(recount=recount)
        except BufferUnavailable:
            self._metrics.set_buffer_up(is_up=False)
            raise
        self._metrics.set_buffer_up(is_up=True)
        self.trends.look(asyncio.get_running_loop().time(), figures)
        books = sum((of.books for of in figures.values()), Books())
        self._metrics.set_books(books)
        stored_bytes = sum(of.stored_bytes for of in figures.values())
        most_of_a_key = max((of.stored_bytes for of in figures.values()), default=0)
        self._metrics.set_buffer(
            stored_bytes=stored_bytes,
            used_ratio=max(stored_bytes / self._max_bytes, most_of_a_key / self._max_bytes_per_key),
            queues=sum(of.queues for of in figures.values()),
            oldest_held_ms=min(
                (of.oldest_held_ms for of in figures.values() if of.oldest_held_ms is not None), default=None
            ),
            drain_s=max(map(drain_s, figures.values()), default=0.0),
        )
        self._show_gates(figures)
        self._tell_pauses(figures)
        if recount and books.difference:
            self._log.error("the books do not balance: a defect", difference=books.difference)
        return figures

    def _show_gates(self, figures: Mapping[PublicKey, KeyFigures]) -> None:
        """Under `other`: the slowest rate, every pause that one of them has, all their Origins and events."""
        labels: dict[str, list[KeyFigures]] = defaultdict(list)
        for key, of in figures.items():
            labels[self._metrics.key_label(key, succeeded=of.succeeded)].append(of)
        self._metrics.forget_gates(but=labels)
        for label, those in labels.items():
            views = [of.gate for of in those]
            self._metrics.set_gate(
                label,
                held=sum(of.books.held for of in those),
                rate_per_s=min(view.rate_per_s for view in views),
                limit_per_s=min(view.limit_per_s for view in views),
                paused=_pauses(views),
                forbidden_origins=sum(len(view.forbidden_origins) for view in views),
            )

    def _tell_pauses(self, figures: Mapping[PublicKey, KeyFigures]) -> None:
        """Say when a pause begins and when it is over, once each."""
        for key, of in figures.items():
            now, before = of.gate.paused, self._pauses.get(key)
            if before is not None and now not in (before, Pause.OPERATOR):
                del self._pauses[key]
                self._log.info("the key's pause is over", key=short_key(key), reason=before)
            if now in PAUSES_TOLD and now != before:
                self._pauses[key] = now
                self._log.warning(f"a key pauses: {WORDS[now]}", key=short_key(key), reason=now)


def _retrieve(shown: asyncio.Task[Mapping[PublicKey, KeyFigures]]) -> None:
    """Take note of what it raised: whoever asked may be gone."""
    if not shown.cancelled():
        shown.exception()


def _pauses(views: Sequence[View]) -> set[Pause]:
    paused = {view.paused for view in views if view.paused is not None}
    return paused | {Pause.OPERATOR} if any(view.by_operator for view in views) else paused
