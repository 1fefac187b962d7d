"""HTTP as clients, browsers, load balancers and strangers speak it, against a running service."""

import asyncio
import gzip
import io
import json
import zlib
from collections.abc import Callable

import brotli  # type: ignore[import-untyped]  # it comes without types
import pytest
from backports import zstd

from tests.sandbox.bodies import client, event
from tests.stack import KEY, PATIENCE_S, Reply, Stack, StartStack, read_reply

PATH = f"/api/i/v1/{KEY}/events"
GOOD = json.dumps(client()).encode()
SITE = "https://www.example.com"


def request(body: bytes = GOOD, *headers: bytes, target: str = PATH, method: str = "POST") -> bytes:
    """A request's bytes, with its length; `headers` are lines without their end."""
    lines = [
        f"{method} {target} HTTP/1.1".encode(),
        b"Host: front",
        *headers,
        b"Content-Length: %d" % len(body),
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


# -- where to post -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        PATH,
        f"{PATH}/",
        f"/{PATH}",
        f"//api//i/v1///{KEY}//events",
        f"/c{PATH}",
        f"/some/where{PATH}",
        f"{PATH}?v=1&token=x",
        "/api/i/v1/pk%5Ftest/events",
        "/api/i/v1/%70%6b_test/events",
        f"http://proxy.example{PATH}",
        f"https://proxy.example:8443/{PATH}?v=1",
        f"HTTP://PROXY.EXAMPLE{PATH}",
    ],
)
async def test_a_client_may_spell_the_path_in_many_ways(stack: Stack, target: str) -> None:
    assert (await stack.raw(request(target=target))).status == 200
    (arrival,) = await stack.arrived(1)
    assert arrival.key == KEY


async def test_other_prefixes_are_the_operators_choice(start_stack: StartStack) -> None:
    stack = await start_stack(front={"path_prefixes": ("/t/v1", "/api/i/v1")})
    assert (await stack.post(client(event(number=1)), path=f"/t/v1/{KEY}/events")).status == 200
    assert (await stack.post(client(event(number=2)), path=f"/c//t/v1/{KEY}/events")).status == 200
    assert (await stack.post(client(event(number=3)), path=PATH)).status == 200
    assert (await stack.post(client(event(number=4)), path=f"/t/v2/{KEY}/events")).status == 404
    await stack.arrived(3)


# -- bodies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "text/plain;charset=UTF-8",
        "text/plain",
        "application/json; charset=klingon",
        "x",
        "",
        None,
    ],
)
async def test_json_is_json_under_any_content_type(stack: Stack, content_type: str | None) -> None:
    headers = [] if content_type is None else [f"Content-Type: {content_type}".encode()]
    assert (await stack.raw(request(GOOD, *headers))).status == 200
    (arrival,) = await stack.arrived(1)
    assert arrival.headers["content-type"] == "application/json"


def deflated(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "Deflate": deflated,
    "br": brotli.compress,
    "zstd": zstd.compress,
    "identity": bytes,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data)),
}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("size", [0, 150_000])
async def test_a_compressed_body_is_taken_and_leaves_plain(stack: Stack, coding: str, size: int) -> None:
    noise = "".join(chr(0x100 + n * 7919 % 5_000) for n in range(size))
    sent = event("custom", properties={"noise": noise})
    reply = await stack.post(
        CODINGS[coding](json.dumps(client(sent)).encode()), headers={"Content-Encoding": coding}
    )
    assert reply.status == 200
    (arrival,) = await stack.arrived(1)
    assert arrival.event == sent
    assert "content-encoding" not in arrival.headers


async def test_a_body_in_chunks_is_taken(stack: Stack) -> None:
    chunks = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in GOOD)
    assert (await stack.raw(CHUNKED + chunks + b"0\r\nX-Trailer: x\r\n\r\n")).status == 200
    await stack.arrived(1)


async def test_a_client_that_asks_first_is_told_to_continue(stack: Stack) -> None:
    head, _, body = request(GOOD, b"Expect: 100-continue").partition(b"\r\n\r\n")
    async with stack.connection() as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert (
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            == b"HTTP/1.1 100 Continue\r\n\r\n"
        )
        writer.write(body)
        assert (await read_reply(reader)).json == {"success": True, "processed": 1}
        # The connection goes on.
        writer.write(request(json.dumps(client(event(number=2))).encode()))
        assert (await read_reply(reader)).status == 200
    await stack.arrived(2)


@pytest.mark.parametrize(
    ("target", "length", "status"),
    [(PATH, 10**8, 413), ("/elsewhere", 10, 404), ("/api/i/v1/ok_key/events", 10, 403)],
)
async def test_who_asks_first_and_is_refused_need_not_send_the_body(
    stack: Stack, target: str, length: int, status: int
) -> None:
    head = f"POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
    assert (await stack.raw(head.encode())).status == status


async def test_requests_in_a_row_on_one_connection_are_answered_in_turn(stack: Stack) -> None:
    bodies = [json.dumps(client(event(number=n), event(path=7))).encode() for n in range(5)]
    async with stack.connection() as (reader, writer):
        writer.write(b"".join(map(request, bodies)))
        replies = [await read_reply(reader) for _ in bodies]
    assert [reply.status for reply in replies] == [207] * 5
    assert [arrival.event for arrival in await stack.arrived(5)] == [event(number=n) for n in range(5)]


# -- headers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [9_000, 40_000, 60_000])
async def test_large_cookies_are_taken_and_go_no_further(stack: Stack, logs: io.StringIO, size: int) -> None:
    secret = "session-of-the-site"
    cookie = f"sid={secret}; junk={'c' * size}"
    assert (await stack.post(client(), headers={"Cookie": cookie, "Authorization": secret})).status == 200
    (arrival,) = await stack.arrived(1)
    assert "cookie" not in arrival.headers
    assert "authorization" not in arrival.headers
    assert secret.encode() not in stack.stored_bytes()
    assert secret not in logs.getvalue()


async def test_nothing_travels_on_but_what_outlit_needs(stack: Stack) -> None:
    noise = {
        "Accept": "*/*", "Accept-Language": "de", "Referer": "https://a/secret", "traceparent": "00-x",
        "X-Real-Ip": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Forwarded-For": "6.6.6.6", "Via": "1.1 a",
        "User-Agent": "Mozilla/5.0", "Origin": SITE, "Sec-Fetch-Mode": "cors", "Content-Type": "text/plain",
        "X-Request-Id": "1", "DNT": "1",
    }  # fmt: skip
    assert (await stack.post(client(), headers=noise)).status == 200
    (arrival,) = await stack.arrived(1)
    assert {
        name: value for name, value in arrival.headers.items() if name not in ("host", "content-length")
    } == {
        "content-type": "application/json",
        "user-agent": "Mozilla/5.0",
        "origin": SITE,
        "x-forwarded-for": "127.0.0.1",
    }


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (None, None),
        (b"", ""),
        (b"Mozilla/5.0 (X11)", "Mozilla/5.0 (X11)"),
        ("café/1.0".encode(), "café/1.0"),
        ("café/1.0".encode("latin-1"), "caf?/1.0"),
        (b"\xff\xfe", "??"),
        (b"a\tb", "a\tb"),
        (b"x" * 9_000, "x" * 2_048),
    ],
)
@pytest.mark.parametrize("name", ["User-Agent", "Origin"])
async def test_a_header_arrives_upstream_as_the_lane_says(
    stack: Stack, name: str, sent: bytes | None, arrives: str | None
) -> None:
    headers = [] if sent is None else [name.encode() + b": " + sent]
    assert (await stack.raw(request(GOOD, *headers))).status == 200
    (arrival,) = await stack.arrived(1)
    assert arrival.headers.get(name.lower()) == arrives


@pytest.mark.parametrize(
    ("policy", "lines", "address"),
    [
        ("forward", [], "127.0.0.1"),
        ("forward", ["198.51.100.7"], "198.51.100.7"),
        ("forward", ["6.6.6.6, 198.51.100.7", "127.0.0.9"], "198.51.100.7"),
        ("forward", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("truncate", ["198.51.100.7"], "198.51.100.0"),
        ("truncate", ["2001:db8:1:2::3"], "2001:db8:1::"),
        ("drop", ["198.51.100.7"], None),
    ],
)
async def test_the_clients_address_is_what_a_trusted_proxy_says_and_the_policy_leaves(
    start_stack: StartStack, policy: str, lines: list[str], address: str | None
) -> None:
    stack = await start_stack(front={"trusted_proxies": ("127.0.0.0/8",), "client_ip": policy})
    assert (
        await stack.raw(request(GOOD, *(f"X-Forwarded-For: {line}".encode() for line in lines)))
    ).status == 200
    (arrival,) = await stack.arrived(1)
    assert arrival.headers.get("x-forwarded-for") == address
    if policy != "forward" and lines:
        assert lines[0].encode() not in stack.stored_bytes()


async def test_a_peer_that_is_not_trusted_is_warned_of_once_and_counted(
    stack: Stack, logs: io.StringIO
) -> None:
    for number in range(3):
        await stack.post(client(event(number=number)), headers={"X-Forwarded-For": "6.6.6.6"})
    assert {arrival.headers["x-forwarded-for"] for arrival in await stack.arrived(3)} == {"127.0.0.1"}
    assert (await stack.metrics())("forwarding_headers_untrusted_total") == 3
    assert logs.getvalue().count("front.trusted_proxies") == 1


async def test_junk_in_forwarding_headers_is_counted(start_stack: StartStack) -> None:
    stack = await start_stack(front={"trusted_proxies": ("127.0.0.1",)})
    await stack.post(client(), headers={"X-Forwarded-For": "<script>"})
    assert (await stack.arrived(1))[0].headers["x-forwarded-for"] == "127.0.0.1"
    assert (await stack.metrics())("forwarding_headers_junk_total") == 1


# -- browsers ----------------------------------------------------------------------------------------------


async def test_a_credentialed_beacon_is_let_through(stack: Stack) -> None:
    """The preflight, then the POST, as Chromium sends and checks them for `navigator.sendBeacon`."""
    asked = {
        "Origin": SITE,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type",
    }
    reply = await stack.post(b"", headers=asked, method="OPTIONS")
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["Access-Control-Allow-Origin"] == SITE
    assert reply.headers["Access-Control-Allow-Credentials"] == "true"
    assert reply.headers["Access-Control-Allow-Methods"] == "POST, OPTIONS"
    assert reply.headers["Access-Control-Allow-Headers"] == "Content-Type"
    assert int(reply.headers["Access-Control-Max-Age"]) > 0
    assert "Origin" in reply.headers["Vary"]
    assert reply.headers["X-Request-Id"]
    posted = await stack.post(client(), headers={"Origin": SITE, "Cookie": "sid=1"})
    assert posted.status == 200
    assert posted.headers["Access-Control-Allow-Origin"] == SITE
    assert posted.headers["Access-Control-Allow-Credentials"] == "true"
    assert posted.headers["Vary"] == "Origin"
    (arrival,) = await stack.arrived(1)
    assert arrival.headers["origin"] == SITE
    assert (await stack.metrics())("http_requests_total", code="204") == 1


async def test_a_page_can_read_a_refusal(stack: Stack) -> None:
    for reply in (
        await stack.post(b"{", headers={"Origin": SITE}),
        await stack.post(client(), headers={"Origin": SITE}, path="/elsewhere"),
    ):
        assert reply.status in (400, 404)
        assert reply.headers["Access-Control-Allow-Origin"] == SITE


@pytest.mark.parametrize("target", [PATH, "/", "/elsewhere", "*", "/api/i/v1/no-key/events"])
@pytest.mark.parametrize("origin", [SITE, "https://evil.example", None, "null"])
async def test_a_preflight_is_never_an_error(
    start_stack: StartStack, target: str, origin: str | None
) -> None:
    stack = await start_stack(front={"allowed_origins": (SITE,)})
    headers = [] if origin is None else [f"Origin: {origin}".encode()]
    reply = await stack.raw(request(b"", *headers, target=target, method="OPTIONS"))
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers.get("Access-Control-Allow-Origin") == (SITE if origin == SITE else None)


# -- what is no HTTP ---------------------------------------------------------------------------------------

CHUNKED = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
MALFORMED = {
    "no HTTP": b"GARBAGE\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "an unknown method": b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
    "an unknown version": b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a target in Latin-1": b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in a header": request(GOOD, b"X-A: a\x00b"),
    "a header without a name": request(GOOD, b": a"),
    "a blank before the colon": request(GOOD, b"X-A : a"),
    "a folded header": request(GOOD, b"X-A: a\r\n b"),
    "bare CR in a header": request(GOOD, b"X-A: a\rb"),
    "a header beyond 64 KB": request(GOOD, b"Cookie: " + b"c" * 70_000),
    "two lengths": request(GOOD, b"Content-Length: 7"),
    "a length and chunks": request(GOOD, b"Transfer-Encoding: chunked"),
    "a negative length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    "a length in words": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: two\r\n\r\n",
    "a made up transfer coding": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "a chunk of no size": CHUNKED + b"zz\r\n\r\n",
    "a chunk longer than it says": CHUNKED + b"1\r\n{}\r\n0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=MALFORMED.keys())
async def test_what_is_no_http_is_answered_in_json_and_leaves_no_traceback(
    stack: Stack, logs: io.StringIO, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    async with stack.connection() as (reader, writer):
        writer.write(sent)
        reply = await read_reply(reader)
        await asyncio.wait_for(reader.read(), PATIENCE_S)  # the connection ends
    assert_malformed(reply)
    seen = await stack.metrics()
    assert seen("requests_refused_total", code="malformed_request") == 1
    assert seen("http_requests_total", code="400") == 1
    assert seen("events_received_total") == 0
    assert "Traceback" not in logs.getvalue() + caplog.text
    assert "ERROR" not in caplog.text
    assert (await stack.post(client())).status == 200
    await stack.arrived(1)


def assert_malformed(reply: Reply) -> None:
    assert reply.status == 400
    assert reply.headers["Content-Type"].startswith("application/json")
    assert reply.headers["X-Request-Id"]
    assert (reply.json["code"], reply.json["processed"]) == ("malformed_request", 0)


async def test_answers_repeat_nothing_of_what_came_in(stack: Stack) -> None:
    marker = "<script>evil</script>"
    for sent in (
        request(GOOD, f"X-Request-Id: {marker}".encode(), f"Origin: {marker}".encode(), target=f"/{marker}"),
        request(GOOD, target=f"/api/i/v1/{marker}/events"),
        request(json.dumps({**client(), marker: 1, "visitorId": marker}).encode()),
        f"BREW {marker} HTTP/1.1\r\n\r\n".encode(),
        request(GOOD, f"Content-Encoding: {marker}".encode()),
    ):
        reply = await stack.raw(sent)
        assert reply.status >= 400
        assert marker not in str(reply.headers) + reply.body.decode()


# -- slow and many connections -----------------------------------------------------------------------------


async def assert_last_words(reader: asyncio.StreamReader, status: int, code: str) -> Reply:
    """An answer to no whole request, after which the connection ends."""
    reply = await read_reply(reader)
    assert (reply.status, reply.json["code"]) == (status, code)
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["Connection"] == "close"
    assert reply.headers["X-Request-Id"]
    assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""
    return reply


async def test_slow_headers_are_cut_while_an_idle_connection_stays(start_stack: StartStack) -> None:
    stack = await start_stack(front={"header_timeout_s": 0.15})
    async with stack.connection() as (idle_reader, idle_writer):
        idle_writer.write(request())
        assert (await read_reply(idle_reader)).status == 200
        async with stack.connection() as (silent, _), stack.connection() as (slow, writer):
            writer.write(request()[:40])
            # Both end by themselves, and the idle one has then been idle for as long.
            assert await asyncio.wait_for(silent.read(), PATIENCE_S) == b""
            await assert_last_words(slow, 408, "request_timeout")
        idle_writer.write(request(json.dumps(client(event(number=2))).encode()))
        assert (await read_reply(idle_reader)).status == 200
    await stack.arrived(2)
    assert (await stack.metrics())("requests_refused_total", code="request_timeout") == 2


async def test_headers_that_trickle_are_cut_as_well(start_stack: StartStack) -> None:
    stack = await start_stack(front={"header_timeout_s": 0.2})
    async with stack.connection() as (reader, writer):
        writer.write(f"POST {PATH} HTTP/1.1\r\nX-A: ".encode())
        ended = asyncio.ensure_future(reader.read())
        started = asyncio.get_running_loop().time()
        while not ended.done():
            writer.write(b"a")
            await asyncio.wait([ended], timeout=0.02)
            assert asyncio.get_running_loop().time() - started < PATIENCE_S
        await asyncio.gather(ended, return_exceptions=True)


async def test_the_headers_of_a_second_request_have_their_deadline_too(start_stack: StartStack) -> None:
    stack = await start_stack(front={"header_timeout_s": 0.15})
    async with stack.connection() as (reader, writer):
        writer.write(request())
        assert (await read_reply(reader)).status == 200
        writer.write(request()[:40])
        await assert_last_words(reader, 408, "request_timeout")
    assert (await stack.metrics())("http_requests_total", code="408") == 1


async def test_a_slow_body_is_not_held_to_the_deadline_of_headers(start_stack: StartStack) -> None:
    stack = await start_stack(front={"header_timeout_s": 0.1})
    whole = request()
    async with stack.connection() as (reader, writer), stack.connection() as (silent, _):
        writer.write(whole[:-10])
        # A silent connection made after it is cut: the deadline has passed.
        assert await asyncio.wait_for(silent.read(), PATIENCE_S) == b""
        writer.write(whole[-10:])
        assert (await read_reply(reader)).status == 200
    await stack.arrived(1)


async def test_connections_beyond_the_bound_are_closed_and_counted(start_stack: StartStack) -> None:
    stack = await start_stack(front={"max_connections": 2, "header_timeout_s": 60.0})
    async with stack.connection() as (one, first), stack.connection() as (_, second):
        for reader, writer, number in ((one, first, 1), (_, second, 2)):
            writer.write(request(json.dumps(client(event(number=number))).encode()))
            assert (await read_reply(reader)).status == 200
        async with stack.connection() as (third, writer):
            writer.write(request())
            reply = await assert_last_words(third, 503, "overloaded")
            assert reply.headers["Retry-After"]
        seen = await stack.metrics()
        assert seen("connections_refused_total") == seen("http_requests_total", code="503") == 1
        first.write(request(json.dumps(client(event(number=3))).encode()))
        assert (await read_reply(one)).status == 200
    await stack.arrived(3)


async def test_of_a_flood_of_connections_some_are_told_and_all_are_closed(
    monkeypatch: pytest.MonkeyPatch, start_stack: StartStack
) -> None:
    monkeypatch.setattr("proxy.front.connection.MAX_TURNED_AWAY", 1)
    stack = await start_stack(front={"max_connections": 1, "header_timeout_s": 60.0})
    async with stack.connection() as (reader, writer), stack.connection() as (told, _):
        await assert_last_words(told, 503, "overloaded")
        async with stack.connection() as (untold, _):
            assert await asyncio.wait_for(untold.read(), PATIENCE_S) == b""
        # Who is still told counts for none of those that are served.
        writer.write(request())
        assert (await read_reply(reader)).status == 200
    assert (await stack.metrics())("connections_refused_total") == 2
    await stack.arrived(1)
