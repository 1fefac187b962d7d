"""What is remembered of requests to answer the next ones sooner: bounded, and never another's."""

import asyncio
from typing import Any

import pytest

from proxy.front import Front
from proxy.front.cors import _ORIGINS, Cors
from proxy.front.listener import _PATH_CHARS, _PATHS
from proxy.metrics import Metrics
from proxy.settings import FrontSettings
from tests.front.alone import Taken, connected
from tests.stack import Reply, read_reply

SITE = "https://www.example.com"


async def post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, origin: str | None = None
) -> Reply:
    lines = [f"POST {path} HTTP/1.1", "Host: front", "Content-Length: 0"]
    if origin is not None:
        lines.append(f"Origin: {origin}")
    writer.write("\r\n".join([*lines, "", ""]).encode())
    return await read_reply(reader)


def allowed(reply: Reply) -> str | None:
    return reply.headers.get("Access-Control-Allow-Origin")


@pytest.mark.parametrize("origins", [("*",), (SITE, "https://shop.example.com")])
async def test_each_page_is_told_its_own_origin_however_they_alternate(origins: tuple[str, ...]) -> None:
    async with connected(allowed_origins=origins) as (_, _, reader, writer):
        for _ in range(3):
            for origin in (SITE, "https://shop.example.com", "HTTPS://WWW.example.com"):
                reply = await post(reader, writer, "/api/i/v1/pk_a/events", origin)
                assert (reply.status, allowed(reply)) == (200, origin)
            reply = await post(reader, writer, "/api/i/v1/pk_a/events")
            assert (reply.status, allowed(reply)) == (200, None)


async def test_a_page_that_may_not_post_is_refused_each_time() -> None:
    async with connected(allowed_origins=(SITE,)) as (_, _, reader, writer):
        for _ in range(3):
            for origin in ("https://evil.example", f"{SITE}.evil.example", f"{SITE}/" + "x" * 500):
                reply = await post(reader, writer, "/api/i/v1/pk_a/events", origin)
                assert (reply.status, reply.json["code"], allowed(reply)) == (403, "origin_not_allowed", None)
            assert allowed(await post(reader, writer, "/api/i/v1/pk_a/events", SITE)) == SITE


def test_made_up_origins_take_no_more_memory_than_the_bound() -> None:
    cors = Cors(["*"])
    for number in range(2 * _ORIGINS):
        assert cors.origin(f"https://{number}.example").text == f"https://{number}.example"
    assert cors._remembered.cache_info().currsize == _ORIGINS
    long = "https://" + "a" * 10_000
    assert cors.origin(long).text == long[:2_048]
    assert cors._remembered.cache_info().misses == 2 * _ORIGINS


async def test_each_path_is_its_own_keys_however_they_alternate() -> None:
    taken = Taken()
    long = "/" + "a" * _PATH_CHARS
    paths = {
        "/api/i/v1/pk_a/events": "pk_a",
        "/api/i/v1/pk_b/events": "pk_b",
        "/api/i/v1/pk%5Fa/events?x=pk_b": "pk_a",
        f"{long}/api/i/v1/pk_b/events": "pk_b",
    }
    async with connected(taken, public_keys=("pk_a", "pk_b")) as (server, _, reader, writer):
        for _ in range(3):
            for path in paths:
                assert (await post(reader, writer, path)).status == 200
            assert (await post(reader, writer, "/api/i/v1/pk_c/events")).json["code"] == "key_not_allowed"
            assert (await post(reader, writer, "/api/i/v2/pk_a/events")).json["code"] == "not_found"
    assert taken.keys == list(paths.values()) * 3
    front: Any = server
    assert front.front._remembered_key.cache_info().currsize == 3  # neither the long one nor the refused


def test_paths_take_no_more_memory_than_the_bound_and_junk_none() -> None:
    ingest: Any = Taken()
    front = Front(FrontSettings(), ingest, Metrics())
    for number in range(2 * _PATHS):
        assert front._remembered_key(f"/api/i/v1/pk_{number}/events") == f"pk_{number}"
        with pytest.raises(Exception, match="nothing here"):
            front._remembered_key(f"/junk/{number}")
    assert front._remembered_key.cache_info().currsize == _PATHS
