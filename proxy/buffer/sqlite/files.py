"""The embedded buffer's files: of a layout this version knows, whole, and bounded below the disk's size."""

import os
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import apsw

from proxy.buffer.packing import Damaged
from proxy.buffer.sqlite import wal_index
from proxy.buffer.sqlite.lock import Lock, OpenRefused

LAYOUT = 2
"""Version of the stored layout: written at first start, read at every one."""

_APPLICATION_ID = 0x4F55_5450  # "OUTP", so that `file` and a mistaken path can tell
_BUSY_MS = 1000  # somebody else's transaction; ours has one connection that writes
_PAGE_BYTES = 4096
_CACHE_KIB = 65_536
DB_SHARE_OF_DISK = 0.75
_WAL_SHARE_OF_DISK = 0.1
_MAX_WAL_PAGES = 4000
_SLACK_BYTES = 64_000_000
LEAST_FREE_BYTES = 1_000_000
_SPREAD = 1.5
"""File bytes for each stored byte that is counted: indexes, half-filled and free pages."""


class FileGone(Exception):
    """The database or its log was deleted or replaced while it was in use."""


def open_database(path: Path, lock: Lock, *, sync_every_commit: bool, max_bytes: int) -> apsw.Connection:
    """Open or create the database for the process that holds `lock`. Raises OpenRefused."""
    try:
        if refusal := not_as_remembered(path, was_used=lock.was_used, damage=lock.damage):
            raise OpenRefused(refusal)
        frames = wal_index.committed_frames(path) if lock.trusts_index else 0
        # Only for us: it holds people's addresses. SQLite gives its other files the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(_BUSY_MS)
        pragma = connection.pragma
        # The file may have a page and nothing in it: its first start was ended before it was finished.
        is_empty = not lock.was_used and not pragma("user_version") and not _has_tables(connection)
        if is_empty:
            pragma("page_size", _PAGE_BYTES)
        else:
            _check_log(connection, path, lock, frames)
            _check_layout(connection, path)
        pragma("journal_mode", "wal")
        pragma("synchronous", "full")
        pragma("cache_size", -_CACHE_KIB)
        pragma("temp_store", "memory")
        # What is deleted is overwritten where it lay: it is people's. (No difference could be measured.)
        pragma("secure_delete", 1)
        bound(connection, path, max_bytes)
        _bound_log(connection, path)
        if is_empty:
            _create(connection)
            _sync(path.parent)
        # Only now, so that no power cut takes the tables of a database that the lock file tells of.
        pragma("synchronous", "full" if sync_every_commit else "normal")
    except (apsw.Error, OSError) as error:
        raise unusable(path, error) from error
    lock.remember_layout(LAYOUT)
    return connection


def not_as_remembered(path: Path, *, was_used: bool, damage: str | None) -> str | None:
    """Why the database must not be opened, by what its lock file remembers; None where it may be."""
    if damage is not None:
        return f"buffer: {path} is damaged: {damage}; {_move_away(path)}"
    if was_used and not (path.exists() and path.stat().st_size):
        return (
            f"buffer: {path} is gone or empty, but it held events before; restore it, or delete"
            f" {path}.lock to start afresh without them"
        )
    return None


def wrong_layout(path: Path, application_id: int, version: int) -> str | None:
    """Why a database with tables must not be opened, by the two numbers in its head; None where it may be."""
    if application_id != _APPLICATION_ID or not version:
        return (
            f"buffer: {path} is not a buffer of this program, or lost its layout version;"
            " set another buffer.url"
        )
    if version > LAYOUT:
        return (
            f"buffer: {path} has layout {version}, this version knows up to {LAYOUT}; run the newer version,"
            " or drain it there first"
        )
    if version < LAYOUT:
        return (
            f"buffer: {path} has layout {version}, which no release wrote; drain it with the version that"
            f" did, or move it, its -wal file and {path}.lock away to start afresh without what it holds"
        )
    return None


def _check_log(connection: apsw.Connection, path: Path, lock: Lock, frames: int) -> None:
    """Raise OpenRefused where committed frames of the log are missing, and do not forget it."""
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()  # reads the log
    recovered = wal_index.recovered_frames(path)
    if recovered >= frames:
        return
    lock.remember_damage(f"its log held {frames} frames and now has {recovered} that are whole")
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.close()
    raise OpenRefused(
        f"buffer: {path}-wal is damaged or cut short: {recovered} of {frames} frames are left, so that events"
        f" which were acknowledged are missing; restore it and delete the last line of {path}.lock, or delete"
        " only that line to go on without them"
    )


def watch_over(path: Path) -> Callable[[], None]:
    """Raises FileGone, whenever asked, if the database or its log is no longer the file that it is now.

    A file that was deleted or replaced under an open connection takes writes, and they end with the process.
    """
    watched = {file: _inode(file) for file in (path, Path(f"{path}-wal"))}

    def look() -> None:
        for file, inode in watched.items():
            if _inode(file) != inode:
                raise FileGone(f"{file} was deleted or replaced while in use")

    return look


def _inode(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def unusable(path: Path, error: Exception) -> OpenRefused:
    """What to say where SQLite or the system refuses the file."""
    disk = os.statvfs(path.parent)
    if disk.f_bavail * disk.f_frsize < LEAST_FREE_BYTES:
        return OpenRefused(f"buffer: {path} cannot be opened: {error}; its disk is full: make room there")
    return OpenRefused(f"buffer: {path} cannot be opened: {error}; if it is damaged, {_move_away(path)}")


def remedy(path: Path, error: Exception) -> str:
    """What to do where the open database failed."""
    if is_damage(error):
        return f"the file is damaged: {_move_away(path)}"
    if isinstance(error, FileGone):
        return "restore it before the next start: what was acknowledged since is in it alone"
    return "see to the disk, then start again: what is in the file is recovered"


def is_damage(error: Exception) -> bool:
    """Whether the file itself is wrong, as opposed to a disk that does not do what it is asked."""
    return isinstance(error, Damaged | apsw.CorruptError | apsw.NotADBError)


def _move_away(path: Path) -> str:
    return f"move it, its -wal file and {path}.lock away and keep them: most events can be recovered"


def open_reader(path: Path) -> apsw.Connection:
    """A second, read-only connection to an open database, for long counts beside the writer."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    connection.set_busy_timeout(_BUSY_MS)
    return connection


def _has_tables(connection: apsw.Connection) -> bool:
    return connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone() is not None


def _check_layout(connection: apsw.Connection, path: Path) -> None:
    refusal = wrong_layout(path, connection.pragma("application_id"), connection.pragma("user_version"))
    if refusal is not None:
        raise OpenRefused(refusal)


def _create(connection: apsw.Connection) -> None:
    schema = files("proxy.buffer.sqlite").joinpath("schema.sql").read_text("utf-8")
    with connection:
        connection.execute(schema)
        connection.execute("INSERT INTO seen_turn VALUES (0, 0)")
        connection.execute("INSERT INTO probe VALUES (0)")
        connection.pragma("application_id", _APPLICATION_ID)
        connection.pragma("user_version", LAYOUT)


def bound(connection: apsw.Connection, path: Path, max_bytes: int) -> None:
    """Keep the database below the disk's size: at a full disk even DELETE fails, at this bound it works.

    To be called again now and then, since others fill the same disk, and make room on it.
    """
    bytes_ = min(wanted_bytes(max_bytes), _room_bytes(path) * DB_SHARE_OF_DISK)
    connection.pragma("max_page_count", int(bytes_ // _PAGE_BYTES))


def wanted_bytes(max_bytes: int) -> float:
    """How large the file of a buffer may become that holds so many stored bytes."""
    return max_bytes * _SPREAD + _SLACK_BYTES


def _bound_log(connection: apsw.Connection, path: Path) -> None:
    pages = max(8, min(_MAX_WAL_PAGES, int(_room_bytes(path) * _WAL_SHARE_OF_DISK // _PAGE_BYTES)))
    connection.pragma("wal_autocheckpoint", pages)
    connection.pragma("journal_size_limit", 2 * pages * _PAGE_BYTES)


def _room_bytes(path: Path) -> int:
    """What the database may take of the disk, with what it has."""
    disk = os.statvfs(path.parent)
    return disk.f_bavail * disk.f_frsize + path.stat().st_size


def sync_log(path: Path) -> None:
    """Have the write-ahead log's length on the disk: SQLite cuts it without a sync."""
    _sync(Path(f"{path}-wal"))


def _sync(file: Path) -> None:
    fd = os.open(file, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
