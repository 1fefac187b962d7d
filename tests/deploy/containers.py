"""Images built from a Dockerfile and run without a container engine: by buildah, chroot and the kernel.

For root on Debian. The base image comes from no registry: it is a fresh Debian with its Python, under the
name that the Dockerfile asks for, and made to resemble that image where it matters (`_resemble_official`).
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.programs import STOP_S

NEED = Path(__file__).parents[2] / ".ci" / "need"
USER = 65532
NAME = "outlit-proxy:tested"
VERSION, REVISION, CREATED = "9.8.7", "4d1f16be95333c88", "2026-11-28T21:00:00Z"

_ENTER = """
set -e
root=$1 data=$2
shift 2
mount --bind "$root" "$root"
test -z "$READ_ONLY" || mount -o remount,bind,ro "$root"
mount --bind "$data" "$root/data"
mount --bind /dev "$root/dev"
mount -t proc proc "$root/proc"
exec chroot "$root" "$@"
"""


class Store:
    """Where images are built and kept; gone with its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # vfs: the only driver that asks nothing of the file system below.
        places = ("--root", str(folder / "images"), "--runroot", str(folder / "run"))
        self._options = (*places, "--storage-driver", "vfs")

    def make_base(self, name: str) -> None:
        """A Debian with its Python under `name`."""
        root = self._folder / "base"
        packages = "--include=python3,python3-venv,ca-certificates"
        subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", root], check=True)
        _resemble_official(root)
        container = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", container, str(root), "/")
        self._buildah("commit", "--quiet", container, name)

    def build(self, name: str, context: Path, **arguments: str) -> None:
        """Build the Dockerfile of a folder. pip in it finds its packages where pip of this machine does."""
        given = [word for key, value in arguments.items() for word in ("--build-arg", f"{key}={value}")]
        mounts = [word for path in what_pip_reads() for word in ("-v", f"{path}:{path}:ro")]
        isolated = ("--isolation", "chroot", "--network", "host", "--pull-never", "--format", "docker")
        self._buildah("bud", *isolated, *mounts, *given, "--tag", name, str(context))

    @contextmanager
    def unpacked(self, name: str) -> Iterator["Image"]:
        """The image's files, to be looked at and run, while the `with` lasts."""
        described = json.loads(self._buildah("inspect", "--type", "image", name))
        container = self._buildah("from", "--pull-never", name)
        try:
            yield Image(Path(self._buildah("mount", container)), described["Docker"]["config"])
        finally:
            self._buildah("rm", container)

    def _buildah(self, command: str, *arguments: str) -> str:
        done = subprocess.run(
            ["buildah", *self._options, command, *arguments], check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, f"buildah {command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()


@dataclass(frozen=True, slots=True)
class Image:
    """An image's files, and what its Dockerfile says of how it is run."""

    root: Path
    config: dict[str, Any]

    def command(
        self, data: Path, *arguments: str, settings: Mapping[str, str], read_only: bool = True
    ) -> list[str | Path]:
        """What runs `arguments` in it as an engine told `--read-only --cap-drop ALL -v data:/data` would."""
        environment = {**dict(entry.split("=", 1) for entry in self.config["Env"]), **settings}
        user, _, group = self.config["User"].partition(":")
        privileges = ("--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
        return [
            "env", f"READ_ONLY={'yes' if read_only else ''}",
            "unshare", "--mount", "--propagation", "private",
            "sh", "-c", _ENTER, "enter", self.root, data,
            "setpriv", f"--reuid={user}", f"--regid={group}", *privileges,
            "env", "-i", "-C", self.config["WorkingDir"], *(f"{k}={v}" for k, v in environment.items()),
            *arguments,
        ]  # fmt: skip

    def run(self, data: Path, *arguments: str, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end. `how`: see `command`."""
        command = self.command(data, *arguments, **{"settings": {}, **how})
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    @contextmanager
    def running(
        self, data: Path, log_file: Path, settings: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Its entry point while the `with` lasts; the process is the program itself."""
        command = self.command(data, *self.config["Entrypoint"], *self.config["Cmd"], settings=settings)
        with log_file.open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait(STOP_S)


def _resemble_official(root: Path) -> None:
    """What the official images of Python have, and Debian's Python has not: no compiled files, and pip."""
    for compiled in (root / "usr" / "lib").rglob("*.pyc"):
        compiled.unlink()
    pip = root / "usr" / "local" / "bin" / "pip"
    pip.write_text("#!/bin/sh\necho pip of the base\n")
    pip.chmod(0o755)
    packages = root / "usr" / "local" / "lib" / "python3.11" / "site-packages" / "pip"
    packages.mkdir(parents=True)
    (packages / "__main__.py").write_text("print('pip of the base')\n")


def what_pip_reads() -> set[Path]:
    """pip's configuration, and every file and folder that it or its variables name."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], check=True, capture_output=True, text=True
    ).stdout
    text = "\n".join([told, *(value for name, value in os.environ.items() if name.startswith("PIP_"))])
    # An index, and the files beside it that it links to.
    folders = {Path(path).parent for path in re.findall(r"file://(/[^\s,'\"]+)", text)}
    named = {Path(path) for path in re.findall(r"(?<![/\w])(/[^\s:,'\"]+)", text)}
    # Of certificates the folder: files in it are often links to each other.
    certificates = {path.parent for path in named if path.suffix in {".crt", ".pem"}}
    files = {path for path in named if path.suffix not in {".crt", ".pem"}}
    return {path for path in folders | certificates | files if path.exists()}
