"""Faults as they are ordered over HTTP: JSON to `Fault`, with an answer to every mistake."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final, TypeAlias

from proxy.sandbox.faults import Fault, FaultError, What
from proxy.sandbox.schema import Path

JsonType: TypeAlias = type | tuple[type, ...]
_TYPES: Final[Mapping[str, tuple[JsonType, str]]] = {
    "what": (str, "a string"),
    "latency_ms": (int, "an integer"),
    "status": (int, "an integer"),
    "retry_after_s": (int, "an integer"),
    "indices": (list, "an array of integers"),
    "paths": (list, "an array of paths such as ['events', 0, 'type']"),
    "seconds": ((int, float), "a number"),
    "requests": (int, "an integer"),
    "public_key": (str, "a string"),
}


def faults_of(document: object) -> tuple[Fault, ...]:
    """Read one fault or a list of them from parsed JSON, all or none. Raises FaultError."""
    if isinstance(document, list):
        return tuple(_parse_one(each) for each in document)
    return (_parse_one(document),)


def _parse_one(document: object) -> Fault:
    if not isinstance(document, dict):
        raise FaultError("A fault is a JSON object, or several in an array")
    for name, value in document.items():
        if name not in _TYPES:
            raise FaultError(f"Unknown name {name!a}. {_suggestion(name, tuple(_TYPES))}")
        expected, described = _TYPES[name]
        if not isinstance(value, expected) or isinstance(value, bool):
            raise FaultError(f"{name} must be {described}")
    if "what" not in document:
        raise FaultError(f"A fault needs what: one of {', '.join(What)}")
    what = document["what"]
    if what not in set(What):
        raise FaultError(f"Unknown fault {what!a}. {_suggestion(what, tuple(What))}")
    return Fault(
        **{
            **document,
            "what": What(what),
            "indices": _integers(document.get("indices", [])),
            "paths": tuple(_path(each) for each in document.get("paths", [])),
        }
    )


def _integers(values: list[object]) -> tuple[int, ...]:
    integers = tuple(each for each in values if isinstance(each, int) and not isinstance(each, bool))
    if len(integers) != len(values):
        raise FaultError("indices must be an array of integers")
    return integers


def _path(value: object) -> Path:
    if not isinstance(value, list):
        raise FaultError("paths must be an array of paths such as ['events', 0, 'type']")
    steps = tuple(step for step in value if isinstance(step, str | int) and not isinstance(step, bool))
    if len(steps) != len(value):
        raise FaultError("A path is made of strings and integers")
    return steps


def _suggestion(name: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}"
