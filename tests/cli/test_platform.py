"""``platform`` as people and scripts use it: Outlit's answers whole, its refusals in one line, no key."""

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.cli.platform import refusals
from proxy.ledger import OwnCode
from tests.cli.gateways import OWN, Asked, Reply, gateway, said
from tests.cli.operator import Operator
from tests.gateway.orders import exhausted
from tests.programs import OPS_TOKEN, OUTLIT_PROXY, free_port, http, running_proxy, running_sandbox

API_KEY = "ok_canary_of_the_command_line_0123456789"
LATER_MS = 4_102_444_800_000
LATER = "2100-01-01 00:00:00 UTC"
VERBS = [("validate",), ("tool", "outlit_list_customers"), ("integrations",), ("retry",)]
OF_OUTLIT = VERBS[:-1]


def run(url: str, *arguments: str, given: bytes | None = None) -> Result:
    """A command of an operator whose settings hold Outlit's key as well."""
    environment = {"OUTLIT_PROXY_OPS_TOKEN": OPS_TOKEN, "OUTLIT_PROXY_GATEWAY_API_KEY": API_KEY}
    result = CliRunner().invoke(main, ["platform", *arguments, "--ops-url", url], given, env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    assert OPS_TOKEN not in result.output
    assert API_KEY not in result.output
    return result


def refused(reply: Reply, *arguments: str) -> str:
    """The one line on stderr of a command that ends with exit code 1."""
    with gateway(reply) as (url, _):
        result = run(url, *arguments)
    assert (result.exit_code, result.stdout) == (1, ""), result.output
    head, line = result.stderr.split(": ", 1)
    assert head == f"main platform {arguments[0]}"
    assert line.count("\n") == 1
    return line.rstrip("\n").replace(url, "URL")


def asked(reply: Reply, *arguments: str) -> Asked:
    """What the gateway is asked by a command that succeeds."""
    with gateway(reply) as (url, seen):
        result = run(url, *arguments)
    assert result.exit_code == 0, result.output
    [only] = seen
    return only


# -- through a real proxy, to the sandbox ------------------------------------------------------------------


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    folder = tmp_path_factory.mktemp("platform")
    with (
        running_sandbox(folder) as sandbox,
        running_proxy(
            folder,
            sandbox,
            OUTLIT_PROXY_GATEWAY_API_KEY=API_KEY,
            OUTLIT_PROXY_GATEWAY_TOOLS='["outlit_list_customers"]',
        ) as proxy,
    ):
        yield Operator(proxy, sandbox)


def calls(operator: Operator) -> list[dict[str, Any]]:
    """What reached Outlit."""
    status, body = http(f"{operator.sandbox.url}/_sandbox/calls")
    assert status == 200, body
    return [json.loads(line) for line in body.split(b"\n") if line]


def test_a_valid_key_says_whose_it_is(operator: Operator) -> None:
    told = operator.told("platform", "validate")
    result = operator.run("platform", "validate")
    grants = ", ".join(told["authorization"]["grants"])
    assert (result.exit_code, result.stdout) == (
        0,
        f"valid: organization {told['organizationId']}, created by {told['createdById']}, grants {grants}\n",
    )


def test_a_tool_is_called_with_what_it_is_given(operator: Operator) -> None:
    result = operator.run("platform", "tool", "outlit_list_customers", "--input", '{"limit": 3}')
    assert (result.exit_code, result.stderr) == (0, "")
    assert json.loads(result.stdout)
    call = calls(operator)[-1]
    assert (call["tool"], call["body"]["input"], call["status"]) == (
        "outlit_list_customers",
        {"limit": 3},
        200,
    )


def test_integrations_are_a_line_each(operator: Operator) -> None:
    items = operator.told("platform", "integrations")["items"]
    result = operator.run("platform", "integrations")
    assert result.exit_code == 0
    head, *lines, count = result.stdout.splitlines()
    assert head.split() == ["name", "category", "status", "last", "data", "sync", "error"]
    assert [line.startswith(item["name"]) for line, item in zip(lines, items, strict=True)] == [True] * len(
        items
    )
    assert count == f"{len(items)} integrations"
    connected = operator.told("platform", "integrations", "--connected")["items"]
    assert 0 < len(connected) < len(items)


def test_a_plan_that_is_used_up_is_asked_again_only_after_retry(operator: Operator) -> None:
    status, body = http(f"{operator.sandbox.url}/_sandbox/platform", exhausted())
    assert status in (200, 201, 204), body
    before = len(calls(operator))
    first, second = (operator.run("platform", "tool", "outlit_list_customers") for _ in range(2))
    assert (first.exit_code, second.exit_code) == (1, 1)
    assert "Outlit answered 402 api_limit_exceeded: " in first.stderr
    assert "; plan free, feature api_calls; used up until " in first.stderr
    assert first.stderr.endswith("; after an upgrade of the plan: outlit-proxy platform retry\n")
    assert (
        "Outlit answered 402 api_limit_exceeded to an earlier call, and was not asked again: "
        in second.stderr
    )
    assert len(calls(operator)) == before + 1
    http(f"{operator.sandbox.url}/_sandbox/platform", method="DELETE")
    assert operator.told("platform", "retry") == {"forgotten": 1}
    assert operator.run("platform", "tool", "outlit_list_customers").exit_code == 0
    nothing = operator.run("platform", "retry")
    assert nothing.stdout == "no plan refusal is remembered: every call reaches Outlit\n"


def test_a_tool_that_is_not_allowed_is_named_with_what_to_do(operator: Operator) -> None:
    result = operator.run("platform", "tool", "outlit_query")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "gateway.tools there does not name this tool: add it, and reload the proxy" in result.stderr


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_no_command_needs_the_key_or_has_a_flag_for_it(operator: Operator, verb: tuple[str, ...]) -> None:
    """Its file may be readable for the proxy alone."""
    result = operator.run("platform", *verb, OUTLIT_PROXY_GATEWAY_API_KEY_FILE="/nowhere")
    assert (result.exit_code, result.stderr) == (0, "")
    result = operator.run("platform", *verb, "--gateway-api-key", API_KEY)
    assert result.exit_code == 2
    assert "No such option" in result.stderr


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_what_stands_in_the_way_is_one_readable_line(operator: Operator, verb: tuple[str, ...]) -> None:
    wrong: list[tuple[dict[str, str | None], str]] = [
        ({"OUTLIT_PROXY_OPS_TOKEN": None}, "ops.token is not set: give the proxy's, "),
        ({"OUTLIT_PROXY_OPS_TOKEN": "another-token"}, " does not take this ops.token: "),
        ({"OUTLIT_PROXY_OPS_LISTEN": f"127.0.0.1:{free_port()}"}, ": connection refused: start the proxy, "),
    ]
    results = [(operator.run("platform", *verb, **changed), error) for changed, error in wrong]
    front = operator.run("platform", *verb, "--ops-url", operator.proxy.url)
    for result, error in [*results, (front, "see ops.listen, ")]:
        assert (result.exit_code, result.stdout) == (1, ""), error
        assert error in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
@pytest.mark.parametrize("path", ["/status", "/platform"])
def test_an_address_that_ends_in_a_path_is_said_to(
    operator: Operator, verb: tuple[str, ...], path: str
) -> None:
    result = operator.run("platform", *verb, "--ops-url", f"{operator.proxy.ops_url}{path}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith("write --ops-url without a path\n")


def test_an_input_that_is_too_large_is_said_to_be(operator: Operator, tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    file.write_text('{"a": "' + "x" * 1_100_000 + '"}')
    result = operator.run("platform", "tool", "outlit_list_customers", "--input", f"@{file}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(": the input is larger than it takes: 1 MB at most\n")


# -- tool: what is given -----------------------------------------------------------------------------------


def test_the_proxy_is_shown_the_token_and_not_outlits_key() -> None:
    sent = asked(said(200), "tool", "outlit_query")
    assert sent.headers["Authorization"] == f"Bearer {OPS_TOKEN}"
    assert API_KEY not in str(sent)


def test_a_tool_gets_an_empty_object_where_nothing_is_given() -> None:
    sent = asked(said(200), "tool", "outlit_query")
    assert (sent.method, sent.path) == ("POST", "/platform/api/tools/call")
    assert json.loads(sent.body) == {"tool": "outlit_query", "input": {}}


def test_what_a_tool_is_given_reaches_it_as_it_was_written(tmp_path: Path) -> None:
    """Read and written again, numbers would not be the same."""
    text = '{"n": 1.10, "big": 123456789012345678901234567890, "far": 1e400, "name": "Zoë \\ud83d"}'
    file = tmp_path / "input.json"
    file.write_text(f"\ufeff{text}\n", encoding="utf-8")
    for given, stdin in ((text, None), (f"@{file}", None), ("-", text.encode())):
        with gateway(said(200)) as (url, seen):
            result = run(url, "tool", 'odd "name"', "--input", given, given=stdin)
        assert result.exit_code == 0, result.output
        assert text.encode() in seen[0].body
        assert seen[0].body.startswith(b'{"tool": "odd \\"name\\"", "input": {')


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ('{"a": 1,\n "b": }', "no JSON: line 2, column 7: expecting value"),
        ("", "no JSON: line 1, column 1: "),
        ("[1]", "no JSON object: write "),
        ('{"a": NaN}', "no JSON: NaN"),
        ("[" * 100_000, "nests too deeply"),
        ("@", "name a file behind @"),
        ("-1", "no JSON object: write "),
        ("@nowhere.json", "nowhere.json: no such file or directory"),
        ("@.", ".: is a directory"),
        ("-", "stdin: no UTF-8: byte 6"),
    ],
    ids=["syntax", "empty", "no object", "NaN", "deep", "no name", "number", "no file", "folder", "no UTF-8"],
)
def test_input_that_is_none_is_wrong_usage_and_says_where(given: str, where: str) -> None:
    with gateway(said(200)) as (url, seen):
        result = run(url, "tool", "outlit_query", "--input", given, given=b'{"a": \xff}')
    assert (result.exit_code, result.stdout, seen) == (2, "", [])
    assert f"Invalid value for '--input': {where}" in result.stderr


def test_a_tool_without_a_name_is_wrong_usage() -> None:
    assert run("http://127.0.0.1:1", "tool", "").exit_code == 2


def test_the_files_that_a_tool_may_be_given_are_completed(tmp_path: Path) -> None:
    (tmp_path / "query[1].json").touch()
    (tmp_path / "queries").mkdir()
    completing = ShellComplete(main, {}, "outlit-proxy", "_OUTLIT_PROXY_COMPLETE")

    def completed(incomplete: str) -> list[str]:
        found = completing.get_completions(["platform", "tool", "outlit_query", "--input"], incomplete)
        return [item.value for item in found]

    assert completed(f"@{tmp_path}/quer") == [f"@{tmp_path}/queries/", f"@{tmp_path}/query[1].json"]
    assert completed(f"@{tmp_path}/query[") == [f"@{tmp_path}/query[1].json"]
    assert completed("{") == []


@pytest.mark.parametrize(
    ("options", "waited_s"), [((), 65), (("--timeout", "7"), 7)], ids=["the proxy's and a bit", "as said"]
)
def test_a_call_is_waited_for_longer_than_the_proxy_waits(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], waited_s: float
) -> None:
    """The proxy says what kept it; a command that gave up sooner could not."""
    waits: list[float] = []

    def forwarded(*given: Any) -> Any:
        waits.append(given[-1])
        raise SystemExit

    monkeypatch.setattr("proxy.cli.operations.Operations.forwarded", forwarded)
    run("http://127.0.0.1:1", "tool", "outlit_query", *options)
    assert waits == [waited_s]


# -- tool: what it answers ---------------------------------------------------------------------------------

JSON = {"Content-Type": "application/json; charset=utf-8"}


@pytest.mark.parametrize(
    ("headers", "body", "written"),
    [
        (JSON, b'{"n":1.10,"a": "\xc2\x9b"}', b'{"n":1.10,"a": "\xc2\x9b"}\n'),
        (JSON, b"[]\n", b"[]\n"),
        ({"Content-Type": "text/csv"}, b"a,b\r\n1,\xff", b"a,b\r\n1,\xff"),
        ({}, b"", b""),
        (JSON, b'"' + b"x" * 5_000_000 + b'"\n', b'"' + b"x" * 5_000_000 + b'"\n'),
    ],
    ids=["JSON", "JSON with its end", "CSV", "nothing", "5 MB"],
)
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["", "json"])
def test_off_a_terminal_an_answer_is_written_as_it_came(
    headers: dict[str, str], body: bytes, written: bytes, options: tuple[str, ...]
) -> None:
    with gateway(Reply(200, body, headers)) as (url, _):
        result = run(url, "tool", "outlit_query", *options)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout_bytes == written


def test_an_answer_that_breaks_off_is_said_not_to_be_whole() -> None:
    with gateway(Reply(200, b'{"a": [1', JSON, length=100)) as (url, _):
        result = run(url, "tool", "outlit_query")
    assert (result.exit_code, result.stdout) == (1, '{"a": [1')
    assert result.stderr.endswith(f"/platform/api/tools/call: the answer broke off before its end; {AGAIN}\n")


def test_a_long_answer_is_written_while_it_comes() -> None:
    first_was_read = threading.Event()
    reply = Reply(200, [b"first\n", b"last\n"], until=lambda: first_was_read.wait(10))
    with gateway(reply) as (url, _), started(url, "tool", "outlit_query") as command:
        assert command.stdout is not None
        assert command.stdout.readline() == b"first\n"
        first_was_read.set()
        assert command.stdout.read() == b"last\n"
        assert command.wait(10) == 0


def started(url: str, *arguments: str, stdout: Any = subprocess.PIPE) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OUTLIT_PROXY_OPS_TOKEN": OPS_TOKEN}
    return subprocess.Popen(
        [OUTLIT_PROXY, "platform", *arguments, "--ops-url", url],
        env=environment,
        stdout=stdout,
        stderr=subprocess.PIPE,
    )


def test_an_output_without_room_is_one_line_and_exit_code_1() -> None:
    with (
        gateway(said(200, a=1)) as (url, _),
        Path("/dev/full").open("wb") as full,
        started(url, "tool", "outlit_query", stdout=full) as command,
    ):
        assert command.stderr is not None
        line = command.stderr.read()
        assert command.wait(10) == 1
    assert line == b"outlit-proxy: the output is not whole: no space left on device\n"


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), '{\n  "n": 1.10,\n  "a": "Zo\u00eb \\x9b2J\\u202e \\u001b[2J"\n}\n'),
        (("--json",), '{"n":1.10,"a": "Zo\u00eb \\x9b2J\\u202e \\u001b[2J"}\n'),
    ],
    ids=["indented", "json"],
)
def test_on_a_terminal_an_answer_moves_and_colours_nothing(
    operator: Operator, options: tuple[str, ...], shown: str
) -> None:
    body = '{"n":1.10,"a": "Zo\u00eb \x9b2J\u202e \\u001b[2J"}'.encode()
    with gateway(Reply(200, body, JSON)) as (url, _):
        arguments = ["platform", "tool", "outlit_query", *options, "--ops-url", url]
        assert operator.on_a_terminal(arguments, "") == (0, shown)


# -- tool: what is refused ---------------------------------------------------------------------------------

PLAN: dict[str, Any] = {
    "error": "Used up.",
    "code": "api_limit_exceeded",
    "plan": "free",
    "feature": "api_calls",
}
OF_PLAN = "Used up; plan free, feature api_calls"
UNTIL = (
    f"used up until {LATER}, which is asked about again within an hour;"
    " after an upgrade of the plan: outlit-proxy platform retry"
)
HIT = {"Cache-Status": "outlit-proxy; hit; ttl=60"}
AGAIN = "it may have been done all the same: try again where that does no harm"
ANOTHER_KEY = "make a key at Outlit and set it as gateway.api_key of the proxy"
NOT_OUR_TOKEN = "it does not take this ops.token: give the one that the proxy runs with"
BUSY = said(502, code="gateway_error", message="Busy", retryable=True, requestId="req_1")
TAKEN = said(409, ok=False, error={"code": "taken", "message": "In use", "correlationId": "c1"})


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (said(400, error="No such tool"), "400: No such tool"),
        (said(404, error="Not found"), "404: Not found"),
        (BUSY, "502 gateway_error: Busy; try again; request req_1"),
        (TAKEN, "409 taken: In use; request c1"),
        (said(402, **PLAN, resetAt=LATER_MS), f"402 api_limit_exceeded: {OF_PLAN}; {UNTIL}"),
        (
            said(402, HIT, **PLAN, resetAt=LATER_MS),
            f"402 api_limit_exceeded to an earlier call, and was not asked again: {OF_PLAN}; {UNTIL}",
        ),
        (said(429, **PLAN, resetAt=None), f"429 api_limit_exceeded: {OF_PLAN}"),
        (said(429, **PLAN, resetAt=1), f"429 api_limit_exceeded: {OF_PLAN}"),
        (said(429, **PLAN, resetAt=10**300), f"429 api_limit_exceeded: {OF_PLAN}"),
        (said(429, error="Too many"), "429: Too many; try again later"),
        (said(401, error="Invalid credentials"), f"401: Invalid credentials; {ANOTHER_KEY}"),
        (Reply(302, b""), "302; a redirect is not followed: see upstream.url of the proxy"),
        (said(500, error="Oh"), f"500: Oh; {AGAIN}"),
        (Reply(503, b"<html>\n\x1b[2J\xff"), f"503: <html>\\n\\x1b[2J\ufffd; {AGAIN}"),
        (Reply(500, b"x" * 1000), f"500: {'x' * 500}; {AGAIN}"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_outlit_refuses_is_one_line_with_what_to_do(reply: Reply, line: str) -> None:
    assert refused(reply, "tool", "outlit_query") == f"Outlit answered {line}"


@pytest.mark.parametrize(
    ("status", "code", "line"),
    [
        (401, "unauthorized", NOT_OUR_TOKEN),
        (403, "gateway_off", "it runs without ops.token, so this is off there: set it, and reload it"),
        (
            403,
            "no_api_key",
            f"it has no key of Outlit's: {ANOTHER_KEY}, in its settings file or environment",
        ),
        (
            403,
            "tool_not_allowed",
            "gateway.tools there does not name this tool: add it, and reload the proxy",
        ),
        (
            403,
            "host_not_allowed",
            "ops.allowed_hosts there does not name this host: ask by its IP address, or add the name",
        ),
        (404, "not_found", "nothing is there: write --ops-url without a path"),
        (413, "body_too_large", "the input is larger than it takes: 1 MB at most"),
        (
            503,
            "overloaded",
            "as many calls are under way as it takes, or others went first; nothing was sent; try again",
        ),
        (503, "stopping", f"it is being stopped; {AGAIN}"),
        (502, "upstream_unreachable", "it does not reach Outlit, and has sent nothing; try again"),
        (504, "upstream_timeout", f"Outlit did not answer within gateway.timeout; {AGAIN}"),
        (500, "internal", "500 internal: see the log"),
    ],
)
def test_what_the_gateway_refuses_is_one_line_with_what_to_do(status: int, code: str, line: str) -> None:
    is_retryable = code in ("overloaded", "upstream_unreachable")
    reply = said(status, OWN, code=code, message="see the log", retryable=is_retryable)
    assert refused(reply, "tool", "outlit_query") == f"URL: {line}"


def test_a_question_that_changes_nothing_may_be_asked_again() -> None:
    assert refused(said(500, error="Oh"), "integrations") == "Outlit answered 500: Oh; try again"


@pytest.mark.parametrize("verb", OF_OUTLIT, ids=" ".join)
def test_in_json_a_refusal_is_written_too_and_the_exit_code_stays(verb: tuple[str, ...]) -> None:
    reply = said(402, **PLAN, resetAt=LATER_MS)
    with gateway(reply) as (url, _):
        result = run(url, *verb, "--json")
    assert result.exit_code == 1
    untold = {"valid": None, "status": 402} if verb == ("validate",) else {}
    assert json.loads(result.stdout) == {**PLAN, "resetAt": LATER_MS, **untold}
    assert "api_limit_exceeded" in result.stderr


def test_of_the_gateways_own_answers_only_those_are_not_explained_that_no_command_gets() -> None:
    assert set(OwnCode) ^ set(refusals.EXPLAINED) == {
        OwnCode.INTERNAL,  # which says itself where to look
        OwnCode.PATH_REFUSED,
        OwnCode.METHOD_NOT_ALLOWED,
        OwnCode.REQUEST_TIMEOUT,
        OwnCode.MALFORMED_BODY,
        OwnCode.UNSUPPORTED_ENCODING,
    }


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_proxy_that_is_too_old_is_said_to_be(verb: tuple[str, ...]) -> None:
    with gateway(said(404, error="not found"), said(200, troubles=[], version="0.7.0")) as (url, _):
        result = run(url, *verb)
    assert (result.exit_code, result.stdout) == (1, "")
    assert " old" in result.stderr


@pytest.mark.parametrize("verb", OF_OUTLIT, ids=" ".join)
def test_what_something_else_answers_is_not_taken_for_outlits(verb: tuple[str, ...]) -> None:
    something = Reply(500, b"<html>")
    with gateway(something, something) as (url, _):
        result = run(url, *verb, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "answered 500, not as operations do: see ops.listen, --ops-url" in result.stderr


# -- validate ----------------------------------------------------------------------------------------------


def test_a_key_is_validated_without_a_body() -> None:
    sent = asked(said(200, valid=True), "validate")
    assert (sent.method, sent.path, sent.body) == ("POST", "/platform/api/validate-api-key", b"")


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ({"valid": True}, "valid: organization -, created by -, grants none\n"),
        (
            {"valid": True, "organizationId": "o\x1b", "authorization": {"grants": ["read", {"a": 1}]}},
            'valid: organization o\\x1b, created by -, grants read, {"a": 1}\n',
        ),
        (
            {"valid": True, "authorization": [], "createdById": 7},
            "valid: organization -, created by 7, grants none\n",
        ),
    ],
)
def test_whatever_else_is_said_a_valid_key_is_valid(body: dict[str, Any], line: str) -> None:
    with gateway(said(200, **body)) as (url, _):
        result = run(url, "validate")
    assert (result.exit_code, result.stdout, result.stderr) == (0, line, "")


REFUSES = "Outlit refuses gateway.api_key"
UNTOLD = "whether gateway.api_key is valid could not be told: "
INVALID = {"valid": False, "error": "Invalid credentials"}


@pytest.mark.parametrize(
    ("reply", "line"),
    [
        (said(401, **INVALID), f"{REFUSES} (Invalid credentials): {ANOTHER_KEY}"),
        (said(200, valid=False), f"{REFUSES} (200): {ANOTHER_KEY}"),
        (said(503, **INVALID), f"{UNTOLD}Outlit answered 503: Invalid credentials; try again"),
        (said(200, valid="yes"), f"{UNTOLD}Outlit answered 200"),
        (
            said(502, OWN, code="upstream_broken", **INVALID),
            f"{UNTOLD}URL: no whole answer came from Outlit; try again",
        ),
        (
            said(504, OWN, code="upstream_timeout", **INVALID),
            f"{UNTOLD}URL: Outlit did not answer within gateway.timeout; try again",
        ),
        (said(401, OWN, code="unauthorized", **INVALID), f"URL: {NOT_OUR_TOKEN}"),
    ],
    ids=["401", "200 false", "503", "something else", "502", "504", "of the gateway"],
)
def test_only_outlit_itself_makes_a_key_invalid(reply: Reply, line: str) -> None:
    assert refused(reply, "validate") == line


# -- integrations ------------------------------------------------------------------------------------------


def test_only_those_that_are_connected_are_asked_for() -> None:
    assert asked(said(200, items=[]), "integrations").path == "/platform/api/integrations"
    assert asked(said(200, items=[]), "integrations", "--connected").path.endswith("?connectedOnly=true")


def test_an_integration_shows_what_there_is_of_it() -> None:
    items = [
        {
            "name": "Gmail",
            "category": "email",
            "status": "connected",
            "lastDataReceivedAt": 1_776_124_800_000,
        },
        {
            "name": "Zo\u00eb\n\x1b",
            "syncStatus": {"a": 1},
            "lastDataReceivedAt": "then",
            "errorMessage": "Gone",
        },
        {"lastDataReceivedAt": 10**30},
    ]
    with gateway(said(200, items=items)) as (url, _):
        result = run(url, "integrations")
    assert result.exit_code == 0
    assert [re.split(r" {2,}", line) for line in result.stdout.splitlines()] == [
        ["name", "category", "status", "last data", "sync", "error"],
        ["Gmail", "email", "connected", "2026-04-14T00:00:00+00:00", "-", "-"],
        ["Zo\u00eb\\n\\x1b", "-", "-", "then", '{"a": 1}', "Gone"],
        ["-", "-", "-", str(10**30), "-", "-"],
        ["3 integrations"],
    ]


@pytest.mark.parametrize("body", [b"{}", b"[]", b"", b'{"items": [1]}', b'{"items": {}}'])
def test_what_is_no_list_of_integrations_is_said_to_be_none(body: bytes) -> None:
    line = refused(Reply(200, body, JSON), "integrations")
    assert line == "Outlit answered something else than a list of integrations: --json shows it"


# -- retry -------------------------------------------------------------------------------------------------


def test_retry_says_how_many_refusals_are_forgotten() -> None:
    with gateway(said(200, forgotten=2)) as (url, seen):
        assert run(url, "retry").stdout == "2 plan refusals forgotten: such calls reach Outlit again\n"
    assert (seen[0].method, seen[0].path) == ("POST", "/gateway/retry")


def test_a_listener_that_does_not_take_the_hosts_name_is_not_said_to_be_off() -> None:
    reply = said(403, error="not this host", code="host_not_allowed")
    assert refused(reply, "retry").startswith("URL: ops.allowed_hosts there does not name this host: ")
    off = said(403, error="off: set ops.token to use this")
    assert refused(off, "retry").startswith("URL: it runs without ")
