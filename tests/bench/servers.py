"""What is measured, and what it is measured against: programs on a core of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from proxy.bench.visits import KEY
from tests.bench.machine import LOAD_CORE, SERVER_CORE, on_core
from tests.bench.stores import Store
from tests.programs import HTTP, OPS_TOKEN, OUTLIT_PROXY, free_port

NOWHERE = "http://127.0.0.1:9"
"""An upstream that is not there: what is accepted stays held."""

_START_S = 60.0
_STOP_S = 120.0


@dataclass(slots=True)
class Server:
    """A server that accepts connections."""

    process: subprocess.Popen[bytes]
    port: int
    url: str = ""
    """Of what answers to `get`: the proxy's operations listener."""
    started_s: float = 0.0
    """From its start until it answered."""
    store_pid: int | None = None
    """Of the store that is a process of its own."""

    @property
    def pid(self) -> int:
        return self.process.pid

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(_STOP_S)

    def get(self, path: str, within_s: float = 60.0) -> bytes:
        """Its answer to a GET."""
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {OPS_TOKEN}"})
        with HTTP.open(request, timeout=within_s) as answer:
            body: bytes = answer.read()
        return body

    def held(self) -> int:
        """Events held, as the metrics say: they cost no recount."""
        return int(self.metric('ledger_events{outcome="held"}'))

    def metric(self, name: str) -> float:
        lines = self.get("/metrics").decode().splitlines()
        return float(
            next(line.rpartition(" ")[2] for line in lines if line.startswith(f"outlit_proxy_{name} "))
        )


@contextmanager
def bare_handler() -> Iterator[Server]:
    """An aiohttp handler that reads the body and nothing else."""
    port = free_port()
    with _running([sys.executable, "-m", "tests.bench.bare", "handler", str(port)], {}) as process:
        _wait_for_port(process, port)
        yield Server(process, port)


@contextmanager
def fast_upstream() -> Iterator[Server]:
    """An upstream without limits that costs little, on the load's core."""
    port = free_port()
    command = [sys.executable, "-m", "tests.bench.upstream", str(port)]
    with _running(command, {}, LOAD_CORE) as process:
        _wait_for_port(process, port)
        yield Server(process, port, f"http://127.0.0.1:{port}")


@contextmanager
def bare_client(upstream: Server, events: int, in_flight: int) -> Iterator[subprocess.Popen[bytes]]:
    """An aiohttp client that posts as fast as it can."""
    numbers = [str(number) for number in (upstream.port, events, in_flight)]
    with _running([sys.executable, "-m", "tests.bench.bare", "client", *numbers], {}) as process:
        yield process


@contextmanager
def proxy(store: Store, upstream: str = NOWHERE, **settings: str) -> Iterator[Server]:
    """`outlit-proxy run` on that store. Settings as in the environment, without the prefix.

    Unless told otherwise it delivers next to nothing, so that what it accepts stays held.
    """
    front, ops = free_port(), free_port()
    given = {
        "FRONT_LISTEN": f"127.0.0.1:{front}",
        "FRONT_PUBLIC_KEYS": json.dumps([KEY]),
        "FRONT_TRUSTED_PROXIES": '["127.0.0.1"]',
        "OPS_LISTEN": f"127.0.0.1:{ops}",
        "OPS_TOKEN": OPS_TOKEN,
        "BUFFER_URL": store.url,
        "BUFFER_DURABILITY": store.durability,
        "UPSTREAM_URL": upstream,
        "DELIVERY_LIMIT_PER_S": "1",
        "DELIVERY_LINGER": "1m",
        "LOG_LEVEL": "error",
        **settings,
    }
    began_at = time.perf_counter()
    with _running(
        [str(OUTLIT_PROXY), "run"], {f"OUTLIT_PROXY_{name}": value for name, value in given.items()}
    ) as process:
        _wait_for_port(process, front)
        started_s = time.perf_counter() - began_at
        yield Server(process, front, f"http://127.0.0.1:{ops}", started_s, store.pid)


@contextmanager
def _running(
    command: list[str], settings: dict[str, str], core: int = SERVER_CORE
) -> Iterator[subprocess.Popen[bytes]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTLIT_PROXY_")}
    with on_core(core):
        process = subprocess.Popen(command, env=inherited | settings)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"a server ended at its start, with exit code {process.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    sys.exit(f"a server did not accept connections within {_START_S:.0f} s")
