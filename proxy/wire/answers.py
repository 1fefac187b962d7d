"""What is answered to clients, and what upstream's answers say.

Two forms of error exist in the vendor's pages: the overview's (`path`) and the endpoint's (`index`, −1 for
the whole request). The proxy emits the union and reads both. What real clients make of it decides the
rest: any 4xx ends a Node client for good, and a 2xx must hold integers where they read integers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any

from proxy.wire import jsontext
from proxy.wire.fields import Flaw
from proxy.wire.rate_headers import RateHeaders


@unique
class Code(StrEnum):
    """Why a request was refused: the closed list of the `code` field. `STATUS` has each one's status."""

    MALFORMED_REQUEST = "malformed_request"
    MALFORMED_BODY = "malformed_body"
    INVALID_EVENTS = "invalid_events"
    INVALID_VISITOR = "invalid_visitor"
    KEY_NOT_ALLOWED = "key_not_allowed"
    ORIGIN_NOT_ALLOWED = "origin_not_allowed"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    BODY_TOO_LARGE = "body_too_large"
    TOO_MANY_EVENTS = "too_many_events"
    UNSUPPORTED_ENCODING = "unsupported_encoding"
    QUOTA_EXCEEDED = "quota_exceeded"
    INTERNAL = "internal"
    BUFFER_FULL = "buffer_full"
    BUFFER_UNAVAILABLE = "buffer_unavailable"
    OVERLOADED = "overloaded"


STATUS = {
    Code.MALFORMED_REQUEST: 400,
    Code.MALFORMED_BODY: 400,
    Code.INVALID_EVENTS: 400,
    Code.INVALID_VISITOR: 400,
    Code.KEY_NOT_ALLOWED: 403,
    Code.ORIGIN_NOT_ALLOWED: 403,
    Code.NOT_FOUND: 404,
    Code.METHOD_NOT_ALLOWED: 405,
    Code.REQUEST_TIMEOUT: 408,
    Code.BODY_TOO_LARGE: 413,
    Code.TOO_MANY_EVENTS: 413,
    Code.UNSUPPORTED_ENCODING: 415,
    Code.QUOTA_EXCEEDED: 429,
    Code.INTERNAL: 500,
    Code.BUFFER_FULL: 503,
    Code.BUFFER_UNAVAILABLE: 503,
    Code.OVERLOADED: 503,
}

_NAME_CHARS = 80
"""How much of a field's name, which is the client's text, an answer repeats."""

_SENTENCE_CHARS = 300
"""The longest message: some of the decoder's repeat a value, and a path may have many steps."""

_NAMED_REPAIRS = 20
"""So many repairs are named one by one; an envelope may need a hundred thousand."""


@dataclass(frozen=True, slots=True)
class ClientAnswer:
    """An answer to a client: JSON always, since a Node client sends everything again without a body."""

    status: int
    body: bytes
    code: Code | None = None


def accepted(processed: int, bad: Sequence[tuple[int, Flaw]], repairs: Sequence[Flaw]) -> ClientAnswer:
    """The answer to a request that was kept: `processed` events held, the bad ones and repairs named.

    200 where every event is held, else 207. In a 207 the indices are exactly those of the events that
    were refused; what was taken out of the envelope is named with the first of them, or in a 200 with
    index 0, for clients read an unsigned index and the published schema has no other place. Of many
    repairs the first 20 are named, and the number of the others.
    """
    if not bad and not repairs:
        return ClientAnswer(200, b'{"success":true,"processed":%d}' % processed)
    first = bad[0][0] if bad else 0
    taken_out = [_sentence(flaw) for flaw in repairs[:_NAMED_REPAIRS]]
    if len(repairs) > _NAMED_REPAIRS:
        taken_out.append(f"and {len(repairs) - _NAMED_REPAIRS} more")
    errors: list[dict[str, Any]] = [
        {"index": first, "message": f"taken out of the envelope: {what}"} for what in taken_out
    ]
    errors += [{"index": index, "message": _sentence(flaw)} for index, flaw in bad]
    body: dict[str, Any] = {"success": not bad, "processed": processed, "errors": errors}
    return ClientAnswer(207 if bad else 200, jsontext.encode(body))


def refused(code: Code, message: str, path: Iterable[str | int] = ()) -> ClientAnswer:
    """The answer to a request of which nothing was kept."""
    place = [step[:_NAME_CHARS] if isinstance(step, str) else step for step in path]
    body = {
        "success": False,
        "processed": 0,
        "message": message,
        "code": str(code),
        "errors": [{"index": -1, "path": place, "message": message}],
    }
    return ClientAnswer(STATUS[code], jsontext.encode(body), code)


def _sentence(flaw: Flaw) -> str:
    place = ".".join(str(step)[:_NAME_CHARS] for step in flaw.path)
    sentence = f"{place}: {flaw.message}" if place else flaw.message
    return sentence if len(sentence) <= _SENTENCE_CHARS else f"{sentence[:_SENTENCE_CHARS]}…"


@dataclass(frozen=True, slots=True)
class Answer:
    """What upstream answered. `body` may be cut off: the status alone decides what has been taken."""

    status: int
    rate: RateHeaders
    body: bytes


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No answer came. `may_have_arrived`: the request was, or may have been, sent."""

    may_have_arrived: bool
    error: str


@dataclass(frozen=True, slots=True)
class Complaint:
    """One error of an upstream answer: which event it names (None: none), whether the envelope, and why."""

    index: int | None
    envelope: bool
    message: str


@dataclass(frozen=True, slots=True)
class Said:
    """What an upstream body says, in either form. `processed` is None where it does not say.

    `success` is False only where it says so.
    """

    processed: int | None = None
    success: bool = True
    message: str = ""
    complaints: tuple[Complaint, ...] = field(default_factory=tuple)

    @property
    def word(self) -> str:
        """What it says to people: its message, or the first that it has of an event."""
        return self.message or next((each.message for each in self.complaints if each.message), "")


_MESSAGE_CHARS = 500


def printable(text: str) -> str:
    """The beginning of what upstream says: without anything that a store, a log or a terminal cannot take."""
    return "".join(sign if sign.isprintable() else " " for sign in text[:_MESSAGE_CHARS])


def read_answer(body: bytes) -> Said:
    """Read an upstream body; whatever cannot be read says nothing."""
    try:
        read = jsontext.decode(body)
    except jsontext.Unreadable:
        return Said()
    if not isinstance(read, dict):
        return Said()
    processed = read.get("processed")
    errors = read.get("errors")
    return Said(
        processed if _is_count(processed) else None,
        read.get("success") is not False,
        _text(read.get("message")),
        tuple(_complaint(error) for error in errors if isinstance(error, dict))
        if isinstance(errors, list)
        else (),
    )


def _complaint(error: dict[str, Any]) -> Complaint:
    message = _text(error.get("message"))
    match error.get("path"):
        case ["events", index, *_] if _is_count(index):
            return Complaint(index, envelope=False, message=message)
        case [str(name), *_] if name != "events":
            return Complaint(None, envelope=True, message=message)
        case _:
            index = error.get("index")
            return Complaint(index if _is_count(index) else None, envelope=False, message=message)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _text(value: object) -> str:
    return printable(value) if isinstance(value, str) else ""
