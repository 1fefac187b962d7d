"""``run``: what it says at its start, and how it ends."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.operator import Operator, fresh
from tests.programs import (
    OUTLIT_PROXY,
    Proxy,
    free_port,
    http,
    installed_proxy,
    running_proxy,
    running_sandbox,
    wait_for,
)


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


HANGUP_WHILE_LOADING = """if True:
    import os, signal, sys
    class Finder:
        def find_spec(name, path=None, target=None):
            if name == "proxy.cli.run":
                os.kill(os.getpid(), signal.SIGHUP)
    sys.meta_path.insert(0, Finder)
    sys.argv = sys.argv[1:]
    import runpy
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_hangup_while_it_still_loads_does_not_end_it() -> None:
    command = [sys.executable, "-c", HANGUP_WHILE_LOADING, str(OUTLIT_PROXY), "run", "--help"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


NAME_SERVER_THAT_HANGS = """if True:
    import runpy, socket, sys, time
    ask = socket.getaddrinfo
    def hang(host, *args, **kwargs):
        if host == "hangs.example":
            print("a name is looked up", flush=True)
            time.sleep(100)
        return ask(host, *args, **kwargs)
    socket.getaddrinfo = hang
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_a_name_server_that_hangs_does_not_outlast_the_grace(tmp_path: Path) -> None:
    with (
        running_sandbox(tmp_path) as sandbox,
        installed_proxy(
            tmp_path,
            sandbox,
            OUTLIT_PROXY_UPSTREAM_URL="https://hangs.example",
            OUTLIT_PROXY_DELIVERY_LINGER="0s",
            OUTLIT_PROXY_DELIVERY_GRACE="1s",
        ) as proxy,
    ):
        proxy.program.start(under=[sys.executable, "-c", NAME_SERVER_THAT_HANGS])
        proxy.wait_until_ready()
        Operator(proxy, sandbox).post("pk_kept", fresh())
        wait_for("the name to be looked up", lambda: "a name is looked up" in proxy.program.log)
        began_s = time.monotonic()
        assert proxy.program.stop() == 0, proxy.program.log
        assert time.monotonic() - began_s < 5
        said = [json.loads(line) for line in proxy.program.log.splitlines() if line.startswith("{")]
        assert [line["event"] for line in said[-2:]] == ["stopped", "ended without threads that hang"]
        assert said[-2]["held"] == 1


@pytest.mark.parametrize("log", ["full", "gone", "closed"])
def test_a_log_that_takes_no_lines_ends_nothing(tmp_path: Path, log: str) -> None:
    front, ops = (f"127.0.0.1:{free_port()}" for _ in range(2))
    settings = {
        "OUTLIT_PROXY_FRONT_LISTEN": front,
        "OUTLIT_PROXY_OPS_LISTEN": ops,
        "OUTLIT_PROXY_BUFFER_URL": f"sqlite:///{tmp_path}/buffer.db",
        "OUTLIT_PROXY_UPSTREAM_URL": f"http://127.0.0.1:{free_port()}",
    }
    redirection = {"full": "2>/dev/full", "gone": "", "closed": "2>&-"}[log]
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$0" run {redirection}', OUTLIT_PROXY],
        env={**os.environ, **settings},
        stderr=writer,
    ) as process:
        os.close(writer)
        try:
            wait_for("the proxy", lambda: process.poll() is not None or _is_ready(ops))
            metrics = http(f"http://{ops}/metrics")[1]
            [unwritten] = re.findall(rb"\noutlit_proxy_log_lines_unwritten_total (\S+)", metrics)
            assert float(unwritten) > 1
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()


def _is_ready(ops: str) -> bool:
    try:
        return http(f"http://{ops}/readyz")[0] == 200
    except OSError:
        return False
