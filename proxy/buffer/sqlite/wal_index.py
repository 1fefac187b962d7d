"""How much of the write-ahead log was committed, as the index beside it says.

SQLite takes a log that was cut short or damaged for a shorter history and opens it without a word. The
index (`-shm`) outlives a killed process and tells how many frames were committed; with a sync at every commit
it never tells more than the disk holds. (https://www.sqlite.org/walformat.html)
"""

import struct
from dataclasses import dataclass
from pathlib import Path

_HEADER = struct.Struct("=12x B x 2x I 4x 8x 8s 8x")
"""Whether it is initialised, its frames, its salts: of one of the header's two equal copies."""

_BACKFILLED = struct.Struct("=I")
_BACKFILLED_AT = 2 * _HEADER.size

_LOG_HEADER_BYTES = 32
_LOG_SALTS = slice(16, 24)


@dataclass(frozen=True, slots=True)
class _Index:
    """`salts` tell one log from the next in the same file; `backfilled` frames are in the database too."""

    frames: int
    backfilled: int
    salts: bytes


def committed_frames(database: Path) -> int:
    """How many frames the log must hold, 0 where nothing depends on it. To be asked before it is opened."""
    index = _read_index(database)
    if index is None or index.backfilled >= index.frames:
        return 0
    try:
        with Path(f"{database}-wal").open("rb") as file:
            header = file.read(_LOG_HEADER_BYTES)
    except FileNotFoundError:
        header = b""
    # After a crash of the machine the index may be of an earlier log, all of which is in the database.
    is_of_another = len(header) == _LOG_HEADER_BYTES and header[_LOG_SALTS] != index.salts
    return 0 if is_of_another else index.frames


def recovered_frames(database: Path) -> int:
    """How many frames the log turned out to hold. To be asked when the database has been read."""
    index = _read_index(database)
    return 0 if index is None else index.frames


def _read_index(database: Path) -> _Index | None:
    try:
        with Path(f"{database}-shm").open("rb") as file:
            head = file.read(_BACKFILLED_AT + _BACKFILLED.size)
    except FileNotFoundError:
        return None
    if len(head) < _BACKFILLED_AT + _BACKFILLED.size:
        return None
    if head[: _HEADER.size] != head[_HEADER.size : _BACKFILLED_AT]:
        return None
    is_initialised, frames, salts = _HEADER.unpack_from(head)
    (backfilled,) = _BACKFILLED.unpack_from(head, _BACKFILLED_AT)
    return _Index(frames, backfilled, salts) if is_initialised else None
