"""What an operator asks with: the parameters of a query or of a JSON body, each checked and named when wrong.

An unknown parameter is refused like a wrong one: a filter that was misspelt and passed over would make a
purge larger than it was meant.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar
from uuid import UUID

import msgspec
from aiohttp import web

from proxy.lanes import QueueId, visitor_queue
from proxy.ops.answers import BadParameter
from proxy.wire.fields import Uuid, converted
from proxy.wire.limits import PublicKey, public_key

_T = TypeVar("_T")
_E = TypeVar("_E", bound=StrEnum)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_ID = 2**63 - 1


class Parameters:
    """The parameters of one request; each is taken once, and in the end `refuse_others`."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._left = dict(given)

    @classmethod
    def of_query(cls, request: web.Request) -> "Parameters":
        """Those that stand behind the `?`, each at most once."""
        for name in request.query:
            if len(request.query.getall(name)) > 1:
                raise BadParameter(name, "is given twice: give it once")
        return cls(request.query)

    def take(self, name: str, read: Callable[[str], _T]) -> _T | None:
        """The parameter as `read` reads it, None where it is not given.

        `read` raises ValueError with what is wrong and what to write instead. Raises BadParameter.
        """
        text = self._left.pop(name, None)
        if text is None:
            return None
        try:
            return read(text)
        except ValueError as error:
            raise BadParameter(name, str(error)) from None

    def need(self, name: str, read: Callable[[str], _T]) -> _T:
        """The same of a parameter that must be given."""
        value = self.take(name, read)
        if value is None:
            raise BadParameter(name, "is required")
        return value

    def refuse_others(self) -> None:
        """Raises BadParameter where something was given that nobody took."""
        for name in self._left:
            raise BadParameter(name, "is not known here: leave it out, or see how it is spelt")


def read_key(text: str) -> PublicKey:
    """A public key."""
    key = public_key(text)
    if key is None:
        raise ValueError("not a public key: write pk_ and 1 to 64 letters, digits, _ or -")
    return key


def read_uuid(text: str) -> bytes:
    """A UUID in its text form, as its 16 bytes."""
    try:
        return UUID(converted(text, Uuid)).bytes
    except msgspec.ValidationError:
        raise ValueError("not a UUID: write it as 0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b") from None


def read_visitor(text: str) -> QueueId:
    """A visitor's id, as the queue in which their events wait."""
    return visitor_queue(str(UUID(bytes=read_uuid(text))))


def read_moment_ms(text: str) -> int:
    """A time of ISO 8601 as Unix milliseconds; in UTC where it names no zone, at midnight where no hour."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not a time: write 2026-07-01T12:00:00Z, or 2026-07-01") from None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return (at - _EPOCH) // timedelta(milliseconds=1)


def read_id(text: str) -> int:
    """The number of a dead letter."""
    return _whole(text, 1, _LARGEST_ID)


def read_flag(text: str) -> bool:
    """Yes or no."""
    if text not in ("true", "false"):
        raise ValueError("neither true nor false: write one of them")
    return text == "true"


def up_to(most: int) -> Callable[[str], int]:
    """Reads a number from 1 to `most`."""
    return lambda text: _whole(text, 1, most)


def one_of(words: type[_E]) -> Callable[[str], _E]:
    """Reads one of a closed list of words."""

    def read(text: str) -> _E:
        try:
            return words(text)
        except ValueError:
            raise ValueError(f"not one of {', '.join(words)}: write one of them") from None

    return read


def _whole(text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 19 and least <= int(text) <= most):
        raise ValueError(f"not a whole number from {least} to {most}: write one")
    return int(text)
