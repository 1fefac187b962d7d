"""The buffer that benchmarks get on Redis: the real thing, of which no proxy there hears."""

import os
from array import array

import pytest

from proxy.buffer import Lease, Portion, Terms
from proxy.buffer.bench import BENCH_KEY, BenchRefused
from proxy.buffer.redis import RedisBuffer
from proxy.buffer.redis.bench import RedisBench
from proxy.lanes import LaneId, QueueId
from tests.buffer.redis.links import linked
from tests.redis_servers import RedisServer

QUEUE = QueueId(bytes(16))
PORTION = Portion(QUEUE, LaneId(bytes(16)), b"header", bytes(16), array("q", [1]), [b"{}"])
TERMS = Terms(linger_s=0.0)


async def opened(server: RedisServer) -> RedisBench:
    return await RedisBench.opened(await linked(server), TERMS, "everysec")


async def test_what_it_stores_is_leased_by_it_and_by_no_proxy(redis_server: RedisServer) -> None:
    bench = await opened(redis_server)
    await bench.buffer.append(BENCH_KEY, [PORTION])
    proxy = await RedisBuffer.opened(await linked(redis_server), TERMS)
    assert await proxy.keys_with_work() == []
    assert await proxy.figures() == {}
    assert isinstance(await bench.buffer.claim(BENCH_KEY, os.urandom(12)), Lease)
    await proxy.close()
    await bench.empty([QUEUE])
    await bench.close()
    assert redis_server.command("DBSIZE") == 0


async def test_it_counts_calls_and_memory_of_the_server(redis_server: RedisServer) -> None:
    bench = await opened(redis_server)
    await bench.buffer.append(BENCH_KEY, [PORTION])  # a server that does not know the script is called twice
    await bench.empty([QUEUE])
    before, stored_bytes = await bench.spent(), await bench.stored_bytes()
    await bench.buffer.append(BENCH_KEY, [PORTION])
    after = await bench.spent()
    assert before is not None
    assert after is not None
    assert after.calls - before.calls == 1
    assert after.us > before.us
    assert 500 < await bench.stored_bytes() - stored_bytes < 5_000
    await bench.empty([QUEUE])
    await bench.close()


async def test_two_at_once_are_one_too_many(redis_server: RedisServer) -> None:
    bench = await opened(redis_server)
    await bench.buffer.append(BENCH_KEY, [PORTION])
    with pytest.raises(BenchRefused, match="--clean"):
        await opened(redis_server)
    await bench.empty([QUEUE])
    await bench.close()
