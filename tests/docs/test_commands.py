"""The commands of README and of the how-to files, typed by the tests in their order."""

import re
from itertools import chain
from pathlib import Path

import pytest

from tests.docs.documents import (
    DOCUMENTS,
    LANGUAGES,
    README,
    ROOT,
    Block,
    Command,
    blocks,
    commands,
    named,
    samples,
)
from tests.docs.reader import reader

ELSEWHERE = {
    r"make (test|image)$": "tests/deploy/test_image.py",  # the first runs it
    r"docker run": "tests/deploy/test_image.py",
    r"docker compose": "tests/deploy/test_compose.py",
    r"helm |kubectl (?!kustomize)": "tests/deploy/test_chart_docs.py",
    r"systemctl|journalctl|systemd-analyze": "tests/deploy/test_systemd.py",
    r"install |python3 -m venv|\S*/opt/|.*/etc/": "tests/deploy/test_systemd.py",
    r"nginx|caddy reload": "tests/deploy/test_reverse_proxy.py",
    r"\S*BUFFER_URL=redis://redis.internal:6379 \S*BUFFER_PASSWORD_FILE": "tests/e2e/test_redis_start.py",
    r"docker (tag|push)": None,
}
"""Commands that need what a test of documents has not (a container engine, a cluster, root, an hour), and the
tests that do the same with what takes its place. None: nothing of ours takes part in it."""


IGNORED = {line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/")}
"""What is not the project's, by its name in the project's folder."""


def is_elsewhere(command: str) -> str | None:
    """The pattern that says so."""
    return next((pattern for pattern in ELSEWHERE if re.match(pattern, command)), None)


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_each_command_does_what_the_document_says(document: Path, tmp_path: Path):
    text = document.read_text(encoding="utf-8")
    typed = [command for command in commands(text) if is_elsewhere(command.text) is None]
    if not typed:
        return
    with reader(tmp_path) as person:
        if document != README and any("127.0.0.1" in command.text for command in typed):
            person.run_a_proxy()
        folder = tmp_path / document.parent.relative_to(ROOT) if "In this folder" in text else tmp_path
        said = {command.line: person.type(command, folder) for command in typed}
        assert person.made() <= IGNORED, "git would take it for the project's: a key, too"
    for shell, sample in samples(text):
        of_block = [said.get(command.line, "") for command in commands(text) if _is_in(command, shell)]
        lines = list(chain.from_iterable(each.splitlines() for each in of_block))
        for line in sample.text.splitlines():
            pattern = _like(line)
            assert any(re.fullmatch(pattern, each.rstrip()) for each in lines), (line, lines)


def _is_in(command: Command, block: Block) -> bool:
    return block.line <= command.line <= block.line + block.text.count("\n")


def _like(line: str) -> str:
    """A pattern of lines that differ from this one in nothing but numbers, uuids and blanks."""
    uuid = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    pattern = ""
    for at, part in enumerate(re.split(rf"({uuid}|\d[\d,.]*| +)", line)):
        if at % 2 == 0:
            pattern += re.escape(part)
        else:
            pattern += " +" if part.isspace() else uuid if "-" in part else r"\d[\d,.]*"
    return pattern


def test_what_is_checked_elsewhere_is_in_a_document_and_is_checked():
    written = [command.text for path in DOCUMENTS for command in commands(path.read_text("utf-8"))]
    used = set(map(is_elsewhere, written)) - {None}
    assert used == set(ELSEWHERE)
    assert not [test for test in ELSEWHERE.values() if test and not (ROOT / test).exists()]


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_each_block_says_what_it_is(document: Path):
    """What is no `sh` is run by nobody: a block without a language, or of `bash`, would go unseen."""
    assert {block.language for block in blocks(document.read_text(encoding="utf-8"))} <= LANGUAGES
