"""SIGHUP to the process as an operator runs it, and what its supervisor hears."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.programs import OPS_TOKEN, Proxy, Sandbox, http, installed_proxy, running_sandbox, wait_for
from tests.sandbox.bodies import client, event

KEY = "pk_e2e"
SETTINGS = """
[delivery]
linger = "60s"
"""


@dataclass
class Reloadable:
    """A proxy whose settings stand in a file, and its supervisor."""

    proxy: Proxy
    sandbox: Sandbox
    file: Path
    token_file: Path
    supervisor: socket.socket
    heard: list[dict[str, str]] = field(default_factory=list)

    def hears(self, word: str) -> dict[str, str]:
        """Wait until the supervisor hears a word, and return what came with it."""

        def first() -> dict[str, str] | None:
            self.listen()
            return next((words for words in self.heard if word in words), None)

        found = wait_for(f"{word} to be said", first)
        del self.heard[: self.heard.index(found) + 1]
        return found

    def listen(self) -> None:
        """Take what the supervisor was told by now into `heard`."""
        with contextlib.suppress(BlockingIOError):
            while True:
                text = self.supervisor.recv(4_096).decode()
                self.heard.append(dict(line.split("=", 1) for line in text.split("\n")))

    def is_quiet(self) -> bool:
        """Whether no word comes for a while: all that was asked for is done."""
        self.listen()
        self.heard.clear()
        time.sleep(0.2)
        self.listen()
        return not self.heard

    def reload(self, text: str | None, times: int = 1) -> list[str]:
        """Have the file say this (None: be gone), and reload; the lines that are logged meanwhile."""
        if text is None:
            self.file.unlink()
        else:
            self.file.write_text(text)
        before = len(self.proxy.program.log)
        for _ in range(times):
            self.proxy.program.process.send_signal(signal.SIGHUP)
        self.hears("RELOADING")
        self.hears("READY")
        return self.proxy.program.log[before:].splitlines()

    def said(self, text: str | None) -> list[dict[str, Any]]:
        """The same, as the values that the lines are."""
        return [json.loads(line) for line in self.reload(text)]

    def post(self, *, key: str = KEY) -> tuple[int, str]:
        """A new event of a new visitor: how it is answered, and its uuid."""
        uuid = str(uuid4())
        body = client(event(uuid=uuid), visitorId=str(uuid4()))
        return http(f"{self.proxy.url}/api/i/v1/{key}/events", body)[0], uuid

    def arrived(self, uuid: str) -> bool:
        return any(taken.event["uuid"] == uuid for taken in self.sandbox.taken())

    def reload_metrics(self) -> tuple[float, float]:
        metrics = self.proxy.metrics()
        name = "outlit_proxy_config_last_reload_success"
        return metrics[f"{name}ful"], metrics[f"{name}_timestamp_seconds"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reloadable]:
    folder = tmp_path_factory.mktemp("reloadable")
    file, token_file = folder / "proxy.toml", folder / "token"
    file.write_text(SETTINGS)
    token_file.write_text(OPS_TOKEN)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor,
        running_sandbox(folder) as sandbox,
    ):
        supervisor.bind(str(folder / "notify"))
        supervisor.setblocking(False)
        with installed_proxy(
            folder,
            sandbox,
            NOTIFY_SOCKET=str(folder / "notify"),
            OUTLIT_PROXY_CONFIG=str(file),
            OUTLIT_PROXY_OPS_TOKEN_FILE=str(token_file),
            OUTLIT_PROXY_DELIVERY_GRACE="9s",
        ) as proxy:
            proxy.program.environment.pop("OUTLIT_PROXY_OPS_TOKEN")
            proxy.start()
            found = Reloadable(proxy, sandbox, file, token_file, supervisor)
            assert found.hears("READY")["STATUS"].startswith(f"serving on {proxy.url}")
            yield found
            assert proxy.program.stop() == 0
        assert int(found.hears("STOPPING")["EXTEND_TIMEOUT_USEC"]) > 9_000_000


@pytest.fixture(autouse=True)
def as_at_the_start(running: Reloadable) -> Iterator[None]:
    yield
    running.reload(SETTINGS)


def test_keys_that_are_no_longer_listed_are_refused_from_then_on(running: Reloadable) -> None:
    assert running.post()[0] == 200
    [line] = running.said(f'{SETTINGS}[front]\npublic_keys = ["pk_other"]\n')
    assert (line["event"], line["changed"]) == ("settings reloaded", {"front.public_keys": "changed"})
    assert [running.post()[0], running.post(key="pk_other")[0]] == [403, 200]


def test_a_shorter_linger_counts_for_what_comes_from_then_on(running: Reloadable) -> None:
    _, held = running.post()
    [line] = running.said('[delivery]\nlinger = "20ms"\n')
    assert line["changed"] == {"delivery.linger": "1m -> 20ms"}
    _, uuid = running.post()
    wait_for("the new event to arrive", lambda: running.arrived(uuid))
    assert not running.arrived(held)


def test_what_is_wrong_is_said_line_by_line_and_nothing_of_it_counts(running: Reloadable) -> None:
    was_good, at = running.reload_metrics()
    wrong = '[delivery]\nlinger = "20"\nlingr = "2s"\n[front]\npublic_keys = ["pk_other"]\n'
    lines = running.said(wrong)
    assert [line["level"] for line in lines] == ["error", "error"]
    assert "did you mean delivery.linger?" in lines[0]["event"]
    assert 'delivery.linger = "20": a duration needs a unit' in lines[1]["event"]
    assert running.post()[0] == 200
    assert (was_good, running.reload_metrics()) == (1, (0, at))
    status, body = http(f"{running.proxy.ops_url}/status")
    assert (status, json.loads(body)["config"]["successful"]) == (200, False)
    running.reload(SETTINGS)
    is_good, later = running.reload_metrics()
    assert (is_good, later > at) == (1, True)


def test_a_file_that_is_gone_changes_nothing(running: Reloadable) -> None:
    [line] = running.said(None)
    assert line["level"] == "error"
    assert line["event"].endswith("proxy.toml: cannot be read: No such file or directory")
    assert running.post()[0] == 200


def test_many_reloads_at_once_come_to_the_last_ones_settings(running: Reloadable) -> None:
    running.reload(f"{SETTINGS}[front]\nmax_events = 1\n", times=20)
    wait_for("no further reload", running.is_quiet)
    two = client(event(number=1), event(number=2))
    assert http(f"{running.proxy.url}/api/i/v1/{KEY}/events", two)[0] == 413


def test_a_level_and_a_format_count_from_the_next_line_on(running: Reloadable) -> None:
    [line] = running.reload(f'{SETTINGS}[log]\nformat = "text"\n')
    assert "[info     ] settings reloaded" in line
    assert running.reload(f'{SETTINGS}[log]\nlevel = "error"\n') == []
    assert running.reload(f'{SETTINGS}[log]\nlevel = "error"\n[delivery]\n') != []  # a table twice: an error


def test_a_secret_is_read_from_its_file_again(running: Reloadable) -> None:
    running.token_file.write_text("another-token-of-the-tests\n")
    lines = running.reload(SETTINGS)
    statuses = [
        http(f"{running.proxy.ops_url}/ledger", headers={"Authorization": f"Bearer {token}"})[0]
        for token in (OPS_TOKEN, "another-token-of-the-tests")
    ]
    running.token_file.write_text(OPS_TOKEN)
    assert (statuses, len(lines)) == ([401, 200], 1)
    assert "another-token" not in lines[0]
