"""Markers: how an event is known again, whatever became of its uuid."""

import json
import re

KEY = "pk_demo"
"""The public key that all of them use."""

SECRET = "hunter2-"  # noqa: S105  # made up
"""How each password and cookie of a visitor begins: nothing that begins so may reach upstream."""

POISON = "poison_"
"""How the name of an event begins that upstream refuses for what it is."""


class Marks:
    """The markers of one run. Those of another run, which a kept buffer may still hold, are not found."""

    def __init__(self, run: str) -> None:
        """`run`: letters and digits that no other run uses."""
        self._run = run
        self._marker = re.compile(rf"demo\.{run}\.[a-z0-9]+\.[0-9]+")

    def marker(self, stream: str, number: int) -> str:
        """The marker of event `number` of a stream, whose name has lower-case letters and digits only."""
        return f"demo.{self._run}.{stream}.{number}"

    def find(self, event: object) -> str | None:
        """The marker in an event, wherever it stands; None in an event that is not of this run."""
        found = self._marker.search(json.dumps(event))
        return found[0] if found else None


def is_poison(event: object) -> bool:
    """Whether upstream refuses an event for what it is, as often as it comes."""
    return isinstance(event, dict) and str(event.get("eventName", "")).startswith(POISON)
