"""One connection that writes: transactions that come together are committed together.

Statements run on the event loop, where they cost microseconds in the page cache; commits, which wait for the
disk, run on a thread. While one commits, further work gathers; then all of it is done in one transaction and
made durable by one fsync. So a lone caller waits for its own commit only, and a crowd shares them.

(With the statements on that thread too, each one let go of the interpreter and took it back beside a busy
loop. The price: a page that has to come from the disk holds up the loop for as long as it takes to read it.)

At the file's bound what only adds is refused, and what drains (a claim, a settle with its dead letters) may
use a reserve beyond it: a full buffer must be able to empty itself.

Storage errors end it. A failed fsync or write says nothing about what is on the disk and must never be
retried (a second fsync reports a success that is none): everything asked fails as unavailable, `failed`
fires, and the next start recovers from the log.
"""

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Protocol, TypeVar

import apsw

from proxy.buffer.contract import (
    BufferBroken,
    BufferFault,
    BufferFull,
    BufferUnavailable,
)

_T = TypeVar("_T")

_GROUP_S = 0.005
"""How long the statements of one transaction may hold the loop: more work waits for the next one."""

_RESERVE_PAGES = 1024
"""By how much a piece of work that drains may pass the file's bound: a batch of dead letters, thrice."""

_BUSY_S = 0.05
_BUSY_TRIES = 20
"""Somebody else's transaction on the file is waited for so often, and so long each time."""


class Database(Protocol):
    """What is kept in memory beside the database."""

    def flush(self) -> None:
        """Write what was gathered; the transaction is about to be committed."""

    def remember(self) -> None:
        """Read it again: a transaction was undone."""

    def rebound(self) -> None:
        """Work out the file's bound again, from the room that its disk has now."""

    def broken(self, error: Exception) -> BufferBroken:
        """What to say, and note, where storage failed."""


@dataclass(slots=True)
class _Work:
    do: Callable[[], Any]
    then: Callable[[Any], None] | None
    drains: bool
    future: asyncio.Future[Any]
    answer: Any = None
    error: BaseException | None = None


class Writer:
    """Runs work inside transactions. To be closed."""

    def __init__(
        self,
        connection: apsw.Connection,
        database: Database,
        *,
        check_files: Callable[[], None],
        inline: bool = False,
    ) -> None:
        """`check_files` raises where the files that are written can no longer be found; after each commit.

        `inline`: commit on the event loop as well, for a simulation in which nothing may run beside it.
        """
        connection.set_busy_timeout(0)  # SQLite would wait on the event loop; `_begin` waits beside it
        self._connection = connection
        self._database = database
        self._check_files = check_files
        self._thread = None if inline else _Thread()
        self._waiting: deque[_Work] = deque()
        self._between: deque[tuple[Callable[[], None], asyncio.Future[None]]] = deque()
        self._work_came = asyncio.Event()
        self._closed = False
        self._broken: BufferBroken | None = None
        self.failed: asyncio.Future[BufferBroken] = asyncio.get_running_loop().create_future()
        self._serving = asyncio.create_task(self._serve(), name="buffer writer")

    async def run(
        self, do: Callable[[], _T], *, then: Callable[[_T], None] | None = None, drains: bool = False
    ) -> _T:
        """Do `do` in a transaction; return when it is committed.

        `then` is told the answer, even where the caller was cancelled meanwhile. `drains`: the buffer empties
        by this, so it may use the reserve. `do` may raise a BufferFault only before its first write. Raises
        that, BufferFull (never where it `drains`), BufferUnavailable, or BufferBroken.
        """
        self._raise_if_over()
        future: asyncio.Future[_T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Work(do, then, drains, future))
        self._work_came.set()
        return await future

    async def truncate_log(self, sync: Callable[[], None]) -> None:
        """Bring all that is committed into the database and empty the log; `sync` makes that last.

        Raises BufferUnavailable while somebody reads what is in the log, or BufferBroken.
        """
        self._raise_if_over()

        def truncate() -> None:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
            sync()

        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._between.append((truncate, done))
        self._work_came.set()
        await done

    async def close(self) -> None:
        """Finish what was asked, then let go of the file."""
        self._closed = True
        self._work_came.set()
        await self._serving

    def _raise_if_over(self) -> None:
        if self._broken is not None:
            raise self._broken
        if self._closed:
            raise BufferUnavailable("the buffer is closed")

    # -- the task --------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            while True:
                while self._waiting or self._between:
                    while self._between:
                        await self._do_between(*self._between.popleft())
                    if self._waiting:
                        await self._commit_group()
                if self._closed:
                    break
                self._work_came.clear()
                await self._work_came.wait()
        finally:
            if self._broken is not None:
                # Closing would move the log into the database and sync both: a sync that says nothing now.
                self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._connection.close()
            if self._thread is not None:
                self._thread.end()

    async def _do_between(self, do: Callable[[], None], done: asyncio.Future[None]) -> None:
        """Do what must not meet a transaction; somebody who reads is waited for a while."""
        error: Exception | None = self._broken
        for _ in range(_BUSY_TRIES if error is None else 0):
            try:
                await self._off_loop(do)
            except apsw.BusyError as busy:
                error = BufferUnavailable(f"the buffer's log is being read: {busy}")
                await asyncio.sleep(_BUSY_S)
            except Exception as raised:  # noqa: BLE001  # as in a transaction
                error = self.give_up(raised)
                break
            else:
                error = None
                break
        if done.done():
            return  # its caller was cancelled
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(None)

    async def _commit_group(self) -> None:
        group: list[_Work] = []
        try:
            await self._begin()
            await self._transact(self._waiting, group)
        except apsw.BusyError as error:
            group += self._waiting
            self._waiting.clear()
            for work in group:
                work.error = _held_by_another(error)
        except apsw.FullError:
            await self._commit_each(group)
        except Exception as error:  # noqa: BLE001  # whatever it was, nobody may wait for ever
            self._fail_all(error, group)
        for work in group:
            try:
                _answer(work)
            except Exception as error:  # noqa: BLE001  # of a `then`
                self.give_up(error)

    async def _commit_each(self, group: list[_Work]) -> None:
        """One of them is too much for the file; which one shows when each is tried alone."""
        try:
            self._database.rebound()
            await self._off_loop(self._restart_log)
            for work in group:
                work.answer = work.error = None
                try:
                    await self._commit_alone(work)
                except apsw.BusyError as error:
                    work.error = _held_by_another(error)
                except apsw.FullError:
                    refusal = BufferUnavailable if work.drains else BufferFull
                    work.error = refusal("the buffer's file has reached its bound, or its disk is full")
        except Exception as error:  # noqa: BLE001  # as above
            self._fail_all(error, group)

    def _fail_all(self, error: Exception, group: list[_Work]) -> None:
        broken = self.give_up(error)
        for work in group:
            work.error = broken

    async def _commit_alone(self, work: _Work) -> None:
        if not work.drains:
            await self._commit_one(work)
            return
        bound = self._connection.pragma("max_page_count")
        self._connection.pragma("max_page_count", bound + _RESERVE_PAGES)
        try:
            await self._commit_one(work)
        finally:
            self._connection.pragma("max_page_count", bound)

    async def _commit_one(self, work: _Work) -> None:
        await self._begin()
        await self._transact(deque([work]), [])

    async def _begin(self) -> None:
        for _ in range(_BUSY_TRIES - 1):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except apsw.BusyError:
                await asyncio.sleep(_BUSY_S)
            else:
                return
        self._connection.execute("BEGIN IMMEDIATE")

    async def _transact(self, waiting: deque[_Work], group: list[_Work]) -> None:
        """Do what waits, as far as time allows, and commit it; `group` is told what that was."""
        until = perf_counter() + _GROUP_S
        connection = self._connection
        changes = connection.total_changes()
        try:
            while waiting:
                work = waiting.popleft()
                group.append(work)
                try:
                    work.answer = work.do()
                except BufferFault as error:
                    work.error = error
                if perf_counter() > until:
                    break
            self._database.flush()
            if connection.total_changes() == changes:
                connection.execute("COMMIT")  # nothing for the disk
            else:
                await self._off_loop(self._commit)
        except Exception:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._database.remember()
            raise

    def _restart_log(self) -> None:
        """Write the log from its start again: on a disk without a page left it cannot grow.

        What is in it goes into the database, which for the most part has its pages already.
        """
        with suppress(apsw.BusyError, apsw.FullError):  # somebody reads, or has no page: as before, then
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)

    def _commit(self) -> None:
        self._connection.execute("COMMIT")
        self._check_files()

    async def _off_loop(self, do: Callable[[], object]) -> None:
        if self._thread is None:
            do()
        else:
            await self._thread.run(do)

    def give_up(self, error: Exception) -> BufferBroken:
        """Storage failed: nothing is done any more, and who waits is told."""
        if self._broken is None:
            self._broken = self._database.broken(error)
            self._broken.__cause__ = error
            self.failed.set_result(self._broken)
        while self._waiting:
            work = self._waiting.popleft()
            work.error = self._broken
            _answer(work)
        return self._broken


def _held_by_another(error: apsw.BusyError) -> BufferUnavailable:
    return BufferUnavailable(f"another process holds the buffer's file: {error}")


def _answer(work: _Work) -> None:
    if work.then is not None and work.error is None:
        work.then(work.answer)
    if work.future.done():
        return  # its caller was cancelled; what it asked for is done all the same
    if work.error is not None:
        work.future.set_exception(work.error)
    else:
        work.future.set_result(work.answer)


class _Thread:
    """A thread that does one thing at a time; cheaper for each than a pool and its futures."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[tuple[Callable[[], object], asyncio.Future[None]] | None]
        self._inbox = queue.SimpleQueue()
        threading.Thread(target=self._work, name="buffer-writer", daemon=True).start()

    async def run(self, do: Callable[[], object]) -> None:
        """Do `do` there, to its end: a caller that is cancelled is told so only then."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._inbox.put((do, done))
        cancelled: asyncio.CancelledError | None = None
        while not done.done():
            try:
                await asyncio.shield(done)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled
        done.result()

    def end(self) -> None:
        self._inbox.put(None)

    def _work(self) -> None:
        while (asked := self._inbox.get()) is not None:
            do, done = asked
            error: BaseException | None = None
            try:
                do()
            except BaseException as raised:  # noqa: BLE001  # it is raised where it was asked for
                error = raised
            self._loop.call_soon_threadsafe(_tell, done, error)


def _tell(done: asyncio.Future[None], error: BaseException | None) -> None:
    if error is None:
        done.set_result(None)
    else:
        done.set_exception(error)
