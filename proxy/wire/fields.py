"""The scalar types of the contract, and how a refusal names the place it is about."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

_HEX = "[0-9a-fA-F]"

NOTHING_UUID = re.compile(r"(?:[0-]{36}|[fF-]{36})\Z")
"""The nil and the max UUID: valid on the wire, and nobody's."""

Uuid = Annotated[
    str,
    Meta(
        pattern=rf"^(?:{_HEX}{{8}}-{_HEX}{{4}}-[1-8]{_HEX}{{3}}-[89abAB]{_HEX}{{3}}-{_HEX}{{12}}"
        r"|00000000-0000-0000-0000-000000000000|[fF]{8}-[fF]{4}-[fF]{4}-[fF]{4}-[fF]{12})\Z",
        description="a UUID (RFC 9562 text form)",
    ),
]

# The published schema's: no dot at the start, none and no ' before the @; and, what is asked apart from this
# because it costs twice as much as all the rest, no two in a row.
EMAIL_BUT_FOR_DOTS = (
    r"^(?!\.)[A-Za-z0-9_'+\-.]*[A-Za-z0-9_+\-]@(?:[A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}\Z"
)

Email = Annotated[
    str,
    Meta(
        pattern=r"^(?!.*\.\.)" + EMAIL_BUT_FOR_DOTS,
        description="an e-mail address that Outlit accepts",
    ),
]

Url = Annotated[
    str,
    # Servers send `server://` with a raw user id behind it, so nothing after the scheme is looked at.
    Meta(pattern=r"^[A-Za-z][A-Za-z0-9+.\-]*:[\s\S]", description="an absolute URI"),
]

Moment = Annotated[
    str,
    Meta(
        pattern=r"(?a)^\d{4}-\d\d-\d\d(?:[Tt ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:[Zz]|[+-]\d\d:?\d\d)?)?\Z",
        description="an ISO 8601 date and time",
    ),
]

NonEmpty = Annotated[str, Meta(min_length=1, description="a string that is not empty")]

Number = int | float
Scalar = str | int | float | bool | None
ScalarMap = dict[str, Scalar]


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a posted value: `path` leads to it from where the reader stood."""

    path: tuple[str | int, ...]
    message: str

    def within(self, *outer: str | int) -> "Flaw":
        """The same flaw seen from further out."""
        return Flaw(outer + self.path, self.message)


_T = TypeVar("_T")


def converted(value: Any, kind: type[_T]) -> _T:
    """`value`, made of plain JSON types, as a `kind`. Raises msgspec.ValidationError and nothing else."""
    try:
        return msgspec.convert(value, kind)
    except UnicodeEncodeError:
        # So msgspec says that a text stands where a number, a map or one of a few words is due, if that text
        # holds a lone surrogate. Where the text may stand it takes it.
        raise msgspec.ValidationError("Expected another value than a text with a lone surrogate") from None


_PLACE = re.compile(r"^(?P<what>.*?)(?: - at `(?P<place>.*)`)?$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_MISSING = re.compile(r"Object missing required field `(.+)`")
_PATTERNS = {
    repr(meta.pattern): f"expected {meta.description}"
    for kind in (Uuid, Email, Url, Moment)
    for meta in kind.__metadata__  # type: ignore[attr-defined]  # of Annotated, which typing hides
}


def flaw_of(error: msgspec.ValidationError) -> Flaw:
    """A decoder's complaint as a flaw: its place ("$.utm.source") as a path, a pattern by its meaning."""
    match = _PLACE.match(str(error))
    what, place = (match["what"], match["place"] or "") if match else (str(error), "")
    path: tuple[str | int, ...] = tuple(int(index) if index else name for name, index in _STEP.findall(place))
    if missing := _MISSING.match(what):
        return Flaw((*path, missing[1]), "is required")
    _, _, pattern = what.partition("matching regex ")
    return Flaw(path, _PATTERNS.get(pattern, what[:1].lower() + what[1:]))
