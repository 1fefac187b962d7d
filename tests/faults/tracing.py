"""Faults at the n-th system call of a program, by strace, which needs the right to trace."""

import re
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.programs import Program, wait_for

ATTACH_S = 10.0


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at a system call, or at one of several with commas between: `what` as strace injects it.

    As in "signal=SIGKILL" or "error=EIO"; "" for nothing, so that calls are only seen. `when`: at which call,
    counted in each thread from when the tracing begins, 1 the first; "3+": at that one and all that follow.
    `main_only`: the calls of other threads count for nothing.
    """

    calls: str
    what: str = ""
    when: int | str = 1
    main_only: bool = False

    @property
    def options(self) -> list[str]:
        options = ["-e", f"trace={self.calls}"]
        if self.what:
            options += ["-e", f"inject={self.calls}:{self.what}:when={self.when}"]
        return options if self.main_only else ["-f", *options]


def started_with(fault: Fault, folder: Path) -> Sequence[str]:
    """A command to start a program under: the fault strikes it from its first system call on."""
    # As a grandchild, strace leaves the program to be our own child, with its own exit code.
    return ["strace", "-D", "-o", str(folder / "strace.log"), *fault.options]


@contextmanager
def struck(program: Program, fault: Fault) -> Iterator["Calls"]:
    """While the `with` lasts, `fault` strikes the running program."""
    pid = program.process.pid
    log = program.log_file.with_name("strace.log")
    command = ["strace", "-o", str(log), *fault.options, "-p", str(pid)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as strace:

        def is_attached() -> bool:
            if program.process.poll() is not None:
                return True  # struck already
            # Where it cannot attach it says why: no right to trace, most likely.
            assert strace.poll() is None, strace.communicate()[1]
            tasks = Path(f"/proc/{pid}/task").iterdir()
            traced = [f"TracerPid:\t{strace.pid}\n" in (task / "status").read_text() for task in tasks]
            return any(traced) if fault.main_only else all(traced)

        try:
            wait_for("strace to attach", is_attached, ATTACH_S)
            yield Calls(log)
        finally:
            strace.terminate()  # it lets go of what lives yet
            strace.wait()


@dataclass(frozen=True, slots=True)
class Calls:
    """The system calls that were seen; complete after the `with`."""

    log: Path

    def names(self) -> list[str]:
        """In the order in which they began."""
        return re.findall(r"^(?:\d+ +)?(\w+)\(", self.log.read_text(), re.MULTILINE)
