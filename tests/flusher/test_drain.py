"""A drain that is bounded, one that begins while events still come, and other settings meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from proxy.ledger import Books
from proxy.sandbox import What
from tests.flusher.conftest import KEY, OTHER_KEY, SPEED, TERMS, VISITORS, Bench

OpenBench = Callable[..., Awaitable[Bench]]

LINGERING = replace(TERMS, linger_s=50.0 * SPEED)
"""Fifty seconds of ours."""


def in_s(seconds: float) -> float:
    return asyncio.get_running_loop().time() + seconds


async def test_a_drain_ends_where_nothing_can_leave_in_its_time(bench: Bench) -> None:
    bench.strike(What.STATUS, status=503, retry_after_s=60)  # 1.2 s of ours
    async with bench.flushing() as flusher:
        await bench.append(1)
        await bench.until_settled()
        async with asyncio.timeout(0.6):
            await flusher.drain(in_s(0.8))
        assert 0 < flusher.prospects.waits_s(KEY) < 1.3
        assert (await bench.books()).held == 1
        await flusher.drain(in_s(10))  # time enough
    assert await bench.books() == Books(accepted=1, delivered=1)


async def test_a_drain_waits_for_what_is_on_its_way(bench: Bench) -> None:
    """Also where it alone is left, and nothing further may begin."""
    bench.strike(What.LATENCY, latency_ms=300)
    async with bench.flushing() as flusher:
        await bench.append(3)
        drained = asyncio.create_task(flusher.drain(in_s(10)))
        await bench.buffer.until(lambda buffer: bool(buffer.leases))
        await asyncio.sleep(0.1)  # it is posted meanwhile
        assert (flusher.prospects.sending, drained.done()) == ({KEY: 3}, False)
        await drained
    assert await bench.books() == Books(accepted=3, delivered=3)


async def test_a_drain_ends_in_time_though_more_could_leave(bench: Bench) -> None:
    bench.strike(What.HANG_BEFORE, requests=100)
    async with bench.flushing(timeout_s=1.5) as flusher:
        await bench.append(1)
        began = in_s(0)
        await flusher.drain(in_s(0.3))
        assert 0.3 <= in_s(0) - began < 1.4
        assert flusher.prospects.sending == {KEY: 1}
        bench.heal()


async def test_what_comes_while_nothing_lingers_leaves_at_once(open_bench: OpenBench) -> None:
    bench = await open_bench(LINGERING)
    async with bench.flushing() as flusher:
        first = await bench.append(1)
        flusher.linger(lingers=False)
        second = await bench.append(1, VISITORS[1])
        third = await bench.append(1, key=OTHER_KEY)
        await bench.until_empty()
        assert sorted(bench.taken()) == sorted(first + second + third)
        flusher.linger(lingers=True)
        await bench.append(1)
        await bench.append(1, key=OTHER_KEY)
        await asyncio.sleep(0.1)  # in which it would have left
        assert len(bench.taken()) == 3
        await flusher.drain()
    assert (await bench.books()).held == 0


async def test_what_comes_leaves_at_once_beside_a_queue_that_backs_off(open_bench: OpenBench) -> None:
    bench = await open_bench(LINGERING)
    bench.strike(What.STATUS, status=503, retry_after_s=250)  # 5 s of ours
    async with bench.flushing() as flusher:
        flusher.linger(lingers=False)
        await bench.append(1)
        await bench.until_settled(beyond=0)
        await asyncio.sleep(0.05)  # its key's driver has lain down until then
        uuids = await bench.append(1, VISITORS[1])
        async with asyncio.timeout(0.8):  # it claims again after MAX_IDLE_S, 1.2 s of ours
            await bench.until_settled(beyond=1)
        assert bench.taken() == uuids


async def test_a_lease_that_became_shorter_while_it_was_claimed_is_trusted_no_longer(
    open_bench: OpenBench,
) -> None:
    bench = await open_bench(replace(TERMS, linger_s=0.0))  # the first claim finds it
    settings: dict[str, Any] = {"in_flight": 8, "timeout_s": 5.0, "max_age_s": 1_000.0}
    read = 0

    async def shorten(*_: object) -> None:
        flusher.go_by(**settings, lease_s=10.2)  # 0.2 s from the claim to the post

    async def dawdle(*_: object) -> None:
        nonlocal read
        read += 1
        if read == 1:
            await asyncio.sleep(0.3)

    bench.buffer.before |= {"claim": shorten, "read": dawdle}
    async with bench.flushing() as flusher:
        uuids = await bench.append(1)
        await bench.until_settled(beyond=0)
        assert bench.sent() == []
        assert bench.buffer.settled[0][1].taken == 0
        await bench.until_empty()
    assert bench.taken() == uuids
