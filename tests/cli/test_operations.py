"""How commands find the proxy that runs, and what they say where that goes wrong: one line, and no secret."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.cli.client import Answer
from tests.cli.answering import answering
from tests.cli.operator import Operator
from tests.programs import OPS_TOKEN, OUTLIT_PROXY, free_port

COMMANDS = [
    ("dead", "list"),
    ("dead", "show", "1"),
    ("dead", "export"),
    ("dead", "replay", "--all", "--yes"),
    ("dead", "purge", "--all", "--yes"),
    ("keys", "list"),
    ("keys", "pause", "pk_a", "--yes"),
    ("keys", "resume", "pk_a"),
    ("keys", "retry", "pk_a"),
    ("erase", "--email", "ann@acme.example", "--yes"),
    ("send", "--key", "pk_a"),
    ("tap",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_what_stands_in_the_way_is_one_readable_line(operator: Operator, command: tuple[str, ...]) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    wrong: list[tuple[dict[str, str | None], str]] = [
        ({"OUTLIT_PROXY_OPS_TOKEN": None}, "ops.token is not set: give the proxy's, "),
        ({"OUTLIT_PROXY_OPS_TOKEN": "another-token"}, "does not take this ops.token: "),
        ({"OUTLIT_PROXY_OPS_LISTEN": nobody}, ": connection refused: start the proxy, or say by --config "),
    ]
    for changed, error in wrong:
        result = operator.run(*command, **changed)
        assert (result.exit_code, result.stdout) == (1, ""), error
        assert error in result.stderr
        assert result.stderr.count("\n") == 1
    result = operator.run(*command, "--ops-url", operator.proxy.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "see ops.listen, " in result.stderr
    for url in ("nonsense", "http://", "file:///etc/passwd", "http://a b/"):
        result = operator.run(*command, "--ops-url", url)
        assert result.exit_code == 1, url
        assert url.startswith("http") or "write http://, host and port" in result.stderr
        assert result.stderr.count("\n") == 1, result.stderr


def test_where_administration_is_off_that_is_said(operator: Operator) -> None:
    with answering(403, {}, b'{"error":"off: set ops.token to use this"}') as (url, _):
        result = operator.run("dead", "list", "--ops-url", url)
    assert result.exit_code == 1
    assert "runs without ops.token" in result.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_address_that_leads_elsewhere_is_said_to(operator: Operator, command: tuple[str, ...]) -> None:
    addresses = {
        f"{operator.proxy.ops_url}/status": "write --ops-url without a path",
        operator.proxy.ops_url.replace("http:", "https:"): "speaks plain HTTP: write http://",
    }
    for url, said in addresses.items():
        result = operator.run(*command, "--ops-url", url)
        assert (result.exit_code, result.stdout) == (1, ""), url
        assert result.stderr.endswith(f"{said}\n"), result.stderr
        assert result.stderr.count("\n") == 1


def test_a_host_that_nobody_knows_is_said_to_be_named_wrongly(operator: Operator) -> None:
    result = operator.run("keys", "list", "--ops-url", "http://host.invalid:9090")
    assert result.exit_code == 1
    assert result.stderr.endswith(": correct the host in ops.listen, --ops-url or --url\n")


def test_a_password_in_the_address_is_refused_and_not_repeated(operator: Operator) -> None:
    result = operator.run("status", "--ops-url", operator.proxy.ops_url.replace("//", "//ops:sekret@"))
    assert result.exit_code == 1
    assert "takes no user or password: leave them out" in result.stderr
    assert "sekret" not in result.output


@pytest.mark.parametrize(
    "command", [*COMMANDS, ("platform", "validate"), ("platform", "retry")], ids=" ".join
)
def test_a_token_that_is_wrong_is_not_said_to_be_missing_too(
    operator: Operator, command: tuple[str, ...]
) -> None:
    result = operator.run(*command, OUTLIT_PROXY_OPS_TOKEN="two words")
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.startswith("configuration: ")
    assert result.stderr.count("\n") == 1


def test_what_needs_no_token_is_not_kept_from_asking_by_a_wrong_one(operator: Operator) -> None:
    result = operator.run("status", OUTLIT_PROXY_OPS_TOKEN="two words")
    assert (result.exit_code, result.stderr.count("\n")) == (0, 1)


def test_the_token_may_stand_in_a_file(operator: Operator, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(OPS_TOKEN)
    settings = tmp_path / "proxy.toml"
    settings.write_text(f'[ops]\ntoken = "{OPS_TOKEN}"\n')
    for changed, arguments in [
        ({"OUTLIT_PROXY_OPS_TOKEN_FILE": str(token)}, ()),
        ({"OUTLIT_PROXY_CONFIG": str(settings)}, ()),
        ({}, ("--config", str(settings))),
    ]:
        result = operator.run("dead", "list", *arguments, **{"OUTLIT_PROXY_OPS_TOKEN": None, **changed})
        assert result.exit_code == 0, result.output


def test_ops_url_is_asked_where_it_is_given(operator: Operator) -> None:
    result = operator.run(
        "dead", "list", "--ops-url", f"{operator.proxy.ops_url}/", OUTLIT_PROXY_OPS_LISTEN="127.0.0.1:1"
    )
    assert result.exit_code == 0, result.output


def test_who_does_not_know_where_the_proxy_listens_ends_with_exit_code_78(operator: Operator) -> None:
    result = operator.run("dead", "list", OUTLIT_PROXY_OPS_LISTEN="nowhere")
    assert result.exit_code == 78
    assert result.stderr.startswith("configuration: ")


@pytest.mark.parametrize(
    "command", [("healthcheck",), ("keys", "list"), ("send", "--key", "pk_a")], ids=" ".join
)
@pytest.mark.parametrize(
    "text", ["[delivery]\nlinger = 5\n", "[delivery\n"], ids=["a wrong value", "no TOML"]
)
def test_a_file_that_was_broken_after_the_start_keeps_nobody_from_asking(
    operator: Operator, tmp_path: Path, command: tuple[str, ...], text: str
) -> None:
    """Least of all a container's health check: it would have the proxy restarted, which then cannot start."""
    broken = tmp_path / "proxy.toml"
    broken.write_text(text)
    result = operator.run(*command, OUTLIT_PROXY_CONFIG=str(broken))
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("configuration: ")
    assert str(broken) in result.stderr


def test_a_port_that_the_system_chooses_cannot_be_guessed(operator: Operator) -> None:
    result = operator.run("dead", "list", OUTLIT_PROXY_OPS_LISTEN="127.0.0.1:0")
    assert result.exit_code == 2
    assert "say with --ops-url" in result.stderr


@pytest.mark.parametrize(
    ("text", "listen"), [("ops = 5\n", None), ("[[ops]]\n", None), ("", "")], ids=["number", "list", "empty"]
)
def test_no_address_is_guessed_where_the_settings_meant_to_say_one(
    operator: Operator, tmp_path: Path, text: str, listen: str | None
) -> None:
    """The default address may be another's, and would be given the token."""
    file = tmp_path / "proxy.toml"
    file.write_text(text)
    result = operator.run("keys", "list", "--config", str(file), OUTLIT_PROXY_OPS_LISTEN=listen)
    assert result.exit_code == 78, result.output


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_secret_has_a_flag(operator: Operator, command: tuple[str, ...]) -> None:
    result = operator.run(*command, "--ops-token", "a-secret")
    assert result.exit_code == 2
    assert "No such option" in result.stderr


def test_the_token_follows_no_redirect(operator: Operator) -> None:
    with (
        answering(200, {}, b"{}") as (elsewhere, seen),
        answering(302, {"Location": f"{elsewhere}/dead"}, b"") as (url, _),
    ):
        result = operator.run("dead", "list", "--ops-url", url)
    assert (result.exit_code, seen) == (1, [])
    assert "answered 302, not as operations do" in result.stderr


def test_the_token_goes_to_no_http_proxy(operator: Operator) -> None:
    with answering(200, {}, b"{}") as (http_proxy, seen):
        listed = subprocess.run(
            [OUTLIT_PROXY, "dead", "list"],
            env={**os.environ, **operator.environment, "http_proxy": http_proxy, "HTTP_PROXY": http_proxy},
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert (listed.returncode, seen) == (0, [])


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[]", b"null"])
def test_an_answer_of_something_else_is_one_readable_line(operator: Operator, body: bytes) -> None:
    with answering(200, {}, body) as (url, _):
        result = operator.run("dead", "list", "--ops-url", url)
    assert result.exit_code == 1
    assert "not as operations do" in result.stderr
    assert result.stderr.count("\n") == 1


def test_an_error_that_others_wrote_moves_no_terminal(operator: Operator) -> None:
    with answering(500, {}, json.dumps({"error": "a\n\x1b[2Jb"}).encode()) as (url, _):
        result = operator.run("dead", "list", "--ops-url", url)
    assert result.stderr == "main dead list: a\\n\\x1b[2Jb\n"


def test_a_health_check_shows_one_short_line_of_whatever_answers() -> None:
    with answering(404, {}, b"<html>\n\x1b[2J" + b"x" * 1000) as (url, _):
        result = CliRunner().invoke(main, ["healthcheck", "--ops-url", url.replace("http:", "HTTP:")])
    assert result.exit_code == 1
    assert result.output.startswith("<html>; \\x1b[2Jxxx")
    assert len(result.output) == 200 + len("\n")


def test_only_what_may_take_long_is_waited_for_long(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    def asked(*_: object, timeout_s: float, **__: object) -> Answer:
        waits.append(timeout_s)
        return Answer(500, b"")

    monkeypatch.setattr("proxy.cli.operations.ask", asked)
    for command in COMMANDS[:-2]:  # the others know their own
        operator.run(*command)
    assert waits == [30, 30, 30, 900, 900, 30, 30, 30, 30, 900]
