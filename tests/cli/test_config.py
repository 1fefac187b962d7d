"""``config init`` and ``config schema``; ``config show`` has its tests beside the settings."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.settings.example import example
from proxy.settings.schema import json_schema


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the command is given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["config", *arguments])


def test_init_writes_the_example_and_says_the_next_command_which_accepts_it(folder: Path) -> None:
    result = config("init")
    assert result.exit_code == 0
    assert (folder / "outlit-proxy.toml").read_text(encoding="utf-8") == example()
    assert result.stdout.splitlines()[-1].strip() == "outlit-proxy check --config outlit-proxy.toml"
    assert config("show", "--config", "outlit-proxy.toml").exit_code == 0


def test_init_overwrites_nothing(folder: Path) -> None:
    file = folder / "mine.toml"
    file.write_text("# mine\n")
    result = config("init", "--output", "mine.toml")
    assert result.exit_code == 1
    assert result.stderr == (
        "main config init: mine.toml exists and is left as it is: move it away, or name another file with"
        " --output\n"
    )
    assert file.read_text() == "# mine\n"


def test_init_says_why_it_cannot_write() -> None:
    result = config("init", "--output", "none/here.toml")
    assert result.exit_code == 1
    assert "none/here.toml cannot be written: No such file or directory" in result.stderr


def test_init_to_stdout_writes_no_file(folder: Path) -> None:
    result = config("init", "--stdout")
    assert result.exit_code == 0
    assert result.stdout == example()
    assert not list(folder.iterdir())


def test_schema_prints_the_schema_of_the_file() -> None:
    result = config("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == json_schema()
