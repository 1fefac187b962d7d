"""Connections to the operations listener: bounded, and what is no HTTP is not repeated."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from proxy.ops import connection
from tests.stack import OPS_TOKEN, PATIENCE_S, Reply, Stack, read_reply

PROBE = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Socket:
    """A connection to the operations listener."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer

    async def ask(self, request: bytes) -> Reply:
        self.writer.write(request)
        async with asyncio.timeout(PATIENCE_S):
            return await read_reply(self._reader)

    async def until_closed(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                while await self._reader.read(65_536):
                    pass


Open = Callable[[], Awaitable[Socket]]


@pytest_asyncio.fixture
async def opened(stack: Stack) -> AsyncIterator[Open]:
    where = urlsplit(stack.ops_url)
    sockets: list[Socket] = []

    async def another() -> Socket:
        sockets.append(Socket(*await asyncio.open_connection(where.hostname, where.port)))
        return sockets[-1]

    yield another
    for each in sockets:
        each.writer.close()
        with suppress(ConnectionError):
            await each.writer.wait_closed()


async def closed(stack: Stack) -> dict[str, float]:
    """How many connections were closed, by the reasons that there were. Looking costs one of them."""
    samples = await stack.metrics()
    reasons = ("at_the_bound", "no_request", "no_http")
    counted = {reason: samples("ops_connections_closed_total", reason=reason) for reason in reasons}
    return {reason: count for reason, count in counted.items() if count}


@pytest.mark.parametrize(
    "line", [b"Authorization: Bearer a-secret\x7f", b"Authorization : Bearer a-secret", b"a-secret"]
)
async def test_what_is_no_http_is_not_repeated(stack: Stack, opened: Open, line: bytes) -> None:
    reply = await (await opened()).ask(b"GET /status HTTP/1.1\r\nHost: localhost\r\n" + line + b"\r\n\r\n")
    assert reply.status == 400
    assert reply.json == {"error": "this is no valid HTTP request"}
    assert await closed(stack) == {"no_http": 1}


async def test_a_probe_finds_a_place_however_many_idle(
    stack: Stack, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 8)
    first = await opened()
    assert (await first.ask(PROBE)).status == 200
    for _ in range(20):
        assert (await (await opened()).ask(PROBE)).status == 200
    await first.until_closed()
    assert await closed(stack) == {"at_the_bound": 21 + 1 - 8}


async def test_a_burst_does_not_exceed_the_bound(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that came in one turn of the loop chose the same connection to close, which was closed already."""
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 8)
    await asyncio.gather(*(opened() for _ in range(60)))
    assert (await (await opened()).ask(PROBE)).status == 200
    served = [task for task in asyncio.all_tasks() if "RequestHandler.start" in repr(task.get_coro())]
    assert 1 <= len(served) <= 8


async def test_whoever_asks_nothing_is_closed(
    stack: Stack, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_FIRST_REQUEST_S", 0.05)
    silent, slow = await opened(), await opened()
    slow.writer.write(PROBE[:20])
    await silent.until_closed()
    await slow.until_closed()
    monkeypatch.undo()
    assert (await (await opened()).ask(PROBE)).status == 200
    assert await closed(stack) == {"no_request": 2}


async def test_at_the_bound_a_request_under_way_is_not_given_up(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 8)
    busy = await opened()
    body = b'{"email": "a@b.example"}'
    assert (await busy.ask(erase(body, "Expect: 100-continue"))).status == 100
    for _ in range(20):
        assert (await (await opened()).ask(PROBE)).status == 200
    assert (await busy.ask(body)).status == 200


async def test_what_comes_compressed_is_not_inflated(opened: Open) -> None:
    """A thousandfold body takes seconds, in which everything else waits; nothing here needs it."""
    plain = b'{"email": "a@b.example"}'
    coded = gzip.compress(plain)
    connected = await opened()
    assert (await connected.ask(erase(plain) + plain)).status == 200
    assert (await connected.ask(erase(coded, "Content-Encoding: gzip") + coded)).status == 400


def erase(body: bytes, *more: str) -> bytes:
    """The head of a request that is taken, if its body can be read."""
    lines = [
        "POST /erase HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {OPS_TOKEN}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode()
