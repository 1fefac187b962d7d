"""What stands where below ``/api/``, and which paths no two readers take for the same."""

import re
from enum import StrEnum
from typing import Final

VALIDATE: Final = "/api/validate-api-key"
TOOLS: Final = "/api/tools/call"
INTEGRATIONS: Final = "/api/integrations"
CONNECT: Final = f"{INTEGRATIONS}/connect"

_AMBIGUOUS: Final = re.compile(r"//|/\.{1,2}(?:/|$)|[\\;]|%(?:2f|5c|25|2e|3b|7f|[01][0-9a-f])", re.IGNORECASE)


class Route(StrEnum):
    """The routes by their purpose."""

    VALIDATE = "validate"
    TOOLS = "tools"
    INTEGRATIONS = "integrations"
    """The list, and whatever is below it."""
    OTHER = "other"
    """Nothing is there."""


def is_of_the_platform(raw_path: str) -> bool:
    """Say whether a request's target, as it was sent, is below ``/api/`` and none of the Ingest API's."""
    path, _ = parted(raw_path)
    return path.startswith("/api/") and path != "/api/i" and not path.startswith("/api/i/")


def parted(raw_path: str) -> tuple[str, str]:
    """Part a target into its path and its query, both as they were sent; empty where there is none."""
    path, _, query = raw_path.partition("?")
    return path, query


def route_of(path: str) -> Route:
    """Say which route a path is of; as it was sent, nothing decoded or tidied up."""
    if path == VALIDATE:
        return Route.VALIDATE
    if path == TOOLS:
        return Route.TOOLS
    if path == INTEGRATIONS or path.startswith(f"{INTEGRATIONS}/"):
        return Route.INTEGRATIONS
    return Route.OTHER


def is_ambiguous(path: str) -> bool:
    """Say whether another reader may take `path` for another: what lets a caller past a check in front."""
    return _AMBIGUOUS.search(path) is not None
