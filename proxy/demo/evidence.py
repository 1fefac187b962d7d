"""The sandbox's record, read as evidence: whose each event is, and under what it arrived."""

import json
import re
from collections.abc import Iterable, Sequence

from proxy.demo.comparison import Arrival, Evidence, Sender, canonical, content_of
from proxy.demo.marks import SECRET, Marks, is_poison
from proxy.sandbox import Entry

_GOES_AGAIN = frozenset({401, 402, 403, 404, 408, 425, 429})
"""Refusals that say nothing of the events: whoever sent them sends them again."""


def gather(entries: Iterable[Entry], marks: Marks) -> Evidence:
    """Read all `entries` of a run, oldest first."""
    arrivals: list[Arrival] = []
    refused: set[str] = set()
    unanswered: set[int] = set()
    exposed: list[str] = []
    others = 0
    for entry in entries:
        sender = _sender(entry)
        exposed += _exposed(entry)
        if entry.taken and entry.status is None:
            unanswered.add(entry.seq)
        for event in entry.taken_events:
            marker = marks.find(event)
            if marker is None or not isinstance(event, dict):
                others += 1
                continue
            arrivals.append(Arrival(marker, entry.seq, str(event.get("uuid", "")), content_of(event), sender))
        refused.update(marker for event in _refused(entry) if (marker := marks.find(event)))
    return Evidence(arrivals, frozenset(refused), frozenset(unanswered), tuple(exposed), others)


def others_in(entries: Iterable[Entry], marks: Marks) -> int:
    """How many of the events taken no visitor of this run sent."""
    return sum(marks.find(event) is None for entry in entries for event in entry.taken_events)


def _sender(entry: Entry) -> Sender:
    headers = dict(entry.headers)
    return Sender(
        canonical(entry.envelope),
        headers.get("x-forwarded-for"),
        headers.get("user-agent"),
        headers.get("origin"),
    )


def _exposed(entry: Entry) -> list[str]:
    """Where in a request a secret of a visitor's stands, taken or not: it has left the proxy either way."""
    parts: dict[str, object] = {"headers": entry.headers, "envelope": entry.envelope}
    parts |= {f"event {index}": event for index, event in enumerate(entry.events)}
    return [
        f"request {entry.seq}: a visitor's secret stands in {name}"
        for name, part in parts.items()
        if re.search(SECRET, json.dumps(part))
    ]


def _refused(entry: Entry) -> Sequence[object]:
    """The events of a request that upstream will never take: of several refused together, the bad ones."""
    if not _is_final(entry.status):
        return ()
    left = [event for index, event in enumerate(entry.events) if index not in entry.taken]
    return [event for event in left if is_poison(event)] or left


def _is_final(status: int | None) -> bool:
    return status is not None and (status == 207 or (400 <= status < 500 and status not in _GOES_AGAIN))
