"""What points into the documents arrives: their own links, those of the program, of what is deployed."""

import re
from pathlib import Path

import pytest

from tests.docs.documents import DOCUMENTS, README, ROOT, anchors, named

LINK = re.compile(r"\]\(((?!https?:)[^)#\s]*)(?:#([^)\s]*))?\)")
DEPLOYED = [
    path
    for folder in ("config", "deploy")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.suffix not in {".md", ".png", ".tgz"}
]


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_each_link_leads_somewhere(document: Path):
    for path, anchor in LINK.findall(document.read_text(encoding="utf-8")):
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), path
        assert target.is_relative_to(ROOT), path
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), f"{path}#{anchor}"


def test_each_section_of_the_readme_that_the_program_names_is_there():
    there = anchors(README.read_text(encoding="utf-8"))
    code = {path: path.read_text(encoding="utf-8") for path in (ROOT / "proxy").rglob("*.py")}
    said = {
        anchor: path for path, text in code.items() for anchor in re.findall(r'"#([a-z]+(?:-[a-z]+)+)"', text)
    }
    assert said
    assert {anchor: path for anchor, path in said.items() if anchor not in there} == {}


@pytest.mark.parametrize("file", DEPLOYED, ids=named)
def test_each_section_that_a_deployed_file_names_is_there(file: Path):
    """In alerts they are where somebody looks who was woken."""
    for path, anchor in re.findall(r"((?:[\w-]+/)*\w+\.md)#([\w-]+)", file.read_text(encoding="utf-8")):
        assert anchor in anchors((ROOT / path).read_text(encoding="utf-8")), f"{path}#{anchor}"
