"""Somebody who does what a document says: types its commands in its order, on a machine of their own.

Theirs is a folder with the project's files in it, ports that are free, and a stand-in for Outlit: nothing
leaves this machine. All that they change of a document is in `typed`.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.documents import ROOT, Command
from tests.programs import STOP_S, free_port, http, wait_for

BIN = Path(sys.executable).parent
COPIED = ("CHANGELOG.md", "README.md", "config", "deploy")
"""Commands may write into these."""
LINKED = (".ci", "Dockerfile", "LICENSE", "Makefile", "proxy", "pyproject.toml", "requirements", "tests")

TOKEN = "a-secret-of-yours"

STAYS = {
    "sandbox": (r"\boutlit-proxy sandbox\b", "http://127.0.0.1:9300/_sandbox/stats"),
    "proxy": (r"\b(?:outlit-proxy|make) run\b", "http://127.0.0.1:9090/readyz"),
    "prometheus": (r"^prometheus ", "http://127.0.0.1:9099/-/ready"),
}
"""What goes on until it is stopped, and where it then answers."""

HARMLESS = re.compile(
    r"(?:[A-Z_]+=\S+ )*"
    r"(?:outlit-proxy|curl|promtool|prometheus|export|sed|mkdir|chmod|cp|openssl|caddy validate"
    r"|kubectl kustomize|make (?:demo|help)$|\.venv/bin/pip wheel|eval \"\$\(outlit-proxy completion"
    r"|\(umask 077$|cat > |grep -q|echo) ?"
    r"(?!.*(?<![\w.:-])/(?:bin|boot|etc|home|lib|opt|root|run|srv|usr|var)/)",
    re.DOTALL,
)
"""What changes nothing outside the reader's folder. Nothing else is typed: the tests may run as root."""

WATCHED = re.compile(r"outlit-proxy (?:top|tap)\b")
"""What is looked at until Ctrl-C."""

PASTED = re.compile(r"\bcat > ")
"""What asks for a key of Outlit's."""

API_KEY = "ok_of-a-reader-who-has-an-account-at-Outlit\n"

WATCH_S = 1.5
COMMAND_S = 60.0


def _ports() -> Mapping[str, int]:
    """Those that the documents name, and the ones that are used for them."""
    return {port: free_port() for port in ("8080", "9090", "9099", "9300")}


@dataclass(slots=True)
class Reader:
    """One reader. `folder`: theirs."""

    folder: Path
    ports: Mapping[str, int] = field(default_factory=_ports)
    environment: dict[str, str] = field(default_factory=dict)
    programs: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def settle_in(self) -> None:
        """Lay out the folder."""
        for name in LINKED:
            (self.folder / name).symlink_to(ROOT / name)
        (self.folder / ".venv").symlink_to(BIN.parent)
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.folder / name)
            else:
                shutil.copy(ROOT / name, self.folder / name)
        # An answer of 4xx or 5xx is a failure here.
        (self.folder / ".curlrc").write_text("fail-with-body\nsilent\nshow-error\n")
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OUTLIT_PROXY_") and not name.lower().endswith("_proxy")
        }
        # Whatever a document's proxy is told, it finds no other Outlit than the sandbox.
        self.environment = {
            **inherited,
            "CURL_HOME": str(self.folder),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "OUTLIT_PROXY_FRONT_LISTEN": self._here("127.0.0.1:8080"),
            "OUTLIT_PROXY_OPS_LISTEN": self._here("127.0.0.1:9090"),
            "OUTLIT_PROXY_UPSTREAM_URL": self._here("http://127.0.0.1:9300"),
        }

    def made(self) -> set[str]:
        """What lies in the folder now that was not there, nor is of ours."""
        ours = {*LINKED, *COPIED, ".venv", ".curlrc", "environment", *(f"{name}.log" for name in STAYS)}
        return {path.name for path in self.folder.iterdir()} - ours

    def run_a_proxy(self) -> None:
        """What a how-to takes for granted."""
        self.type(Command("outlit-proxy sandbox", 0), self.folder)
        self.environment["OUTLIT_PROXY_OPS_TOKEN"] = TOKEN
        self.type(Command("outlit-proxy run", 0), self.folder)

    def typed(self, command: str) -> str:
        """What the reader types where the document says `command`."""
        command = self._here(command.replace("https://t.example.com", "http://127.0.0.1:8080"))
        command = command.replace("pk_…", "pk_docs")
        listen = self._here("--listen 127.0.0.1:9300")
        command = re.sub(r"\boutlit-proxy sandbox\b", f"outlit-proxy sandbox {listen}", command)
        # The environment is there, and 2 seconds prove as much as 20.
        return re.sub(r"^make demo$", 'make -o .venv/run.stamp demo ARGS="--seconds 2"', command)

    def type(self, command: Command, folder: Path) -> str:
        """Type a command, and wait until it is done, or, where it goes on, until it answers. What it says."""
        for part in re.split(r"\|\||&&|[|;]", command.text):
            assert HARMLESS.match(part.strip()), f"line {command.line} may change this machine: {part}"
        text = self.typed(command.text)
        for name, (pattern, url) in STAYS.items():
            if re.search(pattern, text):
                self._start(name, text, folder, self._here(url))
                return ""
        if WATCHED.search(text):
            # Ctrl-C is how they end; what they had to say until then they have said.
            text = f"timeout --signal INT {WATCH_S:g} {text} || test $? = 124"
        kept = self.folder / "environment"
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{text}\nenv -0 > {kept}"],
            cwd=folder,
            env=self.environment,
            check=False,
            input=API_KEY.encode() if PASTED.search(text) else b"",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=COMMAND_S,
        )
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0, f"line {command.line}: {text}\n{said}"
        assert not WATCHED.search(text) or "Traceback" not in said, said
        lines = kept.read_bytes().decode().split("\0")
        self.environment = dict(line.split("=", 1) for line in lines if "=" in line)
        return said

    def leave(self) -> None:
        """Stop what still runs; the proxy before the sandbox, so that it need not wait for it."""
        for name in ("prometheus", "proxy", "sandbox"):
            self._stop(name)

    def _here(self, text: str) -> str:
        """The same with the ports that are used here."""
        return re.sub(
            r"\b(127\.0\.0\.1|0\.0\.0\.0):(\d{4})\b",
            lambda found: f"{found[1]}:{self.ports.get(found[2], found[2])}",
            text,
        )

    def _start(self, name: str, text: str, folder: Path, url: str) -> None:
        """Start a program that goes on, in place of the one that did the same."""
        self._stop(name)
        log = self.folder / f"{name}.log"
        with log.open("wb") as written:
            process = subprocess.Popen(
                ["bash", "-c", f"exec env {text}"],
                cwd=folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
            )
        self.programs[name] = process
        wait_for(f"an answer to {text}", lambda: process.poll() is not None or _answers(url))
        assert process.poll() is None, log.read_text()

    def _stop(self, name: str) -> None:
        process = self.programs.pop(name, None)
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(STOP_S) == 0, (self.folder / f"{name}.log").read_text()
        finally:
            process.kill()


def _answers(url: str) -> bool:
    try:
        return http(url)[0] == 200
    except OSError:
        return False


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    """Somebody who begins to read."""
    person = Reader(folder)
    try:
        person.settle_in()
        yield person
    finally:
        person.leave()
