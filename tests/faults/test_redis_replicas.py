"""Several replicas on one Redis: one budget, one truth, and none that is missed."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.fleet import Fleet, fleet
from tests.faults.installation import SHORT_LEASE_S
from tests.faults.load import clients, post_again, under_load
from tests.faults.promises import assert_promises_kept
from tests.programs import Sandbox, wait_for
from tests.redis_servers import RedisServer

LIMIT_PER_S = 100
"""The sandbox's, and the proxies' by default."""
OF_THE_BUFFER = tuple(
    f"outlit_proxy_{name}"
    for name in ("ledger_", "oldest_held_timestamp_seconds", "buffer_bytes", "queues", "gate_")
)


@pytest.fixture
def replicas(tmp_path: Path, sandbox: Sandbox, server: RedisServer) -> Iterator[Fleet]:
    with fleet(tmp_path, sandbox, server.url) as made:
        yield made


def _come_and_go(replicas: Fleet, sandbox: Sandbox, *, rounds: int, seed: int) -> None:
    posting = clients(browsers=12, servers=4, seed=seed)
    (first,) = replicas.grow(1)
    listed: set[str] = set()
    with under_load(replicas.listed, posting):
        for _ in range(rounds):
            first.wait_until_more_delivered(200)
            second, third, fourth = replicas.grow(3)
            first.wait_until_more_delivered(400)
            replicas.kill(third)  # whose leases return
            first.wait_until_more_delivered(100)
            replicas.stop(fourth)
            first.wait_until_more_delivered(100)
            listed |= first.ambiguous()
            replicas.stop(first)  # the last of the first lot: nothing hangs on the eldest
            second.wait_until_more_delivered(200)
            first = second
    first.wait_until_empty(60)
    assert_promises_kept(replicas.listed, sandbox, posting, listed)
    assert sum(client.posted_again for client in posting), "no end met a post: nothing was tested"


def test_from_one_to_four_replicas_and_back_under_load_nothing_is_lost(
    replicas: Fleet, sandbox: Sandbox
) -> None:
    _come_and_go(replicas, sandbox, rounds=1, seed=200)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_ten_times_from_one_to_four_replicas_and_back_nothing_is_lost(
    replicas: Fleet, sandbox: Sandbox
) -> None:
    _come_and_go(replicas, sandbox, rounds=10, seed=201)


def test_a_replica_paused_beyond_its_leases_comes_back_to_find_them_spent(
    replicas: Fleet, sandbox: Sandbox
) -> None:
    """Others have delivered what it held: it settles nothing, and sends nothing beside them."""
    first, second = replicas.grow(2)
    posting = clients(browsers=6, servers=2, seed=204)
    with under_load(replicas.listed, posting):
        first.wait_until_more_delivered(200)
        sandbox.fault("latency", latency_ms=200)  # so that it holds leases whenever that is
        first.wait_until_more_delivered(100)
        first.program.process.send_signal(signal.SIGSTOP)
        replicas.listed.remove(first)
        time.sleep(SHORT_LEASE_S + 0.5)  # leases end by time, and nobody is there to ask
        second.wait_until_more_delivered(100)
        sandbox.clear_faults()
        first.program.process.send_signal(signal.SIGCONT)
        replicas.listed.append(first)
        first.wait_until_more_delivered(100)
    second.wait_until_empty(60)
    assert_promises_kept(replicas.listed, sandbox, posting)
    assert first.metrics()["outlit_proxy_settle_spent_total"] > 0, "it held nothing: nothing was tested"


def test_four_replicas_keep_within_one_budget_and_tell_one_truth(replicas: Fleet, sandbox: Sandbox) -> None:
    """More visitors than requests are allowed in some seconds, so that each replica could use all of them."""
    replicas.grow(4)
    posting = clients(browsers=6 * LIMIT_PER_S, servers=0, seed=202)
    for client in posting:
        client.unanswered.append(client.next_post())
    post_again(replicas.listed, posting)
    replicas.listed[0].wait_until_empty(60)
    assert not assert_promises_kept(replicas.listed, sandbox, posting)

    stats = sandbox.stats()
    assert stats["limited"] == 0
    assert stats["busiest_second"] <= LIMIT_PER_S
    requests = sandbox.requests()
    seconds = Counter(int(request["received_at"]) for request in requests)
    whole = sorted(seconds)[1:-1]  # the first and the last began or ended in between
    assert len(whole) >= 4, "too short to tell"
    assert sum(seconds[each] for each in whole) / len(whole) > 0.75 * LIMIT_PER_S

    every = [proxy.metrics() for proxy in replicas.listed]
    for name in ("events_accepted_total", "events_delivered_total"):
        own = [metrics[f"outlit_proxy_{name}"] for metrics in every]
        assert all(own), f"{name}: one did nothing"
        assert sum(own) == sum(len(client.acknowledged) for client in posting)
    assert sum(
        metrics['outlit_proxy_upstream_requests_total{verdict="delivered"}'] for metrics in every
    ) == len(requests)


def test_the_figures_of_the_buffer_are_the_same_from_each_replica_while_events_are_held(
    replicas: Fleet, sandbox: Sandbox
) -> None:
    sandbox.fault("status", status=429, retry_after_s=60)  # nothing moves while they are asked
    replicas.grow(4)
    posting = clients(browsers=12, servers=4, seed=203)
    with under_load(replicas.listed, posting):
        replicas.listed[0].wait_until_accepted(500)
    sums = _wait_for_a_standstill(replicas)
    assert sums["held"] == sum(len(client.acknowledged) for client in posting) > 0
    own = [proxy.metrics()["outlit_proxy_events_accepted_total"] for proxy in replicas.listed]
    assert sum(own) == sums["accepted"]
    assert max(own) < sums["accepted"]


def _wait_for_a_standstill(replicas: Fleet) -> dict[str, int]:
    """The books, when each replica says the same of them, and of all else that is the buffer's."""
    first, *others = replicas.listed

    def said_alike() -> dict[str, int] | None:
        books = first.ledger()
        same = all(proxy.ledger() == books for proxy in others)
        figures = [
            {name: value for name, value in proxy.metrics().items() if name.startswith(OF_THE_BUFFER)}
            for proxy in replicas.listed
        ]
        assert all(each["outlit_proxy_ledger_difference"] == 0 for each in figures)
        return books if same and all(each == figures[0] for each in figures) else None

    return wait_for("the replicas to say the same", said_alike, 10)
