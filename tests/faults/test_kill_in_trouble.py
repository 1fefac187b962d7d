"""SIGKILL while upstream refuses: what the proxy has found out about it, and about whom, is not forgotten."""

import json
import time
import uuid
from typing import Any

from tests.faults.installation import SHORT_LEASE_S, on_each_engine
from tests.faults.load import KEY
from tests.programs import OPS_TOKEN, Proxy, Sandbox, http, wait_for

AS_OPERATOR = {"Authorization": f"Bearer {OPS_TOKEN}"}
MOST_SEARCHED = 25
"""Requests in which one bad event among a hundred is found, if nobody is killed meanwhile."""


def _post(proxy: Proxy, visitor: int, events: int, *, bad_at: int | None = None) -> None:
    posted = [
        {
            "type": "custom",
            "eventName": "bad" if at == bad_at else "good",
            "timestamp": 1_795_000_000_000 + at,
            "url": "https://www.example.com/",
            "path": "/",
            "uuid": str(uuid.UUID(int=1_000 * visitor + at, version=4)),
        }
        for at in range(events)
    ]
    envelope = {"source": "client", "visitorId": str(uuid.UUID(int=visitor, version=4))}
    status, body = http(f"{proxy.url}/api/i/v1/{KEY}/events", {**envelope, "events": posted})
    assert status == 200, body


def _key(proxy: Proxy) -> dict[str, Any]:
    status, body = http(f"{proxy.ops_url}/keys/{KEY}", headers=AS_OPERATOR)
    assert status == 200, body
    shown: dict[str, Any] = json.loads(body)
    return shown


def _pull(proxy: Proxy, lever: str) -> None:
    status, body = http(f"{proxy.ops_url}/keys/{KEY}/{lever}", headers=AS_OPERATOR, method="POST")
    assert status == 200, body


def _requests(sandbox: Sandbox) -> int:
    return len(sandbox.requests())


def _wait_for_requests(sandbox: Sandbox, least: int) -> None:
    wait_for(f"{least} requests", lambda: _requests(sandbox) >= least)


def _killed(proxy: Proxy) -> None:
    proxy.program.kill()
    proxy.start()


@on_each_engine
def test_a_search_for_a_bad_event_outlives_kills(proxy: Proxy, sandbox: Sandbox) -> None:
    bad_at, kills = 62, 3
    _post(proxy, 1, 1)
    proxy.wait_until_empty()
    # Late, or the search is over before anybody can be killed in it.
    sandbox.fault("refuse", event="bad", latency_ms=300)
    before = _requests(sandbox)
    _post(proxy, 2, 100, bad_at=bad_at)
    for kill in range(kills):
        _wait_for_requests(sandbox, before + 2 * (kill + 1))
        assert proxy.ledger()["dead"] == 0, "it was found too soon: nothing was tested"
        _killed(proxy)
        _post(proxy, 3 + kill, 1)  # what upstream takes of others proves that the event is bad
    proxy.wait_until_empty(60)

    assert proxy.ledger() == {
        "accepted": 101 + kills,
        "held": 0,
        "delivered": 100 + kills,
        "dead": 1,
        "dropped": 0,
        "difference": 0,
    }
    status, body = http(f"{proxy.ops_url}/dead", headers=AS_OPERATOR)
    assert status == 200, body
    [letter] = json.loads(body)["dead"]
    assert letter["uuid"] == str(uuid.UUID(int=2_000 + bad_at, version=4))
    taken = [each.event["uuid"] for each in sandbox.taken()]
    others = [str(uuid.UUID(int=2_000 + at, version=4)) for at in range(100) if at != bad_at]
    assert list(dict.fromkeys(each for each in taken if each in others)) == others, "out of order, or lost"
    assert {each for each in taken if taken.count(each) > 1} <= proxy.ambiguous()
    assert _requests(sandbox) - before <= MOST_SEARCHED + 2 * kills + kills


@on_each_engine
def test_a_pause_outlives_a_kill(proxy: Proxy, sandbox: Sandbox) -> None:
    _post(proxy, 1, 1)
    proxy.wait_until_empty()
    sandbox.fault("status", status=401, public_key=KEY)
    for visitor in range(2, 12):
        _post(proxy, visitor, 2)
    wait_for("the key to be paused", lambda: _key(proxy)["paused"] == "key_refused")
    _killed(proxy)
    shown = _key(proxy)
    assert (shown["paused"], shown["confirmed"]) == ("key_refused", True)
    assert shown["paused_for_s"] > 0
    before = _requests(sandbox)
    time.sleep(min(3.0, shown["paused_for_s"] / 2))  # nothing is to happen: there is no fact to wait for
    assert _requests(sandbox) == before

    sandbox.clear_faults()
    _pull(proxy, "retry")
    # A lease that the killed process held ends by itself first.
    proxy.wait_until_empty(SHORT_LEASE_S + 10)
    assert _key(proxy)["paused"] is None
    assert proxy.ledger() == {
        "accepted": 21,
        "held": 0,
        "delivered": 21,
        "dead": 0,
        "dropped": 0,
        "difference": 0,
    }


@on_each_engine
def test_the_operators_pause_outlives_a_kill(proxy: Proxy, sandbox: Sandbox) -> None:
    _post(proxy, 1, 1)
    proxy.wait_until_empty()
    _pull(proxy, "pause")
    _post(proxy, 2, 2)
    _killed(proxy)
    assert _key(proxy)["by_operator"]
    _pull(proxy, "retry")
    time.sleep(2.5)  # longer than its linger: nothing is to happen
    assert proxy.ledger()["held"] == 2
    _pull(proxy, "resume")
    proxy.wait_until_empty()
