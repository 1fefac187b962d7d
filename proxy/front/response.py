"""An answer as it goes over the wire: its head made of ready lines, and sent with the body in one write.

aiohttp's `Response` fills a multi-dict with each answer's headers, looks some of them up again, and writes
them out one by one. Of ours most are the same in every answer with that status, or in every answer to that
Origin, so they are kept as text.
"""

import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from aiohttp import HttpVersion10, hdrs, web
from aiohttp.abc import AbstractStreamWriter

from proxy.wire.answers import STATUS

RETRY_AFTER_S: Final = 5
"""What 429 and 503 ask for."""

_SERVER: Final = "outlit-proxy"


def header_lines(headers: Mapping[str, str]) -> str:
    """Headers as they stand in an answer; their values have to be fit for it, nothing is checked here."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def head(status: int, lines: str, body: bytes, version: str = "HTTP/1.1") -> bytes:
    """An answer's head, to its empty line. `lines`: the header lines that its status does not imply."""
    length = "" if status == 204 else f"Content-Length: {len(body)}\r\n"
    date = _date(int(time.time()))
    return f"{version} {_OPENINGS[status]}{length}Date: {date}\r\n{lines}\r\n".encode("ascii")


class Response(web.StreamResponse):
    """An answer that is sent whole. An empty body is for a 204.

    Of what it inherits, only the status and whether the connection stays open mean anything: `headers` is
    empty, and there is nothing to be written behind it.
    """

    def __init__(self, status: int, lines: str, body: bytes = b"") -> None:
        super().__init__(status=status)
        self._lines = lines
        self._content = body

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Send it; `write_eof` finds it sent."""
        if self._eof_sent:
            return None
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive
        version, lines = "HTTP/1.1", self._lines
        if request.version == HttpVersion10:
            version = "HTTP/1.0"
            if self._keep_alive:
                lines += "Connection: keep-alive\r\n"
        if not self._keep_alive:
            lines += "Connection: close\r\n"
        whole = head(self._status, lines, self._content, version)
        if request.method != hdrs.METH_HEAD:
            whole += self._content
        await request.writer.write_eof(whole)
        self._eof_sent = True
        return None


def _opening(status: int) -> str:
    """The status line without its version, and the headers that every answer with this status has."""
    headers = {"Server": _SERVER}
    if status != 204:
        headers["Content-Type"] = "application/json"
    if status == 405:
        headers["Allow"] = "POST, OPTIONS"
    if status in (429, 503):
        headers["Retry-After"] = str(RETRY_AFTER_S)
    return f"{status} {HTTPStatus(status).phrase}\r\n{header_lines(headers)}"


_OPENINGS: Final = {status: _opening(status) for status in (200, 204, 207, *STATUS.values())}


@lru_cache(maxsize=1)
def _date(at_s: int) -> str:
    """The Date of a second; the text is made once in it."""
    return formatdate(at_s, usegmt=True)
