"""The events: each type of the contract with its old forms, read from JSON and written again.

An event is read in one of two ways, and which one depends on its own value alone, so that a client's
retry is read the same way whatever it is sent together with:

- typed: msgspec decodes it to the struct of its type, which refuses whatever it does not know;
- tolerantly, where the typed reading fails: the known fields are checked just as strictly, while unknown
  fields, unknown types, lone surrogates and integers of any size are kept as they came.

What was validated is what is stored: the text that leaves is written anew from what was read, never the
client's own bytes, in which a doubled key could hide a password from the check.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from proxy.wire import jsontext
from proxy.wire.fields import (
    NOTHING_UUID,
    Email,
    Flaw,
    Moment,
    NonEmpty,
    Number,
    Scalar,
    ScalarMap,
    Url,
    Uuid,
    converted,
    flaw_of,
)
from proxy.wire.limits import REQUEST_BYTES
from proxy.wire.redact import redact_address, redact_form


class Utm(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Campaign parameters. The published object is open: other members take the tolerant way."""

    source: str | UnsetType = UNSET
    medium: str | UnsetType = UNSET
    campaign: str | UnsetType = UNSET
    term: str | UnsetType = UNSET
    content: str | UnsetType = UNSET
    ref: str | UnsetType = UNSET


class Event(
    msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True, tag_field="type", gc=False
):
    """The fields that all types have."""

    url: Url
    path: str
    timestamp: Number | UnsetType = UNSET
    uuid: Uuid | UnsetType = UNSET
    referrer: str | UnsetType = UNSET
    utm: Utm | UnsetType = UNSET
    customerId: NonEmpty | UnsetType = UNSET
    customerTraits: ScalarMap | UnsetType = UNSET
    customerDomain: str | UnsetType = UNSET  # Node 1.4.5


class Unknown(Event, tag="?", kw_only=True):
    """An event of a type that is newer than this version: only the common fields are known."""


class Pageview(Event, tag="pageview", kw_only=True):
    """A page was shown."""

    title: str | UnsetType = UNSET


class Custom(Event, tag="custom", kw_only=True):
    """Something with a name of the site's own happened."""

    eventName: str
    properties: dict[str, Any] | UnsetType = UNSET  # the reference says scalars, the schema any JSON
    email: Email | UnsetType = UNSET
    userId: NonEmpty | UnsetType = UNSET
    fingerprint: NonEmpty | UnsetType = UNSET


class Form(Event, tag="form", kw_only=True):
    """A form was submitted."""

    formId: str | UnsetType = UNSET
    formFields: dict[str, str] | UnsetType = UNSET


class Identify(Event, tag="identify", kw_only=True):
    """Who the visitor is: at least one of email and userId."""

    email: Email | UnsetType = UNSET
    userId: NonEmpty | UnsetType = UNSET
    # Node 1.1.0-1.4.4 put an object under `customer`; other members are scalars (checked by `flaw`).
    traits: dict[str, Any] | UnsetType = UNSET
    fingerprint: NonEmpty | UnsetType = UNSET


class Engagement(Event, tag="engagement", kw_only=True):
    """How long a page was looked at."""

    activeTimeMs: Number
    totalTimeMs: Number
    sessionId: Uuid


class Calendar(Event, tag="calendar", kw_only=True):
    """A meeting was booked."""

    provider: Literal["cal.com", "calendly", "unknown"]
    eventType: str | UnsetType = UNSET
    startTime: Moment | UnsetType = UNSET
    endTime: Moment | UnsetType = UNSET
    duration: Number | UnsetType = UNSET
    isRecurring: bool | UnsetType = UNSET
    inviteeEmail: str | UnsetType = UNSET
    inviteeName: str | UnsetType = UNSET


class Stage(Event, tag="stage", kw_only=True):
    """Where a customer stands; clients made before July 2026 send it."""

    stage: Literal["activated", "engaged", "inactive"]
    properties: ScalarMap | UnsetType = UNSET
    email: Email | UnsetType = UNSET
    userId: NonEmpty | UnsetType = UNSET
    fingerprint: NonEmpty | UnsetType = UNSET


class Billing(Event, tag="billing", kw_only=True):
    """What a customer pays; clients made before July 2026 send it, the oldest with a domain alone."""

    status: Literal["trialing", "paid", "churned"]
    customerId: NonEmpty | UnsetType = UNSET
    stripeCustomerId: NonEmpty | UnsetType = UNSET
    domain: str | UnsetType = UNSET
    properties: ScalarMap | UnsetType = UNSET


Known = Pageview | Custom | Form | Identify | Engagement | Calendar | Stage | Billing

_TYPES: dict[str, type[Event]] = {
    kind.__struct_config__.tag: kind  # type: ignore[misc]  # every one of them has a str tag
    for kind in (Pageview, Custom, Form, Identify, Engagement, Calendar, Stage, Billing)
}
_STRUCTS: tuple[type[msgspec.Struct], ...] = (*_TYPES.values(), Unknown, Utm)
_FIELDS = {struct: frozenset(struct.__struct_fields__) for struct in _STRUCTS}

_decode_known = msgspec.json.Decoder(Known).decode
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Reading:
    """A valid event as it was sent.

    `canonical` is its text before anything was filled in or redacted: what a retry is recognised by.
    `plain` is the whole of it where `event` cannot hold it all (read tolerantly), else None.
    """

    event: Event
    canonical: bytes
    plain: Mapping[str, Any] | None = None
    unknown_type: bool = False
    unknown_fields: int = 0

    @property
    def uuid(self) -> str | None:
        """The client's uuid; None where there is none, or only the nil or max one."""
        uuid = self.event.uuid
        return None if uuid is UNSET or NOTHING_UUID.match(uuid) else uuid

    @property
    def has_timestamp(self) -> bool:
        """Whether the client said when it happened."""
        return self.event.timestamp is not UNSET

    def identity(self) -> str | None:
        """Whom the event itself names: its user, else address, device, or account. None where nobody."""
        look = self.plain.get if self.plain is not None else partial(getattr, self.event)
        properties = look("properties", UNSET)
        for name in _IDENTITY_FIELDS:
            value = look(name, None)
            if (not value or value is UNSET) and isinstance(properties, dict) and name != "customerId":
                value = properties.get(f"__{name}")
            if value and isinstance(value, str):
                return f"{name}:{value}"
        return None

    def stored(self, uuid: str, timestamp_ms: int) -> bytes:
        """The text as it is kept and sent: redacted, with `uuid` and, where it has none, `timestamp_ms`."""
        changes = self._redactions()
        if self.event.uuid is not UNSET and self.event.uuid != uuid:
            changes["uuid"] = uuid
        text = self.canonical
        if changes and self.plain is not None:
            text = jsontext.encode({**self.plain, **changes})
        elif changes:
            text = _encode(msgspec.structs.replace(self.event, **changes))
        filled = b""
        if self.event.timestamp is UNSET:
            filled += b',"timestamp":%d' % timestamp_ms
        if self.event.uuid is UNSET:
            filled += b',"uuid":"%s"' % uuid.encode("ascii")
        return text[:-1] + filled + b"}" if filled else text  # an event is an object with a type, never empty

    def _redactions(self) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        event = self.event
        if "=" in event.url and (url := redact_address(event.url)) is not None:
            changes["url"] = url
        if "=" in event.path and (path := redact_address(event.path)) is not None:
            changes["path"] = path
        referrer = event.referrer
        if referrer is not UNSET and "=" in referrer and (address := redact_address(referrer)) is not None:
            changes["referrer"] = address
        # An unknown type may carry form fields as well.
        form = event.formFields if isinstance(event, Form) else (self.plain or {}).get("formFields")
        if isinstance(form, dict) and (fields := redact_form(form)) is not None:
            changes["formFields"] = fields
        return changes


TOO_LARGE = Flaw((), f"with its envelope larger than one upstream request can be ({REQUEST_BYTES} bytes)")
"""An event that no request could carry."""


# In this order of meaning. Node ≤ 1.4.4, every Rust client and `stage` events through 1.5 put the first
# three into the properties, as `__userId` and so on.
_IDENTITY_FIELDS = ("userId", "email", "fingerprint", "customerId")


def read_event(text: bytes) -> Reading | Flaw:
    """Read one event from its JSON text. A flaw's path starts at the event."""
    try:
        return of_typed(_decode_known(text))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _read_tolerantly(text)


def of_typed(event: Event) -> Reading | Flaw:
    """A reading of an event that was decoded together with its request."""
    canonical = _encode(event)
    # Only these two types have a field in which anything may nest.
    if isinstance(event, Custom | Identify) and jsontext.nests_too_deep(canonical):
        return _TOO_DEEP
    return _flaw(event) or Reading(event, canonical)


_TOO_DEEP = Flaw((), f"nests deeper than {jsontext.MAX_DEPTH} levels")


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
    if canonical != text:
        # Without the first of its doubled keys it may fit the struct after all. It must then be read so: this
        # is also the text in which it comes here beside a neighbour for whom the whole request was rewritten.
        try:
            return of_typed(_decode_known(canonical))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            pass
    name = plain.get("type")
    if not isinstance(name, str):
        return Flaw(("type",), "expected a string" if "type" in plain else "is required")
    kind = _TYPES.get(name, Unknown)
    known, unknown_fields = _known_part(plain, kind)
    try:
        event = converted(known, kind)
    except msgspec.ValidationError as error:
        return flaw_of(error)
    return _flaw(event) or Reading(event, canonical, plain, kind is Unknown, unknown_fields)


def _known_part(plain: dict[str, Any], kind: type[Event]) -> tuple[dict[str, Any], int]:
    """The fields of `plain` that `kind` has, and how many others there are (members of `utm` are free)."""
    fields = _FIELDS[kind]
    known = {name: value for name, value in plain.items() if name in fields}
    if isinstance(utm := known.get("utm"), dict):
        known["utm"] = {name: value for name, value in utm.items() if name in _FIELDS[Utm]}
    unknown_fields = len(plain) - len(known) - 1
    known["type"] = kind.__struct_config__.tag
    return known, unknown_fields


def _flaw(event: Event) -> Flaw | None:
    """What the types alone cannot say."""
    match event:
        case Identify():
            if event.email is UNSET and event.userId is UNSET:
                return Flaw((), "identify needs at least one of email and userId")
            if event.traits is not UNSET:
                for name, value in event.traits.items():
                    if not isinstance(value, Scalar) and not (name == "customer" and isinstance(value, dict)):
                        return Flaw(("traits", name), "expected a string, number, boolean or null")
        case Billing():
            named = (event.customerId, event.stripeCustomerId, event.domain, event.customerDomain)
            if all(name is UNSET for name in named):
                return Flaw((), "billing needs one of customerId and stripeCustomerId")
        case _:
            pass
    return None
