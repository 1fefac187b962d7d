"""Whom a fault strikes: what it may ask of a request, and what a request shows of itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What of a request can decide whether a fault strikes it. Without `events` where its body is unread."""

    public_key: str
    origin: str | None = None
    visitor: str | None = None
    """The envelope's `visitorId`."""
    events: Sequence[object] = ()
    body_bytes: int = 0
    takes: bool = True
    """Whether an event of it would be taken."""


class Conditions(Protocol):
    """What is asked of a request; None asks nothing."""

    @property
    def public_key(self) -> str | None:
        """Ask for a key."""

    @property
    def origin(self) -> str | None:
        """Ask for the value of the request's `Origin`."""

    @property
    def visitor(self) -> str | None:
        """Ask for a visitor's id."""

    @property
    def event(self) -> str | None:
        """Ask for an event of this `eventName` or of this type, among others or not."""

    @property
    def uuid(self) -> str | None:
        """Ask for the event of this uuid, among others or not."""


def meets(seen: Seen, asked: Conditions) -> bool:
    """Say whether a request has all that is asked."""
    return (
        asked.public_key in (None, seen.public_key)
        and asked.origin in (None, seen.origin)
        and asked.visitor in (None, seen.visitor)
        and (not marks(asked) or bool(marked(seen.events, asked)))
    )


def marks(asked: Conditions) -> bool:
    """Say whether it asks for certain events."""
    return asked.event is not None or asked.uuid is not None


def marked(events: Sequence[object], asked: Conditions) -> tuple[int, ...]:
    """Give the indices of the events that are asked for; none, where no certain ones are."""
    if not marks(asked):
        return ()
    return tuple(index for index, event in enumerate(events) if _is_marked(event, asked))


def _is_marked(event: object, asked: Conditions) -> bool:
    if not isinstance(event, dict):
        return False
    return asked.uuid in (None, event.get("uuid")) and (
        asked.event is None or asked.event in (event.get("eventName"), event.get("type"))
    )
