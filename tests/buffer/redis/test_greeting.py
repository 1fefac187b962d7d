"""What is looked at on each new connection before it is used."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from proxy.buffer import BufferFault, BufferUnavailable
from proxy.buffer.redis.keys import LAYOUT
from proxy.buffer.redis.link import Ask, open_link
from proxy.settings.redis_url import parse_target
from tests.buffer.redis.small_scripts import COUNT, ECHO
from tests.redis_servers import RedisServer, shared


class Greeting:
    """Notes whom it greets, by the port; refuses while told to."""

    def __init__(self) -> None:
        self.refuses: BufferFault | None = None
        self.met: list[Any] = []

    async def __call__(self, ask: Ask) -> None:
        self.met.append((await ask("CONFIG", "GET", "port"))[1].decode())
        await ask("GET", LAYOUT)
        if self.refuses is not None:
            raise self.refuses


def connections(server: RedisServer) -> int:
    return sum(client["name"] == "outlit-proxy" for client in server.client.client_list())


@pytest.mark.parametrize("kind", ["redis", "valkey", "cluster", "sentinels"])
async def test_only_the_server_with_the_layout_is_greeted_and_on_each_connection(kind: str) -> None:
    deployment = shared(kind)
    greeting = Greeting()
    link = await open_link(parse_target(deployment.url), greet=greeting)
    assert len(greeting.met) == 1
    for _ in range(3):
        await asyncio.gather(*(link.run(ECHO, (b"{%d}k" % n,), (n,)) for n in range(100)))
    layout = deployment.server_of(LAYOUT)
    assert set(greeting.met) == {str(layout.port)}
    await asyncio.sleep(0.05)  # one may be about to be greeted
    assert len(greeting.met) == connections(layout)
    await link.close()


@pytest.mark.parametrize("kind", ["redis", "cluster"])
async def test_a_connection_that_is_refused_is_not_used_and_the_caller_hears_why(kind: str) -> None:
    greeting = Greeting()
    greeting.refuses = BufferUnavailable("the stored layout is newer than this version")
    with pytest.raises(BufferUnavailable, match="layout is newer"):
        await open_link(parse_target(shared(kind).url), greet=greeting)
    assert len(greeting.met) == 1


async def test_after_a_restart_nothing_is_asked_before_the_greeting_agrees(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        greeting = Greeting()
        link = await open_link(parse_target(server.url), greet=greeting)
        await link.run(COUNT, (b"n",), ())
        greeting.refuses = BufferUnavailable("somebody emptied it")
        server.restart()
        await asyncio.sleep(0.05)
        for _ in range(3):
            with pytest.raises(BufferUnavailable, match="somebody emptied it"):
                await link.run(COUNT, (b"n",), ())
        assert server.command("GET", "n") == b"1"
        greeting.refuses = None
        assert await link.run(COUNT, (b"n",), ()) == 2
        await link.close()
