"""The commented example: complete, true, and loadable in both its states."""

import re
from pathlib import Path

import pytest

from proxy.settings import SETTINGS, Settings, load

EXAMPLE = Path(__file__).parents[2] / "config" / "outlit-proxy.toml"
SETTING = re.compile(r"^#(\w+) = (.*)$", re.MULTILINE)


def _without_comment_signs() -> str:
    return SETTING.sub(r"\1 = \2", EXAMPLE.read_text(encoding="utf-8"))


def test_as_it_is_the_example_changes_nothing():
    assert load(EXAMPLE) == Settings()


def test_with_every_setting_uncommented_the_example_is_the_defaults(tmp_path):
    # There is no secret for everybody.
    secrets = "|".join(setting.key for setting in SETTINGS if setting.secret)
    text = re.sub(rf"^({secrets}) = .*$", "", _without_comment_signs(), flags=re.MULTILINE)
    path = tmp_path / "example.toml"
    path.write_text(text, encoding="utf-8")
    settings = load(path)
    assert settings.effective() == Settings().effective()
    from_file = [name for name, origin in settings.origins.items() if origin != "default"]
    assert from_file == [setting.name for setting in SETTINGS if not setting.secret], (
        "all, and in their order"
    )


@pytest.mark.parametrize("key", [setting.key for setting in SETTINGS if setting.secret])
def test_a_secret_stands_in_the_example_without_a_value(key):
    found = re.findall(rf"^#{key} = .*$", EXAMPLE.read_text(encoding="utf-8"), re.MULTILINE)
    assert found == [f'#{key} = "…"']


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_the_example_names_the_bounds_and_choices_above_each_setting(setting):
    text = EXAMPLE.read_text(encoding="utf-8")
    table = text.partition(f"\n[{setting.table}]")[2].partition("\n[")[0]
    above = table.partition(f"\n#{setting.key} = ")[0].rpartition("\n\n")[2]
    prose = " ".join(line.removeprefix("# ") for line in above.splitlines())
    assert prose
    assert all(f'"{choice}"' in prose for choice in setting.choices)
    assert setting.bounds.casefold() in prose.casefold()


def test_the_example_is_readable_in_a_terminal():
    assert max(map(len, EXAMPLE.read_text(encoding="utf-8").splitlines())) <= 120
