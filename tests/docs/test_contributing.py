"""The map of the rooms is true: each room that there is has its row, and each row its room."""

import re

from tests.docs.documents import ROOT

CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
ROWS = set(re.findall(r"^\| `([\w./]+)` \|", CONTRIBUTING, re.MULTILINE))


def _entries(folder: str) -> set[str]:
    """What lies in a folder of the tree, but for what tools leave there."""
    return {
        f"{folder}/{path.name}"
        for path in (ROOT / folder).iterdir()
        if not path.name.startswith((".", "__pycache__"))
    }


def test_each_room_is_on_the_map_and_each_on_the_map_is_there():
    there = _entries("proxy") - {"proxy/__init__.py"}
    assert {row for row in ROWS if row.startswith("proxy/")} == there


def test_each_folder_of_tests_is_a_rooms_or_is_on_the_map():
    folders = {path for path in _entries("tests") if (ROOT / path).is_dir()}
    rooms = {f"tests/{path.partition('/')[2].removesuffix('.py')}" for path in _entries("proxy")}
    named = {row for row in ROWS if row.startswith("tests/")}
    assert named <= folders
    assert folders - rooms <= named


def test_what_lies_beside_them_is_on_the_map():
    beside = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    assert {row for row in ROWS if "/" not in row and "." not in row} <= beside
    assert beside - {"proxy", "data", "dist"} <= ROWS


def test_each_command_of_the_makefile_that_is_named_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    there = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", CONTRIBUTING)) <= there
