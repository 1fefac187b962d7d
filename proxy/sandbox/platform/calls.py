"""The record of the Platform API: every call, in the order in which they were decided, and the counts.

It never holds a key: wherever one came, what `keys` makes of it stands in its place.
"""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from proxy.sandbox.chronicle import Chronicle
from proxy.sandbox.violations import Violation

CALLS_BOUND: Final = 20_000
"""Calls kept in memory; beyond it the sandbox refuses them (500) instead of forgetting any."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as the record tells it."""

    seq: int
    """1 for the first ever; never used again, even when the record is cleared."""
    received_at: float
    """Unix seconds at which its headers were complete, and it had come half of its way."""
    method: str
    path: str
    """As it was sent."""
    query: str
    """As it was sent, without the question mark; empty where there is none."""
    headers: tuple[tuple[str, str], ...]
    """All but `Authorization`, in order, names in lower case."""
    key: str | None
    """The digest of its key; None where `Authorization` is no single key of Outlit's."""
    tool: str | None
    body: object
    """What the JSON says; None also where there is none, or what came is no JSON."""
    status: int | None
    """Of the answer, sent whole or in half; None where an order left the call without any."""
    executed: bool
    """Whether it took effect, whatever its sender was told."""
    incident: str | None
    """The order that struck it."""
    violations: tuple[Violation, ...]

    def line(self) -> str:
        """Give the call as one line of JSON in ASCII, so that lone surrogates survive."""
        return json.dumps(
            {
                "api": "platform",
                "seq": self.seq,
                "received_at": self.received_at,
                "method": self.method,
                "path": self.path,
                "query": self.query,
                "headers": self.headers,
                "key": self.key,
                "tool": self.tool,
                "body": self.body,
                "status": self.status,
                "executed": self.executed,
                "incident": self.incident,
                "violations": [each.document() for each in self.violations],
            }
        )


@dataclass(slots=True)
class CallStats:
    """Counts since the start or the last clearing."""

    requests: Counter[str] = field(default_factory=Counter)
    """Calls by the status of their answer, ``none`` where there was none."""
    executed: Counter[str] = field(default_factory=Counter)
    """Calls that took effect, by the tool, or by method and path."""
    violations: Counter[str] = field(default_factory=Counter)
    """By kind."""
    unrecorded: int = 0
    """Calls answered 500 because the record was full or its file could not be written."""

    def document(self) -> dict[str, object]:
        """Give the counts as a JSON object."""
        return {
            "requests": dict(self.requests),
            "executed": dict(self.executed),
            "violations": dict(self.violations),
            "unrecorded": self.unrecorded,
        }


class Calls(Chronicle[Call]):
    """The calls, oldest first, and the counts."""

    def __init__(self, bound: int) -> None:
        """Keep at most `bound` calls, at least 1."""
        super().__init__(bound)
        self.stats = CallStats()

    def add(self, entry: Call) -> None:
        """Append a call that was made with `last_seq` + 1, count it, and wake who waits for it."""
        self.stats.requests["none" if entry.status is None else str(entry.status)] += 1
        if entry.executed:
            self.stats.executed[entry.tool or f"{entry.method} {entry.path}"] += 1
        self.stats.violations.update(str(violation.kind) for violation in entry.violations)
        super().add(entry)

    def clear(self) -> int:
        """Forget every call and count, and say how many calls there were. Numbers go on from the last."""
        self.stats = CallStats()
        return super().clear()
