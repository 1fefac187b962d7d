"""How much of a Redis append-only file had reached the disk when its process died: by strace."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.programs import wait_for

_CALL = re.compile(
    r"^(?P<thread>\d+) +(?:"
    r"(?P<call>write|fdatasync)\(\d+<(?P<file>[^>]*)>.*?(?:\) += (?P<done>-?\d+)|(?P<begins><unfinished))"
    r"|<\.\.\. (?P<ends>write|fdatasync) resumed>.*\) += (?P<result>-?\d+))"
)


@dataclass(frozen=True, slots=True)
class SyncedFile:
    """An append-only file whose writes and syncs were seen from its `start_bytes` on, until all had ended."""

    file: Path
    start_bytes: int
    log: Path

    def synced_bytes(self) -> int:
        """How much of it was on the disk: what was written before the last whole sync began."""
        written = synced = self.start_bytes
        under_way: dict[str, int] = {}  # by thread: what a sync that has begun will have synced
        ours: set[str] = set()  # threads whose unfinished call is about this file
        for line in self.log.read_text(errors="replace").splitlines():
            found = _CALL.match(line)
            if found is None:
                continue
            thread = found["thread"]
            if found["ends"] is not None:
                if thread not in ours:
                    continue
                ours.remove(thread)
                call, result = found["ends"], int(found["result"])
            elif found["file"] != str(self.file):
                continue
            else:
                call = found["call"]
                if call == "fdatasync":
                    under_way[thread] = written
                if found["begins"]:
                    ours.add(thread)
                    continue
                result = int(found["done"])
            if call == "write":
                written += max(0, result)
            elif result == 0:
                synced = max(synced, under_way[thread])
        return synced

    def lose_what_was_not_synced(self) -> int:
        """What a machine whose power fails forgets at worst. Returns how many bytes that were."""
        size, synced = self.file.stat().st_size, self.synced_bytes()
        os.truncate(self.file, synced)
        return size - synced


@contextmanager
def syncs_watched(pid: int, folder: Path, log: Path, *, sync_s: float = 0.0) -> Iterator[SyncedFile]:
    """While the `with` lasts, and until it is dead, watch a Redis whose append-only file lies in `folder`.

    It must be idle at first, and must not rewrite the file meanwhile. `sync_s`: how much longer each sync
    lasts than it would, as on a slow disk.
    """
    (file,) = folder.glob("appendonlydir/*.incr.aof")
    command = ["strace", "-f", "-y", "-s", "0", "-e", "trace=write,fdatasync", "-o", str(log), "-p", str(pid)]
    if sync_s:
        command += ["-e", f"inject=fdatasync:delay_enter={round(sync_s * 1_000_000)}"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as strace:

        def is_attached() -> bool:
            assert strace.poll() is None, strace.communicate()[1]
            tasks = Path(f"/proc/{pid}/task").iterdir()
            return all(f"TracerPid:\t{strace.pid}\n" in (task / "status").read_text() for task in tasks)

        try:
            wait_for("strace to attach", is_attached, 10)
            yield SyncedFile(file, file.stat().st_size, log)
            strace.wait(10)  # it ends with what it traces
        finally:
            if strace.poll() is None:
                strace.send_signal(signal.SIGTERM)
                strace.wait()
