"""``top``: what goes wrong with a proxy that runs is seen within five seconds, with what to do."""

import fcntl
import itertools
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from proxy.cli import main
from tests.cli.answering import answering
from tests.cli.operator import Operator, fresh
from tests.cli.snapshots import key as one_key
from tests.cli.snapshots import snapshot, trouble
from tests.programs import OUTLIT_PROXY, free_port, running_proxy, running_sandbox, wait_for

SOON_S = 5.0
"""What goes wrong must be seen within so long; a look every 0.2 s."""


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Beside a proxy that may send little, so that a flood need not be large."""
    folder = tmp_path_factory.mktemp("operator")
    slow = {"OUTLIT_PROXY_DELIVERY_LINGER": "20ms", "OUTLIT_PROXY_DELIVERY_LIMIT_PER_S": "4"}
    with running_sandbox(folder) as sandbox, running_proxy(folder, sandbox, **slow) as proxy:
        yield Operator(proxy, sandbox)


class Top:
    """The command while it runs, off a terminal."""

    def __init__(self, process: subprocess.Popen[bytes], file: Path) -> None:
        self.process = process
        self._file = file

    @property
    def lines(self) -> list[str]:
        return self._file.read_text().splitlines()

    def soon(self, what: str, within_s: float = SOON_S) -> str:
        """The first line from now on that holds this."""
        before = len(self.lines)

        def found() -> str | None:
            return next((line for line in self.lines[before:] if what in line), None)

        return wait_for(what, found, within_s)


@contextmanager
def watching(folder: Path, environment: dict[str, str], *arguments: str) -> Iterator[Top]:
    file = folder / "seen"
    with file.open("wb") as seen:
        process = subprocess.Popen(
            [OUTLIT_PROXY, "top", "--interval", "200ms", *arguments], stdout=seen, env=environment
        )
    top = Top(process, file)
    try:
        wait_for("a line", lambda: top.lines or process.poll() is not None)
        yield top
    finally:
        process.kill()
        process.wait()


# -- off a terminal ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def top(operator: Operator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Top]:
    """One that runs all the while, and ends without complaint when it is told to."""
    with watching(tmp_path_factory.mktemp("top"), operator.environment) as running:
        yield running
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0


def test_an_outage_is_seen_soon_and_so_is_its_end(operator: Operator, key: str, top: Top) -> None:
    operator.outage(key)
    operator.post(key, fresh())
    line = top.soon("upstream_not_answering")
    operator.sandbox.clear_faults()
    assert re.fullmatch(
        r"20\S+Z  ready  accepted \d+\.\d/s  delivered \d+\.\d/s  \d+\.\d events/request  budget \d+%"
        r"  held \d+  oldest \d+\.\d s  to drain \d+\.\d s  dead 0  upstream_not_answering",
        line,
    )
    top.soon("  held 0  ", within_s=20.0)


def test_calls_to_the_gateway_are_in_the_line_of_a_pipe(tmp_path: Path) -> None:
    busy = snapshot(gateway={"in_flight": 2}, troubles=[trouble("plan_exhausted", "warning")])
    seen = itertools.chain([snapshot(), {**snapshot(), "gateway": None}], itertools.repeat(busy))
    with (
        answering(200, {}, lambda: json.dumps(next(seen)).encode()) as (url, _),
        watching(tmp_path, {}, "--ops-url", url) as top,
    ):
        assert wait_for("three lines", lambda: len(top.lines) > 2)
        assert "gateway" not in "".join(top.lines[:2])
        assert top.lines[2].endswith("  dead 2  gateway 2 in flight  plan_exhausted")


def test_a_paused_key_is_seen_soon(operator: Operator, key: str, top: Top) -> None:
    operator.post(key, fresh())
    operator.run("keys", "pause", key, "--yes")
    top.soon(f"paused_by_operator {key}")
    operator.run("keys", "resume", key)


def test_a_flood_is_seen_soon(operator: Operator, key: str, top: Top) -> None:
    numbers, before = itertools.count(), len(top.lines)

    def seen_while_more_comes() -> bool:
        # Of as many visitors, so that none shares a request with another.
        operator.post(key, fresh(), visitorId=f"0190a1b2-c3d4-7e5f-8a6b-{next(numbers):012d}")
        return any(f"flood {key}" in line for line in top.lines[before:])

    wait_for("a flood", seen_while_more_comes, 2 * SOON_S)  # in 3 s, where nobody else is at work
    operator.run("keys", "pause", key, "--yes")  # and disturbs no other test


def test_a_proxy_that_is_away_is_waited_for_until_somebody_interrupts(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with watching(tmp_path, {}, "--ops-url", url) as top:
        absent = rf"the proxy does not answer, for \d\.\d s: {url}/status: connection refused: start .*"
        assert re.fullmatch(absent, top.soon("does not answer"))
        assert re.fullmatch(absent, top.soon("does not answer"))
        top.process.send_signal(signal.SIGINT)
        assert top.process.wait(30) == 0


@pytest.mark.parametrize("interval", ["1", "1x", "1ms", "2h"])
def test_an_interval_that_cannot_be_is_wrong_usage(interval: str) -> None:
    result = CliRunner().invoke(main, ("top", "--interval", interval))
    assert result.exit_code == 2
    assert "--interval" in result.stderr


# -- on a terminal -----------------------------------------------------------------------------------------

UNWELL = snapshot(
    ledger={"accepted": 12_345_678},
    troubles=[
        trouble(
            "key_refused", key="pk_refused", what="Refused by Outlit.", what_to_do="See to the key there."
        ),
        trouble("flood", "warning", "pk_flood"),
    ],
    keys=[
        one_key("pk_refused", paused="key_refused", paused_for_s=48.0),
        *(one_key(f"pk_{number}") for number in range(49)),
    ],
)


class Screen:
    """A terminal of a certain size, on which the command draws."""

    def __init__(self, columns: int, rows: int, arguments: Sequence[str], **environment: str) -> None:
        self._ours, theirs = pty.openpty()
        _resize(theirs, columns, rows)
        self.modes = termios.tcgetattr(theirs)
        self._theirs = theirs
        self._drawn = b""
        self.process = subprocess.Popen(
            [OUTLIT_PROXY, "top", "--interval", "200ms", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={"TERM": "xterm", **environment},
            start_new_session=True,
        )
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        while part := os.read(self._ours, 65_536):
            self._drawn += part
            if part.endswith(b"\0END"):
                return

    @property
    def drawn(self) -> str:
        return self._drawn.decode(errors="replace").replace("\r\n", "\n")

    @property
    def last(self) -> list[str]:
        """The newest whole picture, without its colours; nothing where none is drawn yet."""
        pictures = self.drawn.split("\x1b[H")
        whole = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", pictures[-2] if len(pictures) > 2 else "")
        return [line.rstrip() for line in whole.splitlines()] if whole.strip() else []

    def resized(self, columns: int, rows: int) -> list[str]:
        """The first whole picture of that size."""
        _resize(self._theirs, columns, rows)
        drawn = len(self._drawn)
        wait_for("two more pictures", lambda: self._drawn[drawn:].count(b"\x1b[H") > 2)
        assert len(self.last) <= rows
        return self.last

    def press(self, pressed: str) -> None:
        os.write(self._ours, pressed.encode())

    def modes_now(self) -> list[Any]:
        return termios.tcgetattr(self._theirs)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.write(self._theirs, b"\0END")
        self._reading.join()
        os.close(self._theirs)
        os.close(self._ours)


def _resize(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def screen(columns: int, rows: int, url: str, **environment: str) -> Iterator[Screen]:
    drawing = Screen(columns, rows, ["--ops-url", url], **environment)
    try:
        wait_for("a picture", lambda: drawing.last or drawing.process.poll() is not None)
        yield drawing
    finally:
        drawing.close()


def test_the_screen_shows_what_is_wrong_first_and_no_size_breaks_it() -> None:
    with answering(200, {}, json.dumps(UNWELL).encode()) as (url, _), screen(120, 40, url) as top:
        lines = top.last
        assert lines[0].startswith("outlit-proxy 0.1.0: ready, up for 3 h")
        assert lines[2] == "error: key_refused pk_refused: Refused by Outlit."
        assert lines[3] == "  See to the key there. (README #when-outlit-is-the-trouble)"
        assert "events    accepted 12,345,678 = held 96 " in lines[7]
        assert any(re.match(r"pk_refused  key_refused, 48 s  96 ", line) for line in lines)
        assert "\x1b[1;31merror: key_refused" in top.drawn
        for columns, rows in ((40, 8), (15, 3), (300, 120)):
            lines = top.resized(columns, rows)
            assert lines[0].startswith("outlit-proxy")
            assert max(map(len, lines)) <= columns
        assert any(line.startswith("pk_48 ") for line in lines), "the last of fifty keys"
        assert "Traceback" not in top.drawn


def test_it_shows_what_it_saw_last_and_leaves_the_terminal_as_it_was() -> None:
    with answering(200, {}, json.dumps(UNWELL).encode()) as (url, _):
        top = Screen(100, 40, ["--ops-url", url], NO_COLOR="1")
        try:
            wait_for("a picture", lambda: top.last)
        except AssertionError:
            top.close()
            raise
    try:
        wait_for("its absence", lambda: "does not answer" in (top.last or [""])[0])
        assert any(line.startswith("outlit-proxy 0.1.0: ready") for line in top.last)
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", top.drawn), "no colour where none is wanted"
        assert "\x1b[?1049h" in top.drawn, "on a screen of its own"
        top.press("q")
        assert top.process.wait(30) == 0
        wait_for("the old screen", lambda: "\x1b[?1049l" in top.drawn)
        assert top.modes_now() == top.modes
    finally:
        top.close()
