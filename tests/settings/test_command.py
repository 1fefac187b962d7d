"""``config show`` and the flags, as a person meets them."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from proxy.cli import main
from proxy.cli.options import settings_options
from proxy.settings import SETTINGS, Settings

REPOSITORY = Path(__file__).parents[2]
TOKEN = "t0ken-that-nobody-may-see"


@pytest.fixture
def run(monkeypatch):
    for variable in [name for name in os.environ if name.upper().startswith("OUTLIT_PROXY_")]:
        monkeypatch.delenv(variable)

    def invoke(*arguments, **environ):
        return CliRunner().invoke(main, ["config", "show", *arguments], env=environ)

    return invoke


def test_show_prints_every_setting_as_toml(run):
    result = run()
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == 'front.listen = "127.0.0.1:8080"'
    assert "# ops.token is not set" in lines
    assert len(lines) == len(SETTINGS)
    assert tomllib.loads(result.stdout)["front"]["unknown_key_quota"] == {"queues": 1000, "keys": 100}


def test_what_show_prints_can_be_loaded_again(run, tmp_path):
    path = tmp_path / "shown.toml"
    path.write_text(run("--front-max-body", "1500", "--front-public-keys", '["pk_a"]').stdout)
    result = run("--config", str(path))
    assert 'front.public_keys = ["pk_a"]' in result.stdout
    assert "front.max_body = 1500" in result.stdout


def test_show_says_where_each_value_comes_from(run, tmp_path):
    path = tmp_path / "proxy.toml"
    path.write_text("[dead]\nmax_bytes = '1GB'\n")
    result = run(
        "--origin",
        "--log-level=error",
        "--config",
        str(path),
        OUTLIT_PROXY_OPS_TOKEN=TOKEN,
    )
    lines = result.stdout.splitlines()
    assert f'dead.max_bytes = "1GB"  # file {path}' in lines
    assert 'ops.token = "***"  # environment OUTLIT_PROXY_OPS_TOKEN' in lines
    assert 'log.level = "error"  # flag --log-level' in lines
    assert 'log.format = "auto"  # default' in lines
    assert TOKEN not in result.output


def test_show_as_json(run):
    plain = json.loads(run("--json", "--delivery-linger", "250ms").stdout)
    assert list(plain) == [setting.name for setting in SETTINGS]
    assert plain["delivery.linger"] == "250ms"
    assert plain["ops.token"] is None
    with_origin = json.loads(run("--json", "--origin", "--delivery-linger", "250ms").stdout)
    assert with_origin["delivery.linger"] == {"value": "250ms", "origin": "flag --delivery-linger"}


def test_every_setting_but_secrets_has_a_flag(run):
    text = run("--help").stdout
    for setting in SETTINGS:
        assert (f"{setting.flag} " in text) is not setting.secret, setting.flag


def test_wrong_settings_are_lines_on_stderr_and_exit_code_78(run):
    result = run(
        "--delivery-linger", "5", OUTLIT_PROXY_FRONT_LISTN=":80", OUTLIT_PROXY_OPS_TOKEN=f"ok_{TOKEN}"
    )
    assert result.exit_code == 78
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("configuration: ") for line in lines)
    assert TOKEN not in result.stderr


@pytest.mark.parametrize("flag", ["--front-listn", "--ops-token"])
def test_an_unknown_flag_is_a_usage_error_with_a_suggestion(run, flag):
    result = run(flag, ":80")
    assert result.exit_code == 2
    assert "No such option" in result.stderr
    assert "Did you mean" in result.stderr


def test_a_command_keeps_its_own_options_and_gets_the_settings():
    @click.command()
    @click.option("--seconds", type=int)
    @settings_options
    def command(*, settings, seconds):
        """Say what came."""
        assert isinstance(settings, Settings)
        click.echo(f"{seconds} {settings.delivery.linger_s}")

    result = CliRunner().invoke(command, ["--seconds", "3", "--delivery-linger", "2s"])
    assert result.stdout == "3 2.0\n"


def test_the_program_itself_reports_and_exits(tmp_path):
    path = tmp_path / "proxy.toml"
    path.write_text("[front]\nlisten = '8080'\n")
    environ = {"PATH": os.environ["PATH"], "OUTLIT_PROXY_CONFIG": str(path)}
    result = subprocess.run(
        [sys.executable, "-m", "proxy", "config", "show"],
        cwd=REPOSITORY,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 78
    assert result.stderr == (
        f'configuration: {path}: front.listen = "8080": not an address to listen on:'
        ' write "127.0.0.1:8080", "[::1]:8080" or ":8080"\n'
    )
