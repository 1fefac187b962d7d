"""Small disks, in memory. Mounting one needs root, as `make test` has it."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Disk:
    """One that is mounted at `path`."""

    path: Path

    def free_bytes(self) -> int:
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """As another program would: to the last page."""
        with self._filler.open("ab", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                assert self.free_bytes() == 0

    def unfill(self) -> None:
        """The other program has cleared up."""
        self._filler.unlink()

    def make_read_only(self) -> None:
        """As a system does with a disk on which it found errors."""
        _run("mount", "-o", "remount,ro", str(self.path))

    @property
    def _filler(self) -> Path:
        return self.path / "of-another-program"


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Disk]:
    """Mount one at `path`; whatever uses it must have ended when the `with` does."""
    path.mkdir()
    _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path))
    try:
        yield Disk(path)
    finally:
        _run("umount", str(path))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}"
