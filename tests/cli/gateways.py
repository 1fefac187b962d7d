"""Stands in for a gateway where the real one cannot be had to answer so; it keeps what it was asked."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, NamedTuple

from tests.cli.answering import serving

OWN = {"Proxy-Status": 'outlit-proxy; error=proxy_internal_response; details="a, b"'}


class Asked(NamedTuple):
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """`length`: what is promised, if not what is sent. `until`: what is waited for behind the first part."""

    status: int = 200
    body: bytes | list[bytes] = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = None
    until: Callable[[], object] = lambda: None


def said(status: int, headers: Mapping[str, str] | None = None, /, **body: Any) -> Reply:
    """A JSON object; of no own headers it is Outlit's."""
    return Reply(status, json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})})


@contextmanager
def gateway(reply: Reply, status: Reply | None = None) -> Iterator[tuple[str, list[Asked]]]:
    """Gives its URL and what it is asked. `status`: what `GET /status` says; else that there is a gateway."""
    seen: list[Asked] = []

    def answer(to: BaseHTTPRequestHandler, body: bytes) -> None:
        if to.path == "/status":
            _give(to, status or said(200, troubles=[], gateway={}))
            return
        seen.append(Asked(to.command, to.path, dict(to.headers), body))
        _give(to, reply)

    with serving(answer) as url:
        yield url, seen


def _give(to: BaseHTTPRequestHandler, given: Reply) -> None:
    parts = given.body if isinstance(given.body, list) else [given.body]
    to.send_response(given.status)
    for name, value in given.headers.items():
        to.send_header(name, value)
    to.send_header("Content-Length", str(given.length or sum(map(len, parts))))
    to.end_headers()
    for number, part in enumerate(parts):
        if number:
            given.until()
        to.wfile.write(part)
