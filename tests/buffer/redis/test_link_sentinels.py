"""A primary that changes: found by the Sentinels, without a restart."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.buffer import BufferUnavailable
from proxy.buffer.redis.link import Link, open_link
from proxy.settings.redis_url import parse_target
from tests.buffer.redis.small_scripts import COUNT, ECHO
from tests.redis_servers import Sentinels


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    with Sentinels(tmp_path_factory.mktemp("sentinels"), down_after_ms=1_000) as sentinels:
        yield sentinels


async def counted(link: Link, key: bytes) -> Any:
    """The count after one more, as soon as somebody answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await link.run(COUNT, (key,), (), kept=True)
            except BufferUnavailable:
                await asyncio.sleep(0.05)


async def test_a_service_that_no_sentinel_knows_is_said(made: Sentinels) -> None:
    with pytest.raises(BufferUnavailable, match=r'know no service "other": correct buffer\.url'):
        await open_link(parse_target(made.url.replace("/main", "/other")))


async def test_sentinels_that_are_gone_are_said() -> None:
    with pytest.raises(BufferUnavailable, match=r"no Sentinel answers: Redis at 127\.0\.0\.1:\d"):
        await open_link(parse_target("redis+sentinel://127.0.0.1:1,127.0.0.1:2/main"))


async def test_one_sentinel_that_hangs_and_one_address_of_nobody_hold_nothing_up(made: Sentinels) -> None:
    made.sentinels[0].pause()
    try:
        async with asyncio.timeout(1.5):
            link = await open_link(parse_target(made.url))
            assert await link.run(ECHO, (b"k",), ("x",)) == b"x"
    finally:
        made.sentinels[0].resume()
    await link.close()
    both = ",".join(each.address for each in made.sentinels[1:])
    link = await open_link(parse_target(f"redis+sentinel://127.0.0.1:1,{both}/main"))
    await link.close()


async def test_an_ordered_failover_is_followed(made: Sentinels) -> None:
    link = await open_link(parse_target(made.url), durability="replica", replicas=1)
    before = made.master()
    assert await link.run(COUNT, (b"ordered",), (), kept=True) == 1
    after = await asyncio.to_thread(made.failover)
    assert await counted(link, b"ordered") >= 2
    assert after.command("GET", "ordered") >= b"2"
    assert {told["tcp_port"] for told in await link.info()} == {str(after.port)}
    assert before.port != after.port
    await link.close()


async def test_a_primary_that_hangs_is_replaced_and_left(made: Sentinels) -> None:
    link = await open_link(parse_target(made.url))
    await asyncio.gather(*(link.run(ECHO, (b"k",), (n,)) for n in range(50)))
    hung = made.master()
    hung.pause()
    try:
        assert await counted(link, b"hung") >= 1
        after = await asyncio.to_thread(made.wait_for_master, hung)
        assert {told["tcp_port"] for told in await link.info()} == {str(after.port)}
    finally:
        hung.resume()
    assert await link.run(ECHO, (b"k",), ("x",)) == b"x"
    await link.close()
