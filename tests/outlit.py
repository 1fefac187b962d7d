"""A server in Outlit's place that answers in bytes of the test's choice, and keeps what it was sent."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.stack import PATIENCE_S


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it came: its first line, its headers in order, its body."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    raw: bytes

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    @property
    def lines(self) -> list[str]:
        """Those of its head, as they came."""
        return self.raw.partition(b"\r\n\r\n")[0].decode("utf-8", "surrogateescape").split("\r\n")

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for found, value in self.headers if found.lower() == name.lower()]


Behave = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def answer(body: bytes = b"{}", status: str = "200 OK", *headers: str) -> bytes:
    """A whole answer."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


USED_UP = answer(
    b'{"error":"No more","code":"api_limit_exceeded","plan":"free","feature":"api_calls",'
    b'"resetAt":99999999999999}',
    "402 Payment Required",
)
"""A plan's refusal that lasts."""


def says(*answers: bytes, then_close: bool = False) -> Behave:
    """Give these answers in turn, and the last of them again and again."""
    left = list(answers)

    async def behave(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        if then_close:
            await writer.drain()
            writer.close()

    return behave


async def hangs(_: Request, __: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST: what was not read by the other side is lost to it."""
    connection: socket.socket = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def resets(_: Request, writer: asyncio.StreamWriter) -> None:
    """Read the request whole, and reset the connection."""
    reset(writer)


def after(event: asyncio.Event, then: Behave) -> Behave:
    """Wait for the test before going on."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await event.wait()
        await then(request, writer)

    return behave


class _Reader(asyncio.StreamReader):
    """Tells when the other side has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()

    def feed_eof(self) -> None:
        super().feed_eof()
        self.ended.set()

    def set_exception(self, error: Exception) -> None:
        super().set_exception(error)
        self.ended.set()


@dataclass
class Outlit:
    """`behave`: what it does with each request; a test sets another at any time."""

    behave: Behave = field(default_factory=lambda: says(answer()))
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _server: asyncio.Server | None = None
    _handlers: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self, port: int = 0) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: asyncio.StreamReaderProtocol(_Reader(), self._connected), "127.0.0.1", port
        )

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for handler in self._handlers:
            handler.cancel()
        await asyncio.gather(*self._handlers, return_exceptions=True)
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def begin(self, behave: Behave | None = None) -> Sequence[Request]:
        """Forget what came so far, and behave like this from now on. Gives the requests to come."""
        self.requests, self.connections = [], 0
        self.behave = behave or says(answer())
        return self.requests

    async def until_requests(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= number)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: asyncio's would log what a handler raises when it is cut off.
        handler = asyncio.create_task(self._serve(reader, writer))
        self._handlers.add(handler)
        handler.add_done_callback(self._handlers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while not writer.is_closing():
                request = await _read(reader)
                behave = self.behave  # as it is now, whatever the test that is woken sets next
                self.requests.append(request)
                async with self._changed:
                    self._changed.notify_all()
                await self._until_left(reader, behave(request, writer))
                if not writer.is_closing():
                    await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    @staticmethod
    async def _until_left(reader: asyncio.StreamReader, doing: Awaitable[None]) -> None:
        """Do it, unless the other side goes meanwhile."""
        assert isinstance(reader, _Reader)
        done, left = asyncio.ensure_future(doing), asyncio.ensure_future(reader.ended.wait())
        try:
            await asyncio.wait({done, left}, return_when=asyncio.FIRST_COMPLETED)
            if done.done():
                await done
        finally:
            left.cancel()
            done.cancel()
            await asyncio.gather(done, left, return_exceptions=True)


async def _read(reader: asyncio.StreamReader) -> Request:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *rest = head.decode("utf-8", "surrogateescape").split("\r\n")[:-2]
    headers = tuple((name, value.strip()) for name, _, value in (each.partition(":") for each in rest))
    found = {name.lower(): value for name, value in headers}
    body = b""
    if found.get("transfer-encoding", "").lower() == "chunked":
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
    else:
        body = await reader.readexactly(int(found.get("content-length", 0)))
    return Request(line, headers, body, head + body)


@asynccontextmanager
async def running_outlit() -> AsyncIterator[Outlit]:
    outlit = Outlit()
    await outlit.start()
    try:
        yield outlit
    finally:
        await outlit.stop()
