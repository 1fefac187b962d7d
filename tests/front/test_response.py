"""An answer's bytes: every header of it, once, and what the connection does behind it."""

import asyncio
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.front.alone import Taken, connected
from tests.stack import PATIENCE_S, read_reply

BODY = b'{"events":[]}'
ANSWER = b'{"success":true,"processed":1}'
SITE = "https://www.example.com"
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


def request(
    *headers: str, method: str = "POST", key: str = "pk_a", version: str = "1.1", body: bytes = BODY
) -> bytes:
    lines = [
        f"{method} /api/i/v1/{key}/events HTTP/{version}",
        "Host: front",
        *headers,
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def answer(reader: asyncio.StreamReader) -> tuple[list[str], bytes]:
    """The lines of the next answer's head, with the Date checked and left out, and its body."""
    async with asyncio.timeout(PATIENCE_S):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("ascii").split("\r\n")[:-2]
        sizes = [int(line.split()[1]) for line in lines if line.startswith("Content-Length: ")]
        body = await reader.readexactly(sum(sizes))
    (date,) = [line for line in lines if line.startswith("Date: ")]
    assert date.endswith(" GMT")
    assert abs(parsedate_to_datetime(date[6:]).timestamp() - time.time()) < PATIENCE_S
    return [line for line in lines if line != date], body


async def ends(reader: asyncio.StreamReader) -> bool:
    return await asyncio.wait_for(reader.read(), PATIENCE_S) == b""


async def test_an_answer_to_a_page_is_these_lines_and_no_others() -> None:
    async with connected() as (_, _, reader, writer):
        writer.write(request(f"Origin: {SITE}", "X-Request-Id: r-1"))
        lines, body = await answer(reader)
        assert lines == [
            "HTTP/1.1 200 OK",
            "Server: outlit-proxy",
            "Content-Type: application/json",
            "Content-Length: 30",
            "Vary: Origin",
            "Access-Control-Allow-Credentials: true",
            "Access-Control-Expose-Headers: X-Request-Id, Retry-After",
            f"Access-Control-Allow-Origin: {SITE}",
            "X-Request-Id: r-1",
        ]
        assert body == ANSWER


async def test_an_answer_to_a_server_is_these_lines_and_no_others() -> None:
    async with connected() as (_, _, reader, writer):
        writer.write(request())
        *lines, request_id = (await answer(reader))[0]
        assert lines == [
            "HTTP/1.1 200 OK",
            "Server: outlit-proxy",
            "Content-Type: application/json",
            "Content-Length: 30",
            "Vary: Origin",
        ]
        name, _, value = request_id.partition(": ")
        assert name == "X-Request-Id"
        assert UUID7.fullmatch(value)


async def test_a_preflights_answer_has_neither_body_nor_length() -> None:
    async with connected() as (_, _, reader, writer):
        writer.write(request(f"Origin: {SITE}", "X-Request-Id: r-1", method="OPTIONS", body=b""))
        lines, _ = await answer(reader)
        assert lines == [
            "HTTP/1.1 204 No Content",
            "Server: outlit-proxy",
            "Vary: Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network",
            "Access-Control-Allow-Credentials: true",
            "Access-Control-Allow-Methods: POST, OPTIONS",
            "Access-Control-Allow-Headers: Content-Type",
            "Access-Control-Max-Age: 7200",
            f"Access-Control-Allow-Origin: {SITE}",
            "X-Request-Id: r-1",
        ]


async def test_the_wrong_method_is_told_the_right_ones() -> None:
    async with connected() as (_, _, reader, writer):
        writer.write(request(method="GET"))
        lines, body = await answer(reader)
        assert lines[0] == "HTTP/1.1 405 Method Not Allowed"
        assert "Allow: POST, OPTIONS" in lines
        assert b"method_not_allowed" in body


async def test_an_answer_to_head_has_the_length_of_the_body_that_it_leaves_out() -> None:
    async with connected() as (_, _, reader, writer):
        writer.write(request(method="GET", body=b""))
        _, body = await answer(reader)
        writer.write(request(method="HEAD", body=b"") + request())
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        assert head.startswith(b"HTTP/1.1 405 ")
        assert b"\r\nContent-Length: %d\r\n" % len(body) in head
        assert (await answer(reader))[0][0] == "HTTP/1.1 200 OK"  # the next answer follows at once


@pytest.mark.parametrize(
    ("version", "asked", "said", "stays"),
    [
        ("1.1", None, None, True),
        ("1.1", "keep-alive", None, True),
        ("1.1", "close", "close", False),
        ("1.0", None, "close", False),
        ("1.0", "keep-alive", "keep-alive", True),
        ("1.0", "close", "close", False),
    ],
)
async def test_a_connection_stays_as_the_client_asks_and_the_answer_says_so(
    version: str, asked: str | None, said: str | None, stays: bool
) -> None:
    async with connected() as (_, _, reader, writer):
        for _ in range(2 if stays else 1):
            writer.write(request(*([f"Connection: {asked}"] if asked else []), version=version))
            lines, body = await answer(reader)
            assert lines[0] == f"HTTP/{version} 200 OK"
            assert [line for line in lines if line.startswith("Connection: ")] == (
                [f"Connection: {said}"] if said else []
            )
            assert body == ANSWER
        if not stays:
            assert await ends(reader)


async def test_requests_that_come_at_once_are_answered_each_with_its_own() -> None:
    taken = Taken()
    origins = [f"https://{n}.example" for n in range(40)]  # more than are parsed ahead
    async with connected(taken) as (_, _, reader, writer):
        writer.write(
            b"".join(
                request(f"Origin: {origin}", f"X-Request-Id: {n}", key=f"pk_{n}")
                for n, origin in enumerate(origins)
            )
        )
        for n, origin in enumerate(origins):
            reply = await read_reply(reader)
            assert reply.status == 200
            assert reply.headers["Access-Control-Allow-Origin"] == origin
            assert reply.headers["X-Request-Id"] == str(n)
    assert taken.keys == [f"pk_{n}" for n in range(40)]


async def test_an_answer_leaves_in_one_piece() -> None:
    """Head and body in two writes would be two packets, since the connection does not wait for more."""
    async with connected() as (_, connection, reader, writer):
        written: list[bytes] = []
        transport = connection.transport
        connection.transport = Overheard(transport, written)
        writer.write(request())
        await answer(reader)
        connection.transport = transport
    (whole,) = written
    assert whole.startswith(b"HTTP/1.1 200 OK\r\n")
    assert whole.endswith(b"\r\n\r\n" + ANSWER)


class Overheard:
    """A transport that notes what is written to it."""

    def __init__(self, transport: asyncio.Transport, written: list[bytes]) -> None:
        self._transport = transport
        self._written = written

    def write(self, data: bytes) -> None:
        self._written.append(data)
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
