"""The secret API key, in programs as an operator starts them: in no log, page, output or process list.

One proxy has it from a file, the other from its environment; a caller has a key of their own.
"""

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from tests.gateway.canary import Canary
from tests.programs import (
    OPS_TOKEN,
    OUTLIT_PROXY,
    Proxy,
    Sandbox,
    http,
    installed_proxy,
    running_sandbox,
    wait_for,
)

TOOL = {"tool": "outlit_schema", "input": {}}


@dataclass(frozen=True)
class Installation:
    """Two proxies with the same canary as their gateway.api_key, and a caller with another."""

    sandbox: Sandbox
    by_file: Proxy
    by_environment: Proxy
    key_file: Path
    key: Canary = field(default_factory=Canary)
    own: Canary = field(default_factory=Canary)

    @property
    def proxies(self) -> tuple[Proxy, Proxy]:
        return self.by_file, self.by_environment

    def assert_nowhere(self, text: str | bytes, where: str) -> None:
        for canary in (self.key, self.own):
            canary.assert_not_in(text, where)

    def settings(self, proxy: Proxy) -> dict[str, str]:
        """An operator's environment."""
        given = {
            "OUTLIT_PROXY_OPS_LISTEN": urlsplit(proxy.ops_url).netloc,
            "OUTLIT_PROXY_OPS_TOKEN": OPS_TOKEN,
            "OUTLIT_PROXY_UPSTREAM_URL": self.sandbox.url,
        }
        if proxy is self.by_file:
            return {**given, "OUTLIT_PROXY_GATEWAY_API_KEY_FILE": str(self.key_file)}
        return {**given, "OUTLIT_PROXY_GATEWAY_API_KEY": self.key.key}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("gateway")
    key, key_file = Canary(), folder / "api_key"
    key_file.write_text(f"{key.key}\n")
    key_file.chmod(0o600)
    common = {"OUTLIT_PROXY_LOG_LEVEL": "debug", "OUTLIT_PROXY_GATEWAY_TIMEOUT": "700ms"}
    for name in ("file", "environment"):
        (folder / name).mkdir()
    with (
        running_sandbox(folder) as sandbox,
        installed_proxy(
            folder / "file", sandbox, OUTLIT_PROXY_GATEWAY_API_KEY_FILE=str(key_file), **common
        ) as by_file,
        installed_proxy(
            folder / "environment", sandbox, OUTLIT_PROXY_GATEWAY_API_KEY=key.key, **common
        ) as by_environment,
    ):
        for proxy in (by_file, by_environment):
            proxy.program.start()
        for proxy in (by_file, by_environment):
            proxy.wait_until_ready()
        installed = Installation(sandbox, by_file, by_environment, key_file, key)
        yield installed
        for proxy in installed.proxies:
            assert proxy.program.stop() == 0, proxy.program.log
            installed.assert_nowhere(proxy.program.log, "in the log of the whole life")


def order(sandbox: Sandbox, **incident: object) -> None:
    status, body = http(f"{sandbox.url}/_sandbox/platform", incident)
    assert status == 200, body


def calls(sandbox: Sandbox) -> list[dict[str, object]]:
    status, body = http(f"{sandbox.url}/_sandbox/calls")
    assert status == 200, body
    return [json.loads(line) for line in body.split(b"\n") if line]


def well(sandbox: Sandbox) -> None:
    for what in ("platform", "calls"):
        assert http(f"{sandbox.url}/_sandbox/{what}", method="DELETE")[0] == 200


def call(proxy: Proxy, bearer: str) -> list[tuple[int, bytes]]:
    headers = {"Authorization": f"Bearer {bearer}"}
    base = f"{proxy.ops_url}/platform/api"
    return [
        http(f"{base}/tools/call", TOOL, headers),
        http(f"{base}/integrations", headers=headers),
        http(f"{base}/validate-api-key", {}, headers),
    ]


def test_the_vendors_way_through_the_gateway_works_with_either_source_of_the_key(
    installation: Installation,
) -> None:
    well(installation.sandbox)
    for proxy in installation.proxies:
        for bearer in (OPS_TOKEN, installation.own.key):
            assert [status for status, _ in call(proxy, bearer)] == [200] * 3
    keys = {str(made["key"]) for made in calls(installation.sandbox)}
    assert len(keys) == 2


TROUBLES: list[dict[str, Any]] = [
    {"what": "reset"},
    {"what": "hang", "route": "tools"},
    {"what": "answer", "status": 401, "body": {"error": "Invalid credentials"}},
    {"what": "answer", "status": 500, "body": {"error": "Internal server error"}},
    {"what": "plan", "reset_in_s": 3600},
]


def test_no_answer_metric_page_or_log_shows_it(installation: Installation) -> None:
    well(installation.sandbox)
    answers: list[tuple[int, bytes]] = []
    proxies = itertools.cycle(installation.proxies)
    for trouble in TROUBLES:
        order(installation.sandbox, **trouble)
        proxy = next(proxies)
        for bearer in (OPS_TOKEN, installation.own.key):
            answers += call(proxy, bearer)
        well(installation.sandbox)
    answers += call(proxy, installation.own.key[1:])
    assert {401, 500, 502, 504} <= {status for status, _ in answers}
    for _, body in answers:
        installation.assert_nowhere(body, "in an answer")
    for proxy in installation.proxies:
        for path in ("/status", "/metrics", "/", "/readyz?verbose"):
            for headers in ({}, {"Authorization": f"Bearer {OPS_TOKEN}"}):
                installation.assert_nowhere(http(f"{proxy.ops_url}{path}", headers=headers)[1], path)
        assert "gateway" in proxy.program.log
        installation.assert_nowhere(proxy.program.log, "in the log")


# -- commands and processes --------------------------------------------------------------------------------


class Processes:
    """What each process that was started here shows of itself to anybody, as long as this lasts."""

    def __init__(self) -> None:
        self.shown: set[bytes] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.02):
            self.look()

    def look(self) -> None:
        for process in _descendants(Path("/proc/self")):
            for file in ("cmdline", "comm", "status"):
                try:
                    self.shown.add((process / file).read_bytes())
                except OSError:  # it has ended
                    continue


def _descendants(process: Path) -> Iterator[Path]:
    try:
        children = [child for file in process.glob("task/*/children") for child in file.read_text().split()]
    except OSError:  # it, or a thread of it, has ended
        return
    for child in children:
        yield Path("/proc") / child
        yield from _descendants(Path("/proc") / child)


COMMANDS = [
    ["platform", "validate"],
    ["platform", "tool", "outlit_schema", "--input", "{}"],
    ["platform", "tool", "nothing_of_the_kind", "--input", "{"],
    ["platform", "integrations"],
    ["platform", "retry"],
    ["config", "show", "--origin"],
    ["check", "--json"],
    ["status", "--json"],
]


def test_no_command_and_no_process_shows_it(installation: Installation) -> None:
    well(installation.sandbox)
    proxies = itertools.cycle(installation.proxies)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTLIT_PROXY_")}
    said: dict[str, str] = {}
    with Processes() as processes:
        running = [
            subprocess.Popen(
                [OUTLIT_PROXY, *command],
                env={**inherited, **installation.settings(next(proxies)), "NO_COLOR": "1"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for command in COMMANDS
        ]
        for command, process in zip(COMMANDS, running, strict=True):
            said[" ".join(command)] = process.communicate(timeout=60)[0]
        # The search sees them: the proxies, and the commands while they ran.
        seen = b"\n".join(processes.shown)
        for part in (b"run", b"platform\0validate", b"config\0show", b"check"):
            assert b"outlit-proxy\0" + part in seen
    installation.assert_nowhere(b"\n".join(processes.shown), "in the process list")
    for words, shown in said.items():
        assert shown, words
        installation.assert_nowhere(shown, words)
    assert "gateway.api_key" in said["config show --origin"]
    assert said["platform validate"].startswith("valid"), said["platform validate"]


def test_a_key_that_is_written_wrongly_is_not_quoted(installation: Installation, tmp_path: Path) -> None:
    file = tmp_path / "api_key"
    file.write_text(f"{installation.key.key}\n{installation.key.key}")
    told = subprocess.run(
        [OUTLIT_PROXY, "check", "--offline"],
        env={**os.environ, "OUTLIT_PROXY_GATEWAY_API_KEY_FILE": str(file)},
        cwd=tmp_path,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"GATEWAY_API_KEY_FILE: must " in told.stdout + told.stderr
    installation.assert_nowhere(told.stdout + told.stderr, "in the refusal")


def test_the_process_list_would_have_been_seen_to_hold_it(installation: Installation) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", installation.own.key])
    try:
        processes = Processes()

        def seen() -> list[str]:
            processes.look()
            return installation.own.found_in(b"\n".join(processes.shown))

        assert "the key" in wait_for("the key in the process list", seen)
    finally:
        sleeper.kill()
        sleeper.wait()
