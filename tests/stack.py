"""The whole way of an event in one process: the service as `run` builds it, and the sandbox as its upstream.

Spoken to as clients and operators do, over HTTP. At the end of every test the service must stop without an
error, and the two identities of the books must hold.
"""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from multidict import CIMultiDict
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from yarl import URL

from proxy.sandbox import Entry, Fault, Record, Sandbox
from proxy.service import Running, Service
from proxy.settings import (
    BufferSettings,
    DeadSettings,
    DeliverySettings,
    FrontSettings,
    GatewaySettings,
    ListenAddress,
    OpsSettings,
    Settings,
    UpstreamSettings,
)

KEY = "pk_test"
OPS_TOKEN = "token-of-the-operator"
PATIENCE_S = 20.0
_ANYWHERE = ListenAddress("127.0.0.1", 0)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read to its end; `json` raises where the body is none."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One event that upstream took, with everything that stood around it."""

    event: dict[str, Any]
    envelope: Mapping[str, Any]
    headers: Mapping[str, str]
    key: str


class Samples:
    """One scrape, parsed."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self._values = {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in self.families
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        """The value of one sample, its name without the prefix. Raises KeyError where there is none."""
        return self._values[f"outlit_proxy_{name}", tuple(sorted(labels.items()))]

    def sum(self, name: str) -> float:
        """The sum over all labels."""
        found = [value for (sample, _), value in self._values.items() if sample == f"outlit_proxy_{name}"]
        assert found, f"no sample is called {name}"
        return sum(found)


@dataclass(slots=True)
class Stack:
    """A running service between a client and the sandbox."""

    front_url: str
    ops_url: str
    sandbox: Sandbox
    http: aiohttp.ClientSession
    database: Path
    serving: asyncio.Task[None]
    stop: asyncio.Event
    service: Service

    # -- as a client -----------------------------------------------------------------------------------

    async def post(
        self,
        body: Any,
        key: str = KEY,
        *,
        headers: Mapping[str, str] | None = None,
        path: str | None = None,
        method: str = "POST",
    ) -> Reply:
        """Post `body` (bytes as they are, anything else as JSON)."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **(headers or {})}
        url = URL(f"{self.front_url}{path or f'/api/i/v1/{key}/events'}", encoded=True)
        async with self.http.request(method, url, data=io.BytesIO(raw), headers=sent) as response:
            return Reply(response.status, response.headers, await response.read())

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A bare connection to the front."""
        url = URL(self.front_url)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            # Whoever was cut off on purpose finds a reset here.
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)

    async def raw(self, request: bytes) -> Reply:
        """Send bytes on a connection of their own, and read one answer."""
        async with self.connection() as (reader, writer):
            writer.write(request)
            return await read_reply(reader)

    # -- upstream --------------------------------------------------------------------------------------

    @property
    def entries(self) -> Sequence[Entry]:
        return self.sandbox.record.entries

    async def arrived(self, events: int) -> list[Arrival]:
        """Every event that upstream took, in order, once there are so many; one more is an error."""
        await self.until(lambda record: sum(len(entry.taken) for entry in record.entries) >= events)
        found = [
            Arrival(dict(event), entry.envelope, dict(entry.headers), entry.public_key)
            for entry in self.entries
            for event in entry.taken_events
            if isinstance(event, dict)
        ]
        assert len(found) == events
        return found

    async def until(self, holds: Callable[[Record], bool]) -> None:
        """Wait for a fact of the sandbox's record, as long as the service lives."""
        waiting = asyncio.ensure_future(self.sandbox.record.until(holds))
        try:
            await asyncio.wait(
                [waiting, self.serving], return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S
            )
            if self.serving.done():
                await self.serving
            assert waiting.done(), f"waited {PATIENCE_S:.0f} s in vain"
        finally:
            waiting.cancel()

    def fault(self, fault: Fault) -> None:
        """Switch a fault on, from now."""
        self.sandbox.programme.add(fault, now=0.0)

    # -- as an operator --------------------------------------------------------------------------------

    async def get(self, path: str, **headers: str) -> Reply:
        """Ask the operations listener."""
        async with self.http.get(f"{self.ops_url}{path}", headers=headers) as response:
            return Reply(response.status, response.headers, await response.read())

    async def metrics(self) -> Samples:
        reply = await self.get("/metrics", Accept="text/plain")
        assert reply.status == 200
        return Samples(reply.body.decode())

    async def ledger(self) -> dict[str, int]:
        """The totals of the buffer's books, freshly recounted."""
        reply = await self.get("/ledger", Authorization=f"Bearer {OPS_TOKEN}")
        assert reply.status == 200
        total: dict[str, int] = reply.json["total"]
        return total

    def stored_bytes(self) -> bytes:
        """The embedded buffer's file and what SQLite keeps beside it."""
        return b"".join(
            file.read_bytes() for file in sorted(self.database.parent.glob(f"{self.database.name}*"))
        )

    async def assert_the_books_balance(self) -> None:
        reply = await self.get("/ledger", Authorization=f"Bearer {OPS_TOKEN}")
        seen = await self.metrics()
        accepted = seen("events_accepted_total")
        refused_or_known = seen("events_duplicate_total") + seen.sum("events_rejected_total")
        assert seen("events_received_total") == accepted + refused_or_known, "at the door"
        if reply.status == 200:
            books = reply.json["total"]
        else:  # the test has no token; the metrics tell the same, with the last recount's difference
            books = {
                name: seen("ledger_events", outcome=name)
                for name in ("accepted", "held", "delivered", "dead", "dropped")
            }
            books["difference"] = seen("ledger_difference")
        assert books["accepted"] == books["held"] + books["delivered"] + books["dead"] + books["dropped"]
        assert books["difference"] == 0
        # More only where the answer to an append was lost: those the process counts as duplicates.
        assert books["accepted"] >= accepted


StartStack = Callable[..., Awaitable[Stack]]


async def read_reply(reader: asyncio.StreamReader) -> Reply:
    """The next answer on a bare connection."""
    async with asyncio.timeout(PATIENCE_S):
        status_line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[:-1]
        headers = CIMultiDict(
            (name, value.strip()) for name, _, value in (line.partition(":") for line in lines)
        )
        status = int(status_line.split()[1])
        body = await reader.readexactly(int(headers.get("Content-Length", 0)))
    return Reply(status, headers, body)


def settings_of(folder: Path, upstream_url: str, **tables: Mapping[str, Any]) -> Settings:
    """Settings for a test: free ports, a file of its own, a short linger. `tables`: what differs."""
    given: dict[str, dict[str, Any]] = {
        "front": {"listen": _ANYWHERE},
        "ops": {"listen": _ANYWHERE, "token": SecretStr(OPS_TOKEN)},
        "buffer": {"url": f"sqlite:///{folder / 'outlit-proxy.db'}", "durability": "normal"},
        "delivery": {
            "linger_s": 0.02,
            "limit_per_s": 10_000,
            "timeout_s": 5.0,
            "lease_s": 15.0,
            "grace_s": 5.0,
        },
        "dead": {},
        "upstream": {"url": upstream_url},
        "gateway": {},
    }
    for table, values in tables.items():
        given[table].update(values)
    given = {table: {n: v for n, v in values.items() if v is not None} for table, values in given.items()}
    return Settings(
        front=FrontSettings(**given["front"]),
        ops=OpsSettings(**given["ops"]),
        buffer=BufferSettings(**given["buffer"]),
        delivery=DeliverySettings(**given["delivery"]),
        dead=DeadSettings(**given["dead"]),
        upstream=UpstreamSettings(**given["upstream"]),
        gateway=GatewaySettings(**given["gateway"]),
    )


@asynccontextmanager
async def running_stack(
    folder: Path, read_again: Callable[[], Settings] | None = None, /, **tables: Mapping[str, Any]
) -> AsyncIterator[Stack]:
    """A service that is stopped at the end, and whose books must balance then.

    `read_again`: what it is to find when it is reloaded.
    """
    sandbox = Sandbox(limit=10_000)
    settings = settings_of(folder, "http://127.0.0.1:9", **tables)
    await sandbox.start()
    settings = settings.model_copy(update={"upstream": UpstreamSettings(url=sandbox.url)})
    stop, started = asyncio.Event(), asyncio.get_running_loop().create_future()

    def on_start(running: Running) -> None:
        started.set_result(running)

    service = Service(settings, read_again=read_again)
    serving = asyncio.create_task(service.run(stop, on_start), name="service")
    try:
        await asyncio.wait([started, serving], return_when=asyncio.FIRST_COMPLETED, timeout=PATIENCE_S)
        if not started.done():
            await serving
        running = started.result()
        async with aiohttp.ClientSession(
            skip_auto_headers=("User-Agent",), cookie_jar=aiohttp.DummyCookieJar()
        ) as http:
            stack = Stack(
                running.front_url,
                running.ops_url,
                sandbox,
                http,
                settings.buffer.path,
                serving,
                stop,
                service,
            )
            yield stack
            if not serving.done():
                await stack.assert_the_books_balance()
        stop.set()
        async with asyncio.timeout(PATIENCE_S):
            await serving
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        await sandbox.stop()
