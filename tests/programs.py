"""The programs as an operator starts them: subprocesses, spoken to over HTTP.

Tests that use them import nothing of the proxy's: they see what an operator and a client can see.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

OUTLIT_PROXY = Path(sys.executable).with_name("outlit-proxy")
OPS_TOKEN = "token-of-the-end-to-end-tests"
START_S = 20.0
STOP_S = 40.0  # longer than delivery.grace
# Whatever HTTP proxy the environment names, these tests speak to this machine only.
HTTP = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def wait_for(what: str, fact: Callable[[], T | None], timeout_s: float = 30.0) -> T:
    """Ask `fact` until it says something true, and return that. At the deadline fail, saying `what`."""
    deadline = time.monotonic() + timeout_s
    while True:
        if found := fact():
            return found
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s in vain: {what}"
        time.sleep(0.05)


def free_port() -> int:
    """A port of the loopback that was free a moment ago: a program is told its neighbour's beforehand.

    Below those that the system gives away by itself, or a listener of another test could get it meanwhile;
    and below those of the Redis servers.
    """
    for _ in range(1_000):
        port = _chance.randrange(2_000, 9_900)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("there is no free port")


_chance = Random()


def http(
    url: str, body: Any = None, headers: Mapping[str, str] | None = None, method: str | None = None
) -> tuple[int, bytes]:
    """GET, or POST when there is a body; any status is an answer. Raises OSError where there was none."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/json", **(headers or {})}, method=method
    )
    try:
        with HTTP.open(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read()


def _answers(url: str) -> bool:
    try:
        return http(url)[0] == 200
    except OSError:
        return False


class Program:
    """One `outlit-proxy ...`, its output in a file. To be started; again, too, after it ended."""

    def __init__(self, name: str, arguments: list[str], folder: Path, settings: Mapping[str, str]) -> None:
        self._arguments = arguments
        self._folder = folder
        # A developer's own settings must not reach the program under test.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("OUTLIT_PROXY_")}
        self.environment = {**inherited, **settings}
        self.log_file = folder / f"{name}.log"
        self._log_of_before = 0
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, under: Sequence[str] = ()) -> None:
        """`under`: a command that runs the one behind it, in a process that becomes the program's."""
        with self.log_file.open("ab") as log:
            self._log_of_before = log.tell()
            self._process = subprocess.Popen(
                [*under, OUTLIT_PROXY, *self._arguments],
                cwd=self._folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "it was never started"
        return self._process

    @property
    def log(self) -> str:
        """What it wrote since it was started last."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_of_before)
            return log.read().decode(errors="replace")

    def wait_until_ended(self, timeout_s: float = 30.0) -> int:
        """Its exit code; a signal's number below zero."""
        return self.process.wait(timeout_s)

    def comes_up(self, url: str) -> bool:
        """Wait until it answers 200 at `url`, or ends; whether it answers."""
        wait_for(f"200 from {url}", lambda: self.process.poll() is not None or _answers(url), START_S)
        return self.process.poll() is None

    def wait_until_answers(self, url: str) -> None:
        assert self.comes_up(url), f"ended by itself ({self.process.returncode}):\n{self.log}"

    def stop(self) -> int:
        """SIGTERM, and the exit code; a program that is gone already keeps its own."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """SIGKILL; nothing happens where it has ended already, or never began."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Taken(NamedTuple):
    """One event that the sandbox took, with all that stood around it."""

    key: str
    envelope: dict[str, Any]  # the body without its events
    event: dict[str, Any]
    headers: list[tuple[str, str]]


@dataclass(slots=True)
class Sandbox:
    """The stand-in for Outlit, wherever it runs."""

    url: str

    def requests(self) -> list[dict[str, Any]]:
        """Every request so far, refused ones among them, in the order of arrival."""
        status, body = http(f"{self.url}/_sandbox/record?since=0")
        assert status == 200, body
        # Lines by \n alone: an event may hold other line separators.
        return [json.loads(line) for line in body.split(b"\n") if line]

    def taken(self) -> list[Taken]:
        """Every event taken so far, in the order of arrival."""
        return [
            Taken(
                request["public_key"],
                request["envelope"],
                request["events"][index],
                [(name, value) for name, value in request["headers"]],
            )
            for request in self.requests()
            for index in request["taken"]
        ]

    def stats(self) -> dict[str, Any]:
        """What it counted: requests beyond the limit (`limited`), the `busiest_second` of a key, and more."""
        status, body = http(f"{self.url}/_sandbox/stats")
        assert status == 200, body
        counts: dict[str, Any] = json.loads(body)
        return counts

    def fault(self, what: str, **details: Any) -> None:
        """Switch a fault on, besides those that are on."""
        status, body = http(f"{self.url}/_sandbox/faults", {"what": what, **details})
        assert status in {200, 201, 204}, body

    def clear_faults(self) -> None:
        status, body = http(f"{self.url}/_sandbox/faults", method="DELETE")
        assert status in {200, 204}, body

    def order_platform(self, what: str, **details: Any) -> None:
        """Have something happen to calls of the Platform API, besides what was ordered before."""
        status, body = http(f"{self.url}/_sandbox/platform", {"what": what, **details})
        assert status in {200, 201, 204}, body

    def clear_platform(self) -> None:
        """Nothing happens to calls of the Platform API any more."""
        status, body = http(f"{self.url}/_sandbox/platform", method="DELETE")
        assert status in {200, 204}, body


@dataclass(slots=True)
class SandboxProgram(Sandbox):
    """`outlit-proxy sandbox`."""

    program: Program
    record_file: Path


@dataclass(slots=True)
class Proxy:
    """`outlit-proxy run` on an embedded buffer of its own."""

    program: Program
    url: str
    ops_url: str
    database: Path

    def start(self) -> None:
        """Start it, for the first time or again, and return when an append would succeed."""
        self.program.start()
        self.wait_until_ready()

    def comes_up(self) -> bool:
        """Wait until an append would succeed, or it has ended; whether it is ready."""
        return self.program.comes_up(f"{self.ops_url}/readyz")

    def wait_until_ready(self) -> None:
        self.program.wait_until_answers(f"{self.ops_url}/readyz")

    def ledger(self) -> dict[str, int]:
        """The totals of the buffer: accepted, held, delivered, dead, dropped, difference."""
        status, body = http(f"{self.ops_url}/ledger", headers={"Authorization": f"Bearer {OPS_TOKEN}"})
        assert status == 200, body
        total: dict[str, int] = json.loads(body)["total"]
        return total

    def metrics(self) -> dict[str, float]:
        """What `/metrics` says, by name and labels as they stand there."""
        status, body = http(f"{self.ops_url}/metrics")
        assert status == 200, body
        lines = (line.rpartition(" ") for line in body.decode().splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def ambiguous(self) -> set[str]:
        """The uuids of the events in the newest 1,000 batches that upstream may have taken unseen."""
        status, body = http(
            f"{self.ops_url}/ambiguous?limit=1000", headers={"Authorization": f"Bearer {OPS_TOKEN}"}
        )
        assert status == 200, body
        return {uuid for batch in json.loads(body)["batches"] for uuid in batch["events"]}

    def wait_until_more_delivered(self, events: int = 100, timeout_s: float = 30.0) -> None:
        """Until so many more are delivered than now; while its buffer does not answer, it is asked again."""
        before: list[int] = []

        def delivered() -> bool:
            status, body = http(f"{self.ops_url}/ledger", headers={"Authorization": f"Bearer {OPS_TOKEN}"})
            if status == 200:
                before.append(json.loads(body)["total"]["delivered"])
            return bool(before) and before[-1] >= before[0] + events

        wait_for(f"{events} events more delivered", delivered, timeout_s)

    def wait_until_accepted(self, events: int, timeout_s: float = 30.0) -> None:
        wait_for(f"{events} events accepted", lambda: self.ledger()["accepted"] >= events, timeout_s)

    def wait_until_delivered(self, events: int, timeout_s: float = 30.0) -> None:
        wait_for(f"{events} events delivered", lambda: self.ledger()["delivered"] >= events, timeout_s)

    def wait_until_empty(self, timeout_s: float = 20.0) -> None:
        """Until all is delivered. By default sooner than a lease ends: nothing may have to wait for that."""
        wait_for("nothing held", lambda: self.ledger()["held"] == 0, timeout_s)

    def stored_bytes(self) -> bytes:
        """The embedded buffer's file and what SQLite keeps beside it."""
        return b"".join(
            file.read_bytes() for file in sorted(self.database.parent.glob(self.database.name + "*"))
        )


@contextmanager
def running_sandbox(folder: Path) -> Iterator[SandboxProgram]:
    port = free_port()
    url, record_file = f"http://127.0.0.1:{port}", folder / "record.ndjson"
    program = Program(
        "sandbox", ["sandbox", "--listen", f"127.0.0.1:{port}", "--record", str(record_file)], folder, {}
    )
    try:
        program.start()
        program.wait_until_answers(f"{url}/_sandbox/record?since=0")
        yield SandboxProgram(url, program, record_file)
    finally:
        program.kill()


@contextmanager
def installed_proxy(folder: Path, sandbox: Sandbox, **settings: str) -> Iterator[Proxy]:
    """A proxy in front of the sandbox, to be started by the test. In the end it is gone, however it ended."""
    front, ops, database = free_port(), free_port(), folder / "buffer" / "outlit-proxy.db"
    database.parent.mkdir(exist_ok=True)
    program = Program(
        "proxy",
        ["run"],
        folder,
        {
            "OUTLIT_PROXY_FRONT_LISTEN": f"127.0.0.1:{front}",
            "OUTLIT_PROXY_OPS_LISTEN": f"127.0.0.1:{ops}",
            "OUTLIT_PROXY_OPS_TOKEN": OPS_TOKEN,
            "OUTLIT_PROXY_BUFFER_URL": f"sqlite:///{database}",
            "OUTLIT_PROXY_UPSTREAM_URL": sandbox.url,
            **settings,
        },
    )
    try:
        yield Proxy(program, f"http://127.0.0.1:{front}", f"http://127.0.0.1:{ops}", database)
    finally:
        program.kill()


@contextmanager
def running_proxy(folder: Path, sandbox: Sandbox, **settings: str) -> Iterator[Proxy]:
    """A proxy in front of the sandbox. In the end it must have stopped by SIGTERM, with exit code 0."""
    with installed_proxy(folder, sandbox, **settings) as proxy:
        proxy.start()
        yield proxy
        assert proxy.program.stop() == 0, proxy.program.log
