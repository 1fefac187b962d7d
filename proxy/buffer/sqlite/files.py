"""The embedded buffer's files: taken by one process, of a layout this version knows, bounded below the disk.

Beside the database lies `<database>.lock`. It is held by the process that uses the database, and it
remembers that there was one: a database that is gone or empty where there was one before is never taken
for a fresh start.
"""

import fcntl
import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import apsw

LAYOUT = 1
"""Version of the stored layout: written at first start, read at every one."""

_APPLICATION_ID = 0x4F55_5450  # "OUTP", so that `file` and a mistaken path can tell
_BUSY_MS = 1000  # somebody else's transaction; ours has one connection that writes
_PAGE_BYTES = 4096
_CACHE_KIB = 65_536
_DB_SHARE_OF_DISK = 0.75
_WAL_SHARE_OF_DISK = 0.1
_MAX_WAL_PAGES = 4000
_SLACK_BYTES = 64_000_000
_SPREAD = 1.5
"""File bytes for each stored byte that is counted: indexes, half-filled and free pages."""


class OpenRefused(Exception):
    """The buffer's files cannot be used. The message is one line: what, where, what to do."""


class Lock:
    """The right to use a database, held until `release` or the end of the process."""

    def __init__(self, database: Path) -> None:
        self._path = Path(f"{database}.lock")
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OpenRefused(
                f"buffer: cannot write in {database.parent}: {error.strerror}; create it, give the user of"
                " this process the right to write there, or set buffer.url"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 200, 0).decode("ascii", "replace").split("\n")[0] or "another process"
            os.close(self._fd)
            raise OpenRefused(
                f"buffer: {database} is in use by {holder}; stop it, or set another buffer.url"
            ) from error
        remembered = os.pread(self._fd, 200, 0).decode("ascii", "replace")
        self.was_used = "layout" in remembered
        self._write(with_layout=self.was_used)

    def remember_layout(self) -> None:
        """Note that the database now holds something."""
        self._write(with_layout=True)

    def release(self) -> None:
        """Let another process have the database. Does nothing the second time."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _write(self, *, with_layout: bool) -> None:
        text = f"process {os.getpid()}\n" + (f"layout {LAYOUT}\n" if with_layout else "")
        # In this order, so that a crash in between does not forget that there was a database.
        os.pwrite(self._fd, text.encode("ascii"), 0)
        os.ftruncate(self._fd, len(text))
        os.fsync(self._fd)


def open_database(path: Path, lock: Lock, *, sync_every_commit: bool, max_bytes: int) -> apsw.Connection:
    """Open or create the database for the process that holds `lock`. Raises OpenRefused."""
    try:
        is_empty = not path.exists() or path.stat().st_size == 0
        if is_empty and lock.was_used:
            raise OpenRefused(
                f"buffer: {path} is gone or empty, but it held events before; restore it, or delete"
                f" {path}.lock to start afresh without them"
            )
        # Only for us: it holds people's addresses. SQLite gives its other files the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(_BUSY_MS)
        pragma = connection.pragma
        if is_empty:
            pragma("page_size", _PAGE_BYTES)
        else:
            _check_layout(connection, path)
        pragma("journal_mode", "wal")
        pragma("synchronous", "full" if sync_every_commit else "normal")
        pragma("cache_size", -_CACHE_KIB)
        pragma("temp_store", "memory")
        _bound(connection, path, max_bytes)
        if is_empty:
            _create(connection)
            _sync_directory(path.parent)
    except (apsw.Error, OSError) as error:
        raise unusable(path, error) from error
    lock.remember_layout()
    return connection


def same_file(path: Path) -> Callable[[], bool]:
    """Whether `path` is, whenever asked, still the file that it is now.

    A file that was deleted or replaced under an open connection takes writes, and they end with the process.
    """
    opened = path.stat()

    def is_same() -> bool:
        try:
            now = path.stat()
        except OSError:
            return False
        return (now.st_dev, now.st_ino) == (opened.st_dev, opened.st_ino)

    return is_same


def unusable(path: Path, error: Exception) -> OpenRefused:
    """What to say where SQLite or the system refuses the file."""
    return OpenRefused(
        f"buffer: {path} cannot be opened: {error}; if it is damaged, move it and its -wal file away"
        f" together with {path}.lock and keep them: most events can be recovered"
    )


def open_reader(path: Path) -> apsw.Connection:
    """A second, read-only connection to an open database, for long counts beside the writer."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(_BUSY_MS)
    return connection


def _check_layout(connection: apsw.Connection, path: Path) -> None:
    version = connection.pragma("user_version")
    if connection.pragma("application_id") != _APPLICATION_ID or not version:
        raise OpenRefused(
            f"buffer: {path} is not a buffer of this program, or lost its layout version;"
            " set another buffer.url"
        )
    if version > LAYOUT:
        raise OpenRefused(
            f"buffer: {path} has layout {version}, this version knows up to {LAYOUT}; run the newer version,"
            " or drain it there first"
        )


def _create(connection: apsw.Connection) -> None:
    schema = files("proxy.buffer.sqlite").joinpath("schema.sql").read_text("utf-8")
    with connection:
        connection.execute(schema)
        connection.execute("INSERT INTO seen_turn VALUES (0, 0)")
        connection.pragma("application_id", _APPLICATION_ID)
        connection.pragma("user_version", LAYOUT)


def _bound(connection: apsw.Connection, path: Path, max_bytes: int) -> None:
    """Keep the database below the disk's size: at a full disk even DELETE fails, at this bound it works."""
    disk = os.statvfs(path.parent)
    room = disk.f_bavail * disk.f_frsize + path.stat().st_size
    bytes_ = min(max_bytes * _SPREAD + _SLACK_BYTES, room * _DB_SHARE_OF_DISK)
    connection.pragma("max_page_count", int(bytes_ // _PAGE_BYTES))
    wal_pages = max(8, min(_MAX_WAL_PAGES, int(room * _WAL_SHARE_OF_DISK // _PAGE_BYTES)))
    connection.pragma("wal_autocheckpoint", wal_pages)
    connection.pragma("journal_size_limit", 2 * wal_pages * _PAGE_BYTES)


def _sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
