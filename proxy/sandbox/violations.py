"""What a sender did wrong, refused for it or not."""

from dataclasses import dataclass
from enum import StrEnum

from proxy.sandbox.schema import Path


class ViolationKind(StrEnum):
    """Whose rule was broken."""

    # Of the Ingest API:
    REQUEST = "request"
    """The body is too large, no JSON object, compressed, or not declared as JSON; the key is no key."""
    ENVELOPE = "envelope"
    EVENT = "event"
    SENSITIVE = "sensitive"
    """A secret arrived in a form field or an address."""
    NO_UUID = "no_uuid"
    """An event without `uuid`: valid on the wire, but whoever retries must send one."""
    # Of both:
    COOKIE = "cookie"
    """A visitor's cookies were passed on."""
    # Of the Platform API:
    AUTHORIZATION = "authorization"
    """An `Authorization` that is no key of Outlit's, or several: a secret of somebody else's."""
    KEY = "key"
    """A key outside of `Authorization`."""
    ORIGIN = "origin"
    """A browser's `Origin` was passed on: a key has no business in a browser."""
    FORWARDED = "forwarded"
    """Where a caller is was passed on: `Forwarded`, `X-Forwarded-…`, `X-Real-IP`."""
    PATH = "path"
    """A path that two readers may take for two: `..`, `//`, encoded slashes and their like."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule of the contract that a request broke, refused for it or not."""

    kind: ViolationKind
    path: Path
    """Where in the body; empty for the request itself."""
    message: str

    def document(self) -> dict[str, object]:
        """Give it as a JSON object."""
        return {"kind": self.kind, "path": self.path, "message": self.message}
