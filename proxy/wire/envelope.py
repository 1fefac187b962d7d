"""The envelope: what a client posts, read and, where it must be, repaired.

Everything in it but `events` applies to every event of the request. So a field of it that upstream would
refuse would take all events of the request down with it (the browser client puts whatever address a
visitor typed into every later envelope of the visit): such a field is taken out and named in the answer,
and the events go on. Only without a usable `events`, or as `client` traffic without its visitor, is there
nothing that could be kept.

Nearly every request is ordinary: one decode, and `columns` for its events. Whatever is odd about any other is
found out by reading it tolerantly: every field and every event by itself. Both come to the same.

A few kilobytes of gzip make 10 MB of anything, so a body is not read for more than can be kept of it. Of too
many events none is looked at; and a body larger than an upstream request is split first, and no part of it is
read that could not leave in one.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from proxy.wire import jsontext, loose
from proxy.wire.columns import Columns, columns_of
from proxy.wire.events import TOO_LARGE, Custom, Event, Reading
from proxy.wire.fields import Email, Flaw, NonEmpty, Scalar, ScalarMap, Uuid, converted, flaw_of
from proxy.wire.limits import REQUEST_BYTES
from proxy.wire.reading import read_event

Source = Literal["client", "server", "integration"]


class UserIdentity(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Who the visitor is, for the whole request."""

    email: Email | UnsetType = UNSET
    userId: NonEmpty | UnsetType = UNSET
    fingerprint: NonEmpty | UnsetType = UNSET
    traits: dict[str, Any] | UnsetType = UNSET  # of scalars, which is checked afterwards


class CustomerIdentity(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Which account the request belongs to."""

    customerId: NonEmpty | UnsetType = UNSET
    customerTraits: dict[str, Any] | UnsetType = UNSET


class _Typed(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """A request without anything odd in it."""

    events: list[loose.Loose] | UnsetType
    source: Source | UnsetType = UNSET
    visitorId: str | UnsetType = UNSET  # a UUID, which is checked afterwards
    sessionId: str | UnsetType = UNSET
    fingerprint: NonEmpty | UnsetType = UNSET
    userIdentity: UserIdentity | UnsetType = UNSET
    customerIdentity: CustomerIdentity | UnsetType = UNSET


class _Events(msgspec.Struct):
    """The text of the events alone; all else is passed over."""

    events: msgspec.Raw | UnsetType = UNSET


class Envelope(msgspec.Struct, frozen=True):
    """A request that can be kept.

    `fields` is the canonical JSON object of everything but the events, after repair: equal for two
    requests exactly when everything in them that applies to their events is equal. `events` holds a
    reading or a flaw for each posted event, in order (of an ordinary request its `Columns`); `repairs` what
    was taken out.
    """

    fields: bytes
    source: str
    events: Columns | list[Reading | Flaw]
    visitor_id: str | None = None
    identities: Mapping[str, str] = {}
    repairs: tuple[Flaw, ...] = ()
    unknown_fields: int = 0


@dataclass(frozen=True, slots=True)
class Unusable:
    """A request of which nothing can be kept, and the number of events that it held, where that is known.

    Of absurdly many ("too_many") it is a number beyond the bound: they are not counted to their end.
    """

    reason: Literal["malformed", "events", "visitor", "too_many", "too_large"]
    flaw: Flaw
    events: int = 0


_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_decode_typed = loose.decoder(_Typed).decode
_split = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_find_events = msgspec.json.Decoder(_Events).decode
_split_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_envelope(body: bytes, max_events: int = sys.maxsize) -> Envelope | Unusable:
    """Read a posted body: all of its events, each on its own merits, or none where they are too many."""
    read = read_ordinary(body, max_events)
    return read_tolerantly(body, max_events) if read is None else read


def read_ordinary(body: bytes, max_events: int = sys.maxsize) -> Envelope | Unusable | None:
    """Read a body if nothing is odd about it, at a tenth of the price; None if it must be read tolerantly."""
    if len(body) > REQUEST_BYTES:
        return None
    try:
        typed: _Typed = _decode_typed(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    posted: Sequence[Event] = typed.events or ()
    if not posted:
        return _no_events("must hold at least one event")
    if len(posted) > max_events:
        return _too_many(len(posted), max_events)
    source = typed.source or "client"
    if source == "client" and typed.visitorId is UNSET:
        return _no_visitor("is required", len(posted))
    identities = _identities_of(typed)
    columns = columns_of(posted, [uuid for uuid in (typed.visitorId, typed.sessionId) if uuid is not UNSET])
    if columns is None or identities is None:
        return None
    if source == "server" and not identities and _holds_nobodys(columns):
        return None
    typed.events = UNSET
    return Envelope(_encode_sorted(typed), source, columns, typed.visitorId or None, identities)


def _identities_of(typed: _Typed) -> Mapping[str, str] | None:
    """Whom the envelope names; None where a trait is no scalar."""
    user, customer = typed.userIdentity, typed.customerIdentity
    if user is UNSET and customer is UNSET and typed.fingerprint is UNSET:
        return {}
    members = {} if user is UNSET else msgspec.structs.asdict(user)
    account = {} if customer is UNSET else msgspec.structs.asdict(customer)
    if not loose.are_scalar_maps((members.get("traits"), account.get("customerTraits"))):
        return None
    return _identities(members, typed.fingerprint, account)


def read_tolerantly(body: bytes, max_events: int = sys.maxsize) -> Envelope | Unusable:
    """Read any body, field by field and event by event: slower, and the same for an ordinary one."""
    try:
        fields, events = _take_apart(body, max_events)
    except _Stopped as stopped:
        return stopped.unusable
    except jsontext.Unreadable as error:
        return Unusable("malformed", Flaw((), f"the body is no JSON: {error}"))
    except _NoObject:
        return Unusable("malformed", Flaw((), "the body is no JSON object"))
    if events is None:
        return _no_events("is required" if "events" not in fields else "expected an array")
    if not events:
        return _no_events("must hold at least one event")
    fields.pop("events", None)
    repair = _Repair()
    repaired = repair.envelope(fields)
    source = repaired.get("source", "client")
    visitor_id = repaired.get("visitorId")
    if source == "client" and visitor_id is None:
        why = next((flaw.message for flaw in repair.flaws if flaw.path == ("visitorId",)), "is required")
        return _no_visitor(why, len(events))
    identities = _identities(
        repaired.get("userIdentity", {}), repaired.get("fingerprint"), repaired.get("customerIdentity", {})
    )
    return Envelope(
        jsontext.encode(repaired, sort_keys=True),
        source,
        _checked(map(_read_part, events), source, identities),
        visitor_id,
        identities,
        tuple(repair.flaws),
        repair.unknown_fields,
    )


class _NoObject(Exception):
    pass


class _Stopped(Exception):
    """There is more in the body than is read."""

    def __init__(self, unusable: Unusable) -> None:
        self.unusable = unusable


def _take_apart(body: bytes, max_events: int) -> tuple[dict[str, Any], list[bytes] | None]:
    """The envelope's fields as plain values, and the text of each event (None where there is no array).

    Raises _Stopped before anything is copied that will not be read.
    """
    try:
        found = _find_events(body).events
        events = None if found is UNSET else _split_events(found, max_events)
        if len(body) > REQUEST_BYTES:
            _stop_at_large_fields(body, found, len(events or ()))
        raw = _split(body)
        fields = {name: jsontext.decode(bytes(text)) for name, text in raw.items() if name != "events"}
    except msgspec.ValidationError:
        pass  # valid JSON of another shape: the plain decoder says of which
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass  # not for msgspec: lone surrogates, NaN, a byte order mark, deep nesting, or no JSON at all
    else:
        return fields, events
    if body.count(b"[") + body.count(b"{") > _MOST_CONTAINERS:
        raise jsontext.Unreadable("what it holds besides is in too many arrays and objects")
    plain = jsontext.decode(body)
    if not isinstance(plain, dict):
        raise _NoObject
    posted = plain.get("events")
    if not isinstance(posted, list):
        return plain, None
    if len(posted) > max_events:
        raise _Stopped(_too_many(len(posted), max_events))
    return plain, [jsontext.encode_part(event) for event in posted]


def _stop_at_large_fields(body: bytes, array: msgspec.Raw | UnsetType, events: int) -> None:
    """Raise _Stopped where everything but the events is more than an upstream request can hold."""
    text = b"" if array is UNSET else bytes(array)
    if jsontext.least_bytes(body) - jsontext.least_bytes(text) > REQUEST_BYTES:
        why = f"the envelope alone is larger than one upstream request can be ({REQUEST_BYTES} bytes)"
        raise _Stopped(Unusable("too_large", Flaw((), why), events))


def _split_events(array: msgspec.Raw, max_events: int) -> list[bytes]:
    text = bytes(array)
    if text.count(b",") > _COUNTED_EVENTS and jsontext.holds_more_than(text, max_events):
        raise _Stopped(_too_many(max_events + 1, max_events))
    events = _split_list(text)
    if len(events) > max_events:
        raise _Stopped(_too_many(len(events), max_events))
    return [bytes(event) for event in events]


_COUNTED_EVENTS = 500_000
"""So many are split (80 bytes each) to be counted; where there may be more, they are only counted so far."""

_MOST_CONTAINERS = 500_000
"""Arrays and objects in a body that must be read at once: half a second for all; an event needs three."""


def _read_part(text: bytes) -> Reading | Flaw:
    if len(text) > REQUEST_BYTES and jsontext.least_bytes(text) > REQUEST_BYTES:
        return TOO_LARGE
    return read_event(text)


def _too_many(events: int, max_events: int) -> Unusable:
    why = f"more than the {max_events} events that a request may hold"
    return Unusable("too_many", Flaw(("events",), why), events)


def _no_events(why: str) -> Unusable:
    return Unusable("events", Flaw(("events",), why))


def _no_visitor(why: str, events: int) -> Unusable:
    return Unusable("visitor", Flaw(("visitorId",), f"{why} where source is client (the default)"), events)


def _identities(user: Mapping[str, Any], fingerprint: Any, customer: Mapping[str, Any]) -> dict[str, str]:
    """Whom the envelope names, strongest first, in the order in which a queue is chosen by it."""
    named = {
        "userId": user.get("userId"),
        "email": user.get("email"),
        "fingerprint": fingerprint or user.get("fingerprint"),
        "customerId": customer.get("customerId"),
    }
    return {name: value for name, value in named.items() if value and value is not UNSET}


def _checked(
    readings: Iterable[Reading | Flaw], source: str, identities: Mapping[str, str]
) -> list[Reading | Flaw]:
    """The readings, with the one rule that needs the envelope: a server's events must be somebody's."""
    if source != "server" or identities:
        return list(readings)
    return [
        _NOBODYS
        if isinstance(reading, Reading) and isinstance(reading.event, Custom) and reading.identity() is None
        else reading
        for reading in readings
    ]


def _holds_nobodys(columns: Columns) -> bool:
    """Whether that rule refuses any of them."""
    return any(
        identity is None and isinstance(event, Custom)
        for event, identity in zip(columns.events, columns.identities(), strict=True)
    )


_NOBODYS = Flaw((), "a custom event of a server needs one of email, userId, fingerprint, customerId")


_FIELDS: Mapping[str, Any] = {
    "source": Source,
    "visitorId": Uuid,
    "sessionId": Uuid,
    "fingerprint": NonEmpty,
}
_OBJECTS: Mapping[str, Mapping[str, Any]] = {
    "userIdentity": {"email": Email, "userId": NonEmpty, "fingerprint": NonEmpty, "traits": ScalarMap},
    "customerIdentity": {"customerId": NonEmpty, "customerTraits": ScalarMap},
}


@dataclass(slots=True)
class _Repair:
    """One envelope's repair: what is kept is returned, what is taken out or unknown is noted here."""

    flaws: list[Flaw] = field(default_factory=list)
    unknown_fields: int = 0

    def envelope(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in fields.items():
            if name == "visitorId" and value == "":
                continue  # servers say so that there is no visitor
            if name in _OBJECTS:
                part = self._object(name, value)
                if part or value == {}:
                    kept[name] = part
            elif self._fits(value, _FIELDS.get(name), name):
                kept[name] = value
        return kept

    def _object(self, name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            self.flaws.append(Flaw((name,), "expected an object"))
            return {}
        kept: dict[str, Any] = {}
        for member, held in value.items():
            kind = _OBJECTS[name].get(member)
            if kind is ScalarMap and isinstance(held, dict):
                kept[member] = {k: v for k, v in held.items() if self._fits(v, Scalar, name, member, k)}
            elif self._fits(held, kind, name, member):
                kept[member] = held
        return kept

    def _fits(self, value: Any, kind: Any, *path: str) -> bool:
        """Whether upstream can take `value`; a flaw is noted where it cannot. No kind: an unknown field."""
        if kind is None:
            self.unknown_fields += 1
        flaw = _flaw_of(value, kind)
        if flaw is not None:
            self.flaws.append(flaw.within(*path))
        return flaw is None


def _flaw_of(value: Any, kind: Any) -> Flaw | None:
    try:
        if kind is not None:
            converted(value, kind)
        too_deep = jsontext.nests_too_deep(jsontext.encode(value))
    except msgspec.ValidationError as error:
        return flaw_of(error)
    except jsontext.Unkeepable as error:
        return Flaw((), str(error))
    return Flaw((), f"nests deeper than {jsontext.MAX_DEPTH} levels") if too_deep else None
