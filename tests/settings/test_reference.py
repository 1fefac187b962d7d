"""What is generated of the settings: the files in the repository are what the code says now."""

import re
from pathlib import Path

import pytest

from proxy.settings import SETTINGS
from proxy.settings.notes import NOTES
from proxy.settings.reference import write
from proxy.settings.setting import Setting

CONFIG = Path(__file__).parents[2] / "config"
REFERENCE = (CONFIG / "reference.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["reference.md", "outlit-proxy.toml"])
def test_what_is_generated_is_what_stands_in_the_repository(name: str, tmp_path: Path):
    write(tmp_path)
    fresh = (tmp_path / name).read_text(encoding="utf-8")
    assert fresh == (CONFIG / name).read_text(encoding="utf-8"), "run: make reference"


def row(setting: Setting) -> list[str]:
    """The cells of a setting's row."""
    [found] = re.findall(rf"^\| (`{re.escape(setting.name)}`<br>.*) \|$", REFERENCE, re.MULTILINE)
    return re.split(r" \| ", found)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_has_a_row_of_all_that_is_known_of_it(setting: Setting):
    names, value, default, meaning, taken_over = row(setting)
    third = setting.secret_file_variable if setting.secret else setting.flag
    assert names == f"`{setting.name}`<br>`{setting.variable}`<br>`{third}`"
    assert setting.bounds in value
    assert all(f"`{choice}`" in value for choice in setting.choices)
    assert default == ("" if setting.secret else f"`{setting.default_text}`")
    assert meaning.casefold() == f"{setting.meaning}.".casefold()
    assert taken_over == ("reload" if setting.reloads else "restart")


def test_listeners_and_the_store_need_a_restart_and_the_rest_does_not():
    restarts = {setting.name for setting in SETTINGS if not setting.reloads}
    assert {"front.listen", "ops.listen", "buffer.url"} <= restarts
    assert {"front.public_keys", "delivery.limit_per_s", "log.level"}.isdisjoint(restarts)


def test_each_note_is_of_a_setting_and_is_shown():
    assert not set(NOTES) - {setting.name for setting in SETTINGS}
    for name, note in NOTES.items():
        assert f"**`{name}`**: {note.splitlines()[0]}" in REFERENCE
