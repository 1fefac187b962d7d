"""What Outlit says of a key and of integrations, in words for people. Pure.

What is missing, or is of an unknown kind, keeps nothing else from being shown.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from proxy.cli.client import printable
from proxy.cli.terminal import table

_COLUMNS: Final[Mapping[str, str]] = {
    "name": "name",
    "category": "category",
    "status": "status",
    "last data": "lastDataReceivedAt",
    "sync": "syncStatus",
    "error": "errorMessage",
}
"""Names of the columns, and what Outlit calls what stands in them."""


def valid_line(said: Mapping[str, Any]) -> str:
    """Whose key it is, and what it may do."""
    authorization = said.get("authorization")
    grants = authorization.get("grants") if isinstance(authorization, dict) else None
    named = ", ".join(map(_shown, grants)) if isinstance(grants, list) else ""
    organization, creator = _shown(said.get("organizationId")), _shown(said.get("createdById"))
    return printable(f"valid: organization {organization}, created by {creator}, grants {named or 'none'}")


def integration_lines(items: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line an integration."""
    rows = [{**item, "lastDataReceivedAt": _moment(item.get("lastDataReceivedAt"))} for item in items]
    return table(list(_COLUMNS), [[_shown(row.get(field)) for field in _COLUMNS.values()] for row in rows])


def _shown(value: object) -> str:
    if value is None or value == "":
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def _moment(value: object) -> object:
    """A time for people where it is one in milliseconds; as it is else."""
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    try:
        return datetime.fromtimestamp(value / 1000, UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # none that a calendar has
        return value
