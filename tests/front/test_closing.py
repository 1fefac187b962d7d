"""A connection that is told to close, at each moment that it may be told."""

import asyncio

import pytest

from tests.front.alone import connected
from tests.stack import PATIENCE_S, read_reply

BODY = b'{"events":[]}'
HEAD = b"POST /api/i/v1/pk_a/events HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY)


@pytest.mark.parametrize("ticks", range(6))
@pytest.mark.parametrize(
    ("first", "rest", "requests"),
    [
        (HEAD, BODY, 1),
        (HEAD + BODY, b"", 1),
        ((HEAD + BODY) * 3, b"", 3),
        ((HEAD + BODY) * 2 + HEAD + BODY[:5], BODY[5:], 3),
    ],
    ids=["headers", "a request", "three requests", "two and a half"],
)
async def test_every_request_whose_headers_were_read_is_answered(
    first: bytes, rest: bytes, requests: int, ticks: int
) -> None:
    async with connected() as (server, connection, reader, writer):
        connection.data_received(first)
        for _ in range(ticks):
            await asyncio.sleep(0)
        server.pre_shutdown()
        closing = asyncio.ensure_future(server.shutdown(PATIENCE_S))
        writer.write(rest)
        replies = [await read_reply(reader) for _ in range(requests)]
        assert [reply.status for reply in replies] == [200] * requests
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
        await asyncio.wait_for(closing, PATIENCE_S)


async def test_the_last_answer_says_that_the_connection_ends() -> None:
    async with connected() as (server, connection, reader, _):
        connection.data_received((HEAD + BODY) * 2)
        server.pre_shutdown()
        replies = [await read_reply(reader) for _ in range(2)]
        assert [reply.headers.get("Connection") for reply in replies] == [None, "close"]


async def test_a_connection_without_a_request_ends_at_once() -> None:
    for begun in (b"", HEAD[:20]):
        async with connected() as (server, connection, reader, _):
            connection.data_received(begun)
            server.pre_shutdown()
            await asyncio.wait_for(server.shutdown(60.0), PATIENCE_S)
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""


async def test_a_body_that_never_comes_holds_the_end_up_no_longer_than_it_may() -> None:
    async with connected() as (server, connection, reader, _):
        connection.data_received(HEAD)
        server.pre_shutdown()
        await asyncio.wait_for(server.shutdown(0.1), PATIENCE_S)
        assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
