"""What the command line says of itself: examples, suggestions, versions, completion."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from proxy import __version__
from proxy.cli import main
from tests.programs import OUTLIT_PROXY

EXIT_CODES = {"0", "1", "2", "78"}


def walk(
    command: click.Command, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from walk(inner, (*path, name))


COMMANDS = [path for path, _ in walk(main)]
GROUPS = [path for path, command in walk(main) if isinstance(command, click.Group)]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="outlit-proxy")


def test_all_commands_are_walked() -> None:
    assert len(COMMANDS) > 25
    assert ("dead", "list") in COMMANDS


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_has_an_example_that_can_be_pasted(path: tuple[str, ...]) -> None:
    long, short = run(*path, "--help"), run(*path, "-h")
    assert long.exit_code == 0
    assert short.output == long.output
    wanted = " ".join(("outlit-proxy", *path))
    examples = [line.strip() for line in long.output.splitlines() if f"{wanted} " in f"{line} "]
    assert [line for line in examples if not line.startswith("Usage:")], long.output


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_options_of_every_example_exist(path: tuple[str, ...]) -> None:
    """What stands there as an example is parsed as it would be; nothing is run."""
    for line in run(*path, "--help").output.splitlines():
        words = line.split("#")[0].split("|")[0].split(">>")[0].split()
        if words[:1] != ["outlit-proxy"] or line.startswith("Usage:"):
            continue
        command: click.Command = main
        arguments = words[1:]
        while isinstance(command, click.Group) and arguments and not arguments[0].startswith("-"):
            assert arguments[0] in command.commands, line
            command = command.commands[arguments.pop(0)]
        known = {name for option in command.params for name in option.opts} | {"--help", "--version"}
        assert {word for word in arguments if word.startswith("--")} <= known, line


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: " ".join(path) or "main")
def test_a_mistyped_command_is_suggested_at_every_level(path: tuple[str, ...]) -> None:
    group = dict(walk(main))[path]
    assert isinstance(group, click.Group)
    for name in group.commands:
        mistyped = f"{name[:-1]}{name[-1]}{name[-1]}"
        result = run(*path, mistyped)
        assert result.exit_code == 2
        assert f"No such command '{mistyped}'. Did you mean" in result.stderr
        assert f"'{name}'" in result.stderr


@pytest.mark.parametrize("path", [path for path in COMMANDS if path not in GROUPS], ids=" ".join)
def test_a_mistyped_option_is_suggested_by_every_command(path: tuple[str, ...]) -> None:
    command = dict(walk(main))[path]
    names = [name for option in command.params for name in option.opts if name.startswith("--")]
    for name in names[:1]:
        result = run(*path, f"{name}x")
        assert result.exit_code == 2
        assert f"No such option '{name}x'." in result.stderr
        assert f"'{name}'" in result.stderr


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: " ".join(path) or "main")
def test_a_group_alone_says_what_it_can(path: tuple[str, ...]) -> None:
    result = run(*path)
    assert result.exit_code == 2
    assert "Commands:" in result.output
    assert len(result.output.splitlines()) < 45


def test_the_exit_codes_are_said() -> None:
    said = run("--help").output.partition("Exit codes:")[2].partition("\n\n")[0]
    assert {word for word in said.replace(",", " ").split() if word.isdigit()} == EXIT_CODES


def test_the_version_names_what_it_stands_on() -> None:
    lines = run("--version").output.splitlines()
    assert lines[0] == f"outlit-proxy {__version__}"
    assert lines[1].startswith("Python 3.")
    assert ", SQLite 3." in lines[1]
    assert "aiohttp 3." in lines[2]
    assert "redis " in lines[2]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_is_for_the_installed_program(shell: str) -> None:
    script = run("completion", shell).stdout
    assert f"_OUTLIT_PROXY_COMPLETE={shell}_complete" in script
    assert "outlit-proxy" in script


def test_bash_completes_what_an_option_may_be() -> None:
    """As it does at a prompt: the script that the shell evaluates asks the program itself."""
    asked = f"""
        eval "$({OUTLIT_PROXY} completion bash)"
        COMP_WORDS=("{OUTLIT_PROXY}" tap --outcome del) COMP_CWORD=3
        _outlit_proxy_completion "{OUTLIT_PROXY}"
        echo "${{COMPREPLY[@]}}"
    """
    said = subprocess.run(
        ["bash", "-c", asked], env=os.environ, capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.split() == ["delivered"], said.stderr


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        ("healthcheck", ["aiohttp", "apsw", "redis", "rich"]),
        ("platform", ["aiohttp", "apsw", "redis", "rich", "proxy.gateway"]),
        ("run", ["proxy.demo", "proxy.bench", "proxy.sandbox", "rich.live"]),
    ],
)
def test_a_command_loads_no_more_than_it_needs(command: str, unneeded: list[str]) -> None:
    """A health check is run every few seconds, an agent calls tools as often, and what `run` loads stays."""
    loaded = f"import sys; from proxy.cli import main; main.commands[{command!r}]; print(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    modules = said.stdout.split()
    assert f"proxy.cli.{command}" in modules
    assert not [module for module in unneeded if module in modules]


@pytest.mark.parametrize("arguments", [("config", "show"), ("--help",), ("--version",)], ids=" ".join)
def test_an_output_without_room_is_one_line_and_exit_code_1(arguments: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [OUTLIT_PROXY, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert ran.returncode == 1
    assert ran.stderr == "outlit-proxy: the output is not whole: no space left on device\n"


@pytest.mark.parametrize("command", ["config show", "check --offline"])
def test_a_closed_output_is_no_error(command: str, tmp_path: Path) -> None:
    anywhere = {"OUTLIT_PROXY_FRONT_LISTEN": "127.0.0.1:0", "OUTLIT_PROXY_OPS_LISTEN": "127.0.0.1:0"}
    ran = subprocess.run(
        ["/bin/sh", "-c", f'exec "$0" {command} >&-', OUTLIT_PROXY],
        env={**os.environ, **anywhere},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(
    "option",
    ["drain --wait", "send --timeout", "platform tool --timeout", "demo --seconds", "bench budget --warm-up"],
)
def test_a_time_is_a_number(option: str) -> None:
    ended = run(*option.split(), "nan")
    assert ended.exit_code == 2
    assert "'nan' is not a number." in ended.stderr
