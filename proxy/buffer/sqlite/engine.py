"""The embedded engine: the contract on one SQLite file, used by one process.

All verbs are transactions on one writer thread (see `writer`); long counts read beside it on a connection
of their own. A crash leaves what was committed: leases end by their due time, and nothing is repaired.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import apsw

from proxy.buffer.contract import (
    Appended,
    Buffer,
    BufferUnavailable,
    DeadLetter,
    Head,
    Idle,
    KeyFigures,
    Lease,
    Portion,
    Settled,
    Settlement,
    Spent,
    Terms,
)
from proxy.buffer.sqlite.figures import read_figures
from proxy.buffer.sqlite.files import Lock, open_database, open_reader, unusable
from proxy.buffer.sqlite.transactions import Transactions
from proxy.buffer.sqlite.writer import Writer
from proxy.clock import StoreClock
from proxy.wire.limits import PublicKey


class SqliteBuffer(Buffer):
    """Construct with `opened`; it must be closed, and ends by itself when storage fails."""

    def __init__(self, writer: Writer, work: Transactions, path: Path, lock: Lock, clock: StoreClock) -> None:
        self._writer = writer
        self._work = work
        self._path = path
        self._lock = lock
        self._clock = clock
        self._wakers: list[Callable[[PublicKey, float], None]] = []
        self._differences: dict[PublicKey, int] = {}

    @classmethod
    async def opened(
        cls, path: Path, terms: Terms, *, sync_every_commit: bool = True, clock: StoreClock | None = None
    ) -> "SqliteBuffer":
        """Take and open the file, made where it is new. Raises OpenRefused with one readable line."""
        clock = clock or StoreClock()
        lock = Lock(path)
        try:
            connection = open_database(
                path,
                lock,
                sync_every_commit=sync_every_commit,
                max_bytes=terms.max_bytes + terms.dead_max_bytes,
            )
            work = _prepared(connection, terms, clock, path)
        except BaseException:
            lock.release()
            raise
        return cls(Writer(connection, work.remember), work, path, lock, clock)

    async def append(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        def wake(answer: tuple[Appended, float | None]) -> None:
            _, due_s = answer
            if due_s is not None:
                for waker in self._wakers:
                    waker(key, due_s)

        appended, _ = await self._writer.run(lambda: self._work.append(key, portions), then=wake)
        return appended

    async def claim(self, key: PublicKey, token: bytes) -> Lease | Idle:
        return await self._writer.run(lambda: self._work.claim(key, token), drains=True)

    async def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        return await self._writer.run(lambda: self._work.read(lease, max_events, max_bytes))

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        return await self._writer.run(lambda: self._work.settle(lease, settlement), drains=True)

    async def dead_letters(self, key: PublicKey | None = None, *, limit: int = 100) -> list[DeadLetter]:
        return await self._writer.run(lambda: self._work.dead_letters(key, min(limit, 1000)))

    async def figures(self, *, recount: bool = False) -> Mapping[PublicKey, KeyFigures]:
        try:
            figures = await asyncio.to_thread(lambda: self._count(recount=recount))
        except apsw.Error as error:
            raise BufferUnavailable(f"the buffer's file cannot be read: {error}") from error
        if recount:
            self._differences = {key: of.books.difference for key, of in figures.items()}
        return figures

    async def keys_with_work(self) -> Sequence[PublicKey]:
        return await self._writer.run(self._work.keys_with_work)

    def on_append(self, wake: Callable[[PublicKey, float], None]) -> None:
        self._wakers.append(wake)

    async def check(self) -> None:
        await self._writer.run(self._work.check_room)

    async def failed(self) -> Exception:
        return await asyncio.shield(self._writer.failed)

    async def close(self) -> None:
        await self._writer.close()
        self._lock.release()

    def _count(self, *, recount: bool) -> dict[PublicKey, KeyFigures]:
        """On a thread of its own: everything from one snapshot."""
        reader = open_reader(self._path)
        try:
            return read_figures(reader, self._clock.now_ms(), self._differences, recount=recount)
        finally:
            reader.close()


def _prepared(connection: apsw.Connection, terms: Terms, clock: StoreClock, path: Path) -> Transactions:
    """The verbs on a database that was just opened; it is read here for the first time."""
    try:
        work = Transactions(connection, terms, clock)
        with connection:
            work.pull_back()
    except apsw.Error as error:
        connection.close()
        raise unusable(path, error) from error
    return work
