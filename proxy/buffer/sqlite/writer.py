"""The one thread that writes: transactions that come together are committed together.

While a commit waits for the disk, further work gathers; then all of it is done in one transaction and
made durable by one fsync. So a lone caller waits for its own commit only, and a crowd shares them.

At the file's bound what only adds is refused, and what drains (a claim, a settle with its dead letters) may
use a reserve beyond it: a full buffer must be able to empty itself.

Storage errors end it. A failed fsync or write says nothing about what is on the disk and must never be
retried (a second fsync reports a success that is none): everything asked fails as unavailable, `failed`
fires, and the next start recovers from the log.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import apsw

from proxy.buffer.contract import BufferFault, BufferFull, BufferUnavailable

_T = TypeVar("_T")

_MAX_GROUP = 512
"""Pieces of work in one transaction: bounds the time that its first waits for its last."""

_RESERVE_PAGES = 1024
"""By how much a piece of work that drains may pass the file's bound: a batch of dead letters, thrice."""


@dataclass(slots=True)
class _Work:
    do: Callable[[], Any]
    then: Callable[[Any], None] | None
    drains: bool
    future: asyncio.Future[Any]
    answer: Any = None
    error: BaseException | None = None


class FileGone(Exception):
    """The database was deleted or replaced while it was in use."""

    def __str__(self) -> str:
        return "the buffer's file was deleted or replaced while in use"


class Writer:
    """Runs work inside transactions on a thread of its own; `on_rollback` is told when one was undone."""

    def __init__(
        self, connection: apsw.Connection, *, still_there: Callable[[], bool], on_rollback: Callable[[], None]
    ) -> None:
        """`still_there`: whether the file that is written can still be found, asked after each commit."""
        self._connection = connection
        self._still_there = still_there
        self._on_rollback = on_rollback
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._closed = False
        self._broken: BaseException | None = None  # written by the thread, then read-only
        self.failed: asyncio.Future[Exception] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="buffer-writer", daemon=True)
        self._thread.start()

    async def run(
        self, do: Callable[[], _T], *, then: Callable[[_T], None] | None = None, drains: bool = False
    ) -> _T:
        """Do `do` in a transaction; return when it is committed.

        `then` is told the answer on the event loop, even where the caller was cancelled meanwhile. `drains`:
        the buffer empties by this, so it may use the reserve. `do` may raise a BufferFault only before its
        first write. Raises that, BufferFull (never where it `drains`), or BufferUnavailable.
        """
        if self._closed or self._broken is not None:
            raise BufferUnavailable("the buffer is closed" if self._broken is None else str(self._broken))
        future: asyncio.Future[_T] = self._loop.create_future()
        self._inbox.put(_Work(do, then, drains, future))
        return await future

    async def close(self) -> None:
        """Finish what was asked, then end the thread."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    # -- the thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (first := self._inbox.get()) is not None:
            group, ended = self._gather(first)
            try:
                self._commit(group)
                self._look_whether_still_there()
            except apsw.BusyError as error:
                for work in group:
                    work.error = BufferUnavailable(f"another process holds the buffer's file: {error}")
            except BaseException as error:  # noqa: BLE001  # whatever it was, nobody may wait for ever
                self._break(error, group)
            self._loop.call_soon_threadsafe(_answer, group)
            if ended:
                break
        self._connection.close()

    def _look_whether_still_there(self) -> None:
        if not self._still_there():
            raise FileGone

    def _gather(self, first: _Work) -> tuple[list[_Work], bool]:
        group = [first]
        while len(group) < _MAX_GROUP:
            try:
                work = self._inbox.get_nowait()
            except queue.Empty:
                break
            if work is None:
                return group, True
            group.append(work)
        return group, False

    def _commit(self, group: list[_Work]) -> None:
        if self._broken is not None:
            raise self._broken
        try:
            self._transact(group)
        except apsw.FullError:
            # One of them is too much for the file; which one shows when each is tried alone.
            for work in group:
                work.answer = work.error = None
                try:
                    self._transact_alone(work)
                except apsw.FullError:
                    refusal = BufferUnavailable if work.drains else BufferFull
                    work.error = refusal("the buffer's file has reached its bound, or its disk is full")

    def _transact(self, group: list[_Work]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            for work in group:
                try:
                    work.answer = work.do()
                except BufferFault as error:
                    work.error = error
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._on_rollback()
            raise

    def _transact_alone(self, work: _Work) -> None:
        if not work.drains:
            self._transact([work])
            return
        bound = self._connection.pragma("max_page_count")
        self._connection.pragma("max_page_count", bound + _RESERVE_PAGES)
        try:
            self._transact([work])
        finally:
            self._connection.pragma("max_page_count", bound)

    def _break(self, error: BaseException, group: list[_Work]) -> None:
        if self._broken is None:
            self._broken = error
            self._loop.call_soon_threadsafe(self._fail, error)
        for work in group:
            work.error = BufferUnavailable(f"storage failed: {error}")

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_result(error if isinstance(error, Exception) else RuntimeError(str(error)))


def _answer(group: list[_Work]) -> None:
    for work in group:
        if work.then is not None and work.error is None:
            work.then(work.answer)
        if work.future.done():
            continue  # its caller was cancelled; what it asked for is done all the same
        if work.error is not None:
            work.future.set_exception(work.error)
        else:
            work.future.set_result(work.answer)
