"""The published schema of the Ingest API, as this room reads it: which envelopes and events are taken.

A second reading of the contract, independent of the proxy's own: it shares no code with it, so that a
misreading of either shows as a disagreement between the two.

By default the known is checked and the unknown let through (fields, event types), because the real service's
schema moves ahead of any copy. `strict` closes events and identities as the published schema does; the
envelope itself stays open. Forms of older clients are taken in both: `stage` and `billing` events,
`billing.domain` in place of a customer, `customerDomain`, an object in `traits.customer`, and identities in
`properties.__email`, `.__userId`, `.__fingerprint`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from proxy.sandbox.checks import (
    BOOLEAN,
    EMAIL_TEXT,
    MOMENT,
    NAME,
    NUMBER,
    OBJECT,
    SCALARS,
    STRING,
    STRINGS,
    TRAITS,
    URL,
    UTM,
    UUID_TEXT,
    Check,
    one_of,
)

EVENTS_MAX = 100
"""Events in one request."""
BODY_BYTES_MAX = 1_000_000
"""Bytes of one request's body: "1 MB" in the reference, read as the smaller of its two meanings."""

Path: TypeAlias = tuple[str | int, ...]
Object: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing the schema refuses, and where it stands in the body: ``("events", 3, "url")``."""

    path: Path
    message: str


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the schema says of one body. At most one problem an event, the first found."""

    envelope: tuple[Problem, ...]
    """Problems outside the events. With any, the whole request is refused."""
    events: Mapping[int, Problem]
    """Refused events by index."""


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of one kind of object."""

    required: Mapping[str, Check] = field(default_factory=dict)
    optional: Mapping[str, Check] = field(default_factory=dict)
    any_of: tuple[str, ...] = ()
    """At least one of these must be there."""

    def problem(self, found: Object, at: Path, *, closed: bool) -> Problem | None:
        """Name the first thing wrong with `found`, which stands at `at` in the body."""
        for name, check in self.required.items():
            if name not in found:
                return Problem((*at, name), "Required")
            if not check.holds(found[name]):
                return Problem((*at, name), check.message)
        for name, value in found.items():
            optional = self.optional.get(name)
            if optional is not None and not optional.holds(value):
                return Problem((*at, name), optional.message)
            if closed and optional is None and name not in self.required:
                return Problem((*at, name), "Unrecognized field")
        if self.any_of and not any(name in found for name in self.any_of):
            return Problem(at, "Needs one of " + ", ".join(self.any_of))
        return None


COMMON: Final = Form(
    required={"type": STRING, "timestamp": NUMBER, "url": URL, "path": STRING},
    optional={
        "uuid": UUID_TEXT,
        "referrer": STRING,
        "utm": UTM,
        "customerId": NAME,
        "customerTraits": SCALARS,
        "customerDomain": STRING,
    },
)

_WHO: Final = {"email": EMAIL_TEXT, "userId": NAME, "fingerprint": NAME}


def _event(
    required: Mapping[str, Check], optional: Mapping[str, Check], any_of: tuple[str, ...] = ()
) -> Form:
    return Form({**COMMON.required, **required}, {**COMMON.optional, **optional}, any_of)


EVENT_FORMS: Final[Mapping[str, Form]] = {
    "pageview": _event({}, {"title": STRING}),
    "custom": _event({"eventName": STRING}, {"properties": OBJECT, **_WHO}),
    "form": _event({}, {"formId": STRING, "formFields": STRINGS}),
    "identify": _event({}, {"traits": TRAITS, **_WHO}, any_of=("email", "userId")),
    "engagement": _event({"activeTimeMs": NUMBER, "totalTimeMs": NUMBER, "sessionId": UUID_TEXT}, {}),
    "calendar": _event(
        {"provider": one_of("cal.com", "calendly", "unknown")},
        {
            "eventType": STRING,
            "startTime": MOMENT,
            "endTime": MOMENT,
            "duration": NUMBER,
            "isRecurring": BOOLEAN,
            "inviteeEmail": EMAIL_TEXT,
            "inviteeName": STRING,
        },
    ),
    "stage": _event({"stage": one_of("activated", "engaged", "inactive")}, {"properties": SCALARS, **_WHO}),
    "billing": _event(
        {"status": one_of("trialing", "paid", "churned")},
        {"properties": SCALARS, "stripeCustomerId": NAME, "domain": STRING},
        any_of=("customerId", "stripeCustomerId", "domain", "customerDomain"),
    ),
}

USER_IDENTITY: Final = Form(optional={"traits": TRAITS, **_WHO})
CUSTOMER_IDENTITY: Final = Form(optional={"customerId": NAME, "customerTraits": SCALARS})
ENVELOPE: Final = Form(
    optional={
        "source": one_of("client", "server", "integration"),
        "visitorId": UUID_TEXT,
        "sessionId": UUID_TEXT,
        "fingerprint": NAME,
        "userIdentity": OBJECT,
        "customerIdentity": OBJECT,
    },
)


def judge(body: Object, *, strict: bool = False) -> Judgement:
    """Hold `body` against the schema. `strict` closes events and identities to unknown names and types."""
    envelope = tuple(_envelope_problems(body, strict=strict))
    if envelope:
        return Judgement(envelope, {})
    identified = body.get("source") != "server" or _envelope_names_someone(body)
    refused: dict[int, Problem] = {}
    for index, event in enumerate(events_of(body)):
        problem = _event_problem(event, index, strict=strict, identified=identified)
        if problem is not None:
            refused[index] = problem
    return Judgement((), refused)


def events_of(body: Object) -> tuple[object, ...]:
    """Give the events as they stand in `body`, none where there is no array of them."""
    events = body.get("events")
    return tuple(events) if isinstance(events, list) else ()


def _envelope_problems(body: Object, *, strict: bool) -> list[Problem]:
    problems: list[Problem | None] = [ENVELOPE.problem(body, (), closed=False)]
    events = body.get("events")
    if "events" not in body:
        problems.append(Problem(("events",), "Required"))
    elif not isinstance(events, list):
        problems.append(Problem(("events",), "Must be an array"))
    elif not 1 <= len(events) <= EVENTS_MAX:
        problems.append(Problem(("events",), f"Must hold 1 to {EVENTS_MAX} events, not {len(events)}"))
    if body.get("source", "client") == "client" and "visitorId" not in body:
        problems.append(Problem(("visitorId",), "Required"))
    for name, form in (("userIdentity", USER_IDENTITY), ("customerIdentity", CUSTOMER_IDENTITY)):
        identity = body.get(name)
        if isinstance(identity, dict):
            problems.append(form.problem(identity, (name,), closed=strict))
    return [problem for problem in problems if problem is not None]


def _event_problem(event: object, index: int, *, strict: bool, identified: bool) -> Problem | None:
    at: Path = ("events", index)
    if not isinstance(event, dict):
        return Problem(at, "Must be an object")
    kind = event.get("type")
    if not isinstance(kind, str):
        return Problem((*at, "type"), "Invalid event type")
    form = EVENT_FORMS.get(kind)
    if form is None and strict:
        return Problem((*at, "type"), "Invalid event type")
    if form is None:
        # Common to all types, so to those too that this copy of the schema does not know.
        return COMMON.problem(event, at, closed=False)
    problem = form.problem(event, at, closed=strict)
    if problem is None and kind == "custom" and not identified and not _event_names_someone(event):
        return Problem(at, "A custom event of a server needs email, userId, fingerprint or customerId")
    return problem


def _event_names_someone(event: Object) -> bool:
    if any(name in event for name in ("email", "userId", "fingerprint", "customerId")):
        return True
    properties = event.get("properties")
    if not isinstance(properties, dict):
        return False
    # Older clients write all three, most of them null: a null names nobody.
    carried = (properties.get(name) for name in ("__email", "__userId", "__fingerprint"))
    return any(isinstance(value, str) and value != "" for value in carried)


def _envelope_names_someone(body: Object) -> bool:
    if "fingerprint" in body:
        return True
    user, customer = body.get("userIdentity"), body.get("customerIdentity")
    return (isinstance(user, dict) and any(name in user for name in _WHO)) or (
        isinstance(customer, dict) and "customerId" in customer
    )
