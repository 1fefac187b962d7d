"""A real Prometheus and two replicas on one Redis: nothing counts twice, and whose trouble it is shows."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.deploy.prometheus_server import Prometheus, running_prometheus
from tests.deploy.promql import DASHBOARD
from tests.programs import Proxy, http, running_proxy, running_sandbox
from tests.redis_servers import RedisServer
from tests.sandbox.bodies import client, event

PANELS = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]


def shown(title: str) -> str:
    """The first query of a panel of the dashboard, of all jobs, instances and keys."""
    [panel] = [panel for panel in PANELS if panel["title"] == title]
    query: str = panel["targets"][0]["expr"]
    for variable in ("$job", "$instance", "$key"):
        query = query.replace(variable, ".+")
    return query


@dataclass(slots=True)
class Fleet:
    prometheus: Prometheus
    redis: RedisServer
    replicas: list[Proxy]

    def post(self, number: int, replica: int) -> int:
        body = client(event(number=number), visitorId=f"0190a1b2-c3d4-7e5f-8a6b-{number:012d}")
        return http(f"{self.replicas[replica].url}/api/i/v1/pk_test/events", body)[0]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with ExitStack() as running:
        server = running.enter_context(RedisServer(tmp_path_factory.mktemp("redis")))
        sandbox = running.enter_context(running_sandbox(tmp_path_factory.mktemp("sandbox")))
        replicas = [
            running.enter_context(
                running_proxy(tmp_path_factory.mktemp("replica"), sandbox, OUTLIT_PROXY_BUFFER_URL=server.url)
            )
            for _ in range(2)
        ]
        prometheus = running.enter_context(
            running_prometheus(tmp_path_factory.mktemp("prometheus"), [of.ops_url for of in replicas])
        )
        prometheus.wait_until("count(up == 1) == 2")
        fleet = Fleet(prometheus, server, replicas)
        for number in range(6):
            assert fleet.post(number, number % 2) == 200
        yield fleet


def test_what_both_show_of_their_redis_counts_once(fleet: Fleet):
    fleet.prometheus.wait_until('min(outlit_proxy_ledger_events{outcome="delivered"}) == 6')
    books = {
        series["metric"]["outcome"]: float(series["value"][1])
        for series in fleet.prometheus.query(shown("Events by where they are"))
    }
    assert books == {"accepted": 6, "held": 0, "delivered": 6, "dead": 0, "dropped": 0}
    assert fleet.prometheus.number('sum(outlit_proxy_ledger_events{outcome="delivered"})') == 12
    assert fleet.prometheus.number("sum(outlit_proxy_events_accepted_total)") == 6
    assert fleet.prometheus.query("outlit_proxy_buffer_disk_free_bytes >= 0") == [], "a file's, not a Redis's"


def test_one_replica_that_is_away_wakes_nobody(fleet: Fleet):
    process = fleet.replicas[0].program.process
    process.send_signal(signal.SIGSTOP)
    try:
        fleet.prometheus.wait_until("count(max_over_time(up[4s]) == 0) == 1")
        assert fleet.prometheus.ask("alerts")["alerts"] == []
        assert fleet.prometheus.number(shown("Us: processes that answer")) == 1
    finally:
        process.send_signal(signal.SIGCONT)
    fleet.prometheus.wait_until("count(up == 1) == 2")


def test_a_redis_that_is_away_is_seen_from_processes_that_are_not(fleet: Fleet):
    """Posts are refused and somebody is woken; what only Redis knows is not there meanwhile, not even old."""
    fleet.redis.kill()
    fleet.prometheus.wait_until("count(up == 1 and on (instance) outlit_proxy_buffer_up == 0) == 2")
    assert fleet.prometheus.number(shown("Buffer: answers")) == 0
    assert fleet.prometheus.query("outlit_proxy_ledger_events") == []
    # Without a request: behind a readiness probe there is none.
    fleet.prometheus.wait_until_fires("OutlitProxyRefusesPosts", severity="page")
    assert fleet.post(6, 0) == 503
    fleet.redis.start()
    fleet.prometheus.wait_until("min(outlit_proxy_buffer_up) == 1")
    assert fleet.post(7, 0) == 200


def test_a_redis_that_was_emptied_wakes_somebody(fleet: Fleet):
    fleet.redis.flush()
    fleet.prometheus.wait_until_fires("OutlitProxyBufferLostEvents", severity="page")
