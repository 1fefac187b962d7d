"""One POST to servers that misbehave: what is sent, what comes back, and whether it may have arrived."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import aiohttp
import pytest
from tenacity import wait_fixed

from proxy import upstream
from proxy.lanes import Lane
from proxy.upstream import MAX_ANSWER_BYTES, Upstream
from proxy.wire.answers import Answer, NoAnswer
from proxy.wire.limits import PublicKey
from tests.outlit import Behave, Outlit, Request, hangs, reset, resets, running_outlit, says

KEY = PublicKey("pk_test")
LANE = Lane(b'{"visitorId":"v"}', "192.0.2.1", "Mozilla/5.0 (X11)", "https://acme.example")
BARE = Lane(b'{"source":"server"}')
BODY = b'{"visitorId":"v","events":[{"n":1}]}'
OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n{"processed":1}'

Serve = Callable[[Behave], Awaitable[Outlit]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    async with AsyncExitStack() as servers:

        async def serving(behave: Behave) -> Outlit:
            server = await servers.enter_async_context(running_outlit())
            server.begin(behave)
            return server

        yield serving


@asynccontextmanager
async def way_to(url: str, *, timeout_s: float = 5.0) -> AsyncIterator[Upstream]:
    async with Upstream(url, timeout_s=timeout_s) as way:
        yield way


async def posted(url: str, *, lane: Lane = LANE, timeout_s: float = 5.0) -> Answer | NoAnswer:
    async with way_to(url, timeout_s=timeout_s) as way, asyncio.timeout(timeout_s + 3):
        return await way.post(KEY, lane, BODY)


# -- what is sent --------------------------------------------------------------------------------------


async def test_a_request_has_the_lanes_headers_and_no_others(serve: Serve) -> None:
    server = await serve(says(OK))
    answer = await posted(server.url + "/")
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (200, b'{"processed":1}')
    request, *headers = server.requests[0].lines
    assert request == "POST /api/i/v1/pk_test/events HTTP/1.1"
    assert sorted(headers) == sorted(
        [
            f"Host: {server.url.removeprefix('http://')}",
            "Content-Type: application/json",
            f"Content-Length: {len(BODY)}",
            "X-Forwarded-For: 192.0.2.1",
            "User-Agent: Mozilla/5.0 (X11)",
            "Origin: https://acme.example",
        ]
    )
    assert [request.body for request in server.requests] == [BODY]


async def test_a_lane_without_headers_sends_none_in_their_place(serve: Serve) -> None:
    server = await serve(says(OK))
    await posted(server.url, lane=BARE)
    names = sorted(line.partition(":")[0] for line in server.requests[0].lines[1:])
    assert names == ["Content-Length", "Content-Type", "Host"]


@pytest.mark.parametrize("text", ["", "a", "café/1.0", "🦊", 'a"b\\c', "a\tb", "x" * 2048])
async def test_a_header_arrives_as_the_lane_has_it(serve: Serve, text: str) -> None:
    server = await serve(says(OK))
    await posted(server.url, lane=Lane(b"{}", "2001:db8::1", text, text))
    lines = server.requests[0].lines
    assert {"X-Forwarded-For: 2001:db8::1", f"User-Agent: {text}", f"Origin: {text}"} <= set(lines)


async def test_one_visitors_headers_do_not_leave_with_the_next_request(serve: Serve) -> None:
    server = await serve(says(OK))
    async with way_to(server.url) as way:
        await way.post(KEY, LANE, BODY)
        await way.post(KEY, BARE, BODY)
    assert server.connections == 1
    assert len(server.requests[1].headers) == 3


async def test_a_cookie_is_not_sent_back(serve: Serve) -> None:
    cookie = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: session=1; Path=/\r\nSet-Cookie: b=2\r\n\r\n", 1)
    server = await serve(says(cookie))
    async with way_to(server.url) as way:
        for _ in range(3):
            await way.post(KEY, LANE, BODY)
    assert [request.all("Cookie") for request in server.requests] == [[]] * 3


async def test_the_environments_proxy_is_not_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    other = await serve(says(OK))
    server = await serve(says(OK))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, other.url)
    await posted(server.url)
    assert (len(server.requests), len(other.requests)) == (1, 0)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_nothing_is_sent_elsewhere(serve: Serve, status: int) -> None:
    other = await serve(says(OK))
    location = f"{other.url}/api/i/v1/pk_test/events".encode()
    server = await serve(
        says(b"HTTP/1.1 %d X\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, location))
    )
    answer = await posted(server.url)
    assert isinstance(answer, Answer)
    assert answer.status == status
    assert (len(server.requests), other.connections) == (1, 0)


# -- what is read of an answer -------------------------------------------------------------------------


async def test_rate_headers_are_read_against_the_answers_own_date(serve: Serve) -> None:
    raw = (
        b"HTTP/1.1 429 Too Many\r\nDate: Tue, 14 Nov 2023 22:13:19 GMT\r\nX-RateLimit-Limit: 100\r\n"
        b"x-ratelimit-remaining: 0\r\nX-RateLimit-Reset: 1700000001\r\nRetry-After: 3\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    server = await serve(says(raw))
    answer = await posted(server.url)
    assert isinstance(answer, Answer)
    rate = answer.rate
    assert (rate.limit, rate.remaining, rate.reset_in_s, rate.retry_after_s) == (100, 0, 2.0, 3.0)


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_an_endless_answer_is_cut_at_its_bound(serve: Serve, framing: str) -> None:
    piece = b"x" * 65_536
    sent = 0

    async def endless(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        head = {"length": b"Content-Length: 1000000000\r\n", "chunked": b"Transfer-Encoding: chunked\r\n"}
        writer.write(b"HTTP/1.1 500 Oops\r\n" + head.get(framing, b"Connection: close\r\n") + b"\r\n")
        while not writer.is_closing():
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            await writer.drain()
            sent += len(piece)

    server = await serve(endless)
    answer = await posted(server.url)
    assert isinstance(answer, Answer)
    assert (answer.status, len(answer.body)) == (500, MAX_ANSWER_BYTES)
    assert sent < 20_000_000  # what the two sockets hold, and not a billion


@pytest.mark.parametrize(
    "more",
    [
        b"Content-Security-Policy: " + b"x" * 60_000 + b"\r\n",
        b"".join(b"X-Header-%d: 1\r\n" % n for n in range(900)),
    ],
    ids=["long", "many"],
)
async def test_an_answer_with_long_or_many_headers_is_an_answer(serve: Serve, more: bytes) -> None:
    server = await serve(says(OK.replace(b"\r\n", b"\r\n" + more, 1)))
    answer = await posted(server.url)
    assert isinstance(answer, Answer), answer
    assert answer.status == 200


@pytest.mark.parametrize(
    "more",
    [
        b"Set-Cookie: =;;=\x01 bad\xff\r\n",
        b"Retry-After: \xff\xfe\r\nX-RateLimit-Limit: \xd9\xa1\xd9\xa2\r\n",
        b'Content-Type: "\xff;;;charset=nope\r\n',
        b"Content-Encoding: br, nope\r\n",
        b"Location: http://[bad\r\n",
        b"Date: yesterday\r\nRetry-After: -1\r\nRetry-After: tomorrow\r\n",
    ],
    ids=repr,
)
@pytest.mark.parametrize("status", [200, 302, 429])
async def test_headers_that_make_no_sense_leave_the_status(serve: Serve, more: bytes, status: int) -> None:
    raw = OK.replace(b"200 OK", b"%d \xff" % status).replace(b"\r\n\r\n", b"\r\n" + more + b"\r\n", 1)
    server = await serve(says(raw))
    answer = await posted(server.url)
    assert isinstance(answer, Answer), answer
    assert (answer.status, answer.body) == (status, b'{"processed":1}')
    assert (answer.rate.limit, answer.rate.retry_after_s) == (None, None)
    assert answer.rate.malformed == {b"Retry": 2, b"Date:": 1}.get(more[:5], 0)


async def test_a_compressed_answer_is_not_inflated(serve: Serve) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    server = await serve(
        says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(bomb), bomb))
    )
    answer = await posted(server.url)
    assert isinstance(answer, Answer)
    assert answer.body == bomb


async def test_a_dripping_answer_is_left_at_the_time_out_and_its_status_counts(serve: Serve) -> None:
    async def drips(_: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 207 Multi\r\nContent-Length: 1000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    server = await serve(drips)
    began = asyncio.get_running_loop().time()
    answer = await posted(server.url, timeout_s=0.3)
    assert 0.25 < asyncio.get_running_loop().time() - began < 1.5
    assert isinstance(answer, Answer)
    assert answer.status == 207
    assert 0 < len(answer.body) < 100


@pytest.mark.parametrize("ends", ["closed", "reset", "bad chunk", "bad chunk size"])
async def test_half_an_answer_counts_by_its_status(serve: Serve, ends: str) -> None:
    async def half(_: Request, writer: asyncio.StreamWriter) -> None:
        if ends.startswith("bad"):
            writer.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"pro\r\n')
            await writer.drain()
            writer.write(b"5\r\nabcdefghij\r\n" if ends == "bad chunk" else b"zz\r\n")
            return
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"proc')
        await writer.drain()
        reset(writer) if ends == "reset" else writer.close()

    server = await serve(half)
    answer = await posted(server.url)
    if ends != "closed" and isinstance(answer, NoAnswer):  # the end may overtake what was sent before it
        assert answer.may_have_arrived
        return
    assert isinstance(answer, Answer)
    assert answer.status == 200
    assert b'{"processed":1}' not in answer.body
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "body", [b"\xff\xfe\x00", b"[" * 60_000, b"", b'{"processed": 1e999}', b"\x00" * 100], ids=repr
)
async def test_a_body_that_makes_no_sense_is_handed_on_as_it_is(serve: Serve, body: bytes) -> None:
    server = await serve(says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)))
    answer = await posted(server.url)
    assert isinstance(answer, Answer)
    assert (answer.status, answer.body) == (200, body)


# -- no answer, but it may have arrived ----------------------------------------------------------------

NONSENSE = {
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a bad status": b"HTTP/1.1 abc OK\r\n\r\n",
    "a bad length": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "a header without end": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000,
    "100,000 headers": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    "NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "nothing": b"",
}


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_an_answer_that_is_none_may_have_been_preceded_by_the_delivery(
    serve: Serve, nonsense: str
) -> None:
    server = await serve(says(NONSENSE[nonsense], then_close=True))
    answer = await posted(server.url)
    if isinstance(answer, Answer):  # the parser may be lenient about one of them: then a status counts
        assert nonsense in ("100,000 headers", "NUL in a header")
        return
    assert answer.may_have_arrived
    assert answer.error
    assert len(server.requests) == 1, "a POST is never sent again by the client library"


async def test_a_head_that_drips_is_left_at_the_time_out(serve: Serve) -> None:
    async def drips(_: Request, writer: asyncio.StreamWriter) -> None:
        for byte in OK:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    server = await serve(drips)
    began = asyncio.get_running_loop().time()
    answer = await posted(server.url, timeout_s=0.3)
    assert 0.25 < asyncio.get_running_loop().time() - began < 1.5
    assert isinstance(answer, NoAnswer)
    assert answer.may_have_arrived


async def test_what_an_answer_holds_cannot_disturb_a_log_or_a_store(serve: Serve) -> None:
    """The client library repeats what it cannot read; the words end as a dead letter's message."""
    server = await serve(says(b"HTTP/1.1 \x1b[31m\xff\x00\r\n\r\n", then_close=True))
    answer = await posted(server.url)
    assert isinstance(answer, NoAnswer)
    assert answer.error.isprintable()


async def test_a_reset_after_the_body_may_have_arrived(serve: Serve) -> None:
    server = await serve(resets)
    answer = await posted(server.url)
    assert answer == NoAnswer(may_have_arrived=True, error=answer.error)  # type: ignore[union-attr]
    assert len(server.requests) == 1


async def test_a_server_that_never_answers_may_have_taken_it_and_is_left_at_the_time_out(
    serve: Serve,
) -> None:
    server = await serve(hangs)
    began = asyncio.get_running_loop().time()
    answer = await posted(server.url, timeout_s=0.2)
    assert 0.15 < asyncio.get_running_loop().time() - began < 1.0
    assert answer == NoAnswer(may_have_arrived=True, error="TimeoutError: no answer within 0.2 s")
    assert len(server.requests) == 1


async def test_half_a_head_is_said_in_words(serve: Serve) -> None:
    server = await serve(says(NONSENSE["half a head"], then_close=True))
    answer = await posted(server.url)
    assert answer == NoAnswer(
        may_have_arrived=True,
        error="ServerDisconnectedError: the connection was closed in the midst of the answer",
    )


async def test_only_early_hints_without_an_end_are_no_answer(serve: Serve) -> None:
    async def hints(_: Request, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)

    server = await serve(hints)
    answer = await posted(server.url, timeout_s=0.3)
    assert isinstance(answer, NoAnswer)
    assert answer.may_have_arrived


# -- connections that are kept -------------------------------------------------------------------------


async def test_a_connection_is_used_again(serve: Serve) -> None:
    server = await serve(says(OK))
    async with way_to(server.url) as way:
        for _ in range(5):
            await way.post(KEY, LANE, BODY)
    assert (server.connections, len(server.requests)) == (1, 5)


async def test_a_kept_connection_that_the_server_closed_is_not_used_again(serve: Serve) -> None:
    server = await serve(says(OK, then_close=True))
    async with way_to(server.url) as way:
        for _ in range(3):
            assert isinstance(await way.post(KEY, LANE, BODY), Answer)
            await heard_of_the_end(way)
    assert (server.connections, len(server.requests)) == (3, 3)


async def heard_of_the_end(way: Upstream) -> None:
    """Wait until the client has seen the server close the connections that it keeps."""
    assert way._session is not None
    connector: Any = way._session.connector
    for kept in list(connector._conns.values()):
        for handler, _ in kept:
            if handler.closed is not None:
                await handler.closed


async def test_a_kept_connection_closed_just_as_we_send_is_not_tried_twice(serve: Serve) -> None:
    """The server read it and closed without a word: only the buffer may send it again, and counts it."""
    answered = 0

    async def then_closes(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        answered += 1
        if answered == 1:
            writer.write(OK)
        else:
            writer.close()

    server = await serve(then_closes)
    async with way_to(server.url) as way:
        assert isinstance(await way.post(KEY, LANE, BODY), Answer)
        answer = await way.post(KEY, LANE, BODY)
    assert isinstance(answer, NoAnswer)
    assert answer.may_have_arrived
    assert (server.connections, len(server.requests)) == (1, 2)


@pytest.mark.parametrize("moment", ["with the answer", "later"])
async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_ones(
    serve: Serve, moment: str
) -> None:
    """It was: a 200 that came into an idle connection delivered the next batch, which was refused."""
    unasked = asyncio.Event()

    async def answers_too_often(_: Request, writer: asyncio.StreamWriter) -> None:
        if len(server.requests) > 1:
            writer.write(b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n")
            return
        if moment == "later":
            writer.write(OK)
            await unasked.wait()
        else:
            writer.write(OK)
        writer.write(OK)

    server = await serve(answers_too_often)
    async with way_to(server.url) as way:
        first = await way.post(KEY, LANE, BODY)
        assert isinstance(first, Answer)
        unasked.set()
        if moment == "later":
            await heard_something_unasked(way)
        second = await way.post(KEY, LANE, BODY)
    assert isinstance(second, Answer)
    assert (first.status, second.status) == (200, 400)
    assert server.connections == 2


async def heard_something_unasked(way: Upstream) -> None:
    """Wait until something has come into the one connection that is kept."""
    assert way._session is not None
    connector: Any = way._session.connector
    ((protocol, _),) = next(iter(connector._conns.values()))
    while not protocol.should_close:  # noqa: ASYNC110  # there is no event
        await asyncio.sleep(0)


async def test_an_answer_that_was_cut_off_does_not_spoil_the_next(serve: Serve) -> None:
    """Its connection is given up: the rest of the answer would be taken for the next one's."""
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" * 100_000
    server = await serve(says(b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n%s" % (len(long), long)))
    async with way_to(server.url) as way:
        for _ in range(3):
            answer = await way.post(KEY, LANE, BODY)
            assert isinstance(answer, Answer)
            assert (answer.status, len(answer.body)) == (500, MAX_ANSWER_BYTES)
    assert server.connections == 3


async def test_a_cancelled_post_does_not_spoil_the_next(serve: Serve) -> None:
    turn = 0

    async def slow_then_quick(_: Request, writer: asyncio.StreamWriter) -> None:
        nonlocal turn
        turn += 1
        if turn == 1:
            await asyncio.Event().wait()
        writer.write(OK)

    server = await serve(slow_then_quick)
    async with way_to(server.url) as way:
        first = asyncio.create_task(way.post(KEY, LANE, BODY))
        await server.until_requests(1)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert isinstance(await way.post(KEY, BARE, BODY), Answer)
    assert server.connections == 2


# -- nothing was sent ----------------------------------------------------------------------------------


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the client library is asked to post to, a line an attempt."""
    asked: list[str] = []
    post = aiohttp.ClientSession.post

    def counted(self: aiohttp.ClientSession, url: Any, **options: Any) -> Any:
        asked.append(str(url))
        return post(self, url, **options)

    monkeypatch.setattr(aiohttp.ClientSession, "post", counted)
    return asked


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_refused_connection_is_tried_again_and_was_not_sent(attempts: list[str]) -> None:
    answer = await posted(f"http://127.0.0.1:{closed_port()}")
    assert isinstance(answer, NoAnswer)
    assert not answer.may_have_arrived
    assert "127.0.0.1" in answer.error
    assert len(attempts) == 3


async def test_a_name_that_does_not_resolve_was_not_sent(
    attempts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nowhere(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", nowhere)
    answer = await posted("http://nowhere.invalid:9")
    assert isinstance(answer, NoAnswer)
    assert not answer.may_have_arrived
    assert "nowhere.invalid" in answer.error
    assert len(attempts) == 3


async def test_tls_to_a_plain_port_was_not_sent_and_never_falls_back(attempts: list[str]) -> None:
    spoken = []

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        spoken.append(await reader.read(1000))
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        answer = await posted(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert isinstance(answer, NoAnswer)
    assert not answer.may_have_arrived
    assert len(attempts) == len(spoken) == 3
    assert not any(KEY.encode() in hello for hello in spoken)


async def test_a_connection_that_hangs_before_anything_was_sent_was_not_sent(attempts: list[str]) -> None:
    """The listener takes the connection and says nothing to the TLS handshake."""

    async def silent(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        began = asyncio.get_running_loop().time()
        answer = await posted(f"https://127.0.0.1:{port}", timeout_s=0.3)
        assert asyncio.get_running_loop().time() - began < 1.0
        server.close()
    assert isinstance(answer, NoAnswer)
    assert not answer.may_have_arrived
    assert "imeout" in answer.error


async def test_a_server_that_comes_up_meanwhile_gets_it(
    serve: Serve, attempts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve(says(OK))
    connect = aiohttp.TCPConnector._create_connection

    async def up_at_the_second_try(self: aiohttp.TCPConnector, *given: Any) -> Any:
        if len(attempts) == 1:
            raise aiohttp.ClientConnectorError(given[0].connection_key, OSError(111, "Connection refused"))
        return await connect(self, *given)

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", up_at_the_second_try)
    assert isinstance(await posted(server.url), Answer)
    assert len(attempts) == 2
    assert [request.body for request in server.requests] == [BODY]


async def test_no_try_to_connect_is_waited_for_beyond_the_time_out(
    attempts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream, "wait_random_exponential", lambda **_: wait_fixed(6))
    answer = await posted(f"http://127.0.0.1:{closed_port()}", timeout_s=2)
    assert isinstance(answer, NoAnswer)
    assert not answer.may_have_arrived
    assert "Connect" in answer.error
    assert len(attempts) == 1


async def test_what_may_have_arrived_is_never_tried_again_here(serve: Serve, attempts: list[str]) -> None:
    server = await serve(says(b"", then_close=True))
    await posted(server.url)
    assert len(attempts) == len(server.requests) == 1
