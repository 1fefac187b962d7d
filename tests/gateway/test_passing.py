"""An answer on its way to the caller: whole or cut off, as it comes, bounded; and callers who leave.

A raw server behaves worse than the sandbox can.
"""

import asyncio
import io
import socket
import struct

import aiohttp
import pytest
from yarl import URL

from proxy.gateway import admission, passing, presence
from tests.gateway.callers import Callers
from tests.gateway.test_refusals import assert_refused
from tests.outlit import USED_UP, Behave, Outlit, Request, after, answer, hangs, resets, says
from tests.stack import PATIENCE_S, Reply

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("at_once", "missed_at_once"),
]

SERVED = answer(b'{"ok":true}')


async def send(callers: Callers) -> Reply:
    return await callers.tool("outlit_send_notification", "own")


# -- answers that break off, or do not end -----------------------------------------------------------------


async def cut(callers: Callers) -> bytes | int:
    """What arrives of an answer that is cut off; or the status of one that takes its place."""
    url = f"{callers.stack.ops_url}/platform/api/integrations/x"
    got = b""
    try:
        async with callers.stack.http.post(url, json={}, headers=callers.authorized("own")) as response:
            if response.status != 200:
                assert (await response.json())["code"] in {"upstream_broken", "answer_too_large"}
                return response.status
            async for part in response.content.iter_any():
                got += part
    except aiohttp.ClientPayloadError:
        return got
    raise AssertionError("the answer passed for whole")


@pytest.mark.parametrize(
    ("head", "arrives"),
    [
        (b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"half":', {502}),
        (b'HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{"half":', {b"", b'{"half":'}),
        (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"half":\r\n', {b"", b'{"half":'}),
        (
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"half":\r\nzz\r\n',
            {502, b"", b'{"half":'},
        ),
    ],
    ids=["of a short one", "by length", "by chunks", "by a broken chunk"],
)
async def test_half_an_answer_never_passes_for_a_whole_one(
    outlit: Outlit, callers: Callers, head: bytes, arrives: set[bytes | int]
) -> None:
    """Of what is short it is told in so many words."""
    outlit.begin(says(head, then_close=True))

    async def ask() -> None:
        assert await cut(callers) in arrives

    grown = await callers.counted(ask)
    assert grown("gateway_requests_total", route="integrations", outcome="broken") == 1
    assert len(outlit.requests) == 1


async def test_a_reset_is_no_end_of_an_answer_that_says_no_length(outlit: Outlit, callers: Callers) -> None:
    async def begin_and_reset(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b'HTTP/1.1 200 OK\r\n\r\n{"half":')
        await writer.drain()
        await asked.wait()
        await resets(request, writer)

    asked = asyncio.Event()
    outlit.begin(begin_and_reset)
    url = f"{callers.stack.ops_url}/platform/api/integrations/x"
    async with callers.stack.http.get(url, headers=callers.authorized("own")) as response:
        assert await response.content.readany() == b'{"half":'
        asked.set()
        with pytest.raises(aiohttp.ClientPayloadError):
            await response.read()


async def test_nor_to_a_caller_to_whom_a_close_ends_an_answer(outlit: Outlit, callers: Callers) -> None:
    """HTTP/1.0, which some reverse proxies speak: only a reset says that it is not all."""
    outlit.begin(
        says(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"half":\r\n', then_close=True)
    )
    request = f"GET /platform/api/integrations/x HTTP/1.0\r\nAuthorization: Bearer {callers.own_key}\r\n\r\n"
    try:
        reply = await callers.raw(request.encode(), until_closed=True)
    except (ConnectionResetError, asyncio.IncompleteReadError):
        return
    assert reply.status == 502


@pytest.mark.parametrize(
    "head",
    [
        b'HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\n{"half":',
        b"HTTP/1.1 402 Pay\r\nContent-Length: 9\r\n\r\n{",
    ],
)
async def test_half_a_failure_is_no_answer(outlit: Outlit, callers: Callers, head: bytes) -> None:
    outlit.begin(says(head, then_close=True))
    assert_refused(await send(callers), 502, "upstream_broken")
    assert len(outlit.requests) == 1


async def test_an_answer_that_is_announced_too_large_is_refused(outlit: Outlit, callers: Callers) -> None:
    outlit.begin(says(b"HTTP/1.1 200 OK\r\nContent-Length: 50000001\r\n\r\n{"))

    async def ask() -> None:
        assert_refused(await send(callers), 502, "answer_too_large")

    grown = await callers.counted(ask)
    assert grown("gateway_requests_total", route="tools", outcome="broken") == 1
    assert grown("gateway_own_answers_total", code="answer_too_large") == 1


async def test_an_answer_that_does_not_end_is_cut_off(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passing, "MAX_ANSWER_BYTES", 300_000)

    async def endless(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"%x\r\n%s\r\n" % (50_000, b"a" * 50_000))
            await writer.drain()

    outlit.begin(endless)
    got = await cut(callers)
    assert isinstance(got, bytes)
    assert len(got) <= 300_000
    assert outlit.requests


async def test_an_answer_passes_on_while_it_comes(outlit: Outlit, callers: Callers) -> None:
    """Streamed: the first part is with its caller while upstream still writes the second."""
    go = asyncio.Event()

    async def slowly(_: object, writer: asyncio.StreamWriter) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"6\r\nfirst;\r\n")
        await writer.drain()
        await go.wait()
        writer.write(b"6\r\nsecond\r\n0\r\n\r\n")

    outlit.begin(slowly)
    url = f"{callers.stack.ops_url}/platform/api/integrations/x"
    async with (
        asyncio.timeout(PATIENCE_S),
        callers.stack.http.get(url, headers=callers.authorized("own")) as response,
    ):
        assert await response.content.readany() == b"first;"
        go.set()
        assert await response.read() == b"second"


async def test_an_answer_that_drips_beyond_the_time_is_cut_off(outlit: Outlit, callers: Callers) -> None:
    await callers.reload(url=outlit.url, api_key=callers.secret, timeout_s=0.3)

    async def drips(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"a")
            await writer.drain()
            await asyncio.sleep(0.01)  # what is tested: each byte comes in time, and the whole never

    outlit.begin(drips)
    async with asyncio.timeout(PATIENCE_S):
        assert isinstance(await cut(callers), bytes)
    assert len(outlit.requests) == 1


async def test_a_body_that_drips_beyond_the_time_is_refused(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_BODY_S", 0.2)
    url = URL(callers.stack.ops_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = "POST /platform/api/tools/call HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n"
    writer.write(f"{head}Authorization: Bearer {callers.own_key}\r\n\r\n{{".encode())
    async with asyncio.timeout(PATIENCE_S):
        said = await reader.readuntil(b"}")
    assert b" 408 " in said.split(b"\r\n")[0]
    assert b"request_timeout" in said
    writer.close()
    assert await callers.calls() == []


@pytest.mark.parametrize(
    ("method", "path", "route", "may_have_run"),
    [
        ("GET", "/integrations", "integrations", False),
        ("POST", "/validate-api-key", "validate", False),
        ("POST", "/else", "other", True),
    ],
)
async def test_what_is_given_up_at_the_end_says_whether_it_may_have_been_executed(
    outlit: Outlit,
    callers: Callers,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    route: str,
    may_have_run: bool,
) -> None:
    """A process that ends gives up what is under way: see test_stopping.py."""
    outlit.begin(hangs)
    rooms = callers.stack.service._rooms
    assert rooms is not None
    replies: list[Reply] = []

    async def ask() -> None:
        call = asyncio.create_task(callers.ask(method, path, caller="own"))
        await outlit.until_requests(1)
        monkeypatch.setattr(rooms.gateway, "_is_over", True)
        replies.append(await call)

    grown = await callers.counted(ask)
    assert_refused(replies[0], 503, "stopping", retryable=not may_have_run)
    assert ("may have been executed" in replies[0].json["error"]) is may_have_run
    assert ("Retry-After" in replies[0].headers) is not may_have_run
    assert grown("gateway_requests_total", route=route, outcome="broken") == 1
    assert grown("gateway_own_answers_total", code="stopping") == 1


# -- callers who leave -------------------------------------------------------------------------------------


async def test_a_caller_who_leaves_takes_the_call_along(outlit: Outlit, callers: Callers) -> None:
    outlit.begin(hangs)

    async def leave() -> None:
        call = asyncio.create_task(send(callers))
        await outlit.until_requests(1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        async with asyncio.timeout(PATIENCE_S):
            while (await callers.stack.metrics())("gateway_in_flight"):
                pass

    grown = await callers.counted(leave)
    assert grown("gateway_requests_total", route="tools", outcome="abandoned") == 1
    assert len(outlit.requests) == 1
    outlit.begin()
    assert (await send(callers)).status == 200


async def test_a_caller_who_leaves_in_the_midst_of_an_answer_ends_it(
    outlit: Outlit, callers: Callers
) -> None:
    ended = asyncio.Event()

    async def begins(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nfirst;")
        try:
            await asyncio.Event().wait()
        finally:  # the gateway closes the connection
            ended.set()

    async def leave() -> None:
        outlit.begin(begins)
        url = f"{callers.stack.ops_url}/platform/api/integrations/x"
        async with callers.stack.http.get(url, headers=callers.authorized("own")) as response:
            assert await response.content.readany() == b"first;"
            response.close()
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()
            while (await callers.stack.metrics())("gateway_in_flight"):
                pass

    grown = await callers.counted(leave)
    assert grown("gateway_requests_total", route="integrations", outcome="abandoned") == 1


async def test_a_caller_who_leaves_while_the_gateway_waits_for_it_to_read_has_left(
    outlit: Outlit, callers: Callers
) -> None:
    is_full, ended = asyncio.Event(), asyncio.Event()

    async def fills(_: object, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n")
        try:
            while True:
                writer.write(b"a" * 1_000_000)
                try:
                    async with asyncio.timeout(0.1):
                        await writer.drain()
                except TimeoutError:
                    is_full.set()
                    await asyncio.Event().wait()
        finally:
            ended.set()

    async def leave() -> None:
        outlit.begin(fills)
        url = URL(callers.stack.ops_url)
        _, writer = await asyncio.open_connection(url.host, url.port, limit=1_000)
        head = "GET /api/integrations/x HTTP/1.1\r\nHost: localhost\r\n"
        writer.write(f"{head}Authorization: Bearer {callers.own_key}\r\n\r\n".encode())
        async with asyncio.timeout(PATIENCE_S):
            await is_full.wait()
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await ended.wait()
            while (await callers.stack.metrics())("gateway_in_flight"):
                pass

    grown = await callers.counted(leave)
    assert grown("gateway_requests_total", route="integrations", outcome="abandoned") == 1
    assert grown("gateway_requests_total", route="integrations", outcome="broken") == 0


@pytest.mark.parametrize(
    ("then", "is_known", "look_s"),
    [(says(USED_UP), True, 0.001), (says(USED_UP), True, PATIENCE_S), (resets, False, 0.001)],
    ids=["refuses", "refuses before that is seen", "resets"],
)
async def test_what_outlit_says_to_a_caller_who_has_left_is_heard_all_the_same(
    outlit: Outlit,
    callers: Callers,
    monkeypatch: pytest.MonkeyPatch,
    then: Behave,
    is_known: bool,
    look_s: float,
) -> None:
    """Impatient callers must not each ask a plan that is used up."""
    monkeypatch.setattr(presence, "_LOOK_S", look_s)
    monkeypatch.setattr(presence, "_HEARD_OUT_S", PATIENCE_S)
    go = asyncio.Event()
    outlit.begin(after(go, then))

    async def leave() -> None:
        call = asyncio.create_task(send(callers))
        await outlit.until_requests(1)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        for _ in range(3):  # it is missed by then
            await callers.status()
        go.set()
        async with asyncio.timeout(PATIENCE_S):
            while (await callers.stack.metrics())("gateway_in_flight"):
                pass

    grown = await callers.counted(leave)
    assert grown("gateway_requests_total", route="tools", outcome="abandoned") == 1
    assert grown("gateway_own_answers_total", code="upstream_broken") == 0
    outlit.behave = says(SERVED)
    assert (await send(callers)).status == (402 if is_known else 200)
    assert len(outlit.requests) == (1 if is_known else 2)


async def test_a_caller_who_leaves_in_the_midst_of_its_body_is_no_error(
    callers: Callers, logs: io.StringIO
) -> None:
    url = URL(callers.stack.ops_url)
    head = f"POST /api/tools/call HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {callers.own_key}\r\n"

    async def leave() -> None:
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(f"{head}Content-Length: 100\r\n\r\n{{".encode())
        async with asyncio.timeout(PATIENCE_S):
            while not (await callers.stack.metrics())("gateway_in_flight"):
                pass
            writer.transport.abort()
            while (await callers.stack.metrics())("gateway_in_flight"):
                pass

    grown = await callers.counted(leave)
    assert grown("gateway_requests_total", route="tools", outcome="abandoned") == 1
    assert '"error"' not in logs.getvalue()
    assert await callers.calls() == []


async def test_those_who_wait_behind_a_caller_who_leaves_get_their_answers(
    outlit: Outlit, callers: Callers
) -> None:
    """One goes first; where it is given up, another goes, and nobody waits for ever."""
    outlit.begin(hangs)
    first = asyncio.create_task(send(callers))
    await outlit.until_requests(1)
    others = [asyncio.create_task(send(callers)) for _ in range(3)]
    outlit.behave = says(SERVED)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    async with asyncio.timeout(PATIENCE_S):
        assert {reply.status for reply in await asyncio.gather(*others)} == {200}
