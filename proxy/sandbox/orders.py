"""Orders as they are given in JSON, by a script's file or over HTTP, with an answer to every mistake.

A script is an object of arrays, each the same as what is posted to the route of its name:

    {"faults":    [{"what": "status", "status": 503, "after_s": 10, "seconds": 5}],
     "limits":    [{"limit": 10, "after_s": 30, "seconds": 60}],
     "strangers": [{"public_key": "pk_test", "per_s": 30}],
     "links":     [{"latency_ms": 20, "latency_to_ms": 200}]}
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum
from typing import Final, Generic, TypeAlias, TypeVar

from proxy.sandbox.body import MalformedBodyError, parse
from proxy.sandbox.bounds import OrderError
from proxy.sandbox.circumstances import LimitChange, Link, Stranger
from proxy.sandbox.faults import Fault, Index, Names, What
from proxy.sandbox.schema import Path
from proxy.sandbox.window import Kind

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=StrEnum)
Read: TypeAlias = Callable[[str, object], object]
"""Reads the value of the field that it is told the name of. Raises OrderError."""


@dataclass(frozen=True, slots=True)
class Script:
    """What is ordered together."""

    faults: tuple[Fault, ...] = ()
    limits: tuple[LimitChange, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    links: tuple[Link, ...] = ()


def script_of(text: bytes) -> Script:
    """Read a script. Raises OrderError, which says where in it."""
    document = _parsed(text)
    sorts = tuple(form.sort for form in (_FAULTS, _LIMITS, _STRANGERS, _LINKS))
    if not isinstance(document, dict):
        raise OrderError(f"A script is a JSON object of {', '.join(sorts)}, each an array")
    for name in document:
        if name not in sorts:
            raise OrderError(f"Unknown name {name!a}. {_suggestion(name, sorts)}")
    return Script(
        _FAULTS.read_all(document.get("faults", [])),
        _LIMITS.read_all(document.get("limits", [])),
        _STRANGERS.read_all(document.get("strangers", [])),
        _LINKS.read_all(document.get("links", [])),
    )


def faults_of(text: bytes) -> tuple[Fault, ...]:
    """Read one fault or an array of them, all or none. Raises OrderError."""
    return _FAULTS.read_all(_parsed(text))


def limits_of(text: bytes) -> tuple[LimitChange, ...]:
    """Read one change of the limit or an array of them, all or none. Raises OrderError."""
    return _LIMITS.read_all(_parsed(text))


def strangers_of(text: bytes) -> tuple[Stranger, ...]:
    """Read one stranger or an array of them, all or none. Raises OrderError."""
    return _STRANGERS.read_all(_parsed(text))


def links_of(text: bytes) -> tuple[Link, ...]:
    """Read one link or an array of them, all or none. Raises OrderError."""
    return _LINKS.read_all(_parsed(text))


@dataclass(frozen=True, slots=True)
class _Form(Generic[T]):
    """How one sort of order is written."""

    sort: str
    made: Callable[..., T]
    fields: Mapping[str, Read]
    needed: Mapping[str, str]
    """Fields that must be there, and what could stand in each."""

    def read_all(self, document: object) -> tuple[T, ...]:
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
            raise OrderError(f"One of the {self.sort} is a JSON object, or several in an array")
        for name in document:
            if name not in self.fields:
                raise OrderError(f"Unknown name {name!a}. {_suggestion(name, tuple(self.fields))}")
        for name, meant in self.needed.items():
            if name not in document:
                raise OrderError(f"One of the {self.sort} needs {name}: {meant}")
        return self.made(**{name: self.fields[name](name, value) for name, value in document.items()})


def _parsed(text: bytes) -> object:
    try:
        return parse(text)
    except MalformedBodyError as error:
        raise OrderError(str(error)) from error


# -- fields --------------------------------------------------------------------------------------------


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise OrderError(f"{name} must be an integer")
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise OrderError(f"{name} must be a number")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise OrderError(f"{name} must be a string")
    return value


def _integers(name: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise OrderError(f"{name} must be an array of integers")
    return tuple(_integer(f"each of {name}", each) for each in value)


def _indices(name: str, value: object) -> tuple[Index, ...]:
    if not isinstance(value, list) or any(isinstance(each, dict | list) for each in value):
        raise OrderError(f"{name} must be an array of integers, or of whatever else shall stand for one")
    return tuple(value)


def _paths(name: str, value: object) -> tuple[Path, ...]:
    if not isinstance(value, list) or not all(isinstance(each, list) for each in value):
        raise OrderError(f"{name} must be an array of paths such as ['events', 0, 'type']")
    return tuple(map(_path, value))


def _path(value: list[object]) -> Path:
    steps = tuple(step for step in value if isinstance(step, str | int) and not isinstance(step, bool))
    if len(steps) != len(value):
        raise OrderError("A path is made of strings and integers")
    return steps


def _headers(name: str, value: object) -> dict[str, str | None]:
    if not isinstance(value, dict):
        raise OrderError(f"{name} must be an object of texts, or null for a header that is left out")
    return {each: None if text is None else _text(f"{name}: {each}", text) for each, text in value.items()}


def _one_of(known: type[EnumT], called: str) -> Read:
    def read(name: str, value: object) -> EnumT:
        text = _text(name, value)
        if text not in set(known):
            raise OrderError(f"Unknown {called} {text!a}. {_suggestion(text, tuple(known))}")
        return known(text)

    return read


def _suggestion(name: str, known: tuple[str, ...]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"Did you mean {close[0]}?" if close else f"Known: {', '.join(known)}"


# -- sorts ---------------------------------------------------------------------------------------------

_TIMES: Final[Mapping[str, Read]] = {"after_s": _number, "seconds": _number}
_LATENCY: Final[Mapping[str, Read]] = {"latency_ms": _integer, "latency_to_ms": _integer}

_FAULTS: Final = _Form(
    "faults",
    Fault,
    {
        "what": _one_of(What, "fault"),
        **_LATENCY,
        "headers": _headers,
        "status": _integer,
        "statuses": _integers,
        "retry_after_s": _integer,
        "body": _text,
        "indices": _indices,
        "paths": _paths,
        "names": _one_of(Names, "way to name events"),
        "max_events": _integer,
        "max_bytes": _integer,
        "shrink": _number,
        "bytes_per_s": _integer,
        "answer_bytes": _integer,
        "public_key": _text,
        "origin": _text,
        "visitor": _text,
        "event": _text,
        "uuid": _text,
        "every": _integer,
        "requests": _integer,
        **_TIMES,
    },
    {"what": f"one of {', '.join(What)}"},
)
_LIMITS: Final = _Form(
    "limits",
    LimitChange,
    {"limit": _integer, "window": _one_of(Kind, "window"), "burst": _integer, **_TIMES},
    {},
)
_STRANGERS: Final = _Form(
    "strangers",
    Stranger,
    {"public_key": _text, "per_s": _number, **_TIMES},
    {"public_key": "whose budget it uses", "per_s": "how many requests a second it makes"},
)
_LINKS: Final = _Form("links", Link, {**_LATENCY, **_TIMES}, {"latency_ms": "of the way here and back"})
