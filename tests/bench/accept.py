"""The accept path beside a bare aiohttp handler that only reads the body: requests a second, as a ratio.

    python tests/bench/accept.py [--seconds 3] [--rounds 5] [--events 1 10 100]

One core for the server, another for the load, which is cheap (ready-made requests on raw connections) so that
the server is the limit. The two servers take turns within one run; medians and the ratio of each pair are
printed, since machines drift. Nothing is delivered meanwhile: this measures accepting alone.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONNECTIONS = 256
BARE = """
import sys
from aiohttp import web

async def handler(request):
    await request.read()
    return web.json_response({"success": True, "processed": 1})

app = web.Application(client_max_size=10_000_000)
app.router.add_post("/api/i/v1/{key}/events", handler)
web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(kind: str, folder: Path) -> Iterator[int]:
    """A server on the first core; gives its port once it accepts."""
    port, ops = free_port(), free_port()
    if kind == "bare":
        command, settings = [sys.executable, "-c", BARE, str(port)], {}
    else:
        command = [sys.executable, "-m", "proxy", "run"]
        settings = {
            "FRONT_LISTEN": f"127.0.0.1:{port}",
            "OPS_LISTEN": f"127.0.0.1:{ops}",
            "BUFFER_URL": f"sqlite:///{folder}/{uuid.uuid4()}.db",
            "FRONT_PUBLIC_KEYS": '["pk_bench"]',
            "UPSTREAM_URL": "http://127.0.0.1:9",
            "DELIVERY_LIMIT_PER_S": "1",
            "DELIVERY_LINGER": "1m",
            "LOG_LEVEL": "error",
        }
    environment = os.environ | {f"OUTLIT_PROXY_{name}": value for name, value in settings.items()}
    process = subprocess.Popen(["taskset", "--cpu-list", "0", *command], env=environment)
    try:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def requests(count: int, events: int) -> list[bytes]:
    """Ready-made posts of distinct 350-byte events; three posts a visitor."""
    made = []
    for number in range(count):
        visitor = uuid.UUID(int=(7 << 76) | (2 << 62) | number // 3)
        body = json.dumps(
            {
                "source": "client",
                "visitorId": str(visitor),
                "sessionId": "01890a5d-ac96-774b-bcce-b302099a8057",
                "events": [
                    {
                        "type": "pageview",
                        "timestamp": 1_795_000_000_000 + number,
                        "url": "https://www.example.com/pricing?utm_source=newsletter&utm_medium=email",
                        "path": "/pricing",
                        "uuid": str(uuid.uuid4()),
                        "referrer": "https://www.example.com/",
                        "title": "Pricing - Example, a shop for things that one can buy in it",
                        "utm": {"source": "newsletter", "medium": "email", "campaign": "autumn"},
                    }
                    for _ in range(events)
                ],
            },
            separators=(",", ":"),
        ).encode()
        head = (
            "POST /api/i/v1/pk_bench/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0 Safari/537.36\r\n"
            f"Origin: https://www.example.com\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        made.append(head.encode() + body)
    return made


class Load(asyncio.Protocol):
    """One connection: the next request as soon as an answer is complete."""

    def __init__(self, ready: Iterator[bytes], answers: list[int]) -> None:
        self._ready = ready
        self._answers = answers
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, found, body = self._seen.partition(b"\r\n\r\n")
        if not found:
            return
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length:
            self._answers[int(head[9:12])] += 1
            self._seen = b""
            self._send()

    def _send(self) -> None:
        request = next(self._ready, None)
        if request is None:
            self._transport.close()
        else:
            self._transport.write(request)


async def load(port: int, ready: list[bytes], seconds: float) -> float:
    """Requests answered with 200 a second."""
    answers = [0] * 600
    source = iter(ready)
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(lambda: Load(source, answers), "127.0.0.1", port))[0]
        for _ in range(CONNECTIONS)
    ]
    before, started = answers[200], time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (answers[200] - before) / (time.perf_counter() - started)
    if all(connection.is_closing() for connection in connections):
        sys.exit("the load ended before its time: make more requests ready")
    for connection in connections:
        connection.abort()
    if sum(answers) != answers[200]:
        others = {status: count for status, count in enumerate(answers) if count and status != 200}
        sys.exit(f"answers other than 200: {others}")
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--events", type=int, nargs="+", default=[1, 10, 100])
    options = parser.parse_args()
    os.sched_setaffinity(0, {1} if len(os.sched_getaffinity(0)) > 1 else {0})
    print(f"{'events a post':>13} {'bare /s':>9} {'proxy /s':>9} {'events/s':>9} {'ratio':>6}   min-max")
    with tempfile.TemporaryDirectory() as folder:
        for events in options.events:
            enough = int(options.seconds * {1: 36_000, 10: 32_000}.get(events, 20_000))
            rates: dict[str, list[float]] = {"bare": [], "proxy": []}
            for _ in range(options.rounds):
                ready = requests(enough, events)
                for kind, measured in rates.items():
                    with server(kind, Path(folder)) as port:
                        measured.append(asyncio.run(load(port, ready, options.seconds)))
            ratios = [proxy / bare for bare, proxy in zip(rates["bare"], rates["proxy"], strict=True)]
            bare, proxy = statistics.median(rates["bare"]), statistics.median(rates["proxy"])
            print(
                f"{events:>13} {bare:>9,.0f} {proxy:>9,.0f} {proxy * events:>9,.0f}"
                f" {statistics.median(ratios):>6.2f}   {min(ratios):.2f}-{max(ratios):.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
