"""``/tap``: open to operators alone, bounded, and no burden where nobody looks or somebody looks slowly."""

import asyncio
import ctypes
import json
import socket
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from proxy.ledger import Sampled
from proxy.ops.tap import Tapping
from proxy.settings import Settings
from proxy.tap import MAX_TAPS, MAX_WAITING, PER_S, Taps
from proxy.wire.limits import PublicKey
from tests.sandbox.bodies import client, event
from tests.stack import KEY, OPS_TOKEN, Stack, running_stack, settings_of

AUTHORIZATION = {"Authorization": f"Bearer {OPS_TOKEN}"}
SO_ATTACH_FILTER = 26
"""Of Linux; Python does not name it."""


@asynccontextmanager
async def tapped(stack: Stack, **query: str) -> AsyncIterator[aiohttp.StreamReader]:
    async with stack.http.get(f"{stack.ops_url}/tap", params=query, headers=AUTHORIZATION) as response:
        assert response.status == 200, await response.text()
        assert response.headers["Content-Type"] == "application/x-ndjson"
        yield response.content


async def line(stream: aiohttp.StreamReader) -> dict[str, Any]:
    async with asyncio.timeout(20):
        read: dict[str, Any] = json.loads(await stream.readline())
        return read


async def test_it_needs_the_token(stack: Stack) -> None:
    assert (await stack.get("/tap")).status == 401
    assert (await stack.get("/tap", Authorization="Bearer wrong")).status == 401


async def test_it_has_no_head(stack: Stack) -> None:
    """The body of such an answer nobody reads, and it would never end."""
    async with stack.http.head(f"{stack.ops_url}/tap", headers=AUTHORIZATION) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("outcome=gone", "outcome"),
        ("outcome=", "outcome"),
        ("key=nonsense", "key"),
        ("every=0", "every"),
        ("limit=-1", "limit"),
        ("limt=1", "limt"),
        ("key=pk_a&key=pk_b", "key"),
    ],
)
async def test_a_wrong_parameter_is_named(stack: Stack, query: str, parameter: str) -> None:
    reply = await stack.get(f"/tap?{query}", **AUTHORIZATION)
    assert (reply.status, reply.json["parameter"]) == (400, parameter)


async def test_of_all_keys_one_can_be_chosen(stack: Stack) -> None:
    async with tapped(stack, key=KEY, limit="1", outcome="accepted") as stream:
        await stack.post(client(event(number=1)), "pk_other")
        await stack.post(client(event(number=2)))
        assert (await line(stream))["uuid"] == event(number=2)["uuid"]
        assert await stream.read() == b""
    await stack.arrived(2)


async def test_every_nth_is_taken_over_the_requests_and_a_limit_ends_it(stack: Stack) -> None:
    async with tapped(stack, outcome="accepted", every="3", limit="2") as stream:
        for numbers in (range(2), range(2, 7)):
            await stack.post(client(*(event(number=number) for number in numbers)))
        assert [(await line(stream))["uuid"] for _ in range(2)] == [
            event(number=number)["uuid"] for number in (0, 3)
        ]
        assert await stream.read() == b""
    await stack.arrived(7)


async def test_a_request_with_some_duplicates_says_so(stack: Stack) -> None:
    await stack.post(client(event(number=1)))
    async with tapped(stack, outcome="accepted,duplicate", limit="3") as stream:
        await stack.post(client(event(number=1), event(number=2)))
        first = await line(stream)
        await line(stream)
        await stack.post(client(event(number=2)))
        last = await line(stream)
    assert (first["outcome"], first["detail"]) == ("accepted", "1 of the 2 in its request were duplicates")
    assert (last["outcome"], last["detail"]) == ("duplicate", None)
    await stack.arrived(2)


async def test_an_event_with_a_cut_emoji_is_shown_like_any_other(stack: Stack) -> None:
    """msgspec, which reads the others, refuses such a text."""
    odd = event("custom", number=1, eventName="a\ud83d", properties={"emoji": "\ud83d"})
    async with tapped(stack, limit="2") as stream:
        await stack.post(client(odd))
        accepted, delivered = await line(stream), await line(stream)
    assert [accepted["outcome"], delivered["outcome"]] == ["accepted", "delivered"]
    assert accepted["event_name"] == delivered["event_name"] == "a\\ud83d"
    assert accepted["uuid"] == delivered["uuid"] == odd["uuid"]
    await stack.arrived(1)


async def test_so_many_may_look_and_no_more_until_one_has_left(stack: Stack) -> None:
    async def look() -> aiohttp.ClientResponse:
        return await stack.http.get(f"{stack.ops_url}/tap", headers=AUTHORIZATION)

    open_ones = [await look() for _ in range(MAX_TAPS)]
    assert {each.status for each in open_ones} == {200}
    reply = await stack.get("/tap", **AUTHORIZATION)
    assert reply.status == 429
    assert reply.json == {"error": f"{MAX_TAPS} taps are open already: close one"}
    open_ones.pop().close()
    async with asyncio.timeout(20):
        while (again := await look()).status == 429:
            again.close()
            await asyncio.sleep(0.05)
    for each in (*open_ones, again):
        each.close()


async def test_who_reads_slowly_loses_samples_and_delays_nobody(stack: Stack) -> None:
    """It takes nothing at all; all of it is accepted and delivered meanwhile, and at most so much is kept."""
    async with tapped(stack, outcome="accepted") as stream:
        for number in range(10):
            assert (
                await stack.post(client(*(event(number=100 * number + n) for n in range(100))))
            ).status == 200
        await stack.arrived(1_000)
        shown = not_shown = 0
        while shown + not_shown < 1_000:
            read = await line(stream)
            shown += "uuid" in read
            not_shown += read.get("not_shown", 0)
    assert shown + not_shown == 1_000
    assert PER_S <= shown <= MAX_WAITING


async def test_the_end_of_the_proxy_is_the_end_of_a_tap_and_not_delayed_by_it(stack: Stack) -> None:
    async with tapped(stack) as stream:
        await stack.assert_the_books_balance()
        stack.stop.set()
        began = time.monotonic()
        await stack.serving
        assert time.monotonic() - began < 2.0
        assert await stream.read() == b""


async def test_a_change_of_the_token_ends_those_that_were_opened_with_another(tmp_path: Path) -> None:
    token: str | None = OPS_TOKEN

    def read_again() -> Settings:
        return settings_of(tmp_path, stack.sandbox.url, ops={"token": token and SecretStr(token)})

    async with running_stack(tmp_path, read_again) as stack:
        for changed in ("another-token", None):
            before = {"Authorization": f"Bearer {token}"}
            async with stack.http.get(f"{stack.ops_url}/tap", headers=before) as open_one:
                stack.service.reload()  # which changes nothing
                await stack.post(client(event()))
                assert (await line(open_one.content))["outcome"] in ("accepted", "duplicate")
                token = changed
                stack.service.reload()
                while "ended" not in (last := await line(open_one.content)):
                    assert last.keys() == {"not_shown"} or last["outcome"] == "delivered"
                assert last == {"ended": "ops.token was changed"}
                assert await open_one.content.read() == b""
            assert (await stack.get("/tap", **before)).status == (401 if token else 403)


async def serving(taps: Taps) -> web.AppRunner:
    """A server of these taps alone, to all."""
    tapping = Tapping(taps)
    app = web.Application()
    app.router.add_get("/tap", tapping.stream)
    app.on_shutdown.append(tapping.close)
    runner = web.AppRunner(app, shutdown_timeout=60.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner


async def opened(reader: socket.socket, runner: web.AppRunner, taps: Taps) -> None:
    """Open a tap, and read nothing of it."""
    reader.connect(runner.addresses[0])
    reader.sendall(b"GET /tap HTTP/1.1\r\nHost: a\r\n\r\n")
    async with asyncio.timeout(20):
        while not taps.open:  # noqa: ASYNC110  # it is open once the server has read the request
            await asyncio.sleep(0.01)


def cut_off(reader: socket.socket) -> None:
    """From now on no packet reaches it, and it confirms none: a filter of the system's lets nothing in."""
    let_nothing_in = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # BPF: return 0
    programme = struct.pack("@HP", 1, ctypes.addressof(let_nothing_in))
    reader.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, programme)


async def test_a_reader_that_is_gone_without_a_word_gives_its_place_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is said to it fills no buffer within a day, and the system would try for a quarter of an hour."""
    for name, value in {"_LOOK_S": 0.05, "_SIGN_OF_LIFE_S": 0.1, "_GONE_MS": 300}.items():
        monkeypatch.setattr(f"proxy.ops.tap.{name}", value)
    taps = Taps()
    runner = await serving(taps)
    with socket.socket() as reader:
        await opened(reader, runner, taps)
        cut_off(reader)
        async with asyncio.timeout(10):
            while taps.open:  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(0.01)
        await runner.cleanup()


async def test_a_reader_that_takes_nothing_delays_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fills its connection is more than samples come to in a minute, so here they come by themselves."""
    monkeypatch.setattr("proxy.tap.PER_S", 100_000)
    monkeypatch.setattr("proxy.tap.MAX_WAITING", 100_000)
    taps = Taps()
    runner = await serving(taps)
    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        await opened(reader, runner, taps)
        for _ in range(50):
            taps.offer(PublicKey(KEY), Sampled.ACCEPTED, [b"{}"] * 1_000)
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)  # the stream stands still now, or a second later; there is nothing to see
        began = time.monotonic()
        await runner.cleanup()
        assert time.monotonic() - began < 5.0
