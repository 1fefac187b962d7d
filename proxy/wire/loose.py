"""Events as they are decoded: as their structs say, but for what is cheaper to check afterwards.

msgspec checks a pattern by calling back into Python for every value, and takes 7 µs to read some numbers
(1e300), so that a megabyte of them would hold up everything for a second. Each type of event therefore has a
loose twin, in which a field with a pattern may be any text, and a number or a map of scalars anything; floats
are read by Python. What a twin leaves open is taken from its struct's own annotations, and is checked here a
column at a time: one field of several events.
"""

import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from types import NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

import msgspec
from msgspec import UNSET, UnsetType

from proxy.wire import jsontext
from proxy.wire.events import KINDS, Event
from proxy.wire.fields import EMAIL_BUT_FOR_DOTS, Email, ScalarMap, Url, Uuid

Column = Sequence[Any]
"""One field of several events; UNSET where an event has it not."""

_url, _uuid = (
    re.compile(kind.__metadata__[0].pattern).match  # type: ignore[attr-defined]  # of Annotated, which typing hides
    for kind in (Url, Uuid)
)
_email = re.compile(EMAIL_BUT_FOR_DOTS).match

_NUMBERS = frozenset((int, float, UnsetType))
_SCALARS = frozenset((str, int, float, bool, NoneType))


def _are_urls(column: Column) -> bool:
    return all(map(_url, column))


def _are_uuids(column: Column) -> bool:
    return all(_uuid(text) for text in column if text is not UNSET)


def _are_emails(column: Column) -> bool:
    texts = [text for text in column if text is not UNSET]
    return ".." not in "\n".join(texts) and all(map(_email, texts))


def _are_numbers(column: Column) -> bool:
    return _NUMBERS.issuperset(map(type, column))


def are_scalar_maps(column: Column) -> bool:
    """Whether each is a map to strings, numbers, booleans and nulls, where it is there."""
    return all(_SCALARS.issuperset(map(type, held.values())) for held in column if held)


_LOOSER: tuple[tuple[Any, Any, Callable[[Column], bool]], ...] = (
    (Url, str, _are_urls),
    (Uuid, str, _are_uuids),
    (Email, str, _are_emails),
    (float, Any, _are_numbers),  # a `Number`: within a larger union it is taken apart
    (ScalarMap, dict[str, Any], are_scalar_maps),
)
"""A type of field, what a twin has in its place, and the check of a column of such."""


def _loosened(kind: type[Event]) -> dict[str, tuple[Any, Any, Callable[[Column], bool]]]:
    """Of each field in which a type's twin differs from it: the twin's type and default, and the check."""
    fields = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        types = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        for strict, loose, check in _LOOSER:
            if strict in types:
                optional = UnsetType in types
                fields[name] = (
                    (loose | UnsetType, UNSET, check) if optional else (loose, msgspec.NODEFAULT, check)
                )
    return fields


def _twin(kind: type[Event]) -> type[Event]:
    fields = [(name, loose, default) for name, (loose, default, _) in _loosened(kind).items()]
    tag = kind.__struct_config__.tag
    return cast("type[Event]", msgspec.defstruct(kind.__name__, fields, bases=(kind,), tag=tag, kw_only=True))


TWINS = {kind: _twin(kind) for kind in KINDS}
"""Each type's twin."""

Loose: Any = Union[tuple(TWINS.values())]  # noqa: UP007  # they are known at run time only
"""An event of any type, as it is decoded."""

_SHARED = frozenset(_loosened(Event))
_OWN = {
    twin: tuple(
        (attrgetter(name), check) for name, (_, _, check) in _loosened(kind).items() if name not in _SHARED
    )
    for kind, twin in TWINS.items()
}


def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """A decoder of something that holds loose events."""
    return msgspec.json.Decoder(kind, float_hook=jsontext.finite)


def fits(event: Event) -> bool:
    """Whether a decoded event is all that its struct says."""
    return (
        shared_fields_fit((event.url,), (event.timestamp,), (event.customerTraits,))
        and _are_uuids((event.uuid,))
        and own_fields_fit(type(event), (event,))
    )


def shared_fields_fit(urls: Column, timestamps: Column, customer_traits: Column) -> bool:
    """Whether of decoded events the fields are right that all types have, but for their uuids."""
    return (
        _are_urls(urls)
        and _are_numbers(timestamps)
        and (not any(customer_traits) or are_scalar_maps(customer_traits))
    )


def own_fields_fit(kind: type[Event], events: Sequence[Event]) -> bool:
    """Whether of decoded events those of this kind are right in the fields that only it has."""
    checks = _OWN[kind]
    if not checks:
        return True
    of_kind = [event for event in events if type(event) is kind]
    return all(check([*map(field, of_kind)]) for field, check in checks)
