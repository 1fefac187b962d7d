"""Slots that are moved, nodes that die: a Cluster under load."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from proxy.buffer import BufferUnavailable
from proxy.buffer.redis.link import Link, Misconfigured, open_link
from proxy.settings.redis_url import parse_target
from tests.buffer.redis.small_scripts import COUNT, ECHO, script
from tests.redis_servers import Cluster, RedisServer

BOTH = script(b"#!lua\nreturn {redis.call('INCR', KEYS[1]), redis.call('INCR', KEYS[2])}")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def cluster(made: Cluster) -> Cluster:
    made.start()
    made.flush()
    return made


@pytest.fixture
async def link(cluster: Cluster) -> AsyncIterator[Link]:
    opened = await open_link(parse_target(cluster.url))
    yield opened
    await opened.close()


def elsewhere(cluster: Cluster, slot: int) -> int:
    return (cluster.owner(slot) + 1) % len(cluster.nodes)


async def test_at_each_step_of_a_move_every_call_is_done_once(cluster: Cluster, link: Link) -> None:
    slot = cluster.slot("{moved}")
    for n in range(5):
        await link.ask("SET", b"{moved}%d" % n, 0)
    counted = 0
    for step in cluster.moving_slot(slot, elsewhere(cluster, slot)):
        counted += 1
        for n in range(5):
            assert await link.run(COUNT, (b"{moved}%d" % n,), (), kept=True) == counted, step
        assert await link.run(COUNT, (b"{moved}new%d" % counted,), ()) == 1, step
        reads = [("GET", b"{moved}%d" % n) for n in range(5)]
        assert await link.ask_each(reads) == [b"%d" % counted] * 5, step
    assert counted > 5


async def test_a_script_whose_keys_lie_apart_waits_until_they_are_together(
    cluster: Cluster, link: Link
) -> None:
    slot = cluster.slot("{apart}")
    await link.run(BOTH, (b"{apart}a", b"{apart}b"), ())
    steps = cluster.moving_slot(slot, elsewhere(cluster, slot))
    for step in steps:
        if step.startswith("moved"):
            break
    waiting = asyncio.create_task(link.run(BOTH, (b"{apart}a", b"{apart}b"), (), kept=True))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    for _ in steps:
        pass
    assert await waiting == [2, 2]


async def test_keys_that_stay_apart_are_said_in_time(cluster: Cluster, link: Link) -> None:
    slot = cluster.slot("{stays}")
    await link.run(BOTH, (b"{stays}a", b"{stays}b"), ())
    steps = cluster.moving_slot(slot, elsewhere(cluster, slot))
    for step in steps:
        if step.startswith("moved"):
            break
    async with asyncio.timeout(4):
        with pytest.raises(BufferUnavailable, match="is moving the slot of these keys"):
            await link.run(BOTH, (b"{stays}a", b"{stays}b"), ())
    for _ in steps:
        pass
    assert await link.run(BOTH, (b"{stays}a", b"{stays}b"), ()) == [2, 2]


async def test_what_would_be_done_out_of_order_is_refused_and_reads_are_read_again(
    cluster: Cluster, link: Link
) -> None:
    """`1` has been moved and `2` has not: asked in one go, `2` is done first."""
    slot = cluster.slot("{order}")
    for n in (1, 2):
        await link.ask("SET", b"{order}%d" % n, n)
    steps = cluster.moving_slot(slot, elsewhere(cluster, slot))
    gone = next(step for step in steps if step.startswith("moved")).removeprefix("moved ").encode()
    other = b"{order}1" if gone == b"{order}2" else b"{order}2"
    assert await link.ask_each([("GET", gone), ("GET", other)]) == [gone[-1:], other[-1:]]
    assert await link.ask_each([("GET", other), ("GET", gone)]) == [other[-1:], gone[-1:]]
    with pytest.raises(BufferUnavailable, match="was done before what was to come first"):
        await link.ask_each([("GET", gone), ("INCR", other)])
    for _ in steps:
        pass


async def test_slots_move_to_and_fro_under_load_and_what_was_answered_is_counted(
    cluster: Cluster, link: Link
) -> None:
    keys = [b"{load%d}n" % n for n in range(6)]
    answered, unknown = Counter[bytes](), Counter[bytes]()
    stop = asyncio.Event()

    async def load(key: bytes) -> None:
        while not stop.is_set():
            try:
                await link.run(COUNT, (key,), (), kept=True)
                answered[key] += 1
            except BufferUnavailable:
                unknown[key] += 1

    tasks = [asyncio.create_task(load(key)) for key in keys for _ in range(4)]
    for _ in range(3):
        for key in keys:
            slot = cluster.slot(key)
            for _step in cluster.moving_slot(slot, elsewhere(cluster, slot)):
                await asyncio.sleep(0.01)
    stop.set()
    await asyncio.gather(*tasks)
    assert sum(unknown.values()) == 0
    for key in keys:
        assert answered[key] > 50
        assert int(await link.ask("GET", key)) == answered[key]


async def test_keys_of_two_slots_are_refused(link: Link) -> None:
    with pytest.raises(BufferUnavailable, match="CROSSSLOT"):
        await link.run(BOTH, (b"{a}x", b"{b}x"), ())


async def test_a_node_that_dies_takes_its_own_keys_only_and_comes_back(cluster: Cluster, link: Link) -> None:
    of_node: dict[int, bytes] = {}
    for n in range(50):
        of_node.setdefault(cluster.owner(cluster.slot(b"{%d}" % n)), b"{%d}n" % n)
    keys = [of_node[at] for at in range(3)]
    for node in cluster.nodes:
        node.command("CONFIG", "SET", "cluster-require-full-coverage", "no")
    for key in keys:
        await link.run(COUNT, (key,), ())
    cluster.kill(1)
    async with asyncio.timeout(6):
        for _ in range(20):
            assert await link.run(ECHO, (keys[0],), ("x",)) == b"x"
            assert await link.run(ECHO, (keys[2],), ("x",)) == b"x"
            with pytest.raises(BufferUnavailable, match=f"Redis at {cluster.nodes[1].address}"):
                await link.run(COUNT, (keys[1],), ())
    cluster.start()  # on this thread: they die with the one that started them
    async with asyncio.timeout(10):
        while True:
            with suppress(BufferUnavailable):
                assert await link.run(COUNT, (keys[1],), ()) == 2
                break
            await asyncio.sleep(0.05)


async def test_one_seed_that_answers_is_enough(cluster: Cluster) -> None:
    dead = "127.0.0.1:1"
    link = await open_link(parse_target(f"redis+cluster://{dead},{cluster.nodes[2].address}"))
    assert len(await link.info()) == 3
    await link.close()
    with pytest.raises(BufferUnavailable, match=f"Redis at {dead} cannot be reached"):
        await open_link(parse_target(f"redis+cluster://{dead}"))


async def test_a_server_that_is_in_no_cluster_is_said(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as server,
        pytest.raises(Misconfigured, match="is in no cluster: write redis://"),
    ):
        await open_link(parse_target(f"redis+cluster://{server.address}"))
