import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
import pytest
from multidict import CIMultiDict
from yarl import URL

from proxy.sandbox import Sandbox
from tests.sandbox.bodies import KEY


class Clock:
    """Unix time that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.25

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Any
    body: Any


class Post(Protocol):
    def __call__(
        self,
        body: Any,
        key: str = ...,
        *,
        to: Sandbox | None = ...,
        headers: dict[str, str] | None = ...,
        follow: bool = ...,
    ) -> Awaitable[Reply]: ...


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def start(clock: Clock) -> AsyncIterator[Callable[..., Awaitable[Sandbox]]]:
    """Start a sandbox on the test's clock, with the given switches; stopped at the end."""
    started: list[Sandbox] = []

    async def started_with(**switches: Any) -> Sandbox:
        sandbox = Sandbox(clock=clock, **switches)
        started.append(sandbox)
        await sandbox.start()
        return sandbox

    yield started_with
    for sandbox in started:
        await sandbox.stop()


@pytest.fixture
async def sandbox(start: Callable[..., Awaitable[Sandbox]]) -> Sandbox:
    return await start()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def post(sandbox: Sandbox, http: aiohttp.ClientSession) -> Post:
    """Post a body (bytes as they are) to the ingest route and read the answer as JSON."""

    async def posted(
        body: Any,
        key: str = "pk_test",
        *,
        to: Sandbox | None = None,
        headers: dict[str, str] | None = None,
        follow: bool = True,
    ) -> Reply:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        url = f"{(to or sandbox).url}/api/i/v1/{key}/events"
        sent = {"Content-Type": "application/json", **(headers or {})}
        async with http.post(url, data=raw, headers=sent, allow_redirects=follow) as response:
            return Reply(response.status, response.headers, await response.json())

    return posted


class Calling(Protocol):
    def __call__(
        self,
        method: str,
        path: str | URL,
        body: Any = None,
        *,
        key: str | None = ...,
        headers: Iterable[tuple[str, str]] = ...,
        to: Sandbox | None = ...,
    ) -> Awaitable[Reply]: ...


@pytest.fixture
def call(sandbox: Sandbox, http: aiohttp.ClientSession) -> Calling:
    """Call the Platform API (bytes go as they are) and read the answer, as JSON where it is."""

    async def called(
        method: str,
        path: str | URL,
        body: Any = None,
        *,
        key: str | None = KEY,
        headers: Iterable[tuple[str, str]] = (),
        to: Sandbox | None = None,
    ) -> Reply:
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = CIMultiDict(headers)
        if raw is not None:
            sent.setdefault("Content-Type", "application/json")
        if key is not None:
            sent.add("Authorization", f"Bearer {key}")
        url = URL(f"{(to or sandbox).url}{path}", encoded=True)
        async with http.request(method, url, data=raw, headers=sent, allow_redirects=False) as response:
            text = await response.text()
            try:
                read = json.loads(text)
            except ValueError:
                read = text
            return Reply(response.status, response.headers, read)

    return called


@pytest.fixture
def tool(call: Calling) -> Callable[..., Awaitable[Reply]]:
    """Call a tool by its name, with its input."""

    async def called(name: str, **given: Any) -> Reply:
        return await call("POST", "/api/tools/call", {"tool": name, "input": given})

    return called


@pytest.fixture
def control(sandbox, http):
    """Ask a control endpoint: the status and the text of its answer."""

    async def asked(method, path, body=None):
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        async with http.request(method, f"{sandbox.url}/_sandbox/{path}", data=raw) as response:
            return response.status, await response.text()

    return asked
