"""What a link promises, whatever stands behind the address."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy.buffer import BufferUnavailable
from proxy.buffer.redis.link import Argument, Link, open_link
from proxy.settings.redis_url import parse_target
from tests.buffer.redis.small_scripts import ALL_KINDS, COUNT, ECHO, FAILS, script
from tests.redis_servers import Deployment, RedisServer, shared
from tests.stack import PATIENCE_S

KINDS = {
    "redis": "redis",
    "unix": "redis",
    "valkey": "valkey",
    "cluster": "cluster",
    "sentinels": "sentinels",
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def deployment(kind: str) -> Deployment:
    found = shared(KINDS[kind])
    found.flush()
    return found


@pytest.fixture
async def link(kind: str, deployment: Deployment) -> AsyncIterator[Link]:
    url = deployment.unix_url if kind == "unix" and isinstance(deployment, RedisServer) else deployment.url
    made = await open_link(parse_target(url))
    yield made
    await made.close()


async def test_a_scripts_answer_comes_as_redis_gives_it(link: Link) -> None:
    assert await link.run(ALL_KINDS, (b"{a}none",), ()) == [1, b"text", None, [2, [b"deep"]], b"OK", None]


async def test_arguments_arrive_byte_for_byte(link: Link) -> None:
    for argument, seen in (
        (b"\x00\xff\r\n$", b"\x00\xff\r\n$"),
        ("ä", "ä".encode()),
        (-7, b"-7"),
        (b"", b""),
    ):
        assert await link.run(ECHO, (b"k",), (argument,)) == seen
    large = bytes(range(256)) * 8_000
    assert await link.run(ECHO, (b"k",), (large,)) == large


async def test_a_script_that_redis_has_forgotten_is_sent_again_and_done_once(
    link: Link, deployment: Deployment
) -> None:
    for expected in (1, 2, 3):
        for server in deployment.primaries:
            server.command("SCRIPT", "FLUSH")
        assert await link.run(COUNT, (b"{a}n",), (), kept=True) == expected


async def test_calls_at_once_are_each_answered_with_their_own(link: Link) -> None:
    answers = await asyncio.gather(*(link.run(ECHO, (b"{%d}k" % n,), (n,)) for n in range(500)))
    assert answers == [b"%d" % n for n in range(500)]


async def test_one_command_about_one_key(link: Link) -> None:
    assert await link.ask("GET", b"k") is None
    assert await link.ask("SET", b"k", 5) == b"OK"
    assert await link.ask("OBJECT ENCODING", b"k") == b"int"


async def test_many_commands_are_answered_in_their_order_and_done_in_it(link: Link) -> None:
    assert await link.ask_each(()) == []
    commands: list[tuple[str, bytes, *tuple[Argument, ...]]]
    commands = [("RPUSH", b"list{%d}" % (n % 7), n) for n in range(70)]
    commands += [("LRANGE", b"list{%d}" % n, 0, -1) for n in range(7)]
    answers = await link.ask_each(commands)
    assert answers[:70] == [n // 7 + 1 for n in range(70)]
    assert answers[70:] == [[b"%d" % m for m in range(n, 70, 7)] for n in range(7)]


async def test_every_primary_is_asked(link: Link, deployment: Deployment) -> None:
    for server in deployment.primaries:
        server.command("SCRIPT", "FLUSH")
    assert await link.run_everywhere(ECHO, ("here",)) == [b"here"] * len(deployment.primaries)
    ports = {int(told["tcp_port"]) for told in await link.info()}
    assert ports == {server.port for server in deployment.primaries}


async def test_what_redis_refuses_is_one_readable_line(link: Link) -> None:
    await link.ask("SET", b"k", "text")
    for refused, part in (
        (link.ask("LPUSH", b"k", 1), "refused LPUSH: WRONGTYPE"),
        (link.ask("FROB", b"k", "of a visitor"), "refused FROB: ERR unknown command 'FROB'"),
        (link.ask_each([("GET", b"k"), ("INCR", b"k")]), "refused INCR: ERR value is not an integer"),
        (link.run(FAILS, (b"k",), ()), "a bug of ours"),
        (link.run(script(b"#!lua\nreturn redis.call('LPUSH', KEYS[1], 1)"), (b"k",), ()), "WRONGTYPE"),
        (link.run(script(b"not Lua"), (b"k",), ()), "refused small: ERR"),
        (link.run_everywhere(FAILS, ()), "a bug of ours"),
    ):
        with pytest.raises(BufferUnavailable) as raised:
            await refused
        message = str(raised.value)
        assert part in message
        assert "\n" not in message
        assert "of a visitor" not in message


async def test_a_refusal_leaves_the_others_alone(link: Link) -> None:
    await link.ask("SET", b"{a}text", "x")
    ended = await asyncio.gather(
        *(
            link.ask("LPUSH", b"{a}text", n) if n % 3 else link.run(ECHO, (b"{a}k",), (n,))
            for n in range(300)
        ),
        return_exceptions=True,
    )
    for n, answer in enumerate(ended):
        assert isinstance(answer, BufferUnavailable) if n % 3 else answer == b"%d" % n


async def test_close_waits_for_what_was_asked_and_leaves_nothing_behind(
    kind: str, deployment: Deployment
) -> None:
    url = deployment.unix_url if kind == "unix" and isinstance(deployment, RedisServer) else deployment.url
    before = asyncio.all_tasks()
    link = await open_link(parse_target(url))
    calls = [asyncio.create_task(link.run(COUNT, (b"{%d}n" % n,), ())) for n in range(50)]
    await asyncio.sleep(0)
    await link.close()
    assert await asyncio.gather(*calls) == [1] * 50
    with pytest.raises(BufferUnavailable, match="closed"):
        await link.ask("GET", b"k")
    with pytest.raises(BufferUnavailable, match="closed"):
        await link.ask_each([("GET", b"k")])
    assert asyncio.all_tasks() == before
    async with asyncio.timeout(PATIENCE_S):  # a server hears of it when its loop comes round
        for server in deployment.primaries:
            while b"outlit-proxy" in server.command("CLIENT", "LIST", "TYPE", "normal"):  # noqa: ASYNC110  # the server tells nobody
                await asyncio.sleep(0)


async def test_connections_are_few_whatever_is_asked(link: Link, deployment: Deployment) -> None:
    for _ in range(5):
        await asyncio.gather(*(link.run(ECHO, (b"{%d}k" % n,), (n,)) for n in range(200)))
    for server in deployment.primaries:
        clients = server.client.client_list()
        assert 1 <= sum(client["name"] == "outlit-proxy" for client in clients) <= 2
