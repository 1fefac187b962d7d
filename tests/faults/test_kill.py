"""SIGKILL of the running program under load."""

import time
from random import Random

import pytest

from tests.faults.installation import on_each_engine
from tests.faults.load import clients, under_load
from tests.faults.promises import assert_promises_kept
from tests.programs import Proxy, Sandbox


def _kill_under_load(proxy: Proxy, sandbox: Sandbox, *, kills: int, seed: int) -> None:
    rng = Random(seed)
    posting = clients(browsers=12, servers=4, seed=seed)
    listed: set[str] = set()
    with under_load(proxy, posting):
        for _ in range(kills):
            listed |= proxy.ambiguous()  # the list has an end
            before = proxy.ledger()
            # In the midst of deliveries: a while after the first of this life.
            proxy.wait_until_accepted(before["accepted"] + rng.randrange(20, 200))
            proxy.wait_until_delivered(before["delivered"] + rng.randrange(1, 100))
            time.sleep(rng.uniform(0, 0.1))  # anywhere: no fact is waited for
            proxy.program.kill()
            proxy.start()
    proxy.wait_until_empty(60)

    assert sum(client.posted_again for client in posting), "no kill met a post: nothing was tested"
    assert_promises_kept(proxy, sandbox, posting, listed)


@pytest.mark.parametrize(("engine", "kills"), [("sqlite", 5), ("redis", 3)], indirect=["engine"])
def test_kill_under_load_loses_nothing_acknowledged_and_lists_what_may_be_doubled(
    proxy: Proxy, sandbox: Sandbox, kills: int
) -> None:
    _kill_under_load(proxy, sandbox, kills=kills, seed=1)


@pytest.mark.long
@pytest.mark.timeout(1200)
@on_each_engine
def test_a_hundred_kills_under_load_lose_nothing(proxy: Proxy, sandbox: Sandbox) -> None:
    _kill_under_load(proxy, sandbox, kills=100, seed=2)
