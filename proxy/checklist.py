"""One line of ``outlit-proxy check``: a value that whoever looks at something gives back."""

from dataclasses import dataclass
from enum import StrEnum, unique


@unique
class Grade(StrEnum):
    """How a look ended.

    WARNING: it starts, and something is not as it should be. ERROR: it would not start, or would not do what
    it is for.
    """

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Checked:
    """What was looked at, by a name that stays, and what was found: one line, ending with what to do."""

    name: str
    grade: Grade
    text: str


def ok(name: str, text: str) -> Checked:
    """It is as it should be."""
    return Checked(name, Grade.OK, text)


def warning(name: str, text: str) -> Checked:
    """It starts all the same."""
    return Checked(name, Grade.WARNING, text)


def error(name: str, text: str) -> Checked:
    """It would not start, or not do what it is for."""
    return Checked(name, Grade.ERROR, text)


def skipped(name: str, text: str) -> Checked:
    """It was not looked at."""
    return Checked(name, Grade.SKIPPED, text)
