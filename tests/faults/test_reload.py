"""SIGHUP when it is least expected: during the start, during the stop, while Redis is away."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.load import KEY
from tests.faults.tracing import Fault, started_with
from tests.programs import Proxy, http, wait_for
from tests.redis_servers import RedisServer
from tests.sandbox.bodies import client, event


def events_said(proxy: Proxy) -> list[str]:
    return [json.loads(line)["event"] for line in proxy.program.log.splitlines()]


def test_a_reload_during_the_start_is_done_after_it(
    install_proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    proxy = install_proxy()
    proxy.program.start(under=started_with(Fault("listen", "signal=SIGHUP", 1), tmp_path))
    proxy.wait_until_ready()
    wait_for("the reload", lambda: "settings reloaded" in events_said(proxy))
    assert events_said(proxy).index("settings reloaded") > events_said(proxy).index("upstream")
    assert proxy.program.stop() == 0


def test_a_reload_during_the_stop_is_not_done_and_ends_nothing(
    install_proxy: Callable[..., Proxy],
) -> None:
    proxy = install_proxy(DELIVERY_ON_EXIT="drain", DELIVERY_GRACE="3s")
    proxy.start()
    assert http(f"{proxy.url}/api/i/v1/{KEY}/events", client(event()))[0] == 200
    proxy.program.process.send_signal(signal.SIGTERM)
    wait_for("the stop to begin", lambda: "stopping" in events_said(proxy))
    while proxy.program.process.poll() is None:
        proxy.program.process.send_signal(signal.SIGHUP)
        time.sleep(0.002)
    assert proxy.program.wait_until_ended() == 0, proxy.program.log
    assert events_said(proxy)[-1] == "stopped"
    assert "settings reloaded" not in events_said(proxy)


def test_settings_that_cannot_be_read_to_the_end_do_not_hold_up_the_stop(
    install_proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text("")
    proxy = install_proxy(CONFIG=str(file))
    proxy.start()
    file.unlink()
    os.mkfifo(file)
    proxy.program.process.send_signal(signal.SIGHUP)
    writer = wait_for("the file to be read", lambda: _writer_of(file))
    proxy.program.process.send_signal(signal.SIGTERM)
    assert proxy.program.wait_until_ended(5) == 0, proxy.program.log
    os.close(writer)
    assert events_said(proxy)[-1] == "stopped"


def _writer_of(pipe: Path) -> int | None:
    """The end of a pipe that somebody reads, who hangs until something is written there, or it is closed."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None


@pytest.mark.parametrize("engine", ["redis"], indirect=True)
def test_a_reload_while_redis_is_away_counts_when_it_is_back(
    install_proxy: Callable[..., Proxy], server: RedisServer, tmp_path: Path
) -> None:
    file = tmp_path / "proxy.toml"
    file.write_text("")
    proxy = install_proxy(CONFIG=str(file))
    proxy.start()
    server.kill()
    file.write_text('[front]\nmax_events = 1\n[delivery]\nlinger = "60s"\n')
    proxy.program.process.send_signal(signal.SIGHUP)
    wait_for("the reload", lambda: "settings reloaded" in events_said(proxy))
    server.start()
    proxy.wait_until_ready()
    posted = [client(event(number=1)), client(event(number=2), event(number=3))]
    assert [http(f"{proxy.url}/api/i/v1/{KEY}/events", body)[0] for body in posted] == [200, 413]
    assert proxy.program.stop() == 0
