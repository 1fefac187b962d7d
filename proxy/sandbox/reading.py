"""How an order is read from JSON: its form, the kinds of its fields, and an answer to every mistake."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Generic, TypeAlias, TypeVar

from proxy.sandbox.body import MalformedBodyError, parse
from proxy.sandbox.bounds import OrderError
from proxy.sandbox.faults import Index
from proxy.sandbox.schema import Path

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=StrEnum)
Read: TypeAlias = Callable[[str, object], object]
"""Reads the value of the field that it is told the name of. Raises OrderError."""


@dataclass(frozen=True, slots=True)
class Form(Generic[T]):
    """How one sort of order is written."""

    sort: str
    made: Callable[..., T]
    fields: Mapping[str, Read]
    needed: Mapping[str, str]
    """Fields that must be there, and what could stand in each."""

    def read_all(self, document: object) -> tuple[T, ...]:
        """Read one order or an array of them, all or none. Raises OrderError."""
        if not isinstance(document, list):
            return (self._read(document),)
        read: list[T] = []
        for place, each in enumerate(document):
            try:
                read.append(self._read(each))
            except OrderError as error:
                raise OrderError(f"{self.sort}[{place}]: {error}") from None
        return tuple(read)

    def _read(self, document: object) -> T:
        if not isinstance(document, dict):
            raise OrderError(f"Each of {self.sort} is a JSON object, or several in an array")
        for name in document:
            if name not in self.fields:
                raise OrderError(f"Unknown name {name!a}. {suggestion(name, tuple(self.fields))}")
        for name, meant in self.needed.items():
            if name not in document:
                raise OrderError(f"Each of {self.sort} needs {name}: {meant}")
        return self.made(**{name: self.fields[name](name, value) for name, value in document.items()})


def parsed(raw: bytes) -> object:
    """Read JSON. Raises OrderError."""
    try:
        return parse(raw)
    except MalformedBodyError as error:
        raise OrderError(str(error)) from error


# -- fields: each raises OrderError --------------------------------------------------------------------


def integer(name: str, value: object) -> int:
    """Read an integer; True and False are none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise OrderError(f"{name} must be an integer")
    return value


def number(name: str, value: object) -> float:
    """Read a number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise OrderError(f"{name} must be a number")
    return value


def text(name: str, value: object) -> str:
    """Read a string."""
    if not isinstance(value, str):
        raise OrderError(f"{name} must be a string")
    return value


def anything(_name: str, value: object) -> object:
    """Take any JSON as it stands."""
    return value


def integers(name: str, value: object) -> tuple[int, ...]:
    """Read an array of integers."""
    if not isinstance(value, list):
        raise OrderError(f"{name} must be an array of integers")
    return tuple(integer(f"each of {name}", each) for each in value)


def indices(name: str, value: object) -> tuple[Index, ...]:
    """Read an array of whatever an answer may give as an index."""
    if not isinstance(value, list) or any(isinstance(each, dict | list) for each in value):
        raise OrderError(f"{name} must be an array of integers, or of whatever else shall stand for one")
    return tuple(value)


def paths(name: str, value: object) -> tuple[Path, ...]:
    """Read an array of paths."""
    if not isinstance(value, list) or not all(isinstance(each, list) for each in value):
        raise OrderError(f"{name} must be an array of paths such as ['events', 0, 'type']")
    return tuple(map(_path, value))


def _path(value: list[object]) -> Path:
    steps = tuple(step for step in value if isinstance(step, str | int) and not isinstance(step, bool))
    if len(steps) != len(value):
        raise OrderError("A path is made of strings and integers")
    return steps


def headers(name: str, value: object) -> dict[str, str | None]:
    """Read an object of header values."""
    if not isinstance(value, dict):
        raise OrderError(f"{name} must be an object of texts, or null for a header that is left out")
    return {each: None if said is None else text(f"{name}: {each}", said) for each, said in value.items()}


def one_of(known: type[EnumT], called: str) -> Read:
    """Give what reads one of the `known`, each of which is `called` so."""

    def read(name: str, value: object) -> EnumT:
        said = text(name, value)
        if said not in set(known):
            raise OrderError(f"Unknown {called} {said!a}. {suggestion(said, tuple(known))}")
        return known(said)

    return read


def suggestion(name: str, known: tuple[str, ...]) -> str:
    """Say which of the `known` may have been meant by `name`, or which there are."""
    close = get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}"
