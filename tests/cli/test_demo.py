"""``outlit-proxy demo`` as it is called: it proves the promise, and can tell when it is broken."""

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from proxy.cli.demo import _free
from proxy.settings import ListenAddress

DEMO = (sys.executable, "-m", "proxy", "demo", "--front-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0")
VERDICT = re.compile(
    r"kept ([0-9,]+) of ([0-9,]+), misattributed ([0-9,]+), out of order ([0-9,]+)(?: \(.*\))?"
)
LEDGER = re.compile(
    r"accepted ([0-9,]+) = held ([0-9,]+) \+ delivered ([0-9,]+) \+ dead ([0-9,]+) \+ dropped ([0-9,]+) "
    r"  \S+ events/request   [0-9]+ × 429   oldest [0-9.]+ s"
)
TIMEOUT_S = 60


def demo(*arguments: str) -> tuple[int, list[str], str]:
    """Run it to its end. Gives the exit code, the lines of stdout, and stderr."""
    ended = subprocess.run(
        [*DEMO, *arguments], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    return ended.returncode, ended.stdout.splitlines(), ended.stderr


def numbers(found: re.Match[str]) -> list[int]:
    return [int(number.replace(",", "")) for number in found.groups()]


def test_a_run_with_faults_keeps_everything_and_the_ledger_balances_in_every_line():
    code, lines, errors = demo("--seconds", "4")
    verdict = VERDICT.fullmatch(lines[-1])
    assert code == 0, "\n".join([*lines, errors])
    assert verdict
    kept, acknowledged, misattributed, out_of_order = numbers(verdict)
    assert kept == acknowledged > 300
    assert misattributed == out_of_order == 0
    ledgers = [numbers(found) for line in lines if (found := LEDGER.match(line))]
    assert len(ledgers) >= 4
    assert all(accepted == sum(places) for accepted, *places in ledgers)
    assert ledgers[-1][1] == 0
    assert lines[0].startswith("public    http://127.0.0.1:")
    assert not re.search("Traceback|Error in|never retrieved", errors)


@pytest.mark.parametrize(
    ("sabotage", "failure"),
    [("drop", "1 lost"), ("double", "1 doubled without saying so"), ("swap", "1 misattributed")],
)
def test_one_event_dropped_doubled_or_swapped_is_found_and_named(sabotage, failure):
    code, lines, errors = demo("--seconds", "4", "--sabotage", sabotage)
    assert code == 1, "\n".join([*lines, errors])
    assert f"FAILED: {failure}" in lines
    assert any(re.match(r"  demo\.[0-9a-f]{8}\.[a-z0-9]+\.[0-9]+ ", line) for line in lines)


def test_on_a_redis_nothing_of_others_is_touched_and_nothing_is_left(redis_server):
    redis_server.command("SET", "theirs", "1")
    redis_server.command("SADD", "outlit:{fleet}:keys", "pk_demo", "pk_theirs")
    redis_server.command("ZADD", "outlit:{fleet}:active", 1, "pk_demo")
    redis_server.command("RPUSH", "outlit:{pk_demo}:q:0", "an event of a fleet's")
    before = {key: redis_server.command("DUMP", key) for key in redis_server.command("KEYS", "*")}
    code, lines, errors = demo("--seconds", "3", "--buffer", redis_server.url)
    assert code == 0, "\n".join([*lines, errors])
    assert lines[2].startswith(f"buffer    redis://{redis_server.address}, durability everysec")
    assert {key: redis_server.command("DUMP", key) for key in redis_server.command("KEYS", "*")} == before


def test_what_somebody_else_posts_is_kept_and_left_out_and_an_interrupt_ends_it_in_order(tmp_path):
    folder = tmp_path / "tmp"
    folder.mkdir()
    process = subprocess.Popen(
        [*DEMO, "--seconds", "60", "--visitors", "4"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )
    try:
        assert process.stdout
        front = process.stdout.readline().split()[1]
        assert list(folder.iterdir())
        request = urllib.request.Request(
            f"{front}/api/i/v1/pk_demo/events",
            b'{"source":"server","events":[{"type":"identify","userId":"me","url":"server://me","path":""}]}',
            {"Content-Type": "application/json"},
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            assert answer.status == 200
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if "also kept 1" in line:
                break
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=TIMEOUT_S)
        lines += rest.splitlines()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, "\n".join(lines)
    assert "ending early" in lines
    assert "also kept 1 that others posted, left out of the comparison" in lines
    assert VERDICT.fullmatch(lines[-1])
    assert not list(folder.iterdir())


def test_a_terminal_sees_the_ledger_in_place():
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*DEMO, "--seconds", "1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "NO_COLOR": "1", "COLUMNS": "200"},
    )
    os.close(theirs)
    shown = b""
    try:
        while part := _read(ours):
            shown += part
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert b"\x1b[2K" in shown  # a line is written anew
    assert VERDICT.search(shown.decode())


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:  # the other end is closed
        return b""


def test_a_taken_port_is_said_and_another_used():
    said: list[str] = []

    class Show:
        every_s = 1.0

        def opening(self, opening):
            raise AssertionError

        def say(self, text):
            said.append(text)

        def moment(self, moment):
            raise AssertionError

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert _free(ListenAddress("127.0.0.1", port), "the front", Show()) == ListenAddress("127.0.0.1", 0)
    (line,) = said
    assert line.startswith(f"127.0.0.1:{port} cannot be had (address already in use): the front will ")
    assert _free(ListenAddress("127.0.0.1", port), "the front", Show()).port == port


def test_a_port_that_was_asked_for_and_is_taken_is_one_readable_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, lines, errors = demo("--front-listen", f"127.0.0.1:{port}")
    assert (code, lines) == (1, [])
    assert errors.startswith(f"outlit-proxy demo: front.listen: cannot listen on 127.0.0.1:{port}: ")
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--buffer", "redis://"),
        ("--buffer", "redis://user@localhost"),
        ("--buffer", "postgres://localhost"),
        ("--front-listen", "nowhere"),
        ("--seconds", "0"),
        ("--visitors", "0"),
        ("--sabotage", "burn"),
    ],
)
def test_wrong_usage_is_refused_before_anything_starts(arguments):
    code, lines, errors = demo(*arguments)
    assert (code, lines) == (2, [])
    assert "Error: Invalid value for" in errors


def test_a_reader_that_goes_away_ends_it_quietly(tmp_path):
    errors = tmp_path / "stderr"
    with errors.open("wb") as stderr:
        process = subprocess.Popen([*DEMO, "--seconds", "60"], stdout=subprocess.PIPE, stderr=stderr)
    try:
        assert process.stdout
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 1
    finally:
        process.kill()
        process.wait()
    assert "Traceback" not in errors.read_text()
