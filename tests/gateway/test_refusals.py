"""What the gateway refuses by itself: a closed list of codes, in both of Outlit's forms, and no call made."""

import asyncio
import gzip
import io
import itertools
import json
from typing import Any

import pytest
from pydantic import SecretStr

from proxy.gateway import admission, gateway
from proxy.wire import jsontext
from proxy.wire.platform import read_tool_call
from tests.gateway.callers import BASES, Callers, fresh_key, mark
from tests.outlit import Outlit, after, answer, says
from tests.stack import OPS_TOKEN, PATIENCE_S, Reply, read_reply

pytestmark = pytest.mark.asyncio(loop_scope="module")


def assert_refused(reply: Reply, status: int, code: str, *, retryable: bool = False) -> None:
    assert reply.status == status, reply.body
    said = reply.json
    assert said["code"] == code
    assert said["error"] == said["message"] != ""
    assert said["retryable"] is retryable
    assert reply.headers["Content-Type"].startswith("application/json")
    assert reply.headers["Proxy-Status"].startswith("outlit-proxy; error=")


ROUTES = [
    ("POST", "/validate-api-key", None),
    ("POST", "/tools/call", {"tool": "outlit_query", "input": {}}),
    ("GET", "/integrations", None),
    ("POST", "/integrations/slack/connect", {}),
    ("GET", "/anything/else", None),
]


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Bearer {OPS_TOKEN}x",
        f"Bearer {OPS_TOKEN[:-1]}",
        f"bearer{OPS_TOKEN}",
        OPS_TOKEN,
        f"Basic {OPS_TOKEN}",
        f"Token {OPS_TOKEN}",
        "Bearer pk_live_1",
        f"Bearer {OPS_TOKEN}, Bearer ok_1",
        "Bearer ok_1 ok_2",
        "Bearer Bearer ok_1",
        "Basic b2tfMTo=",
        "ok_1",
        "Bearer OK_1",
    ],
)
async def test_without_a_key_or_the_token_nothing_passes(callers: Callers, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    for (method, path, body), base in zip(ROUTES, BASES * 3, strict=False):
        async with callers.stack.http.request(
            method, f"{callers.stack.ops_url}{base}{path}", json=body, headers=headers
        ) as response:
            reply = Reply(response.status, response.headers, await response.read())
        assert_refused(reply, 401, "unauthorized")
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert reply.json.get("valid") is (False if "validate" in path else None)
        assert not reply.body.count(b"ok_1")
    assert await callers.calls() == []


async def test_two_keys_are_none(callers: Callers) -> None:
    lines = [f"Authorization: Bearer {key}" for key in (callers.own_key, OPS_TOKEN)]
    for given in (lines, lines[::-1], lines[:1] * 2):
        head = "\r\n".join(["GET /platform/api/integrations HTTP/1.1", "Host: localhost", *given])
        reply = await callers.raw(f"{head}\r\n\r\n".encode())
        # aiohttp's parser may refuse a repeated header before anybody sees it.
        assert reply.status in {400, 401}
    assert await callers.calls() == []


async def test_without_a_key_of_its_own_the_gateway_passes_only_callers_keys(callers: Callers) -> None:
    await callers.reload()
    for method, path, body in ROUTES:
        assert_refused(await callers.ask(method, path, body), 403, "no_api_key")
    assert await callers.calls() == []
    assert (await callers.tool(caller="own")).status == 200
    assert (await callers.status())["api_key"] is False


async def test_without_a_token_the_gateway_is_off(callers: Callers) -> None:
    await callers.reload(ops={"token": None}, api_key=callers.secret)
    for caller in ("own", "operator"):
        for method, path, body in ROUTES:
            assert_refused(await callers.ask(method, path, body, caller=caller), 403, "gateway_off")
    assert await callers.calls() == []
    assert (await callers.status())["on"] is False


async def test_a_key_of_now_is_the_one_that_is_sent(callers: Callers) -> None:
    await callers.tool()
    other = fresh_key()
    await callers.reload(api_key=SecretStr(other))
    await callers.tool()
    assert [call["key"] for call in await callers.calls()] == [mark(callers.api_key), mark(other)]


async def test_a_host_that_is_not_allowed_gets_nothing(callers: Callers) -> None:
    """A page whose name was rebound to this address has no business here, whatever key it found."""
    await callers.reload(ops={"allowed_hosts": ("proxy.example",)}, api_key=callers.secret)
    for base in BASES:
        for host, status in (
            ("evil.example:9090", 403),
            ("proxy.example:9090", 200),
            ("127.0.0.1:9090", 200),
        ):
            reply = await callers.raw(
                f"GET {base}/integrations HTTP/1.0\r\nHost: {host}\r\n"
                f"Authorization: Bearer {callers.own_key}\r\n\r\n".encode(),
                until_closed=True,
            )
            assert reply.status == status
            if status == 403:
                assert_refused(reply, 403, "host_not_allowed")
    assert len(await callers.calls()) == 4


async def test_each_refusal_is_counted_by_its_code(callers: Callers) -> None:
    await callers.reload(api_key=callers.secret, tools=ALLOWED)

    async def ask() -> None:
        await callers.tool(caller="wrong")
        await callers.tool("outlit_query")
        await callers.ask("GET", "/integrations/../x")

    grown = await callers.counted(ask)
    for code in ("unauthorized", "tool_not_allowed", "path_refused"):
        assert grown("gateway_own_answers_total", code=code) == 1
    assert grown("gateway_request_seconds_count") == 0, "how long Outlit takes is not told by these"


async def test_what_never_should_happen_has_failed_and_is_told_so(
    callers: Callers, logs: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(gateway, "towards", fails)
    replies: list[Reply] = []

    async def ask() -> None:
        replies.append(await callers.tool())

    grown = await callers.counted(ask)
    assert_refused(replies[0], 500, "internal")
    assert grown("gateway_requests_total", route="tools", outcome="failed") == 1
    assert grown("gateway_own_answers_total", code="internal") == 1
    (line,) = logs.getvalue().splitlines()
    assert (json.loads(line)["level"], json.loads(line)["crash"].split()[0]) == ("error", "RuntimeError")
    assert "mistake" not in line, "what it says may quote a key"


# -- which tools -------------------------------------------------------------------------------------------

ALLOWED = ("outlit_list_customers", "outlit_schema")


@pytest.mark.parametrize(
    "tool",
    [
        "outlit_query",
        "OUTLIT_SCHEMA",
        "outlit_schema ",
        " outlit_schema",
        "outlit_schema\x00",
        "outlit_schema\n",
        "outlit_\uff53chema",
        "outlit_\u0455chema",
        "outlit_schema\u200b",
        "outlit_schema/../outlit_query",
        "*",
        "",
    ],
)
async def test_a_tool_that_is_not_listed_is_refused(callers: Callers, tool: str) -> None:
    await callers.reload(api_key=callers.secret, tools=ALLOWED)
    for caller in ("own", "operator"):
        reply = await callers.tool(tool, caller)
        assert_refused(
            reply,
            *((400, "malformed_body") if tool == "" and reply.status == 400 else (403, "tool_not_allowed")),
        )
    assert await callers.calls() == []


async def test_a_listed_tool_passes_and_has_a_label_of_its_own(callers: Callers) -> None:
    await callers.reload(api_key=callers.secret, tools=ALLOWED)

    async def ask() -> None:
        for tool in ALLOWED:
            assert (await callers.tool(tool)).status == 200
        await callers.tool("outlit_query")

    grown = await callers.counted(ask)
    for tool in ALLOWED:
        assert grown("gateway_tool_calls_total", tool=tool, outcome="answered") == 1
    assert grown("gateway_tool_calls_total", tool="other", outcome="rejected") == 1
    assert (await callers.status())["tools"] == list(ALLOWED)
    assert [call["tool"] for call in await callers.calls()] == list(ALLOWED)


async def test_the_label_of_a_tool_that_is_no_longer_listed_goes(callers: Callers) -> None:
    await callers.reload(api_key=callers.secret, tools=ALLOWED)
    for tool in ALLOWED:
        await callers.tool(tool)
    await callers.reload(api_key=callers.secret, tools=ALLOWED[:1])
    samples = await callers.stack.metrics()
    labels = {
        sample.labels["tool"]
        for family in samples.families
        for sample in family.samples
        if "tool" in sample.labels
    }
    assert labels == {ALLOWED[0], "other"}
    assert samples("gateway_tool_calls_total", tool=ALLOWED[0], outcome="answered") > 0


async def test_no_name_that_a_caller_makes_up_becomes_a_label(callers: Callers) -> None:
    await callers.tool("made_up_by_a_caller")
    samples = await callers.stack.metrics()
    assert "made_up_by_a_caller" not in str(samples.families)


DISGUISED = {
    "named twice": b'{"tool":"outlit_schema","tool":"outlit_query","input":{}}',
    "named twice, the other way": b'{"tool":"outlit_query","input":{},"tool":"outlit_schema"}',
    "named twice by an escape": rb'{"tool":"outlit_schema","\u0074ool":"outlit_query"}',
    "named twice, in another case": b'{"tool":"outlit_schema","TOOL":"outlit_query"}',
    "an escape in the name": rb'{"tool":"outlit_quer\u0079"}',
    "a list": b'{"tool":["outlit_schema"]}',
    "a number": b'{"tool":1}',
    "null": b'{"tool":null}',
    "missing": b'{"input":{}}',
    "another case": b'{"Tool":"outlit_schema"}',
    "a list of calls": b'[{"tool":"outlit_schema"},{"tool":"outlit_query"}]',
    "two documents": b'{"tool":"outlit_schema"}{"tool":"outlit_query"}',
    "a word behind it": b'{"tool":"outlit_schema"} x',
    "a comment": b'{"tool":"outlit_schema"/*","tool":"outlit_query"*/}',
    "a form": b"tool=outlit_schema",
    "nothing": b"",
    "half": b'{"tool":"outlit_schema"',
    "UTF-16": '{"tool":"outlit_query"}'.encode("utf-16"),
    "UTF-16 without a mark": '{"tool":"outlit_query"}'.encode("utf-16-le"),
    "UTF-32": '{"tool":"outlit_query"}'.encode("utf-32"),
    "a byte order mark": b'\xef\xbb\xbf{"tool":"outlit_query"}',
    "broken UTF-8": b'{"tool":"outlit_schema","input":"\xff"}',
    "an encoded surrogate": b'{"tool":"outlit_schema","input":"\xed\xa0\xbd"}',
    "nested without end": b'{"tool":"outlit_schema","input":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a surrogate in the name": rb'{"tool":"outlit_schema\ud83d"}',
    "a surrogate in another name": rb'{"tool":"outlit_schema","x\ud83d":1}',
}


@pytest.mark.parametrize("body", DISGUISED.values(), ids=DISGUISED.keys())
async def test_no_disguise_brings_a_tool_through_that_is_not_listed(
    outlit: Outlit, callers: Callers, body: bytes
) -> None:
    """Whatever a reader of the same bytes could take for the tool: what passes names one that is listed."""
    await callers.reload(url=outlit.url, api_key=callers.secret, tools=ALLOWED)
    for content_type in ("application/json", "text/plain", "application/json; charset=utf-16"):
        requests = outlit.begin()
        reply = await callers.ask("POST", "/tools/call", body, headers={"Content-Type": content_type})
        if reply.status == 200:
            (request,) = requests
            pairs = json.loads(request.body.decode("ascii"), object_pairs_hook=list)
            assert [value for name, value in pairs if name.lower() == "tool"] in ([each] for each in ALLOWED)
            assert request.all("Content-Type") == ["application/json"]
        else:
            assert (reply.status, reply.json["code"]) in {(400, "malformed_body"), (403, "tool_not_allowed")}
            assert not requests


@pytest.mark.parametrize(
    "body",
    [
        rb'{"tool":"outlit_schema","input":{"q":"\ud83d"}}',
        b'{ "tool" : "outlit_schema" , "input" : { "n" : 1e400 , "m" : 123456789012345678901234 } }\r\n',
        b'{"tool":"outlit_schema","input":{"n":1.10,"m":-0.0,"o":1E5,"p":[1,[2,[3]]]},"else":null}',
        rb'{"tool":"outlit_\u0073chema"}',
        b'{"tool":"outlit_schema","input":{"tool":"outlit_query"}}',
        b'{"tool":"outlit_schema","input":"\x7f\xc2\x85"}',
    ],
)
async def test_odd_but_valid_bodies_keep_their_values(outlit: Outlit, callers: Callers, body: bytes) -> None:
    await callers.reload(url=outlit.url, api_key=callers.secret, tools=ALLOWED)
    reply = await callers.ask("POST", "/tools/call", body)
    assert reply.status == 200, reply.body
    (request,) = outlit.requests
    assert as_written(request.body) == as_written(body)


def as_written(body: bytes) -> Any:
    """Its values, numbers as the text that they stood there as."""
    return json.loads(body, parse_float=str, parse_int=str)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "identity, gzip", "aws-chunked"])
async def test_a_compressed_request_is_not_taken_for_what_it_hides(callers: Callers, coding: str) -> None:
    await callers.reload(api_key=callers.secret, tools=ALLOWED)
    body = gzip.compress(b'{"tool":"outlit_query"}')
    reply = await callers.ask("POST", "/tools/call", body, headers={"Content-Encoding": coding})
    assert_refused(reply, 415, "unsupported_encoding")
    assert await callers.calls() == []


# -- how much ----------------------------------------------------------------------------------------------


async def test_a_body_beyond_the_bound_is_refused_and_one_at_it_passes(callers: Callers) -> None:
    for size, status in ((1_000_000, 200), (1_000_001, 413)):
        body = b'{"tool":"outlit_schema","input":{}}'.ljust(size)
        reply = await callers.ask("POST", "/tools/call", body)
        assert reply.status == status
    assert_refused(reply, 413, "body_too_large")
    assert len(await callers.calls()) == 1


async def test_a_body_that_is_announced_too_large_is_refused_unread(callers: Callers) -> None:
    head = (
        "POST /platform/api/tools/call HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999999999\r\n"
        f"Authorization: Bearer {OPS_TOKEN}\r\n\r\n"
    )
    assert_refused(await callers.raw(head.encode()), 413, "body_too_large")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{%s}" % b",".join([*(b'"%x":0' % n for n in range(60_000)), b'"0":1', b'"tool":"t"']), 200),
        (b'{"tool":"outlit_query","input":[%s]}' % b",".join([b"{}"] * 100_000), 200),
        (b'{"tool":"outlit_query","input":' + b'{"a":' * 150_000, 400),
        (b'{"tool":"outlit_query","n":%s}' % (b"1" * 900_000), 200),
        (b'{"tool":"%s"}' % (rb"\u0041" * 150_000), 400),
        (rb'{"tool":"outlit_query","input":["\ud83d",%s]}' % (b"1," * 400_000 + b"1"), 400),
        (rb'{"tool":"outlit_query","input":"\ud83d %s"}' % (b"a" * 60_000), 200),
    ],
    ids=[
        "many names, one doubled",
        "many objects",
        "nested without end",
        "a long number",
        "a long name",
        "long and odd",
        "odd",
    ],
)
async def test_a_long_body_is_never_read_the_slow_way(
    outlit: Outlit, callers: Callers, body: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same event loop takes events and answers probes; no token is needed to send this."""
    read_slowly: list[int] = []
    decode = jsontext.decode

    def noted(text: bytes) -> Any:
        read_slowly.append(len(text))
        return decode(text)

    monkeypatch.setattr(jsontext, "decode", noted)
    reply = await callers.ask("POST", "/tools/call", body, caller="own")
    assert (reply.status, len(outlit.requests)) == (status, 1 if status == 200 else 0)
    assert sum(read_slowly) <= 65_536


async def test_of_long_bodies_that_end_together_one_is_read_at_a_time(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two of them everything else has its turn."""
    turn = 0
    read_in_turn: list[int] = []
    loop = asyncio.get_running_loop()

    def count() -> None:
        nonlocal turn
        turn += 1
        if len(read_in_turn) < number:
            loop.call_soon(count)

    def noted(body: bytes) -> tuple[str, bytes]:
        read_in_turn.append(turn)
        return read_tool_call(body)

    number = 16
    body = b'{"tool":"outlit_schema","input":"%s"}' % (b"a" * 40_000)
    head = f"POST /api/tools/call HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    monkeypatch.setattr(admission, "read_tool_call", noted)
    async with callers.connections(number) as connections, asyncio.timeout(PATIENCE_S):
        for _, writer in connections:
            authorization = callers.authorized(fresh_key())["Authorization"]
            writer.write(f"{head}Authorization: {authorization}\r\n\r\n".encode() + body[:-1])
        while (await callers.stack.metrics())("gateway_in_flight") < number:
            pass
        count()
        for _, writer in connections:
            writer.write(body[-1:])
        replies = [await read_reply(reader) for reader, _ in connections]
    assert {reply.status for reply in replies} == {200}
    assert len(set(read_in_turn)) == number


async def test_a_body_that_grows_beyond_the_bound_is_refused(callers: Callers) -> None:
    head = (
        "POST /platform/api/integrations/x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
        f"Authorization: Bearer {OPS_TOKEN}\r\n\r\n"
    )
    chunk = b"%x\r\n%s\r\n" % (100_000, b"a" * 100_000)
    assert_refused(await callers.raw(head.encode() + chunk * 11), 413, "body_too_large")
    assert await callers.calls() == []


async def test_calls_beyond_those_at_once_are_refused_and_told_when_to_come(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can write a key of their own: the last places are the operators'."""
    assert (await callers.stack.metrics())("gateway_in_flight_limit") == admission.MAX_CALLS
    limit, of_others = 5, 3
    monkeypatch.setattr(admission, "MAX_CALLS", limit)
    monkeypatch.setattr(admission, "MAX_CALLS_OF_OTHERS", of_others)
    go = asyncio.Event()
    outlit.begin(after(go, says(answer(b'{"items":[]}'))))

    async def ask(caller: str, path: str = "/integrations") -> Reply:
        return await callers.ask("GET", path, caller=caller)

    held = [asyncio.create_task(ask(fresh_key())) for _ in range(of_others)]
    await outlit.until_requests(of_others)
    assert_refused(await ask(fresh_key()), 503, "overloaded", retryable=True)
    # Of two routes: calls of one key and route let each other go first.
    held += [asyncio.create_task(ask("operator", path)) for path in ("/integrations", "/else")]
    await outlit.until_requests(limit)
    assert (await callers.stack.metrics())("gateway_in_flight") == limit
    assert (await callers.status())["in_flight"] == limit
    reply = await ask("operator")
    assert_refused(reply, 503, "overloaded", retryable=True)
    assert reply.headers["Retry-After"] == "1"
    go.set()
    assert {each.status for each in await asyncio.gather(*held)} == {200}
    assert (await ask("own")).status == 200
    assert (await callers.stack.metrics())("gateway_in_flight") == 0


async def test_of_those_that_come_together_as_many_are_let_in_as_there_are_places(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is refused takes nobody's place, whether for want of one or of a token."""
    monkeypatch.setattr(admission, "MAX_CALLS", 5)
    monkeypatch.setattr(admission, "MAX_CALLS_OF_OTHERS", 3)
    go = asyncio.Event()
    outlit.begin(after(go, says(answer())))
    callings = [*("not the token" for _ in range(20)), *(fresh_key() for _ in range(8)), "operator"]
    async with callers.connections(len(callings)) as connections, asyncio.timeout(PATIENCE_S):
        for (_, writer), caller in zip(connections, callings, strict=True):
            authorization = callers.authorized(caller)["Authorization"]
            head = f"GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n"
            writer.write(head.encode())
        await outlit.until_requests(4)
        go.set()
        statuses = [(await read_reply(reader)).status for reader, _ in connections]
    assert statuses[:20] == [401] * 20
    assert sorted(statuses[20:28]) == [200] * 3 + [503] * 5
    assert statuses[28] == 200


@pytest.mark.parametrize("path", ["/validate-api-key", "/tools/call"])
async def test_the_known_routes_have_one_method(callers: Callers, path: str) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE", "HEAD"):
        reply = await callers.ask(method, path)
        assert (reply.status, reply.headers["Allow"]) == (405, "POST")
        if method != "HEAD":
            assert_refused(reply, 405, "method_not_allowed")
    assert await callers.calls() == []


@pytest.mark.parametrize(
    ("method", "status"),
    [("OPTIONS", 405), ("TRACE", 405), ("CONNECT", 404), ("PROPFIND", 405), ("LINK", 405), ("get", 400)],
)
async def test_other_methods_are_refused(callers: Callers, method: str, status: int) -> None:
    for base, path in itertools.product(BASES, ("/integrations", "/tools/call", "/else")):
        reply = await callers.raw(
            f"{method} {base}{path} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {OPS_TOKEN}\r\nOrigin: http://localhost:9090\r\n\r\n".encode()
        )
        assert reply.status == status
        assert not [name for name in reply.headers if name.lower().startswith("access-control-")]
    assert await callers.calls() == []
