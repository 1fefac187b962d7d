"""The disk of Redis's append-only file fills: Redis takes nothing any more, not even a settlement."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.installation import SHORT_LEASE_S
from tests.faults.load import clients, under_load, wait_until_all_are_refused
from tests.faults.promises import assert_back_to, assert_promises_kept, cpu_seconds, footprint
from tests.faults.small_disk import Disk, small_disk
from tests.programs import Proxy, Sandbox, http, wait_for
from tests.redis_servers import RedisServer

MEGABYTES = 12
BUSY = 0.3
"""Share of a core that a process may take which has nothing to do but to ask again."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", MEGABYTES) as disk:
        yield disk


@pytest.fixture
def server(disk: Disk) -> Iterator[RedisServer]:
    with RedisServer(disk.path / "redis") as server:
        yield server


@pytest.fixture
def engine(server: RedisServer) -> dict[str, str]:
    return {"BUFFER_URL": server.url}


def test_settlements_refused_for_a_full_disk_are_repeated_until_they_are_taken_and_nothing_is_sent_twice(
    proxy: Proxy, sandbox: Sandbox, disk: Disk, server: RedisServer
) -> None:
    """For longer than a lease lasts, and without a busy moment."""
    posting = clients(browsers=6, servers=2, seed=230)
    with under_load(proxy, posting):
        proxy.wait_until_delivered(300)
    proxy.wait_until_empty(60)
    before = footprint(proxy)
    sandbox.fault("latency", latency_ms=500)  # so that something is in flight when it happens
    with under_load(proxy, posting):
        proxy.wait_until_more_delivered(100)
        disk.fill()
        wait_for("Redis to refuse", lambda: _refuses_writes(server))
        refused_at = time.monotonic()
        wait_for("the probe to say so", lambda: http(f"{proxy.ops_url}/readyz")[0] == 503)
        wait_for("a settlement to be owed", lambda: proxy.metrics()["outlit_proxy_upstream_in_flight"] > 0)
        time.sleep(1)  # what was in flight is answered; that nothing more is sent takes time to be seen
        requests, started_at, cpu_s = len(sandbox.requests()), time.monotonic(), cpu_seconds(proxy)
        wait_until_all_are_refused(posting)
        wait_for("every lease to end", lambda: time.monotonic() - refused_at > SHORT_LEASE_S)
        assert cpu_seconds(proxy) - cpu_s < BUSY * (time.monotonic() - started_at)
        assert len(sandbox.requests()) == requests, "claimed while nothing can be settled"
        disk.unfill()
        sandbox.clear_faults()
        proxy.wait_until_ready()
        proxy.wait_until_more_delivered(100)
    proxy.wait_until_empty(60)
    assert not assert_promises_kept(proxy, sandbox, posting)
    assert_back_to(before, proxy)


def _refuses_writes(server: RedisServer) -> bool:
    return bool(server.client.info("persistence")["aof_last_write_status"] == "err")
