"""``run``: what it says at its start, and how it ends."""

import json
from pathlib import Path
from typing import Any

from tests.cli.operator import Operator, fresh
from tests.programs import Proxy, running_proxy, running_sandbox


def lines(proxy: Proxy) -> list[dict[str, Any]]:
    return [json.loads(line) for line in proxy.program.log.splitlines()]


def test_the_rate_and_the_share_of_it_stand_in_the_log(operator: Operator) -> None:
    [upstream] = [line for line in lines(operator.proxy) if line["event"] == "upstream"]
    assert upstream["url"] == operator.sandbox.url
    assert (upstream["limit_per_s"], upstream["rate_share"]) == (100, 1.0)


def test_what_a_paused_key_holds_does_not_hold_up_an_exit_that_drains(tmp_path: Path) -> None:
    with (
        running_sandbox(tmp_path) as sandbox,
        running_proxy(
            tmp_path, sandbox, OUTLIT_PROXY_DELIVERY_ON_EXIT="drain", OUTLIT_PROXY_DELIVERY_LINGER="60s"
        ) as proxy,
    ):
        operator = Operator(proxy, sandbox)
        operator.post("pk_paused", fresh())
        operator.run("keys", "pause", "pk_paused", "--yes")
        uuids = operator.post("pk_open", fresh())
        assert proxy.program.stop() == 0
        assert [taken.event["uuid"] for taken in sandbox.taken()] == uuids
        assert not [line for line in lines(proxy) if "grace" in line["event"]]
        assert lines(proxy)[-1]["held"] == 1
