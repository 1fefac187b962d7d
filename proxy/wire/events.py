"""The events: each type of the contract with its old forms, and what is kept of a valid one.

The structs are the contract's tables, and `flaw` is what a table cannot say. What was validated is what is
stored: the text that leaves is written anew from what was read, never the client's own bytes, in which a
doubled key could hide a password from the check.
"""

from collections.abc import Callable, Mapping
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


KINDS: tuple[type[Event], ...] = (Pageview, Custom, Form, Identify, Engagement, Calendar, Stage, Billing)
"""The types of the contract."""

_encode = msgspec.json.Encoder().encode


class Reading(msgspec.Struct, frozen=True):
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
        if self.plain is None:
            return identity_of(self.event)
        return _identity(self.plain.get, self.plain.get("properties"))

    def stored(self, uuid: str, timestamp_ms: int) -> bytes:
        """The text as it is kept and sent: redacted, with `uuid` and, where it has none, `timestamp_ms`."""
        changes = self._redactions()
        if self.event.uuid is not UNSET and self.event.uuid != uuid:
            changes["uuid"] = uuid
        lacks_uuid, lacks_timestamp = self.event.uuid is UNSET, self.event.timestamp is UNSET
        return filled_in(
            self._changed(changes), uuid if lacks_uuid else None, timestamp_ms if lacks_timestamp else None
        )

    def redacted(self) -> bytes:
        """The text as far as the client can say it: without secrets."""
        return self._changed(self._redactions())

    def _changed(self, changes: Mapping[str, Any]) -> bytes:
        if not changes:
            return self.canonical
        if self.plain is not None:
            return jsontext.encode({**self.plain, **changes})
        return _encode(msgspec.structs.replace(self.event, **changes))

    def _redactions(self) -> dict[str, Any]:
        changes: dict[str, Any] = {}
        event = self.event
        if (url := redact_address(event.url)) is not None:
            changes["url"] = url
        if (path := redact_address(event.path)) is not None:
            changes["path"] = path
        if event.referrer is not UNSET and (referrer := redact_address(event.referrer)) is not None:
            changes["referrer"] = referrer
        # An unknown type may carry form fields as well.
        form = event.formFields if isinstance(event, Form) else (self.plain or {}).get("formFields")
        if isinstance(form, dict) and (fields := redact_form(form)) is not None:
            changes["formFields"] = fields
        return changes


def filled_in(text: bytes, uuid: str | None, timestamp_ms: int | None) -> bytes:
    """The text of an event with what it lacks of these two (None: it lacks it not)."""
    filled = b""
    if timestamp_ms is not None:
        filled += b',"timestamp":%d' % timestamp_ms
    if uuid is not None:
        filled += b',"uuid":"%s"' % uuid.encode("ascii")
    return text[:-1] + filled + b"}" if filled else text  # an event is an object with a type, never empty


def identity_of(event: Event) -> str | None:
    """Whom an event names that its struct holds whole; see `Reading.identity`."""
    return _identity(partial(getattr, event), getattr(event, "properties", None))


def _identity(look: Callable[[str, None], Any], properties: Any) -> str | None:
    for name in _IDENTITY_FIELDS:
        value = look(name, None)
        if not value and isinstance(properties, dict) and name != "customerId":
            value = properties.get(f"__{name}")
        if value and isinstance(value, str):
            return f"{name}:{value}"
    return None


# In this order of meaning. Node ≤ 1.4.4, every Rust client and `stage` events through 1.5 put the first
# three into the properties, as `__userId` and so on.
_IDENTITY_FIELDS = ("userId", "email", "fingerprint", "customerId")


TOO_LARGE = Flaw((), f"with its envelope larger than one upstream request can be ({REQUEST_BYTES} bytes)")
"""An event that no request could carry."""


def flaw(event: Event) -> Flaw | None:
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
