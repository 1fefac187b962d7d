"""The embedded engine: the contract on one SQLite file, used by one process.

All verbs that write are transactions of one writer (see `writer`); what only looks, and may look long, reads
beside it on threads of its own, each time on a new connection. A crash leaves what was committed: leases end
by their due time, and nothing is repaired.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

import apsw

from proxy.buffer.contract import (
    Buffer,
    BufferBroken,
    BufferUnavailable,
)
from proxy.buffer.packing import Damaged
from proxy.buffer.sqlite.appends import Appends
from proxy.buffer.sqlite.dead_letters import DeadLetters, count_letters, list_letters
from proxy.buffer.sqlite.deliveries import Deliveries
from proxy.buffer.sqlite.erasure import RUNS_AT_ONCE, Erasure
from proxy.buffer.sqlite.figures import read_figures
from proxy.buffer.sqlite.files import (
    bound,
    is_damage,
    open_database,
    open_reader,
    remedy,
    sync_log,
    unusable,
    watch_over,
)
from proxy.buffer.sqlite.lock import Lock
from proxy.buffer.sqlite.pauses import RETRIED_AT_ONCE, Pauses
from proxy.buffer.sqlite.queues import Queues
from proxy.buffer.sqlite.records import Records, ambiguous_batches
from proxy.buffer.sqlite.seen import Seen
from proxy.buffer.sqlite.store import Store
from proxy.buffer.sqlite.traces import Scope, find_theirs, trace
from proxy.buffer.sqlite.writer import Writer
from proxy.buffer.values import (
    ALL_LETTERS,
    Appended,
    Batch,
    DeadLetter,
    Erased,
    Head,
    Idle,
    KeyFigures,
    Lease,
    Portion,
    Settled,
    Settlement,
    Spent,
    Terms,
    Traces,
    Which,
)
from proxy.clock import StoreClock
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

_T = TypeVar("_T")

_LOOKS_AT_ONCE = 4
"""More wait for one of these to end. The event loop's own threads are for requests that come in: a look at a
full buffer takes seconds, and must not keep them."""


class SqliteBuffer(Buffer):
    """Construct with `opened`; it must be closed, and ends by itself when storage fails."""

    def __init__(
        self, writer: Writer, verbs: "_Verbs", path: Path, lock: Lock, clock: StoreClock, *, inline: bool
    ) -> None:
        self._writer = writer
        self._verbs = verbs
        self._path = path
        self._lock = lock
        self._clock = clock
        self._looking = None if inline else ThreadPoolExecutor(_LOOKS_AT_ONCE, "buffer-look")
        self._is_closed = False
        self._wakers: list[Callable[[PublicKey, float], None]] = []
        self._differences: dict[PublicKey, int] = {}

    @classmethod
    async def opened(
        cls,
        path: Path,
        terms: Terms,
        *,
        sync_every_commit: bool = True,
        clock: StoreClock | None = None,
        inline: bool = False,
    ) -> "SqliteBuffer":
        """Take and open the file, made where it is new. Raises OpenRefused with one readable line.

        `inline`: use no thread, for a simulation in which nothing may run beside the event loop.
        """
        clock = clock or StoreClock()
        path = Path(os.path.realpath(path))  # noqa: ASYNC240  # at start; one lock for one file, however named
        lock = Lock(path, synced=sync_every_commit)
        try:
            connection = open_database(
                path,
                lock,
                sync_every_commit=sync_every_commit,
                max_bytes=terms.max_bytes + terms.dead_max_bytes,
            )
            verbs = _prepared(connection, terms, clock, path, lock)
        except BaseException:
            lock.release()
            raise
        writer = Writer(connection, verbs, check_files=watch_over(path), inline=inline)
        return cls(writer, verbs, path, lock, clock, inline=inline)

    # -- what is accepted and delivered ----------------------------------------------------------------

    async def append(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        def wake(answer: tuple[Appended, float | None]) -> None:
            _, due_s = answer
            if due_s is not None:
                self._wake(key, due_s)

        appended, _ = await self._writer.run(lambda: self._verbs.appends.append(key, portions), then=wake)
        return appended

    async def claim(self, key: PublicKey, token: bytes, *, early: bool = False) -> Lease | Idle:
        return await self._writer.run(
            lambda: self._verbs.deliveries.claim(key, token, early=early), drains=True
        )

    async def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        return await self._writer.run(lambda: self._verbs.deliveries.read(lease, max_events, max_bytes))

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        return await self._writer.run(lambda: self._verbs.deliveries.settle(lease, settlement), drains=True)

    async def keys_with_work(self) -> Sequence[PublicKey]:
        return await self._writer.run(self._verbs.store.keys_with_work)

    def on_append(self, wake: Callable[[PublicKey, float], None]) -> None:
        self._wakers.append(wake)

    def _wake(self, key: PublicKey, in_s: float) -> None:
        for waker in self._wakers:
            waker(key, in_s)

    # -- what the operator asks for --------------------------------------------------------------------

    async def pause(self, key: PublicKey) -> bool:
        return await self._writer.run(lambda: self._verbs.pauses.pause(key), drains=True)

    async def resume(self, key: PublicKey) -> bool:
        def wake(is_known: bool) -> None:  # noqa: FBT001  # the writer's call
            if is_known:
                self._wake(key, 0.0)

        return await self._writer.run(lambda: self._verbs.pauses.resume(key), then=wake, drains=True)

    async def retry(self, key: PublicKey) -> int | None:
        def wake(ended: int | None) -> None:
            if ended is not None:
                self._wake(key, 0.0)

        total: int | None = None
        while True:
            ended = await self._writer.run(lambda: self._verbs.pauses.retry(key), then=wake, drains=True)
            if ended is None:
                return total
            total = (total or 0) + ended
            if ended < RETRIED_AT_ONCE:
                return total

    async def dead_letters(
        self, which: Which = ALL_LETTERS, *, before_id: int | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        return await self._look(lambda reader: list_letters(reader.execute, which, before_id, limit))

    async def count_dead(self, which: Which = ALL_LETTERS) -> int:
        return await self._look(lambda reader: count_letters(reader.execute, which))

    async def replay(self, which: Which) -> int:
        def wake(answer: tuple[int, list[tuple[PublicKey, float]]]) -> None:
            for key, due_s in answer[1]:
                self._wake(key, due_s)

        replayed, _ = await self._writer.run(lambda: self._verbs.letters.replay(which), then=wake)
        return replayed

    async def purge(self, which: Which) -> int:
        return await self._writer.run(lambda: self._verbs.letters.purge(which), drains=True)

    async def erase(
        self,
        is_theirs: Callable[[bytes, bytes], bool],
        *,
        key: PublicKey | None = None,
        queue: QueueId | None = None,
    ) -> Erased:
        theirs = await self._look(lambda reader: find_theirs(reader.execute, is_theirs, Scope(key, queue)))
        erasure, erased = self._verbs.erasure, Erased()
        for queue_id, runs in theirs.runs.items():
            for some in _slices(runs):
                done = await self._writer.run(
                    partial(erasure.from_queue, queue_id, some, is_theirs), drains=True
                )
                erased += done
                if done.leased:
                    break
        for some in _slices(theirs.letters):
            erased += await self._writer.run(partial(erasure.from_letters, some), drains=True)
        # Whatever was found this time: the last time may have been interrupted before this.
        await self._writer.truncate_log(lambda: sync_log(self._path))
        return erased

    async def trace(
        self, uuid: bytes, *, key: PublicKey | None = None, queue: QueueId | None = None
    ) -> Traces:
        now_ms = self._clock.now_ms()
        return await self._look(lambda reader: trace(reader.execute, uuid, Scope(key, queue), now_ms))

    async def ambiguous(self, key: PublicKey | None = None, *, limit: int = 100) -> list[Batch]:
        return await self._look(lambda reader: ambiguous_batches(reader.execute, key, limit))

    async def figures(self, *, recount: bool = False) -> Mapping[PublicKey, KeyFigures]:
        terms, now_ms, known = self._verbs.store.terms, self._clock.now_ms(), self._differences
        figures = await self._look(lambda reader: read_figures(reader, terms, now_ms, known, recount=recount))
        if recount:
            self._differences = {name: of.books.difference for name, of in figures.items()}
        return figures

    # -- the engine itself -----------------------------------------------------------------------------

    def set_terms(self, terms: Terms) -> None:
        self._verbs.store.set_terms(terms)  # the file's bound follows where it is met

    async def check(self) -> None:
        await self._writer.run(self._verbs.check_room)

    async def failed(self) -> BufferBroken:
        return await asyncio.shield(self._writer.failed)

    async def close(self) -> None:
        await self._writer.close()
        self._is_closed = True
        if self._looking is not None:
            self._looking.shutdown(wait=False)  # whoever looks still may look to the end
        self._lock.release()

    async def _look(self, look: Callable[[apsw.Connection], _T]) -> _T:
        """Read what is committed, all from one snapshot, beside the writer."""
        if self._is_closed:
            raise BufferUnavailable("the buffer is closed")
        try:
            if self._looking is None:
                return self._seen_from_one_snapshot(look)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._looking, self._seen_from_one_snapshot, look)
        except (Damaged, apsw.CorruptError, apsw.NotADBError, apsw.IOError) as error:
            raise self._writer.give_up(error) from error
        except apsw.Error as error:
            raise BufferUnavailable(f"the buffer's file cannot be read: {error}") from error

    def _seen_from_one_snapshot(self, look: Callable[[apsw.Connection], _T]) -> _T:
        reader = open_reader(self._path)
        try:
            reader.execute("BEGIN")
            return look(reader)
        finally:
            reader.close()


class _Verbs:
    """The transactions on one database, by what they are about."""

    def __init__(
        self, connection: apsw.Connection, terms: Terms, clock: StoreClock, path: Path, lock: Lock
    ) -> None:
        self._connection = connection
        self._path = path
        self._lock = lock
        self.store = Store(connection, terms, clock)
        self._queues = Queues(self.store)
        self._seen = Seen(self.store)
        self.letters = DeadLetters(self.store, self._queues)
        self.appends = Appends(self.store, self._queues, self._seen)
        self.pauses = Pauses(self.store)
        self.deliveries = Deliveries(self.store, self.letters, Records(self.store))
        self.erasure = Erasure(self.store, self.letters)

    def check_room(self) -> None:
        """Return if an append would succeed now."""
        self.rebound()
        self.store.check_room()

    def rebound(self) -> None:
        """Work out the file's bound again."""
        terms = self.store.terms
        bound(self._connection, self._path, terms.max_bytes + terms.dead_max_bytes)

    def broken(self, error: Exception) -> BufferBroken:
        """What to say where storage failed; damage is remembered, so that no later start writes on it."""
        if is_damage(error):
            with suppress(OSError):  # the disk may be what is damaged; the error itself is what counts
                self._lock.remember_damage(str(error))
        return BufferBroken(f"{error}; {remedy(self._path, error)}")

    def flush(self) -> None:
        """Write what was gathered in memory: the transaction is about to be committed."""
        self.store.flush()

    def remember(self) -> None:
        """Read again what is kept in memory beside the database: a transaction was undone."""
        self.store.remember()
        self.letters.remember()
        self._queues.remember()
        self._seen.remember()


def _slices(ids: list[int]) -> Iterator[list[int]]:
    for start in range(0, len(ids), RUNS_AT_ONCE):
        yield ids[start : start + RUNS_AT_ONCE]


def _prepared(connection: apsw.Connection, terms: Terms, clock: StoreClock, path: Path, lock: Lock) -> _Verbs:
    """The verbs on a database that was just opened; it is read here for the first time."""
    try:
        verbs = _Verbs(connection, terms, clock, path, lock)
        with connection:
            verbs.store.pull_back(clock.now_ms())
    except apsw.Error as error:
        connection.close()
        raise unusable(path, error) from error
    return verbs
