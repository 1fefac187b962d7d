"""The documents that operators read, taken apart: their sections, and the commands that stand in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
HOW_TO = sorted((ROOT / "deploy").glob("**/*.md"))
OTHERS = [ROOT / name for name in ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "config/reference.md")]
DOCUMENTS = [README, *HOW_TO, *OTHERS]

LANGUAGES = {"sh", "text", "js", "json", "toml", "yaml", "ini", "nginx", "caddyfile", "promql"}
"""What a block may be. What an operator types is `sh`, and is run by the tests."""


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: its language, its text, and the line of its first line (1 is the document's)."""

    language: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Command:
    """What is typed at one prompt; it may have several lines."""

    text: str
    line: int


def named(document: Path) -> str:
    """Its path as people say it."""
    return str(document.relative_to(ROOT))


def blocks(text: str) -> Iterator[Block]:
    """Every fenced block of a document."""
    found: list[str] | None = None
    language, began = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith("```"):
            if found is not None:
                found.append(line)
        elif found is None:
            language, found, began = line.strip().removeprefix("```"), [], number + 1
        else:
            yield Block(language, "\n".join(found), began)
            found = None
    assert found is None, f"the block of line {began} does not end"


def commands(text: str) -> Iterator[Command]:
    """Every command of a document's `sh` blocks, without comments."""
    for block in blocks(text):
        if block.language == "sh":
            yield from _commands(block)


_APART = 6
"""Lines from a block to the next that may be a sample of its output: a sentence stands between."""


def samples(text: str) -> Iterator[tuple[Block, Block]]:
    """Every `sh` block with the `text` block that follows: some lines of what its commands say."""
    found = list(blocks(text))
    for one, next_one in pairwise(found):
        between = next_one.line - one.line - one.text.count("\n")
        if (one.language, next_one.language) == ("sh", "text") and between <= _APART:
            yield one, next_one


def _commands(block: Block) -> Iterator[Command]:
    lines: list[str] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        bare = re.sub(r"(^|\s+)#\s.*$", "", line)
        if not lines and not bare.strip():
            continue
        lines.append(bare.rstrip())
        whole = "\n".join(lines)
        if not whole.endswith("\\") and whole.count("'") % 2 == 0:
            yield Command(whole, number - len(lines) + 1)
            lines = []
    assert not lines, f"the command of line {block.line} does not end"


def anchors(text: str) -> set[str]:
    """Where a link into a document can lead: a heading without its punctuation, with `-` for its blanks."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def section(text: str, anchor: str) -> str:
    """What stands under the heading of this anchor, to the next one of its order or above."""
    for heading in re.finditer(r"^(#+) .*$", text, re.MULTILINE):
        if anchor in anchors(heading[0]):
            rest = text[heading.end() :]
            return re.split(rf"^#{{1,{len(heading[1])}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]
    raise AssertionError(f"no heading is {anchor}")
