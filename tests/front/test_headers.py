"""A header that travels on: what is stored is what arrives, shown on a real server and a real client."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from proxy.front.headers import MAX_HEADER_BYTES, clean_header

_any_text = st.text(st.characters(exclude_categories=[]))


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        (None, None),
        ("", ""),
        (" \t ", ""),
        ("Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (X11; Linux x86_64)"),
        (" a ", "a"),
        ("a\tb", "a\tb"),
        ("café/1.0", "café/1.0"),
        ("\U0001f98a", "\U0001f98a"),
        ("caf\udce9", "caf?"),
        ("\udcff\udcfe", "??"),
        ("a\r\nX-Injected: 1", "a??X-Injected: 1"),
        ("a\x00b\x1b[31mc\x7f", "a?b?[31mc?"),
        ("a\x85b\x9bc\u2028d\u2029", "a?b?c?d?"),
        ("\xa0a\xa0", "\xa0a\xa0"),
    ],
)
def test_what_cannot_travel_is_replaced_and_all_else_stays(value: str | None, cleaned: str | None) -> None:
    assert clean_header(value) == cleaned


@pytest.mark.parametrize(
    ("value", "limit", "cleaned"),
    [
        ("a" * 10, 10, "a" * 10),
        ("a" * 11, 10, "a" * 10),
        ("abc def", 4, "abc"),
        ("aéé", 4, "aé"),
        ("é  b", 4, "é"),
        ("a\U0001f98a", 4, "a"),
        ("  abc", 3, "abc"),
        ("x" * 100_000, MAX_HEADER_BYTES, "x" * 2048),
    ],
)
def test_what_is_too_long_is_cut_between_characters(value: str, limit: int, cleaned: str) -> None:
    assert clean_header(value, limit) == cleaned


def test_a_foreign_origin_does_not_become_another_by_being_cleaned() -> None:
    assert clean_header("https://exa\udcffmple.com") != "https://example.com"


@given(value=_any_text, limit=st.integers(1, 40))
def test_the_cleaned_text_is_utf8_within_its_bound_and_stays_as_it_is(value: str, limit: int) -> None:
    cleaned = clean_header(value, limit)
    assert cleaned is not None
    assert len(cleaned.encode()) <= limit
    assert clean_header(cleaned, limit) == cleaned
    assert cleaned == cleaned.strip(" \t")


class Upstream:
    """A real server that remembers the User-Agent and Origin of each request, and a real client of it."""

    def __init__(self) -> None:
        self.received: list[tuple[str | None, str | None]] = []
        app = web.Application()
        app.router.add_post("/", self._receive)
        self.server = TestServer(app)

    async def _receive(self, request: web.Request) -> web.Response:
        self.received.append((request.headers.get("User-Agent"), request.headers.get("Origin")))
        return web.Response()

    async def send(self, values: Sequence[str | None]) -> list[tuple[str | None, str | None]]:
        """Send each value as both headers, and say what arrived."""
        async with aiohttp.ClientSession(skip_auto_headers=["User-Agent"]) as client:
            for value in values:
                headers = {} if value is None else {"User-Agent": value, "Origin": value}
                async with client.post(self.server.make_url("/"), headers=headers) as answer:
                    assert answer.status == 200
        return self.received


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    async with upstream.server:
        yield upstream


async def test_every_character_arrives_as_it_was_cleaned(upstream: Upstream) -> None:
    """All 1,114,112 code points, 1,900 a header: at most 7,600 bytes, within what the server takes."""
    points = [chr(point) for point in range(0x110000)]
    sent = [clean_header("".join(points[at : at + 1_900]), 8_000) for at in range(0, len(points), 1_900)]
    assert await upstream.send(sent) == [(value, value) for value in sent]


async def test_an_empty_header_arrives_empty_and_none_arrives_not_at_all(upstream: Upstream) -> None:
    assert await upstream.send(["", None]) == [("", ""), (None, None)]


@pytest.mark.parametrize(
    ("raw", "arrives"),
    [
        (b"Mozilla/5.0", "Mozilla/5.0"),
        (b"", ""),
        (b"  ", ""),
        (b"a\tb", "a\tb"),
        ("café".encode(), "café"),
        ("café".encode("latin-1"), "caf?"),
        (b"\xff\xfe", "??"),
        (b"\xed\xa0\x80", "???"),
        (b"\xc2\x9b31m", "?31m"),
        (b"x" * 7_000, "x" * 2048),
    ],
)
async def test_what_a_client_sends_in_bytes_is_cleaned_and_sent_on_unchanged(
    upstream: Upstream, raw: bytes, arrives: str
) -> None:
    """Bytes on a socket, through a server that cleans and a client that sends on, to a second server."""
    cleaned: list[str | None] = []

    async def clean(request: web.Request) -> web.Response:
        cleaned.append(clean_header(request.headers.get("User-Agent")))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", clean)
    async with TestServer(app) as front:
        reader, writer = await asyncio.open_connection(front.host, front.port)
        writer.write(
            b"POST / HTTP/1.1\r\nHost: front\r\nContent-Length: 0\r\nConnection: close\r\nUser-Agent: "
            + raw
            + b"\r\n\r\n"
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
    assert cleaned == [arrives]
    assert await upstream.send(cleaned) == [(arrives, arrives)]
