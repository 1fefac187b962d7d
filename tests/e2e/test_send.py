"""`outlit-proxy send` as a program beside a program: an operator's first question after an installation."""

import json
import os
import subprocess
from typing import Any

import pytest

from tests.programs import OPS_TOKEN, OUTLIT_PROXY, Proxy, Sandbox
from tests.redis_servers import RedisServer

KEY = "pk_e2e"


@pytest.fixture(params=["sqlite", "redis"])
def settings(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    server: RedisServer = request.getfixturevalue("redis_server")
    return {"OUTLIT_PROXY_BUFFER_URL": server.url}


def send(proxy: Proxy, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [OUTLIT_PROXY, "send", "--key", KEY, "--url", proxy.url, "--ops-url", proxy.ops_url, *arguments],
        env={**os.environ, "OUTLIT_PROXY_OPS_TOKEN": OPS_TOKEN},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )


def test_a_marked_event_is_followed_until_outlit_has_it(proxy: Proxy, sandbox: Sandbox) -> None:
    sent = send(proxy, "--json")
    assert sent.returncode == 0, sent.stderr
    known = json.loads(sent.stdout)
    assert known["fate"] == "delivered"
    [taken] = sandbox.taken()
    assert taken.key == KEY
    assert taken.envelope == {"source": "server"}
    assert taken.event["uuid"] == known["uuid"]
    assert (taken.event["eventName"], taken.event["userId"]) == ("outlit_proxy_send", "outlit-proxy-send")


@pytest.mark.parametrize(
    ("what", "details", "fate"),
    [("status", {"status": 503}, "held"), ("refuse_indices", {"indices": [0]}, "dead")],
)
def test_an_event_that_is_not_delivered_says_what_became_of_it(
    proxy: Proxy, sandbox: Sandbox, what: str, details: dict[str, Any], fate: str
) -> None:
    sandbox.fault(what, **details)
    sent = send(proxy, "--timeout", "3")
    assert sent.returncode == 1
    assert sent.stdout.startswith("accepted ")
    assert sent.stdout.splitlines()[-1].startswith(fate)
    assert sent.stderr.startswith("outlit-proxy send: not delivered")
    sandbox.clear_faults()


def test_an_event_survives_a_kill_and_is_still_followed_by_its_uuid(proxy: Proxy, sandbox: Sandbox) -> None:
    sandbox.fault("status", status=503)
    held = json.loads(send(proxy, "--json", "--timeout", "0.5").stdout)
    assert held["fate"] == "held"
    proxy.program.kill()
    sandbox.clear_faults()
    proxy.program.start()
    proxy.wait_until_ready()
    proxy.wait_until_empty(60)  # the kill may have left a lease, which ends by itself
    assert [taken.event["uuid"] for taken in sandbox.taken()] == [held["uuid"]]
