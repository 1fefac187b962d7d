"""When a call that must be kept may be answered, by durability."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.buffer import BufferUnavailable
from proxy.buffer.redis.link import Durability, Link, open_link
from proxy.settings.redis_url import parse_target
from tests.buffer.redis.small_scripts import COUNT, ECHO
from tests.redis_servers import HOST, REDIS, VALKEY, RedisServer, shared, wait_for

PROGRAMS = {"redis": REDIS, "valkey": VALKEY}


async def opened(url: str, durability: Durability, replicas: int = 1, wait_timeout_s: float = 1.0) -> Link:
    return await open_link(
        parse_target(url), durability=durability, replicas=replicas, wait_timeout_s=wait_timeout_s
    )


def is_replicated(primary: RedisServer) -> bool:
    primary.command("SET", "written", "by this connection")
    return bool(primary.command("WAIT", 1, 1_000) == 1)


@pytest.fixture(params=PROGRAMS)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica."""
    program = PROGRAMS[request.param]
    with RedisServer(tmp_path / "primary", program=program) as primary:
        options = {"replicaof": f"{HOST} {primary.port}"}
        with RedisServer(tmp_path / "replica", program=program, options=options) as replica:
            wait_for("a replica that says what it has", lambda: is_replicated(primary))
            yield primary, replica


async def test_replica_answers_only_what_a_replica_has(pair: tuple[RedisServer, RedisServer]) -> None:
    primary, replica = pair
    link = await opened(primary.url, "replica", wait_timeout_s=1.0)
    for expected in range(1, 20):
        assert await link.run(COUNT, (b"n",), (), kept=True) == expected
        assert replica.command("GET", "n") == b"%d" % expected
    replica.pause()
    with pytest.raises(BufferUnavailable) as raised:
        await link.run(COUNT, (b"n",), (), kept=True)
    assert str(raised.value) == (
        f"kept by 0 of 1 replicas of Redis at {primary.address} within 1 s:"
        " see to its replicas, or lower buffer.replicas"
    )
    assert await link.run(COUNT, (b"n",), ()) == 21  # done, and done once
    replica.resume()
    async with asyncio.timeout(10):
        while True:
            try:
                assert await link.run(COUNT, (b"n",), (), kept=True) > 21
                break
            except BufferUnavailable:
                await asyncio.sleep(0.05)
    await link.close()


async def test_calls_that_need_not_be_kept_do_not_wait_for_a_lost_replica(
    pair: tuple[RedisServer, RedisServer],
) -> None:
    primary, replica = pair
    link = await opened(primary.url, "replica", wait_timeout_s=1.0)
    replica.pause()
    kept = [asyncio.create_task(link.run(COUNT, (b"n",), (), kept=True)) for _ in range(40)]
    await asyncio.sleep(0.1)
    before = time.monotonic()
    assert await link.run(ECHO, (b"k",), ("x",)) == b"x"
    assert time.monotonic() - before < 0.5
    ended = await asyncio.gather(*kept, return_exceptions=True)
    assert {type(each) for each in ended} == {BufferUnavailable}
    replica.resume()
    await link.close()


async def test_more_replicas_than_there_are_is_never_kept(pair: tuple[RedisServer, RedisServer]) -> None:
    link = await opened(pair[0].url, "replica", replicas=2, wait_timeout_s=0.5)
    with pytest.raises(BufferUnavailable, match="kept by 1 of 2 replicas"):
        await link.run(COUNT, (b"n",), (), kept=True)
    await link.close()


async def test_in_a_cluster_the_nodes_own_replicas_count() -> None:
    cluster = shared("cluster")
    link = await opened(cluster.url, "replica", wait_timeout_s=0.05)
    for key in (b"{a}n", b"{b}n", b"{c}n"):
        address = cluster.server_of(key).address
        with pytest.raises(BufferUnavailable, match=f"kept by 0 of 1 replicas of Redis at {address}"):
            await link.run(COUNT, (key,), (), kept=True)
    await link.close()


@pytest.mark.parametrize("program", PROGRAMS)
async def test_always_answers_what_is_on_the_disk(program: str, tmp_path: Path) -> None:
    options = {"appendfsync": "always"}
    with RedisServer(tmp_path, program=PROGRAMS[program], options=options) as server:
        link = await opened(server.url, "always")
        for expected in range(1, 50):
            assert await link.run(COUNT, (b"n",), (), kept=True) == expected
        await link.close()


async def test_always_on_a_valkey_that_syncs_never_is_not_kept(tmp_path: Path) -> None:
    with RedisServer(tmp_path, program=VALKEY, options={"appendfsync": "no"}) as server:
        link = await opened(server.url, "always", wait_timeout_s=0.1)
        with pytest.raises(BufferUnavailable, match=r"not on the disk .* within 0\.1 s: set its appendfsync"):
            await link.run(COUNT, (b"n",), (), kept=True)
        await link.close()


async def test_always_without_an_append_only_file_is_refused_at_the_start(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path, program=VALKEY, options={"appendonly": "no"}) as server,
        pytest.raises(BufferUnavailable, match="has no append-only file, which durability always needs"),
    ):
        await opened(server.url, "always")


@pytest.mark.parametrize("durability", ["everysec", "always", "replica"])
async def test_what_redis_refuses_is_said_in_any_durability(durability: Durability) -> None:
    link = await opened(shared("valkey").url, durability, replicas=0)
    await link.ask("SET", b"text", "x")
    with pytest.raises(BufferUnavailable, match="not an integer"):
        await link.run(COUNT, (b"text",), (), kept=True)
    await link.close()
