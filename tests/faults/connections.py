"""A client's connection down at the socket: without an answer it can tell whether what it sent was read."""

import asyncio
import json
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from urllib.parse import urlsplit

from tests.faults.load import KEY, Post

PATIENCE_S = 20.0
RESET_S = 1.0
"""Within which a reset follows on the loopback: it comes at once, or never."""
_TCP_CLOSE = 7
"""In TCP_INFO's first byte: reset. (After a mere end from the other side it is CLOSE_WAIT.)"""


class Fate(Enum):
    """What became of a request."""

    ANSWERED = auto()
    """200, and all of it came."""
    REFUSED = auto()
    """No connection."""
    UNREAD = auto()
    """The connection was reset: what was sent had not been read, and never will be."""
    DROPPED = auto()
    """The other side had read all that was sent, and ended the connection without a word."""
    CUT = auto()
    """Half an answer."""
    FAILED = auto()
    """An answer, but not 200."""


def request_bytes(post: Post) -> bytes:
    """A request as it stands on the wire, headers and body."""
    headers = {**post.headers, "Host": "proxy.example", "Content-Length": str(len(post.body))}
    lines = [f"POST /api/i/v1/{KEY}/events HTTP/1.1", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode() + post.body


@dataclass(slots=True)
class Connection:
    """To be opened with `to`, and closed."""

    socket: socket.socket
    is_ending: bool = False
    """The other side said that no further request will be answered."""
    _received: bytes = b""

    @classmethod
    async def to(cls, url: str) -> "Connection | None":
        """None where nobody listens, or nobody any longer."""
        address = urlsplit(url)
        opened = socket.socket()
        opened.setblocking(False)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await asyncio.get_running_loop().sock_connect(opened, (address.hostname, address.port))
        except ConnectionError:
            opened.close()
            return None
        return cls(opened)

    async def send(self, data: bytes) -> float:
        """When the last of it had been handed over, on the monotonic clock."""
        with suppress(ConnectionError):  # which shows in its fate
            await asyncio.get_running_loop().sock_sendall(self.socket, data)
        return time.monotonic()

    async def fate(self) -> Fate:
        """Of the oldest request that was sent and has no fate yet."""
        async with asyncio.timeout(PATIENCE_S):
            while (answer := self._whole_answer()) is None:
                try:
                    part = await asyncio.get_running_loop().sock_recv(self.socket, 65_536)
                except ConnectionError:
                    return Fate.CUT if self._received else Fate.UNREAD
                if not part:
                    return Fate.CUT if self._received else await self._of_an_end()
                self._received += part
        status, body = answer
        return Fate.ANSWERED if status == 200 and json.loads(body)["success"] else Fate.FAILED

    def _whole_answer(self) -> tuple[int, bytes] | None:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        length = int(headers["content-length"])
        if len(rest) < length:
            return None
        self._received = rest[length:]
        self.is_ending = headers.get("connection") == "close"
        return int(first.split()[1]), rest[:length]

    async def _of_an_end(self) -> Fate:
        """Whoever closes a socket on which something is unread, or still comes, resets the connection."""
        until = time.monotonic() + RESET_S
        while time.monotonic() < until:
            if self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
                return Fate.UNREAD
            await asyncio.sleep(0.01)
        return Fate.DROPPED

    def close(self) -> None:
        self.socket.close()
