"""What a start on this file would find, without being one: for ``outlit-proxy check``.

Nothing is opened with SQLite. A connection would recover the log, and so take away what tells a start that
the log was cut short; and beside a proxy that runs it would be one more that nobody has reckoned with. So
the lock file is read, the head of the database (https://www.sqlite.org/fileformat.html) and the disk's room.
What is in the pages, and whether the log is whole, a start sees.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import apsw

from proxy.buffer.sqlite.files import (
    DB_SHARE_OF_DISK,
    LEAST_FREE_BYTES,
    not_as_remembered,
    unusable,
    wanted_bytes,
    wrong_layout,
)
from proxy.buffer.sqlite.lock import cannot_write, glance
from proxy.checklist import Checked, error, ok, warning

_MAGIC = b"SQLite format 3\0"
_HEAD_BYTES = 100
_SCHEMA_COOKIE, _USER_VERSION, _APPLICATION_ID = 40, 60, 68
"""Offsets in the head, four bytes each: 0 while no table was ever made, the layout, and whose file it is."""

_SAFE = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""The first SQLite of its line that does not lose commits when a log is reset while another connection reads
(https://www.sqlite.org/wal.html, "the WAL-reset bug"); from the first of them on all are well."""


def look(path: Path, max_bytes: int) -> Iterator[Checked]:
    """What there is to say of a buffer's file. `max_bytes`: what it may hold, dead letters too."""
    path = Path(os.path.realpath(path))
    yield _library(apsw.sqlite_lib_version())
    folder = path.parent
    there = _nearest(folder)
    yield _writable(folder, there)
    yield _disk(path, there, max_bytes)
    if there == folder:
        yield _file(path)


def _library(version: str) -> Checked:
    numbers = tuple(map(int, re.findall(r"\d+", version)[:3]))
    if numbers >= _SAFE[0] or any(numbers[:2] == safe[:2] and numbers >= safe for safe in _SAFE):
        return ok("sqlite", f"SQLite {version}")
    return warning(
        "sqlite",
        f"SQLite {version} can lose commits when its log is reset while another connection reads (fixed in"
        " 3.51.3): install apsw 3.54 or newer from its wheel",
    )


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next((above for above in (folder, *folder.parents) if above.exists()), folder)


def _writable(folder: Path, there: Path) -> Checked:
    try:
        # As an anonymous file where the file system has that: it never shows, and is gone when it is closed.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as problem:
        return error("data directory", cannot_write(folder, problem))
    if there != folder:
        return ok("data directory", f"{folder} does not exist yet; the start makes it")
    return ok("data directory", f"{folder} can be written in")


def _disk(path: Path, there: Path, max_bytes: int) -> Checked:
    disk = os.statvfs(there)
    free = disk.f_bavail * disk.f_frsize
    if free < LEAST_FREE_BYTES:
        return error("disk", f"the disk of {there} is full: make room there, or set buffer.url")
    room = free + (path.stat().st_size if path.exists() else 0)
    wanted = wanted_bytes(max_bytes)
    has = f"{_shown(free)} are free for {path}"
    if wanted > room * DB_SHARE_OF_DISK:
        return warning(
            "disk",
            f"{has}, and buffer.max_bytes and dead.max_bytes together ({_shown(max_bytes)}) can take"
            f" {_shown(wanted / DB_SHARE_OF_DISK)}: before they are reached posts are answered 503: make room"
            " there, or lower them",
        )
    return ok("disk", f"{has}, which takes {_shown(wanted)} at most")


def _file(path: Path) -> Checked:
    name = "buffer file"
    for file in (path, *(Path(f"{path}-{kind}") for kind in ("wal", "shm")), Path(f"{path}.lock")):
        try:
            os.close(os.open(file, os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:
            continue
        except OSError as problem:
            return error(
                name,
                f"buffer: {file} cannot be read and written: {problem.strerror}; give it to the user of this"
                f" process (chown {os.geteuid()}), or set another buffer.url",
            )
    remembered = glance(path)
    if remembered.holder is not None:
        return warning(
            name,
            f"{path} is in use by {remembered.holder}, a proxy that runs: a second one does not start on it",
        )
    refusal = not_as_remembered(path, was_used=remembered.was_used, damage=remembered.damage)
    if refusal is None and path.exists() and path.stat().st_size:
        refusal = _wrong_head(path, was_used=remembered.was_used)
    if refusal is not None:
        return error(name, refusal)
    if remembered.was_used:
        return ok(name, f"{path} is of this version")
    return ok(name, f"{path} is made by the first start")


def _wrong_head(path: Path, *, was_used: bool) -> str | None:
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.startswith(_MAGIC) or len(head) < _HEAD_BYTES:
        return str(unusable(path, apsw.NotADBError("it is no SQLite database")))
    version = _number(head, _USER_VERSION)
    log = Path(f"{path}-wal")
    if not version and log.exists() and log.stat().st_size:
        return None  # what was written last is in the log yet
    if not version and not was_used and not _number(head, _SCHEMA_COOKIE):
        return None  # a first start was ended before it was finished; the next one goes on
    return wrong_layout(path, _number(head, _APPLICATION_ID), version)


def _number(head: bytes, offset: int) -> int:
    return int.from_bytes(head[offset : offset + 4], "big")


def _shown(bytes_: float) -> str:
    return f"{bytes_ / 1e9:.1f} GB" if bytes_ >= 1e9 else f"{bytes_ / 1e6:.0f} MB"
