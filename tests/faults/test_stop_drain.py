"""An exit that drains: empty where Outlit takes it, and exactly said where it does not."""

import json
import signal
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from tests.faults.load import KEY, clients, mark_of, post_again, under_load
from tests.faults.promises import assert_promises_kept
from tests.programs import Proxy, Sandbox, http, wait_for
from tests.redis_servers import RedisServer
from tests.sandbox.bodies import client, event

GRACE_S = 12.0
DRAINING = {"DELIVERY_ON_EXIT": "drain", "DELIVERY_GRACE": f"{GRACE_S:.0f}s", "DELIVERY_LINGER": "60s"}


def token(proxy: Proxy) -> dict[str, str]:
    return {"Authorization": f"Bearer {proxy.program.environment['OUTLIT_PROXY_OPS_TOKEN']}"}


def said(proxy: Proxy, event: str) -> list[dict[str, Any]]:
    """The lines of the log with this text."""
    return [line for line in map(json.loads, proxy.program.log.splitlines()) if line["event"] == event]


def stopping_took_s(proxy: Proxy) -> float:
    """By its own log, for on a busy machine the end of any process takes long."""
    began, ended = (
        datetime.fromisoformat(said(proxy, event)[0]["timestamp"]) for event in ("stopping", "stopped")
    )
    return (ended - began).total_seconds()


def test_a_drain_under_load_leaves_nothing(install_proxy: Callable[..., Proxy], sandbox: Sandbox) -> None:
    """Also what would linger, also what is posted until nobody listens any more."""
    posting = clients(browsers=30, servers=3, seed=31)
    proxy = install_proxy(**DRAINING)
    proxy.start()
    with under_load(proxy, posting, again=False):
        proxy.wait_until_accepted(200)
        proxy.program.process.send_signal(signal.SIGTERM)
        assert proxy.program.wait_until_ended(GRACE_S + 5) == 0, proxy.program.log
    [stopped] = said(proxy, "stopped")
    assert stopped["held"] == 0, proxy.program.log
    assert not said(proxy, "left in the buffer")
    arrived = Counter(mark_of(taken.event) for taken in sandbox.taken())
    acknowledged = {mark for client in posting for mark in client.acknowledged}
    assert len(acknowledged) >= 200
    assert acknowledged <= arrived.keys()
    assert set(arrived.values()) == {1}
    proxy.start()  # and the books say the same
    post_again(proxy, posting)
    assert http(f"{proxy.ops_url}/drain", {}, token(proxy))[0] == 200
    proxy.wait_until_empty(30)
    assert_promises_kept(proxy, sandbox, posting)
    assert proxy.program.stop() == 0


def test_what_an_outage_leaves_is_said_key_by_key_and_delivered_by_the_next_start(
    install_proxy: Callable[..., Proxy], sandbox: Sandbox
) -> None:
    proxy = install_proxy(**{**DRAINING, "DELIVERY_GRACE": "4s"})
    proxy.start()
    sandbox.fault("status", status=503, public_key="pk_down")
    held = {"pk_down": 7, "pk_paused": 4, "pk_open": 9}
    uuids: dict[str, set[str]] = {}
    for number, (key, events) in enumerate(held.items()):
        posted = [event(number=100 * number + at) for at in range(events)]
        uuids[key] = {one["uuid"] for one in posted}
        assert http(f"{proxy.url}/api/i/v1/{key}/events", client(*posted))[0] == 200
    assert http(f"{proxy.ops_url}/keys/pk_paused/pause", {}, token(proxy))[0] == 200
    assert proxy.program.stop() == 0, proxy.program.log
    left = {line["key"]: line for line in said(proxy, "left in the buffer")}
    assert {key: line["held"] for key, line in left.items()} == {"pk_down": 7, "pk_paused": 4}
    assert (left["pk_paused"]["why"], left["pk_paused"]["pause"]) == ("paused", "operator")
    assert (left["pk_down"]["why"], left["pk_down"]["in_flight"]) == ("waits", 0)
    assert left["pk_down"]["for_s"] > 0
    assert said(proxy, "stopped")[0]["held"] == 11
    assert stopping_took_s(proxy) < 4  # the next try would have come later
    assert {taken.event["uuid"] for taken in sandbox.taken()} == uuids["pk_open"]
    sandbox.clear_faults()
    proxy.start()
    assert (proxy.ledger()["held"], proxy.ledger()["difference"]) == (11, 0)
    assert http(f"{proxy.ops_url}/keys/pk_paused/resume", {}, token(proxy))[0] == 200
    assert http(f"{proxy.ops_url}/drain", {}, token(proxy))[0] == 200
    proxy.wait_until_empty(30)
    arrived = [taken.event["uuid"] for taken in sandbox.taken()]
    assert (set(arrived), len(arrived)) == (set[str]().union(*uuids.values()), 20)
    assert proxy.program.stop() == 0


@pytest.mark.parametrize("engine", ["redis"], indirect=True)
def test_a_redis_that_hangs_holds_up_the_end_by_a_second_at_most(
    install_proxy: Callable[..., Proxy], sandbox: Sandbox, server: RedisServer
) -> None:
    proxy = install_proxy(**{**DRAINING, "DELIVERY_GRACE": "2s"})
    proxy.start()
    assert http(f"{proxy.url}/api/i/v1/{KEY}/events", client(event()))[0] == 200
    server.pause()
    assert proxy.program.stop() == 0, proxy.program.log
    assert stopping_took_s(proxy) < 4
    assert said(proxy, "stopped")[0]["held"] == "unknown: the buffer does not answer"


def test_requests_that_hang_to_the_end_of_the_grace_are_given_up_and_counted(
    install_proxy: Callable[..., Proxy], sandbox: Sandbox
) -> None:
    proxy = install_proxy(
        **{**DRAINING, "DELIVERY_GRACE": "1500ms", "DELIVERY_TIMEOUT": "20s", "DELIVERY_LEASE": "26s"}
    )
    proxy.start()
    sandbox.fault("hang")
    posted = [event(number=at) for at in range(3)]
    assert http(f"{proxy.url}/api/i/v1/{KEY}/events", client(*posted))[0] == 200
    assert proxy.program.stop() == 0, proxy.program.log
    [left] = said(proxy, "left in the buffer")
    assert (left["held"], left["in_flight"]) == (3, 3)
    [summary] = [
        line for line in map(json.loads, proxy.program.log.splitlines()) if "not all" in line["event"]
    ]
    assert (summary["held"], summary["keys"], summary["in_flight"]) == (3, 1, 3)
    wait_for("the sandbox's record of them", lambda: len(sandbox.taken()) == 3)
