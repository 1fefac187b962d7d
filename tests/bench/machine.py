"""The machine as the benchmarks see it: two cores that they keep apart, and what a process takes of them."""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

_CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = _CORES[0]
LOAD_CORE = _CORES[-1]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_DISTURBED = 0.05
"""The share of a core from which on others' use of it is worth a line."""


def say_where(folder: Path) -> None:
    """Print what the figures below it depend on."""
    processor = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(": ")[2]
            break
    print(
        f"Python {platform.python_version()}, aiohttp {version('aiohttp')}, SQLite by apsw {version('apsw')};"
        f" {len(_CORES)} cores, {processor}; files on {_file_system(folder)}"
    )
    if SERVER_CORE == LOAD_CORE:
        print("There is one core only: server and load share it, and the figures say little.")


@contextmanager
def on_core(core: int) -> Iterator[None]:
    """This process, and what it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def memory_bytes(pid: int, what: str) -> int:
    """`VmRSS`, `VmHWM` (its peak) or another size of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == what:
            return int(value.split()[0]) * 1024
    raise LookupError(what)


class Shares:
    """What the server, this process and the store took of their cores from one moment to another, 0 to 1.

    `store_pid`: of the store that is a process of its own, on the load's core. `disturbed`: what others took
    of the server's core meanwhile. It makes the server slower than it is.
    """

    def __init__(self, server_pid: int, store_pid: int | None = None) -> None:
        self._pids = (server_pid, os.getpid())
        self._store_pid = store_pid
        self.server = self.load = self.store = self.disturbed = 0.0
        self.begin()

    def begin(self) -> None:
        self._before = self._now()

    def end(self) -> None:
        at_s, server_s, load_s, store_s, core_s = (
            after - before for after, before in zip(self._now(), self._before, strict=True)
        )
        self.server, self.load, self.store = server_s / at_s, load_s / at_s, store_s / at_s
        on_the_core_s = server_s + (load_s + store_s) * (SERVER_CORE == LOAD_CORE)
        self.disturbed = max(0.0, (core_s - on_the_core_s) / at_s)

    def _now(self) -> tuple[float, ...]:
        store_s = 0.0 if self._store_pid is None else process_s(self._store_pid)
        return (time.perf_counter(), *map(process_s, self._pids), store_s, _core_s(SERVER_CORE))


def process_s(pid: int) -> float:
    """Processor time of all threads of a process, in seconds."""
    # The second field is the program's name in brackets, which may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _core_s(core: int) -> float:
    """The time in which a core was not idle, in seconds; what the hypervisor took of it included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S
    raise LookupError(f"cpu{core}")


def say_if_disturbed(shares: list[Shares]) -> None:
    """Print a line where others were at work on the server's core."""
    if (most := max(share.disturbed for share in shares)) > _DISTURBED:
        print(
            f"Others took up to {most:.0%} of the server's core meanwhile: rates too low, ratios too good,"
            " the cpu ratio least so."
        )


def _file_system(folder: Path) -> str:
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    where = str(folder.resolve())
    inside = [
        (len(mount), kind)
        for _, mount, kind, *_ in mounts
        if where == mount or where.startswith(mount.rstrip("/") + "/")
    ]
    return max(inside)[1]
