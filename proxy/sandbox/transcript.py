"""The record's file: one line of JSON a request, appended before the request is answered."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from proxy.sandbox.chronicle import Numbered


class Transcript:
    """An open file of entries, written on its own thread: a slow disk must not stop the event loop.

    After a failure nothing more is written and `failure` says why: a file with a gap would pass for whole.
    """

    def __init__(self, path: Path) -> None:
        """Open `path` for appending, or make it. Raises OSError."""
        self._file: BinaryIO = path.open("ab")
        # One thread: lines keep the order in which they were handed in.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sandbox-transcript")
        self.failure: str | None = None

    async def append(self, entries: Sequence[Numbered]) -> None:
        """Return when the system has the lines, or `failure` is set. Cancelling undoes nothing."""
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, entries)
        await asyncio.shield(writing)

    async def close(self) -> None:
        """Write what was handed in, then close the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._file.close)
        self._thread.shutdown(wait=False)

    def _write(self, entries: Sequence[Numbered]) -> None:
        if self.failure is not None:
            return
        try:
            self._file.write("".join(f"{entry.line()}\n" for entry in entries).encode("ascii"))
            self._file.flush()
        except OSError as error:
            self.failure = f"The record's file could not be written: {error}"
