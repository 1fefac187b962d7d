"""The embedded engine for benchmarks: on a file of its own beside the configured one, so on the same disk."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

import apsw

from proxy.buffer.bench import Bench, BenchRefused, Spent
from proxy.buffer.sqlite.engine import SqliteBuffer
from proxy.buffer.values import Terms
from proxy.lanes import QueueId


class SqliteBench(Bench):
    """Construct with `opened`."""

    def __init__(self, folder: Path, terms: Terms, *, sync_every_commit: bool) -> None:
        durability = "always" if sync_every_commit else "normal"
        self.store = f"SQLite {apsw.sqlite_lib_version()} in {folder.parent}, durability {durability}"
        self._folder = folder
        self._file = folder / "bench.db"
        self._terms = terms
        self._sync_every_commit = sync_every_commit

    @classmethod
    async def opened(cls, beside: Path, terms: Terms, *, sync_every_commit: bool) -> "SqliteBench":
        """In the folder of the file `beside`, whether that exists or not. Raises BenchRefused."""
        try:
            folder = tempfile.mkdtemp(prefix="outlit-proxy-bench-", dir=_existing(beside.parent))
        except OSError as error:
            raise BenchRefused(f"cannot write beside {beside}: {error.strerror}; see buffer.url") from error
        bench = cls(Path(folder), terms, sync_every_commit=sync_every_commit)
        await bench._open()
        return bench

    async def _open(self) -> None:
        self.buffer = await SqliteBuffer.opened(
            self._file, self._terms, sync_every_commit=self._sync_every_commit
        )

    async def spent(self) -> Spent | None:
        return None

    async def stored_bytes(self) -> int:
        await self.buffer.close()  # which moves what the log holds into the file
        stored = sum(file.stat().st_size for file in self._folder.glob(f"{self._file.name}*"))
        await self._open()
        return stored

    async def empty(
        self,
        queues: Iterable[QueueId],  # noqa: ARG002  # nothing else is in the file
        tokens: Iterable[bytes] = (),  # noqa: ARG002  # the same
    ) -> None:
        await self.buffer.close()
        for file in self._folder.iterdir():
            file.unlink()
        await self._open()

    async def close(self) -> None:
        await self.buffer.close()
        shutil.rmtree(self._folder)


def _existing(folder: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next(each for each in (folder, *folder.resolve().parents) if each.is_dir())
