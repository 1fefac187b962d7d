"""What the sandbox received: one entry a request, in the order in which they were decided, and the counts.

Everything is kept, up to a bound; beyond it the sandbox refuses requests (500) instead of forgetting any.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from proxy.sandbox.chronicle import Chronicle
from proxy.sandbox.violations import Violation

EVENTS_BOUND = 2_000_000
"""Events kept in memory, about 1.2 KB each. A request without events takes the room of one."""
NEIGHBOURS_MAX = 1_000
"""Entries looked through for another visitor: a search through all of them would stop the event loop."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One request, as the record tells it."""

    seq: int
    """1 for the first ever; never used again, even when the record is cleared."""
    received_at: float
    """Unix seconds at which its headers were complete."""
    public_key: str
    headers: tuple[tuple[str, str], ...]
    """All of them, in order, names in lower case. Bytes that are not UTF-8 stand as lone surrogates."""
    body_bytes: int
    envelope: Mapping[str, object]
    events: tuple[object, ...]
    taken: tuple[int, ...]
    """Indices into `events`."""
    status: int | None
    """Of the answer, sent whole or in half; None where a fault left the request without any."""
    fault: str | None
    """The fault that struck it."""
    violations: tuple[Violation, ...]

    @property
    def taken_events(self) -> tuple[object, ...]:
        """Give the events that were taken."""
        return tuple(self.events[index] for index in self.taken)

    def line(self) -> str:
        """Give the entry as one line of JSON in ASCII, so that lone surrogates survive."""
        return json.dumps(
            {
                "seq": self.seq,
                "received_at": self.received_at,
                "public_key": self.public_key,
                "headers": self.headers,
                "body_bytes": self.body_bytes,
                "envelope": self.envelope,
                "events": self.events,
                "taken": self.taken,
                "status": self.status,
                "fault": self.fault,
                "violations": [each.document() for each in self.violations],
            }
        )


@dataclass(slots=True)
class Stats:
    """Counts since the start or the last clearing. True even where sabotage has the record lie."""

    requests: Counter[str] = field(default_factory=Counter)
    """Ingest requests by the status of their answer, ``none`` where there was none."""
    elsewhere: int = 0
    """Requests to a path that is no route: a URL built wrongly."""
    events_taken: int = 0
    limited: int = 0
    """Requests beyond the limit. A 429 that a fault gives counts under `requests` alone."""
    busiest_second: int = 0
    """The most requests that one public key made in one second of the Unix clock, limited ones too."""
    violations: Counter[str] = field(default_factory=Counter)
    """By kind."""
    unrecorded: int = 0
    """Requests answered 500 because the record was full or its file could not be written."""

    def count(self, status: int | None, events_taken: int, violations: Sequence[Violation]) -> None:
        """Count one request that was decided."""
        self.requests["none" if status is None else str(status)] += 1
        self.events_taken += events_taken
        self.violations.update(str(violation.kind) for violation in violations)

    def document(self) -> dict[str, object]:
        """Give the counts as a JSON object."""
        return {
            "requests": dict(self.requests),
            "elsewhere": self.elsewhere,
            "events_taken": self.events_taken,
            "limited": self.limited,
            "busiest_second": self.busiest_second,
            "violations": dict(self.violations),
            "unrecorded": self.unrecorded,
        }


class Record(Chronicle[Entry]):
    """The entries, oldest first, and the counts."""

    def __init__(self, bound: int = EVENTS_BOUND) -> None:
        """Keep at most `bound` events, at least 1."""
        super().__init__(bound)
        self._second = 0
        self._requests_of_second: Counter[str] = Counter()
        self.stats = Stats()

    def arrive(self, public_key: str, now: float) -> None:
        """Count a request towards the busiest second, whatever becomes of it."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._requests_of_second.clear()
        self._requests_of_second[public_key] += 1
        self.stats.busiest_second = max(self.stats.busiest_second, self._requests_of_second[public_key])

    def neighbour(self, public_key: str, envelope: Mapping[str, object]) -> Entry | None:
        """Find the newest request of the key that names another visitor, if one is near."""
        visitor = _visitor(envelope)
        for entry in islice(reversed(self._entries), NEIGHBOURS_MAX):
            if entry.public_key == public_key and entry.taken and _visitor(entry.envelope) != visitor:
                return entry
        return None

    def clear(self) -> int:
        """Forget every entry and count, and say how many entries there were. Numbers go on from the last."""
        self.stats = Stats()
        return super().clear()

    def _room_of(self, entry: Entry) -> int:
        return len(entry.events)


def _visitor(envelope: Mapping[str, object]) -> object:
    return envelope.get("visitorId", envelope)
