"""Which headers pass the gateway, either way: none that names a person, a page, a connection or the token."""

import asyncio
import gzip
import itertools
import time

import aiohttp
import pytest
from multidict import CIMultiDict

from tests.gateway.callers import BASES, Callers
from tests.gateway.orders import exhausted
from tests.outlit import Outlit, answer, says
from tests.stack import OPS_TOKEN, PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

NEVER_SENT = {
    "Cookie": f"session=1; token={OPS_TOKEN}",
    "Proxy-Authorization": f"Bearer {OPS_TOKEN}",
    "X-Forwarded-For": "203.0.113.9",
    "X-Real-IP": "203.0.113.9",
    "Forwarded": "for=203.0.113.9",
    "Origin": "http://localhost:9090",
    "Referer": f"http://localhost:9090/?token={OPS_TOKEN}",
    "Connection": "keep-alive, X-Named",
    "X-Named": "by Connection",
    "Keep-Alive": "timeout=5",
    "TE": "trailers",
    "Upgrade": "websocket",
    "Proxy-Connection": "keep-alive",
    "X-Api-Key": OPS_TOKEN,
    "X-Copy": f"Bearer {OPS_TOKEN}",
    "Sec-Fetch-Site": "cross-site",
}
ALWAYS_SENT = {
    "Accept": "application/json",
    "X-Request-Id": "req_1",
    "Idempotency-Key": "k1",
    "Range": "bytes=5-",
    "If-Range": '"v1"',
}


@pytest.mark.parametrize("caller", ["own", "operator"])
async def test_upstream_gets_the_key_once_and_nothing_else_of_the_caller(
    outlit: Outlit, callers: Callers, caller: str
) -> None:
    sent = {**NEVER_SENT, **ALWAYS_SENT, "Content-Type": "application/json; charset=utf-7"}
    for base in BASES:
        body = b'{"tool":"outlit_search"}'
        reply = await callers.ask("POST", "/tools/call", body, caller=caller, base=base, headers=sent)
        assert reply.status == 200, reply.body
    assert len(outlit.requests) == 2
    key = callers.own_key if caller == "own" else callers.api_key
    for request in outlit.requests:
        assert OPS_TOKEN.encode() not in request.raw
        assert request.all("Authorization") == [f"Bearer {key}"]
        assert request.all("Host") == [outlit.url.removeprefix("http://")]
        for name in NEVER_SENT:
            if name != "Connection":
                assert request.all(name) == [], name
        # What was read as JSON is sent as JSON: no charset lets another reader find something else in it.
        assert request.all("Content-Type") == ["application/json"]
        assert "X-Named" not in "".join(request.all("Connection"))
        for name, value in ALWAYS_SENT.items():
            assert request.all(name) == [value]


@pytest.mark.parametrize(
    "scheme", ["Bearer", "bearer", "BEARER"], ids=["as usual", "in small letters", "in capitals"]
)
async def test_the_token_reaches_upstream_in_no_form_of_the_header(
    outlit: Outlit, callers: Callers, scheme: str
) -> None:
    for spaces, status in ((" ", 200), ("  ", 200), ("\t", 401)):
        reply = await callers.raw(
            f"GET /platform/api/integrations HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: {scheme}{spaces}{OPS_TOKEN}\r\n\r\n".encode()
        )
        assert reply.status == status
    assert len(outlit.requests) == 2
    for request in outlit.requests:
        assert OPS_TOKEN.encode() not in request.raw
        assert request.all("Authorization") == [f"Bearer {callers.api_key}"]


async def test_a_callers_own_key_may_hold_any_visible_sign(outlit: Outlit, callers: Callers) -> None:
    key = "ok_" + "".join(map(chr, range(0x21, 0x7F)))
    assert (await callers.ask("GET", "/integrations", caller=key)).status == 200
    assert outlit.requests[0].all("Authorization") == [f"Bearer {key}"]


async def test_a_key_that_is_no_header_is_refused(outlit: Outlit, callers: Callers) -> None:
    for key in (b"ok_\xff\xfe", b"ok_a b", b"ok_a\tb", b"ok_\xc3\xa9", b"ok_"):
        reply = await callers.raw(
            b"GET /platform/api/integrations HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\n\r\n"
            % key
        )
        assert reply.status in {400, 401}
    assert outlit.requests == []


@pytest.mark.parametrize("key", [b"\x7f", b"\x00", b"\x01", b" \r\n\x7f"])
async def test_a_request_that_is_no_http_is_not_quoted(outlit: Outlit, callers: Callers, key: bytes) -> None:
    """Whoever reads the answer in a log must not read the key there."""
    reply = await callers.raw(
        b"GET /platform/api/integrations HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer %s%s\r\n\r\n"
        % (callers.own_key.encode(), key),
        until_closed=True,
    )
    assert reply.status in {400, 401}
    assert callers.own_key.encode() not in reply.body
    assert outlit.requests == []


OF_UPSTREAM = [
    "Content-Type: application/json",
    'ETag: W/"1"',
    "X-Request-Id: req_1",
    "Retry-After: 7",
    "X-RateLimit-Remaining: 5",
]
REMOVED = [
    "Set-Cookie: session=1; Path=/",
    "Set-Cookie: b=2",
    "Access-Control-Allow-Origin: *",
    "Access-Control-Allow-Credentials: true",
    "Access-Control-Expose-Headers: *",
    "Strict-Transport-Security: max-age=31536000; includeSubDomains",
    "Connection: X-Named",
    "X-Named: by Connection",
    "Keep-Alive: timeout=5",
    "Proxy-Authenticate: Basic",
    'Clear-Site-Data: "*"',
]


async def test_an_answer_keeps_its_headers_but_those_of_pages_and_connections(
    outlit: Outlit, callers: Callers
) -> None:
    outlit.begin(says(answer(b'{"items":[]}', "200 OK", "Cache-Control: public", *OF_UPSTREAM, *REMOVED)))
    reply = await callers.ask("GET", "/integrations", headers={"Origin": "http://localhost:9090"})
    found = CIMultiDict(reply.headers)
    for line in OF_UPSTREAM:
        name, _, value = line.partition(": ")
        assert found.getall(name) == [value]
    for line in REMOVED:
        name = line.partition(":")[0]
        if name != "Connection":
            assert name not in found, name
    assert "X-Named" not in found.get("Connection", "")
    assert found.getall("Cache-Control") == ["no-store"]


@pytest.mark.parametrize("name", ["Proxy-Status", "Cache-Status"])
async def test_upstream_cannot_pass_for_the_gateway(outlit: Outlit, callers: Callers, name: str) -> None:
    """The command line tells our own answers from Outlit's by these."""
    lines = (f"{name}: outlit-proxy; error=x; hit", f"{name}: outlit-proxy")
    outlit.begin(says(answer(b'{"error":"e"}', "404 Not Found", *lines)))
    reply = await callers.ask("GET", "/integrations")
    assert reply.status == 404
    assert not [value for value in CIMultiDict(reply.headers).getall(name, []) if "outlit-proxy" in value]


@pytest.mark.parametrize(
    ("location", "passed"),
    [
        ("https://elsewhere.example/x", "https://elsewhere.example/x"),
        ("/login", "/login"),
        ("{url}/api/integrations/2?a=b", "{base}/integrations/2?a=b"),
        ("/api/integrations/2", "{base}/integrations/2"),
    ],
)
async def test_a_redirect_passes_and_is_not_followed(
    outlit: Outlit, callers: Callers, location: str, passed: str
) -> None:
    statuses = ("302 Found", "307 Temporary Redirect", "308 Permanent Redirect")
    for base, status in itertools.product(BASES, statuses):
        outlit.begin(says(answer(b"", status, f"Location: {location.format(url=outlit.url)}")))
        reply = await callers.ask("POST", "/integrations/1", {}, base=base)
        assert (reply.status, reply.headers["Location"]) == (int(status[:3]), passed.format(base=base))
        assert len(outlit.requests) == 1


async def test_a_compressed_answer_comes_out_as_its_headers_say(outlit: Outlit, callers: Callers) -> None:
    body = b'{"items":[]}' * 100
    coded = answer(gzip.compress(body), "200 OK", "Content-Encoding: gzip", "Content-Type: application/json")
    outlit.begin(says(coded))
    for accepted in ("gzip", "identity"):
        reply = await callers.raw(
            f"GET /platform/api/integrations HTTP/1.0\r\nHost: localhost\r\nAccept-Encoding: {accepted}\r\n"
            f"Authorization: Bearer {OPS_TOKEN}\r\n\r\n".encode(),
            until_closed=True,
        )
        is_coded = reply.headers.get("Content-Encoding") == "gzip"
        assert (gzip.decompress(reply.body) if is_coded else reply.body) == body


@pytest.mark.parametrize(
    ("accepted", "asked"),
    [
        ("gzip, br", "gzip"),
        ("br", "identity"),
        ("identity", "identity"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.000", "identity"),
        ("gzip ; q=0.050", "gzip"),
        ("gzip;q=1.0", "gzip"),
        ("gzip;q=0.5x", "identity"),
    ],
)
async def test_upstream_may_compress_what_the_caller_can_read(
    outlit: Outlit, callers: Callers, accepted: str, asked: str
) -> None:
    await callers.ask("GET", "/integrations", headers={"Accept-Encoding": accepted})
    assert outlit.requests[0].all("Accept-Encoding") == [asked]


async def test_a_header_of_any_length_is_read_in_no_time(outlit: Outlit, callers: Callers) -> None:
    """It is read where events are taken, too: what takes a second each stops all of it for a minute."""
    line = f"Accept-Encoding: gzip;q=0.{'1' * 8_000}x\r\n"
    head = f"GET /api/x HTTP/1.1\r\nHost: localhost\r\n{line * 90}Authorization: Bearer {OPS_TOKEN}\r\n\r\n"
    async with asyncio.timeout(PATIENCE_S):
        assert (await callers.raw(head.encode())).status == 200
    assert len(outlit.requests) == 1


@pytest.mark.parametrize("status", ["200 OK", "402 Payment Required", "500 Oops"])
async def test_a_compressed_answer_that_would_fill_the_memory_passes_as_it_is(
    outlit: Outlit, callers: Callers, status: str
) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    outlit.begin(says(answer(bomb, status, "Content-Encoding: gzip")))
    url = f"{callers.stack.ops_url}/platform/api/integrations/x"
    async with (
        aiohttp.ClientSession(auto_decompress=False) as http,
        http.post(url, json={}, headers=callers.authorized("own")) as response,
    ):
        assert (response.status, await response.read()) == (int(status[:3]), bomb)
        assert response.headers["Content-Encoding"] == "gzip"


@pytest.mark.parametrize(
    ("body", "codings"),
    [
        (gzip.compress(b'{"error":') + gzip.compress(b'"e"}'), ["gzip"]),
        (gzip.compress(b'{"error":"e"}'), ["identity", "gzip"]),
        (gzip.compress(gzip.compress(b'{"error":"e"}')), ["gzip", "gzip"]),
        (gzip.compress(b'{"error":"e"}')[:-1], ["gzip"]),
        (b'{"error":"e"}', ["gzip"]),
        (b'{"error":"e"}', ["br"]),
    ],
    ids=["two members", "two lines", "twice", "cut off", "not at all", "another coding"],
)
async def test_a_failure_that_is_oddly_compressed_passes_as_it_came(
    outlit: Outlit, callers: Callers, body: bytes, codings: list[str]
) -> None:
    lines = [f"Content-Encoding: {coding}" for coding in codings]
    outlit.begin(says(answer(body, "402 Payment Required", *lines)))
    async with (
        aiohttp.ClientSession(auto_decompress=False) as http,
        http.post(
            f"{callers.stack.ops_url}/platform/api/integrations/x", headers=callers.authorized("own")
        ) as response,
    ):
        assert (response.status, await response.read()) == (402, body)
        assert response.headers.getall("Content-Encoding") == codings


async def test_a_compressed_refusal_of_the_plan_is_read_all_the_same(
    outlit: Outlit, callers: Callers
) -> None:
    body = b'{"error":"e","code":"api_limit_exceeded","feature":"api_calls","resetAt":%d}'
    coded = gzip.compress(body % (int(time.time() * 1000) + 3_600_000))
    outlit.begin(says(answer(coded, "402 Payment Required", "Content-Encoding: gzip")))
    first, second = [await callers.tool() for _ in range(2)]
    assert (first.status, first.json) == (second.status, second.json)
    assert first.json["code"] == "api_limit_exceeded"
    assert len(outlit.requests) == 1


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nX-Folded: a\r\n b\r\nContent-Length: 2\r\n\r\n{}", 200),
        (b"HTTP/1.1 200 OK\r\nX-Odd: a\x01b\r\nContent-Length: 2\r\n\r\n{}", 200),
        (b"HTTP/1.1 200 OK\r\nX-Odd: \xff\xfe\r\nContent-Length: 2\r\n\r\n{}", 200),
        (b"HTTP/1.1 200 OK\r\nX-Odd: a\x00b\r\nContent-Length: 2\r\n\r\n{}", 502),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x", 502),
        (b"HTTP/1.1 99 What\r\nContent-Length: 2\r\n\r\n{}", 502),
        (b"HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\n{}", 502),
        (b"SSH-2.0-OpenSSH_9.6\r\n", 502),
        (b"HTTP/1.1 200 " + b"O" * 100_000 + b"\r\n\r\n", 502),
    ],
)
async def test_an_answer_that_is_hardly_http_passes_without_what_is_odd_or_is_none(
    outlit: Outlit, callers: Callers, head: bytes, status: int
) -> None:
    outlit.begin(says(head, then_close=True))
    reply = await callers.ask("POST", "/integrations/1", {})
    assert reply.status == status
    if status == 200:
        assert reply.body == b"{}"
        assert "X-Odd" not in reply.headers
    else:
        assert reply.json["code"] == "upstream_broken"
    assert len(outlit.requests) == 1
    outlit.begin()
    assert (await callers.ask("GET", "/integrations")).status == 200


async def test_no_page_may_read_or_ask(callers: Callers) -> None:
    """No answer to anybody has a CORS header: ours, upstream's, or from memory."""
    await callers.order(exhausted())
    origin = {"Origin": "http://localhost:9090"}
    replies = await asyncio.gather(
        *(callers.ask("GET", "/integrations", caller=c, headers=origin) for c in ("own", "operator", "x"))
    )
    replies += [await callers.tool(headers=origin) for _ in range(2)]
    for reply, name in itertools.product(replies, ("Access-Control-Allow-Origin", "Set-Cookie")):
        assert name not in reply.headers
