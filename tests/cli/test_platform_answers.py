"""``platform`` where no whole answer comes, or one that does not tell: what may have been done is said."""

import json
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.cli.platform import refusals
from proxy.gateway.plan import FARTHEST_MS
from tests.cli.answering import serving
from tests.cli.gateways import OWN, Reply, gateway, said
from tests.programs import OPS_TOKEN, OUTLIT_PROXY, free_port

MAY_BE_DONE = "; it may have been done all the same: try again where that does no harm\n"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
TOOL = ("tool", "outlit_query")


def run(url: str, *arguments: str) -> Result:
    environment = {"OUTLIT_PROXY_OPS_TOKEN": OPS_TOKEN}
    result = CliRunner().invoke(main, ["platform", *arguments, "--ops-url", url], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


@contextmanager
def resetting(given: bytes) -> Iterator[str]:
    """The URL of what takes one request, answers with so many bytes, and resets the connection."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            asked = b""
            while not asked.endswith(b"}" if asked.startswith(b"POST /platform/api/tools") else b"\r\n\r\n"):
                asked += connection.recv(65_536)
            connection.sendall(given)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


@contextmanager
def silent() -> Iterator[tuple[str, threading.Event]]:
    """The URL of what takes requests and does not answer, and when it has taken one."""
    taken, ended = threading.Event(), threading.Event()

    def answer(_to: BaseHTTPRequestHandler, _body: bytes) -> None:
        taken.set()
        ended.wait(30)

    with serving(answer) as url:
        try:
            yield url, taken
        finally:
            ended.set()


# -- no whole answer ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (b"", "the connection broke off before an answer came"),
        (HEAD, "the answer broke off before its end"),
        (HEAD + b'{"a": [1', "the answer broke off before its end"),
        (HEAD.replace(b"200 OK", b"502 Bad Gateway") + b"{", "the answer broke off before its end"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "what answers there speaks no HTTP"),
    ],
    ids=["no head", "no body", "half a body", "half an error", "no HTTP"],
)
def test_a_call_whose_answer_is_cut_off_may_have_been_done(given: bytes, why: str) -> None:
    with resetting(given) as url:
        result = run(url, *TOOL)
    assert result.exit_code == 1
    assert result.stderr == f"main platform tool: {url}/platform/api/tools/call: {why}{MAY_BE_DONE}"


def test_a_call_that_is_not_waited_for_any_longer_may_have_been_done() -> None:
    with silent() as (url, _):
        result = run(url, *TOOL, "--timeout", "0.1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(f"/tools/call: nothing came for 0.1 s{MAY_BE_DONE}")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (TOOL, f"outlit-proxy platform tool: interrupted before the answer was whole{MAY_BE_DONE}"),
        (("integrations",), "\nAborted!\n"),
    ],
    ids=["a call", "a question"],
)
def test_a_call_that_is_interrupted_may_have_been_done(arguments: tuple[str, ...], line: str) -> None:
    with (
        silent() as (url, taken),
        subprocess.Popen(
            [OUTLIT_PROXY, "platform", *arguments, "--ops-url", url],
            env={**os.environ, "OUTLIT_PROXY_OPS_TOKEN": OPS_TOKEN},
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as command,
    ):
        assert taken.wait(30)
        command.send_signal(signal.SIGINT)
        _, shown = command.communicate(timeout=30)
    assert (command.returncode, shown) == (1, line)


def test_of_a_question_that_changes_nothing_nothing_may_have_been_done() -> None:
    for verb in ("validate", "integrations"):
        with resetting(HEAD) as url:
            assert run(url, verb).stderr.endswith(": the answer broke off before its end\n")


def test_of_a_call_that_was_not_sent_nothing_may_have_been_done() -> None:
    result = run(f"http://127.0.0.1:{free_port()}", *TOOL)
    assert "connection refused" in result.stderr
    assert "may have been done" not in result.stderr


# -- what an answer does not tell --------------------------------------------------------------------------

INVALID = {"valid": False, "error": "Invalid credentials"}


@pytest.mark.parametrize(
    ("reply", "written"),
    [
        (said(401, **INVALID), INVALID),
        (said(200, valid=False), {"valid": False}),
        (said(503, **INVALID), {**INVALID, "valid": None, "status": 503}),
        (said(502, OWN, code="upstream_broken"), {"code": "upstream_broken", "valid": None, "status": 502}),
        (said(504, OWN, **INVALID), {**INVALID, "valid": None, "status": 504}),
        (said(401, OWN, **INVALID), {**INVALID, "valid": None, "status": 401}),
        (said(200, valid="yes"), {"valid": None, "status": 200}),
        (Reply(503, b"<html>"), {"valid": None, "status": 503}),
        (Reply(401, b"<html>"), {"valid": None, "status": 401}),
    ],
    ids=["401", "200 false", "503", "502", "504", "the gateway's 401", "odd", "no JSON", "another's 401"],
)
def test_in_json_only_a_key_that_outlit_refuses_is_not_valid(reply: Reply, written: dict[str, Any]) -> None:
    with gateway(reply) as (url, _):
        result = run(url, "validate", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == written


def test_whether_a_call_may_be_tried_again_is_read_as_the_gateway_reads_it() -> None:
    reply = said(502, retryable=False, error={"message": "Busy", "retryable": True})
    with gateway(reply) as (url, _):
        assert run(url, *TOOL).stderr.endswith(f"Outlit answered 502: Busy{MAY_BE_DONE}")


@pytest.mark.parametrize(
    ("days", "is_believed"), [(399, True), (401, False), (10**6, False)], ids=["399", "401", "far"]
)
def test_what_is_used_up_for_longer_than_is_believed_is_said_to_be_asked_about(
    days: int, is_believed: bool
) -> None:
    now = datetime(2026, 7, 1, tzinfo=UTC)
    until_ms = int((now + timedelta(days=days)).timestamp() * 1000)
    body = json.dumps({"code": "api_limit_exceeded", "resetAt": until_ms}).encode()
    line = refusals.in_words(refusals.read(402, Message(), body), "URL", now, changes_nothing=False)
    assert "used up until " in line
    assert ("which is asked about again within an hour" in line) is not is_believed
    assert timedelta(milliseconds=FARTHEST_MS) == refusals.FARTHEST


# -- the way there -----------------------------------------------------------------------------------------


def test_a_proxy_without_a_token_is_said_to_be_off_in_the_same_words_by_every_command() -> None:
    reply = said(403, OWN, error="off: set ops.token to use this", code="gateway_off")
    with gateway(reply) as (url, _):
        lines = {run(url, *verb).stderr.split(": ", 1)[1] for verb in (("validate",), ("retry",), TOOL)}
    assert lines == {f"{url}: it runs without ops.token, so this is off there: set it, and reload it\n"}
