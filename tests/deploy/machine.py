"""A machine whose first process is systemd, made of namespaces: for a unit file that is to be run for real.

For root. It shares the kernel and the network, and thus the loopback, with this machine; files, devices,
processes and control groups are its own, and it cannot change the kernel's settings. Whatever happens in it
ends with `running`.
"""

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.programs import wait_for

_FRESH = """
set -e
root=$1 groups=$2 name=$3
shift 3
mount -t tmpfs tmpfs "$root/tmp"  # first: what is seen of this machine may lie below it
for seen; do
    if [ -d "$seen" ]; then mkdir -p "$root$seen"; else mkdir -p "$root${seen%/*}"; touch "$root$seen"; fi
    mount --bind "$seen" "$root$seen"
    mount -o remount,bind,ro "$root$seen"
done
mount -t cgroup2 cgroup2 "$groups"
mkdir "$groups/$name"
echo $$ > "$groups/$name/cgroup.procs"
exec unshare --cgroup --pid --fork --kill-child --mount --propagation private --uts --ipc sh -ec '
    cd "$1"
    mount --rbind . .
    cd "$1"
    mount -t proc proc proc
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount -o ro -t sysfs sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
    mount -t tmpfs tmpfs run
    mount -o mode=755 -t tmpfs tmpfs dev
    for device in null zero full random urandom tty; do cp --archive "/dev/$device" dev; done
    mkdir dev/pts dev/shm
    mount -o newinstance,ptmxmode=0666 -t devpts devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    ln -s /proc/self/fd dev/fd
    mount -t tmpfs tmpfs dev/shm
    mkdir -p old
    pivot_root . old
    umount --lazy /old
    mount --make-rshared /  # which systemd does itself, but not in what it takes for a container
    exec env -i container=tests PATH=/usr/sbin:/usr/bin:/sbin:/bin \\
        /lib/systemd/systemd --system --unit=basic.target
' first "$root"
"""
_GONE = """
mount -t cgroup2 cgroup2 "$1"
find "$1/$2" -depth -type d -exec rmdir {} + 2> /dev/null
"""


class Machine:
    """`root`: a Debian's files, with systemd, which are written to. `seen`: of this machine, at its place."""

    def __init__(self, root: Path, folder: Path, seen: Iterable[Path]) -> None:
        self._root = root
        self._seen = sorted(seen)
        self._groups = folder / "control-groups"
        self._groups.mkdir()
        self._name = f"tests-of-outlit-proxy-{os.getpid()}"
        self._first = 0

    @contextmanager
    def running(self) -> Iterator["Machine"]:
        """While the `with` lasts."""
        own = ["unshare", "--mount", "--propagation", "private", "sh", "-c"]
        fresh = subprocess.Popen([*own, _FRESH, "fresh", self._root, self._groups, self._name, *self._seen])
        try:
            self._first = wait_for("the first process", lambda: fresh.poll() is None and _child(fresh.pid))
            wait_for("systemd", lambda: self.run("systemctl", "is-active", "--quiet", "basic.target")[0] == 0)
            yield self
        finally:
            fresh.kill()
            fresh.wait()
            gone = [*own, _GONE, "gone", str(self._groups), self._name]
            wait_for("its last process to end", lambda: subprocess.run(gone, check=False).returncode == 0)

    def run(self, *command: str) -> tuple[int, str]:
        """Run a command in it: its exit code, and what it said."""
        entered = ["nsenter", f"--target={self._first}", "--all", "--root", "--wd"]
        done = subprocess.run(
            [*entered, *command],
            check=False,
            timeout=300,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return done.returncode, done.stdout.strip()

    def shown(self, unit: str, *properties: str) -> dict[str, str]:
        """What systemd knows of a unit."""
        code, said = self.run("systemctl", "show", unit, *(f"--property={name}" for name in properties))
        assert code == 0, said
        return dict(line.split("=", 1) for line in said.splitlines())

    def file(self, path: str, text: str, mode: int = 0o644) -> None:
        """Write a file of its, by its absolute path."""
        place = self._root / path.removeprefix("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)


def made_of(image: Path, root: Path) -> None:
    """Make an image's files into a machine's."""
    subprocess.run(["cp", "--archive", image, root], check=True)  # device files as what they are
    shutil.copy("/etc/resolv.conf", root / "etc" / "resolv.conf")
    for command in (
        ["apt-get", "update", "-q"],
        ["apt-get", "install", "-y", "-q", "--no-install-recommends", "systemd", "dbus", "procps"],
    ):
        subprocess.run(
            ["chroot", root, "env", "DEBIAN_FRONTEND=noninteractive", *command],
            check=True,
            capture_output=True,
        )


def _child(pid: int) -> int:
    """The one process that a process has started; 0 while there is none, or it is none of its own yet."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    if not children:
        return 0
    started = Path(f"/proc/{children[0]}/cmdline").read_bytes()
    return int(children[0]) if started.startswith(b"/lib/systemd/systemd") else 0
