"""One event from its JSON text, on its own merits.

It is read in one of two ways, and which one depends on its own value alone, so that a client's retry is read
the same way whatever it is sent together with:

- typed, where it fits the struct of its type, which refuses whatever it does not know;
- tolerantly, where it does not: the known fields are checked just as strictly, while unknown fields, unknown
  types, lone surrogates and integers of any size are kept as they came.

The events of an ordinary request come to the same readings all at once, in `columns`.
"""

from typing import Any

import msgspec

from proxy.wire import jsontext, loose
from proxy.wire.events import KINDS, Custom, Event, Identify, Reading, Unknown, Utm, flaw
from proxy.wire.fields import Flaw, converted, flaw_of

_TYPES: dict[str, type[Event]] = {
    kind.__struct_config__.tag: kind  # type: ignore[misc]  # every one of them has a str tag
    for kind in KINDS
}
_STRUCTS: tuple[type[msgspec.Struct], ...] = (*KINDS, Unknown, Utm)
_FIELDS = {struct: frozenset(struct.__struct_fields__) for struct in _STRUCTS}

# msgspec finds out how to read a struct when one is first read. Requests are read on several threads, and one
# that reads while another still finds out ends the process (SIGSEGV); so it is found out here.
for _struct in _STRUCTS:
    msgspec.json.Decoder(_struct)

_decode = loose.decoder(loose.Loose).decode
_encode = msgspec.json.Encoder().encode

_TOO_DEEP = Flaw((), f"nests deeper than {jsontext.MAX_DEPTH} levels")


def read_event(text: bytes) -> Reading | Flaw:
    """Read one event from its JSON text. A flaw's path starts at the event."""
    return _read_typed(text) or _read_tolerantly(text)


def _read_typed(text: bytes) -> Reading | Flaw | None:
    """What an event that fits its struct is; None where it does not."""
    try:
        event: Event = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not loose.fits(event):
        return None
    canonical = _encode(event)
    # Only these two types have a field in which anything may nest.
    if isinstance(event, Custom | Identify) and jsontext.nests_too_deep(canonical):
        return _TOO_DEEP
    return flaw(event) or Reading(event, canonical)


def _read_tolerantly(text: bytes) -> Reading | Flaw:
    try:
        plain = jsontext.decode(text)
        canonical = jsontext.encode(plain)
    except (jsontext.Unreadable, jsontext.Unkeepable) as error:
        return Flaw((), str(error))
    if jsontext.nests_too_deep(canonical):
        return _TOO_DEEP
    if not isinstance(plain, dict):
        return Flaw((), "expected an object")
    # Without the first of its doubled keys it may fit the struct after all. It must then be read so: this is
    # also the text in which it comes here beside a neighbour for whom the whole request was rewritten.
    if canonical != text and (typed := _read_typed(canonical)) is not None:
        return typed
    name = plain.get("type")
    if not isinstance(name, str):
        return Flaw(("type",), "expected a string" if "type" in plain else "is required")
    kind = _TYPES.get(name, Unknown)
    known, unknown_fields = _known_part(plain, kind)
    try:
        event = converted(known, kind)
    except msgspec.ValidationError as error:
        return flaw_of(error)
    return flaw(event) or Reading(event, canonical, plain, kind is Unknown, unknown_fields)


def _known_part(plain: dict[str, Any], kind: type[Event]) -> tuple[dict[str, Any], int]:
    """The fields of `plain` that `kind` has, and how many others there are (members of `utm` are free)."""
    fields = _FIELDS[kind]
    known = {name: value for name, value in plain.items() if name in fields}
    if isinstance(utm := known.get("utm"), dict):
        known["utm"] = {name: value for name, value in utm.items() if name in _FIELDS[Utm]}
    unknown_fields = len(plain) - len(known) - 1
    known["type"] = kind.__struct_config__.tag
    return known, unknown_fields
