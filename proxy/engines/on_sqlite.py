"""The embedded engine."""

from collections.abc import AsyncIterator, Iterable

from proxy.buffer.bench import Bench
from proxy.buffer.sqlite import OpenRefused, SqliteBuffer
from proxy.buffer.sqlite import look as sqlite_look
from proxy.buffer.sqlite.bench import SqliteBench
from proxy.checklist import Checked
from proxy.engines.engine import Engine, StartRefused, bench_terms_of, terms_of
from proxy.lanes import QueueId
from proxy.metrics import Metrics
from proxy.settings import Settings


class OnSqlite:
    """A file. See `Kind`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._path = settings.buffer.path
        self._syncs = settings.buffer.durability == "always"

    async def open(self, metrics: Metrics, apart: str) -> Engine:
        del apart  # a file is nobody else's
        durability = self._settings.buffer.durability
        metrics.show_engine("sqlite", durability, self._path.parent)
        try:
            buffer = await SqliteBuffer.opened(
                self._path, terms_of(self._settings), sync_every_commit=self._syncs
            )
        except OpenRefused as error:
            raise StartRefused(str(error)) from error
        shown = {"engine": "SQLite", "path": str(self._path), "durability": durability}
        return Engine(buffer, shown, buffer.set_terms)

    async def open_bench(self) -> Bench:
        return await SqliteBench.opened(
            self._path, bench_terms_of(self._settings), sync_every_commit=self._syncs
        )

    async def clean_bench(self, queues: Iterable[QueueId]) -> None:
        """Nothing: a benchmark's file is its own."""

    async def look(self, *, offline: bool) -> AsyncIterator[Checked]:
        del offline  # a file is asked all the same
        terms = terms_of(self._settings)
        for checked in sqlite_look.look(self._path, terms.max_bytes + terms.dead_max_bytes):
            yield checked
