"""Redis goes away, is busy, is full, refuses, forgets: the proxy says so, waits, and goes on by itself."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.faults.installation import SHORT_LEASE_S
from tests.faults.load import Client, clients, refusals, under_load, wait_until_all_are_refused
from tests.faults.promises import assert_back_to, assert_kept_or_shouted, assert_promises_kept, footprint
from tests.faults.synced import syncs_watched
from tests.programs import Proxy, Sandbox, http, wait_for
from tests.redis_servers import RedisServer

WORKER, PASSWORD = "worker", "secret"
ALWAYS, EVERYSEC = {"appendfsync": "always"}, {"appendfsync": "everysec"}

remembers_all = pytest.mark.parametrize("server", [ALWAYS], indirect=True, ids=["always"])
"""For a test that kills Redis and is not about what it forgets: on a busy machine an everysec one does."""


@pytest.fixture
def engine(server: RedisServer, request: pytest.FixtureRequest) -> dict[str, str]:
    if getattr(request, "param", None) == WORKER:
        return {"BUFFER_URL": f"redis://{WORKER}:{PASSWORD}@{server.address}"}
    return {"BUFFER_URL": server.url}


def _readiness(proxy: Proxy) -> tuple[int, str]:
    status, said = http(f"{proxy.ops_url}/readyz")
    return status, said.decode()


def _assert_all_were_told(posting: Sequence[Client]) -> None:
    """Redis did not answer, and every client heard so, in time, and nothing else."""
    assert all(client.refusals.keys() == {"buffer_unavailable"} for client in posting)
    assert not any(client.gave_up for client in posting)


# -- away ----------------------------------------------------------------------------------------------


def _restart_under_load(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer, *, times: int, seed: int
) -> None:
    posting = clients(browsers=12, servers=4, seed=seed)
    deaths: list[float] = []
    with under_load(proxy, posting):
        for _ in range(times):
            proxy.wait_until_more_delivered(150)
            server.kill()
            deaths.append(time.monotonic())
            server.start()
            proxy.wait_until_ready()
        proxy.wait_until_more_delivered()
    assert not any(client.refusals for client in posting), "it was away for less than a request is held"
    assert proxy.metrics()["outlit_proxy_buffer_retries_total"] >= times
    proxy.wait_until_empty(180)  # after many times a lot is held, and the gate gives 90 requests a second
    if server.client.config_get("appendfsync")["appendfsync"] == "always":
        assert_promises_kept(proxy, sandbox, posting)
    else:
        assert_kept_or_shouted(proxy, sandbox, posting, deaths)


@pytest.mark.parametrize("server", [ALWAYS, EVERYSEC], indirect=True, ids=["always", "everysec"])
def test_a_redis_killed_and_started_again_under_load_loses_nothing_unsaid(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    _restart_under_load(proxy, sandbox, server, times=3, seed=220)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("server", [ALWAYS, EVERYSEC], indirect=True, ids=["always", "everysec"])
def test_a_redis_killed_and_started_again_fifty_times_under_load_loses_nothing_unsaid(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    _restart_under_load(proxy, sandbox, server, times=50, seed=221)


def test_what_an_everysec_redis_with_a_slow_disk_has_forgotten_after_its_death_is_shouted(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer, tmp_path: Path
) -> None:
    posting = clients(browsers=12, servers=4, seed=235)
    deaths: list[float] = []
    with under_load(proxy, posting):
        while not proxy.metrics()["outlit_proxy_buffer_lost_total"]:
            assert len(deaths) < 10, "it forgot nothing: nothing was tested"
            with syncs_watched(server.pid, server.folder, tmp_path / "strace.log", sync_s=0.7):
                proxy.wait_until_more_delivered()
                time.sleep(0.3 + 0.1 * len(deaths))  # in the midst of a sync, sooner or later
                server.kill()
            deaths.append(time.monotonic())
            server.start()
            proxy.wait_until_ready()
            proxy.wait_until_more_delivered()
    assert any("Redis has gone back" in error for error in _errors(proxy)), proxy.program.log
    proxy.wait_until_empty(60)
    assert_kept_or_shouted(proxy, sandbox, posting, deaths)


@remembers_all
def test_while_redis_is_gone_clients_are_refused_in_time_and_afterwards_all_goes_on(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    posting = clients(browsers=6, servers=2, seed=222)
    with under_load(proxy, posting):
        proxy.wait_until_more_delivered()
        server.kill()
        wait_for("the probe to say so", lambda: _readiness(proxy)[0] == 503)
        wait_until_all_are_refused(posting)
        server.start()
        proxy.wait_until_ready()
        proxy.wait_until_more_delivered()
    _assert_all_were_told(posting)
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)


@remembers_all
def test_sigterm_while_redis_is_gone_ends_it_within_the_grace_and_what_it_held_comes_back(
    install_proxy: Callable[..., Proxy], sandbox: Sandbox, server: RedisServer
) -> None:
    sandbox.fault("latency", latency_ms=500)  # so that settlements are owed
    proxy = install_proxy(DELIVERY_GRACE="3s")
    proxy.start()
    posting = clients(browsers=6, servers=2, seed=232)
    with under_load(proxy, posting):
        proxy.wait_until_more_delivered()
        server.kill()
        assert proxy.program.stop() == 0, proxy.program.log
        server.start()
        proxy.start()
        sandbox.clear_faults()
        proxy.wait_until_more_delivered()
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)
    assert proxy.program.stop() == 0, proxy.program.log


FILLER_KEYS = 12_000
LOADING_SLOWLY = {
    "key-load-delay": "250",  # µs a key of a snapshot: together 4 s, while it answers that it is loading
    "loading-process-events-interval-bytes": "1024",
    **ALWAYS,
}


@pytest.mark.parametrize("server", [LOADING_SLOWLY], indirect=True, ids=["slowly"])
def test_while_redis_loads_its_data_nothing_is_lost_and_nobody_else_is_asked_to_wait_longer(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    for start in range(0, FILLER_KEYS, 1_000):
        server.client.mset({f"filler:{number}": "" for number in range(start, start + 1_000)})
    server.client.bgrewriteaof()  # commands are loaded without delay
    wait_for("the snapshot", lambda: not server.client.info("persistence")["aof_rewrite_in_progress"])
    posting = clients(browsers=6, servers=2, seed=223)
    with under_load(proxy, posting):
        proxy.wait_until_more_delivered()
        server.kill()
        server.start(until_it_answers=False)
        wait_for("the probe to say so", lambda: "loading" in _readiness(proxy)[1].lower())
        proxy.wait_until_ready()
        proxy.wait_until_more_delivered()
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)


def test_a_redis_that_hangs_for_longer_than_a_lease_holds_up_nobody_for_longer_than_promised(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    posting = clients(browsers=6, servers=2, seed=224)
    with under_load(proxy, posting):
        proxy.wait_until_more_delivered(300)
    proxy.wait_until_empty(60)
    before = footprint(proxy)
    sandbox.fault("latency", latency_ms=200)  # so that something is in flight at any time
    with under_load(proxy, posting):
        proxy.wait_until_more_delivered()
        server.pause()
        wait_for("the probe to say so", lambda: _readiness(proxy)[0] == 503)
        time.sleep(SHORT_LEASE_S + 0.5)  # leases end by time, and nobody is there to ask
        assert all(client.refusals for client in posting)
        server.resume()
        sandbox.clear_faults()
        proxy.wait_until_ready()
        proxy.wait_until_more_delivered()
    _assert_all_were_told(posting)
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)
    assert_back_to(before, proxy)


# -- full ----------------------------------------------------------------------------------------------

EVENT_BYTES = 3_000


def test_a_redis_at_its_maxmemory_refuses_events_and_drains_to_the_last_one(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    sandbox.fault("status", status=429, retry_after_s=1)
    posting = clients(browsers=4, servers=8, seed=225, event_bytes=EVENT_BYTES)
    with under_load(proxy, posting):
        proxy.wait_until_accepted(500)
        server.client.config_set("maxmemory", 1)  # far below what is held: not even what is freed makes room
        wait_until_all_are_refused(posting)
        assert _readiness(proxy)[0] == 503
        assert proxy.ledger()["held"] >= 500
        sandbox.clear_faults()
        proxy.wait_until_empty(60)
        server.client.config_set("maxmemory", 0)
        proxy.wait_until_ready()
    assert "buffer_full" in refusals(posting)
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)


# -- refuses -------------------------------------------------------------------------------------------


def test_scripts_that_redis_forgot_are_given_to_it_again_and_nobody_notices(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    posting = clients(browsers=12, servers=4, seed=226)
    with under_load(proxy, posting):
        for _ in range(10):
            proxy.wait_until_more_delivered(30)
            server.client.script_flush()
    assert server.client.info("errorstats")["errorstat_NOSCRIPT"]["count"] >= 10
    assert not any(client.posted_again for client in posting)
    proxy.wait_until_empty(60)
    assert not assert_promises_kept(proxy, sandbox, posting)


def test_a_password_changed_under_load_and_back_again_costs_nothing_but_time(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    posting = clients(browsers=6, servers=2, seed=227)
    with under_load(proxy, posting):
        proxy.wait_until_more_delivered()
        server.client.config_set("requirepass", "another")
        server.client.client_kill_filter(_type="normal", skipme=True)  # what is connected would stay
        wait_for("the probe to say so", lambda: _readiness(proxy)[0] == 503)
        wait_until_all_are_refused(posting)
        server.client.config_set("requirepass", "")
        proxy.wait_until_ready()
        proxy.wait_until_more_delivered()
    _assert_all_were_told(posting)
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)


@pytest.mark.parametrize(
    "server", [{f"user {WORKER}": f"on >{PASSWORD} ~* &* +@all"}], indirect=True, ids=["a user"]
)
@pytest.mark.parametrize("engine", [WORKER], indirect=True)
def test_rights_taken_away_under_load_and_given_back_cost_nothing_but_time(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    posting = clients(browsers=6, servers=2, seed=231)
    with under_load(proxy, posting):
        proxy.wait_until_more_delivered()
        server.command("ACL", "SETUSER", WORKER, "-@all")  # connections stay, and may do nothing
        wait_for("the probe to say so", lambda: _readiness(proxy)[0] == 503)
        wait_until_all_are_refused(posting)
        server.command("ACL", "SETUSER", WORKER, "+@all")
        proxy.wait_until_ready()
        proxy.wait_until_more_delivered()
    _assert_all_were_told(posting)
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)


# -- forgets -------------------------------------------------------------------------------------------


def _hold(proxy: Proxy, sandbox: Sandbox, *, seed: int) -> int:
    """Have it hold events, acknowledged and not delivered; how many."""
    sandbox.fault("status", status=429, retry_after_s=1)
    posting = clients(browsers=6, servers=2, seed=seed)
    with under_load(proxy, posting):
        proxy.wait_until_accepted(100)
    sandbox.clear_faults()
    assert proxy.metrics()["outlit_proxy_buffer_lost_total"] == 0
    return sum(len(client.acknowledged) for client in posting)


def _errors(proxy: Proxy) -> list[str]:
    lines = map(json.loads, proxy.program.log.splitlines())
    return [line["event"] for line in lines if line["level"] == "error"]


def test_a_flushed_redis_is_shouted_at_the_next_post_and_what_comes_afterwards_is_kept(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    acknowledged = _hold(proxy, sandbox, seed=228)
    server.client.flushall()
    posting = clients(browsers=6, servers=2, seed=229)
    with under_load(proxy, posting):
        proxy.wait_until_more_delivered()
    assert any("Redis has gone back" in error for error in _errors(proxy)), proxy.program.log
    metrics = proxy.metrics()
    assert 0 < metrics["outlit_proxy_buffer_lost_events_total"] <= acknowledged
    assert metrics["outlit_proxy_buffer_lost_total"] == 1
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)


@pytest.mark.long
def test_a_flushed_redis_is_shouted_within_a_minute_though_nobody_posts(
    proxy: Proxy, sandbox: Sandbox, server: RedisServer
) -> None:
    _hold(proxy, sandbox, seed=233)
    server.client.flushall()
    wait_for("it to be noticed", lambda: proxy.metrics()["outlit_proxy_buffer_lost_total"] == 1, 60)
    assert any("has lost what it held" in error for error in _errors(proxy)), proxy.program.log
    posting = clients(browsers=6, servers=2, seed=234)
    with under_load(proxy, posting):
        proxy.wait_until_more_delivered()
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)
    assert proxy.metrics()["outlit_proxy_buffer_lost_total"] == 1
