"""What commands say and ask on a terminal."""

import json
import sys

import click


def sure(question: str, *, yes: bool) -> None:
    """Return if the person at the terminal says yes, or has said so before; end the command if not.

    Where there is nobody to ask, that is wrong usage (exit code 2).
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError(f"{question} There is no terminal to ask on: say --yes.")
    click.confirm(question, abort=True, err=True)


def counted(number: int, noun: str) -> str:
    """How many of something: "1 dead letter", "3,412 dead letters"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def as_json(value: object) -> str:
    """One line that any terminal and any encoding can show."""
    return json.dumps(value)
