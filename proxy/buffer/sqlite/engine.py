"""The embedded engine: the contract on one SQLite file, used by one process.

All verbs are transactions on one writer thread (see `writer`); long counts read beside it on a connection
of their own. A crash leaves what was committed: leases end by their due time, and nothing is repaired.
"""

import asyncio
import os
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
from proxy.buffer.sqlite.appends import Appends
from proxy.buffer.sqlite.dead_letters import DeadLetters
from proxy.buffer.sqlite.deliveries import Deliveries
from proxy.buffer.sqlite.figures import read_figures
from proxy.buffer.sqlite.files import Lock, open_database, open_reader, same_file, unusable
from proxy.buffer.sqlite.seen import Seen
from proxy.buffer.sqlite.store import Store
from proxy.buffer.sqlite.writer import Writer
from proxy.clock import StoreClock
from proxy.wire.limits import PublicKey


class SqliteBuffer(Buffer):
    """Construct with `opened`; it must be closed, and ends by itself when storage fails."""

    def __init__(self, writer: Writer, verbs: "_Verbs", path: Path, lock: Lock, clock: StoreClock) -> None:
        self._writer = writer
        self._verbs = verbs
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
        path = Path(os.path.realpath(path))  # noqa: ASYNC240  # at start; one lock for one file, however named
        lock = Lock(path)
        try:
            connection = open_database(
                path,
                lock,
                sync_every_commit=sync_every_commit,
                max_bytes=terms.max_bytes + terms.dead_max_bytes,
            )
            verbs = _prepared(connection, terms, clock, path)
        except BaseException:
            lock.release()
            raise
        writer = Writer(connection, still_there=same_file(path), on_rollback=verbs.remember)
        return cls(writer, verbs, path, lock, clock)

    async def append(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        def wake(answer: tuple[Appended, float | None]) -> None:
            _, due_s = answer
            if due_s is not None:
                for waker in self._wakers:
                    waker(key, due_s)

        appended, _ = await self._writer.run(lambda: self._verbs.appends.append(key, portions), then=wake)
        return appended

    async def claim(self, key: PublicKey, token: bytes) -> Lease | Idle:
        return await self._writer.run(lambda: self._verbs.deliveries.claim(key, token), drains=True)

    async def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        return await self._writer.run(lambda: self._verbs.deliveries.read(lease, max_events, max_bytes))

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        return await self._writer.run(lambda: self._verbs.deliveries.settle(lease, settlement), drains=True)

    async def dead_letters(self, key: PublicKey | None = None, *, limit: int = 100) -> list[DeadLetter]:
        return await self._writer.run(lambda: self._verbs.letters.newest(key, min(limit, 1000)))

    async def figures(self, *, recount: bool = False) -> Mapping[PublicKey, KeyFigures]:
        try:
            figures = await asyncio.to_thread(lambda: self._count(recount=recount))
        except apsw.Error as error:
            raise BufferUnavailable(f"the buffer's file cannot be read: {error}") from error
        if recount:
            self._differences = {key: of.books.difference for key, of in figures.items()}
        return figures

    async def keys_with_work(self) -> Sequence[PublicKey]:
        return await self._writer.run(self._verbs.store.keys_with_work)

    def on_append(self, wake: Callable[[PublicKey, float], None]) -> None:
        self._wakers.append(wake)

    async def check(self) -> None:
        await self._writer.run(self._verbs.store.check_room)

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


class _Verbs:
    """The transactions on one database, by what they are about."""

    def __init__(self, connection: apsw.Connection, terms: Terms, clock: StoreClock) -> None:
        self.store = Store(connection, terms, clock)
        self.letters = DeadLetters(self.store)
        self.deliveries = Deliveries(self.store, self.letters)
        self._seen = Seen(self.store)
        self.appends = Appends(self.store, self._seen)

    def remember(self) -> None:
        """Read again what is kept in memory beside the database: a transaction was undone."""
        self.store.remember()
        self.letters.remember()
        self._seen.remember()


def _prepared(connection: apsw.Connection, terms: Terms, clock: StoreClock, path: Path) -> _Verbs:
    """The verbs on a database that was just opened; it is read here for the first time."""
    try:
        verbs = _Verbs(connection, terms, clock)
        with connection:
            verbs.deliveries.pull_back()
    except apsw.Error as error:
        connection.close()
        raise unusable(path, error) from error
    return verbs
