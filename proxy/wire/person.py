"""Whom a request and its events name, as an erasure asks it: somebody with an address, or a user id.

Looked for wherever the contract, or a client that went before it, says who somebody is:

- the envelope's `userIdentity`: `email`, `userId`, and an `email` among its `traits`;
- the event's own `email` and `userId`; `inviteeEmail` of a meeting; an `email` among the `traits` of an
  `identify` or among `properties`; `__email` and `__userId` of older clients' properties;
- the fields of a form, whatever they are called: people type their address into many.

Types count: a number is nobody's user id. The type of the event does not: a newer one that names somebody in
one of these places names them all the same.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from proxy.wire import jsontext


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody, by an e-mail address (its case says nothing) or a user id (to the letter)."""

    by: Literal["email", "userId"]
    value: str

    def is_named_by_envelope(self, fields: bytes) -> bool:
        """Whether an envelope, the JSON object of everything but the events, says that this is its person."""
        identity = _member(_read(fields), "userIdentity")
        named = [_member(identity, self.by)]
        if self.by == "email":
            named.append(_member(_member(identity, "traits"), "email"))
        return any(map(self._is, named))

    def is_named_by_event(self, text: bytes) -> bool:
        """Whether an event, as JSON text, names this person."""
        event = _read(text)
        return any(map(self._is, _addresses(event) if self.by == "email" else _user_ids(event)))

    def _is(self, value: Any) -> bool:
        if not isinstance(value, str):
            return False
        if self.by == "userId":
            return value == self.value
        # What was typed into a form may have blanks around it.
        return value.strip().casefold() == self.value.strip().casefold()


def _addresses(event: Any) -> Iterator[Any]:
    properties, form = _member(event, "properties"), _member(event, "formFields")
    yield _member(event, "email")
    yield _member(event, "inviteeEmail")
    yield _member(_member(event, "traits"), "email")
    yield _member(properties, "email")
    yield _member(properties, "__email")
    if isinstance(form, dict):
        yield from form.values()


def _user_ids(event: Any) -> Iterator[Any]:
    yield _member(event, "userId")
    yield _member(_member(event, "properties"), "__userId")


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


_read_fast = msgspec.json.Decoder().decode


def _read(text: bytes) -> Any:
    """The value of a text that this product wrote. None where it cannot be read: that names nobody."""
    try:
        return _read_fast(text)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        pass  # a lone surrogate, say
    try:
        return jsontext.decode(text)
    except jsontext.Unreadable:
        return None
