"""The file beside the database that says who uses it, that there is one, and whether it was found damaged."""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

_TRIES = 6
_TRY_AGAIN_S = 0.01
"""So often, and so long apart, a lock is tried: who only glances at it has it for microseconds."""


class OpenRefused(Exception):
    """The buffer's files cannot be used. The message is one line: what, where, what to do."""


class Lock:
    """The right to use a database, held until `release` or the end of the process.

    The file outlives the process: a database that is gone or empty where there was one before is never taken
    for a fresh start, and one that was found damaged is not written again before somebody has looked.
    """

    def __init__(self, database: Path, *, synced: bool) -> None:
        """`synced`: every commit will be synced. Raises OpenRefused."""
        self._path = Path(f"{database}.lock")
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OpenRefused(cannot_write(database.parent, error)) from error
        try:
            _take(self._fd)
        except OSError as error:
            holder = _holder(_lines(self._fd))
            os.close(self._fd)
            raise OpenRefused(
                f"buffer: {database} is in use by {holder}; stop it, or set another buffer.url"
            ) from error
        lines = _lines(self._fd)[1:]
        self._life = f"boot {_boot_id()} {'synced' if synced else 'unsynced'}"
        self.trusts_index = synced and self._life in lines
        """Whether the log's index is of this boot of the machine, and of synced commits alone.

        It is mapped memory: a killed process leaves it true, a machine that crashes in any earlier state.
        """
        self._remembered = [line for line in lines if not line.startswith("boot ")]
        self._write()

    @property
    def was_used(self) -> bool:
        """Whether there was a database before."""
        return _was_used(self._remembered)

    @property
    def damage(self) -> str | None:
        """What was found damaged in it."""
        return _damage(self._remembered)

    def remember_layout(self, layout: int) -> None:
        """Note that the database now holds something."""
        if not self.was_used:
            self._remembered.append(f"layout {layout}")
            self._write()

    def remember_damage(self, what: str) -> None:
        """Note that the database is damaged."""
        if self.damage is None:
            self._remembered.append("damaged: " + " ".join(what.split()))
            self._write()

    def release(self) -> None:
        """Let another process have the database. Does nothing the second time."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def _write(self) -> None:
        text = "".join(
            f"{line}\n" for line in (f"process {os.getpid()}", self._life, *self._remembered)
        ).encode()
        # In this order, so that a crash in between does not forget that there was a database.
        os.pwrite(self._fd, text, 0)
        os.ftruncate(self._fd, len(text))
        os.fsync(self._fd)


@dataclass(frozen=True, slots=True)
class Glance:
    """What a lock file says to who does not want the database: `holder` None where nobody has it."""

    holder: str | None = None
    was_used: bool = False
    damage: str | None = None


def glance(database: Path) -> Glance:
    """Read a database's lock file, and leave it as it is. Raises OSError where it cannot be read.

    It is locked, shared, for the microseconds that it takes to find out whether somebody has it.
    """
    try:
        fd = os.open(f"{database}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return Glance()
    try:
        lines = _lines(fd)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return Glance(_holder(lines), _was_used(lines), _damage(lines))
        return Glance(None, _was_used(lines), _damage(lines))
    finally:
        os.close(fd)


def cannot_write(folder: Path, error: OSError) -> str:
    """What to say where the database's folder is not to be written in."""
    return (
        f"buffer: cannot write in {folder}: {error.strerror}; create it, give the user of"
        " this process the right to write there, or set buffer.url"
    )


def _take(fd: int) -> None:
    """Lock the file for this process alone. Raises OSError."""
    for _ in range(_TRIES - 1):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_TRY_AGAIN_S)
        else:
            return
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _lines(fd: int) -> list[str]:
    return os.pread(fd, 4096, 0).decode("utf-8", "replace").splitlines()


def _holder(lines: list[str]) -> str:
    return lines[0] if lines else "another process"


def _was_used(lines: list[str]) -> bool:
    return any(line.startswith("layout ") for line in lines)


def _damage(lines: list[str]) -> str | None:
    found = [line for line in lines if line.startswith("damaged: ")]
    return found[0].removeprefix("damaged: ") if found else None


def _boot_id() -> str:
    """What tells this boot of the machine from others; where nothing does, no boot is like another."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return f"unknown {uuid4()}"
