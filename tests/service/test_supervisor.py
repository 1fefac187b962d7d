"""What a supervisor is told: by datagrams to a socket, as systemd would read them."""

import asyncio
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.service import Supervisor


class Told:
    """The supervisor's end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def words(self) -> list[dict[str, str]]:
        """What came since it was last asked."""
        found: list[dict[str, str]] = []
        while True:
            try:
                text = self.socket.recv(4_096).decode()
            except BlockingIOError:
                return found
            found.append(dict(line.split("=", 1) for line in text.split("\n")))


@pytest.fixture(params=["file", "abstract"])
def told(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Told]]:
    """What NOTIFY_SOCKET says, and who listens there."""
    name = str(tmp_path / "notify") if request.param == "file" else f"outlit-proxy-test-{os.getpid()}"
    end = Told(name if request.param == "file" else f"\0{name}")
    yield (name if request.param == "file" else f"@{name}"), end
    end.socket.close()


def test_each_word_arrives_as_systemd_reads_it(told: tuple[str, Told]) -> None:
    address, end = told
    supervisor = Supervisor({"NOTIFY_SOCKET": address})
    supervisor.opening()
    supervisor.ready("serving on\nhttp://127.0.0.1:8080")
    before_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000
    supervisor.reloading()
    supervisor.stopping("stopping (drain)", 35.0)
    opening, ready, reloading, stopping = end.words()
    assert opening == {"STATUS": "opening the buffer", "EXTEND_TIMEOUT_USEC": "300000000"}
    assert ready == {"READY": "1", "STATUS": "serving on http://127.0.0.1:8080"}
    assert reloading.keys() == {"RELOADING", "MONOTONIC_USEC"}
    assert 0 <= int(reloading["MONOTONIC_USEC"]) - before_us < 5_000_000
    assert stopping == {"STOPPING": "1", "STATUS": "stopping (drain)", "EXTEND_TIMEOUT_USEC": "35000000"}


async def test_signs_of_life_come_twice_in_the_watchdogs_time_and_end_with_their_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = Told(str(tmp_path / "notify"))
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
    with pytest.raises(asyncio.CancelledError):
        await supervisor.keep_watch()
    assert (end.words(), slept) == ([{"WATCHDOG": "1"}] * 3, [15.0] * 3)
    end.socket.close()


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "soon"},
        {"WATCHDOG_USEC": "0"},
    ],
    ids=["none", "another process's", "no number", "off"],
)
async def test_where_no_watchdog_waits_for_this_process_no_sign_is_given(environ: dict[str, str]) -> None:
    async with asyncio.timeout(1):
        await Supervisor(environ).keep_watch()


def test_a_supervisor_that_is_not_there_is_said_once_and_disturbs_nothing(
    tmp_path: Path, logs: io.StringIO
) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    for _ in range(3):
        supervisor.ready("serving")
    [line] = logs.getvalue().splitlines()
    assert (json.loads(line)["level"], json.loads(line)["error"]) == ("warning", "No such file or directory")


def test_without_a_supervisor_nothing_is_said(logs: io.StringIO) -> None:
    Supervisor({}).ready("serving")
    assert logs.getvalue() == ""
