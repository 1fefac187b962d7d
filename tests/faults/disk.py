"""A disk that remembers all it is told, and can be what is left of it when the power failed at any moment.

Until its file is synced a write may be on the disk, or not, or in part: drives and kernels write what they
hold in any order, sector by sector, and a sector that is being written when the power fails can hold anything
afterwards. The same goes for a change of a file's length. A file that was made or deleted may have been, or
not, until its directory is synced. Sound is only what was synced; SQLite asks no more of a disk than this
(https://sqlite.org/psow.html: no byte beside those that are being written is ever harmed).

The database, its log and its journal are watched through a VFS around SQLite's own, and what the engine does
beside SQLite through the `os` module that it sees. SQLite syncs the directory of a log or journal within the
first sync of that file after it was opened (`strace -e trace=fdatasync,openat` shows it). The log's index
(`-shm`) is mapped memory, which the kernel writes when it likes and nobody syncs: what is found of it is how
it looked at any moment before, or nothing.
"""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import count
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any, TypeAlias

import apsw
import pytest

SECTOR_BYTES = 512
_MAPPED = "-shm"


class Loss(Enum):
    """What becomes of that which was not synced."""

    NONE = auto()
    """All of it is there: only the process died."""
    INDEX = auto()
    """All of it is there but the log's index, which is an earlier one."""
    ALL = auto()
    """None of it is there."""
    SOME = auto()
    """Each part is there, or is not, or is there in part, or is rubbish."""


_KEEPING_ALL = (Loss.NONE, Loss.INDEX)


@dataclass(frozen=True, slots=True)
class Write:
    file: int
    offset: int
    data: bytes

    def on(self, content: bytearray) -> None:
        end = self.offset + len(self.data)
        content.extend(bytes(max(0, end - len(content))))
        content[self.offset : end] = self.data

    def sectors(self) -> Iterator["Write"]:
        """Its parts, as a disk takes them."""
        start = self.offset
        end = start + len(self.data)
        while start < end:
            stop = min(end, start - start % SECTOR_BYTES + SECTOR_BYTES)
            yield Write(self.file, start, self.data[start - self.offset : stop - self.offset])
            start = stop


@dataclass(frozen=True, slots=True)
class Truncate:
    file: int
    size: int

    def on(self, content: bytearray) -> None:
        content.extend(bytes(max(0, self.size - len(content))))
        del content[self.size :]


@dataclass(frozen=True, slots=True)
class Sync:
    file: int


@dataclass(frozen=True, slots=True)
class Name:
    """The directory's entry `name` stands for `file` from now on, or is gone (None)."""

    name: str
    file: int | None


@dataclass(frozen=True, slots=True)
class SyncDirectory:
    pass


Change: TypeAlias = Write | Truncate
Told: TypeAlias = Change | Sync | Name | SyncDirectory


@dataclass(slots=True)
class _Platter:
    """What is sound, and what was told since. Files by number, for a name may come to stand for another."""

    contents: defaultdict[int, bytearray]
    names: dict[str, int]
    changes: defaultdict[int, list[Change]] = field(default_factory=lambda: defaultdict(list))
    renamed: defaultdict[str, list[Name]] = field(default_factory=lambda: defaultdict(list))

    def take(self, told: Told) -> None:
        match told:
            case Write() | Truncate():
                self.changes[told.file].append(told)
            case Sync():
                for change in self.changes.pop(told.file, ()):
                    change.on(self.contents[told.file])
            case Name():
                self.renamed[told.name].append(told)
            case SyncDirectory():
                for entries in self.renamed.values():
                    self._enter(entries)
                self.renamed.clear()

    def lose(self, loss: Loss, random: Random) -> dict[str, bytes]:
        """The files as they are found when the power is back."""
        for entries in self.renamed.values():
            self._enter(entries[: _kept(len(entries), loss, random)])
        for file, changes in self.changes.items():
            for change in changes:
                for part in _left_of(change, loss, random):
                    part.on(self.contents[file])
        return {name: bytes(self.contents[file]) for name, file in self.names.items()}

    def _enter(self, entries: list[Name]) -> None:
        for entry in entries:
            if entry.file is None:
                self.names.pop(entry.name, None)
            else:
                self.names[entry.name] = entry.file


def _kept(changes: int, loss: Loss, random: Random) -> int:
    if loss is Loss.SOME:
        return random.randint(0, changes)
    return changes if loss in _KEEPING_ALL else 0


def _left_of(change: Change, loss: Loss, random: Random) -> Iterator[Change]:
    if loss is Loss.ALL:
        return
    whole = loss in _KEEPING_ALL or random.random() < 0.4
    if whole:
        yield change
    elif isinstance(change, Write) and random.random() < 0.5:
        sectors = list(change.sectors())
        torn_at = random.randint(0, len(sectors))
        scattered = random.random() < 0.5
        for at, sector in enumerate(sectors):
            if (random.random() < 0.5) if scattered else (at < torn_at):
                yield sector
            elif random.random() < 0.2:
                yield Write(sector.file, sector.offset, random.randbytes(len(sector.data)))


class Disk:
    """The files of one folder, from now on. `told`: all that is done to them while it records."""

    def __init__(self, folder: Path) -> None:
        self.told: list[Told] = []
        self._folder = folder
        self._numbers = count()
        self._before = {path.name: path.read_bytes() for path in _watched(folder)}
        self._files = {name: next(self._numbers) for name in self._before}
        self._files_before = dict(self._files)
        self._indexes: list[dict[str, bytes]] = [_indexes(folder)]
        """The mapped files, after each thing that was told."""

    def left_at(self, moment: int, loss: Loss, random: Random) -> Mapping[str, bytes]:
        """The files' contents by name, where the power failed when it had been told so many things."""
        contents = {self._files_before[name]: bytearray(content) for name, content in self._before.items()}
        platter = _Platter(defaultdict(bytearray, contents), dict(self._files_before))
        for told in self.told[:moment]:
            platter.take(told)
        # The newest: how they look when the next thing is about to be told.
        newest = min(moment + 1, len(self.told))
        seen = newest if loss is Loss.NONE else random.randint(0, newest)
        is_seen = loss in _KEEPING_ALL or random.random() < 0.8
        return platter.lose(loss, random) | (self._indexes[seen] if is_seen else {})

    @contextmanager
    def recording(self, *rooms: ModuleType) -> Iterator[None]:
        """Record what SQLite does, and what these modules of the engine do by their `os`."""
        vfs = _Vfs(self)
        with pytest.MonkeyPatch.context() as patch:
            for room in rooms:
                patch.setattr(room, "os", _Os(self))
            yield
        vfs.unregister()

    # -- what it is told -------------------------------------------------------------------------------

    def tell(self, what: Told) -> None:
        self.told.append(what)
        self._indexes.append(_indexes(self._folder))

    def opened(self, path: Path, *, is_new: bool) -> int:
        """The number of the file that was opened, and perhaps made, by its path."""
        if is_new:
            self._files[path.name] = next(self._numbers)
            self.tell(Name(path.name, self._files[path.name]))
        return self._files[path.name]

    def deleted(self, path: Path) -> None:
        del self._files[path.name]
        self.tell(Name(path.name, None))


def _watched(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if not path.name.endswith(_MAPPED)]


def _indexes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob(f"*{_MAPPED}")}


class _Vfs(apsw.VFS):
    """SQLite's own way to the disk, overheard. The default one from here on, until it is unregistered."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__("overheard", base="unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_File":  # noqa: N802
        return _File(self._disk, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, syncdir)
        self._disk.deleted(Path(filename))
        if syncdir:
            self._disk.tell(SyncDirectory())


class _File(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        assert name is not None, "temporary files are to be in memory"
        path = Path(name.filename() if isinstance(name, apsw.URIFilename) else name)
        is_new = not path.exists()
        super().__init__("unix", name, flags)
        self._disk = disk
        self._file = disk.opened(path, is_new=is_new)
        self._syncs_directory = bool(flags[0] & (apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        super().xWrite(data, offset)
        self._disk.tell(Write(self._file, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._disk.tell(Truncate(self._file, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self._disk.tell(Sync(self._file))
        if self._syncs_directory:
            self._syncs_directory = False
            self._disk.tell(SyncDirectory())


class _Os:
    """The `os` module, overheard."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._files: dict[int, int | None] = {}
        """By descriptor; None: the directory."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        is_new = not path.exists()
        fd = os.open(path, flags, mode)
        self._files[fd] = None if path.is_dir() else self._disk.opened(path, is_new=is_new)
        return fd

    def pwrite(self, fd: int, data: bytes, offset: int) -> int:
        written = os.pwrite(fd, data, offset)
        self._disk.tell(Write(self._file(fd), offset, data[:written]))
        return written

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)
        self._disk.tell(Truncate(self._file(fd), length))

    def fsync(self, fd: int) -> None:
        os.fsync(fd)
        file = self._files[fd]
        self._disk.tell(SyncDirectory() if file is None else Sync(file))

    def _file(self, fd: int) -> int:
        file = self._files[fd]
        assert file is not None, "a directory is not written"
        return file
