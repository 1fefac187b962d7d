"""Every upstream request held against the posts: each event under its own, once, and in its order."""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from proxy.sandbox import Entry, Record
from tests.attribution.browsing import Posted
from tests.attribution.posts import mark_of, user_of
from tests.stack import Stack

_PROGRESS = 500
"""Events that upstream takes in the time that one wait is given, however many there are to come."""


@dataclass(frozen=True, slots=True)
class Reckoning:
    """What was found wrong, in words; and which events upstream took more than once, by key and uuid."""

    misattributed: Sequence[str]
    changed: Sequence[str]
    missing: Sequence[str]
    out_of_order: Sequence[str]
    repeated: frozenset[tuple[str, str]]


async def until_ended(stack: Stack, posted: Sequence[Posted]) -> None:
    """Wait until upstream has had every event, or until it is plain that it will not have them all."""
    waiting = {mark_of(event) for each in posted for event in each.post.events}
    looked_at = 0

    def left(record: Record) -> int:
        nonlocal looked_at
        for entry in record.since(looked_at):
            waiting.difference_update(mark_of(event) for event in _ended(entry))
        looked_at = record.last_seq
        return len(waiting)

    with suppress(AssertionError):  # the patience of `until` is over: nothing comes any more
        while waiting:
            most = max(0, len(waiting) - _PROGRESS)
            await stack.until(lambda record, most=most: left(record) <= most)  # type: ignore[misc]


def reckon(posted: Sequence[Posted], entries: Sequence[Entry]) -> Reckoning:
    """Look at every event of every request, taken or not."""
    posts = {mark_of(event): (each, event) for each in posted for event in each.post.events}
    misattributed: list[str] = []
    changed: list[str] = []
    repeated: set[tuple[str, str]] = set()
    firsts: dict[str, None] = {}
    ended: set[str] = set()
    for entry in entries:
        around = _around(entry)
        for event in entry.events:
            each, sent = posts[mark_of(event)]
            meant = {"key": each.post.key, **each.post.lane.parts}
            if around != meant:
                misattributed.append(f"{mark_of(event)} in request {entry.seq}: {_difference(around, meant)}")
            if _content(event, sent) != _content(sent, sent):
                changed.append(f"{mark_of(event)}: {event}, posted as {sent}")
            firsts.setdefault(mark_of(event))
        for event in _ended(entry):
            if mark_of(event) in ended:
                repeated.add((entry.public_key, event["uuid"]))
            ended.add(mark_of(event))
    out_of_order = list(_out_of_order([posts[mark] for mark in firsts]))
    missing = sorted(posts.keys() - ended)
    return Reckoning(misattributed, changed, missing, out_of_order, frozenset(repeated))


def _around(entry: Entry) -> dict[str, str]:
    """What stood around the events of a request; a header that came twice is not what any lane has."""
    named = defaultdict(list)
    for name, value in entry.headers:
        named[name].append(value)
    headers = {"client_ip": "x-forwarded-for", "user_agent": "user-agent", "origin": "origin"}
    parts: dict[str, object] = {"envelope": entry.envelope}
    for part, name in headers.items():
        values = named[name]
        parts[part] = values if len(values) > 1 else next(iter(values), None)
    texts = {part: json.dumps(value, sort_keys=True) for part, value in parts.items()}
    return {"key": entry.public_key, **texts}


def _difference(around: Mapping[str, str], meant: Mapping[str, str]) -> str:
    return "; ".join(
        f"{part} {around[part]} instead of {meant[part]}" for part in meant if around[part] != meant[part]
    )


def _content(event: Any, sent: Any) -> str:
    """The event as a text that tells types apart, but for a uuid that the proxy made."""
    return json.dumps({n: v for n, v in event.items() if n != "uuid" or "uuid" in sent}, sort_keys=True)


def _ended(entry: Entry) -> Iterator[Any]:
    """The events that upstream took or, in an answer 207, refused for good."""
    for index, event in enumerate(entry.events):
        if index in entry.taken or entry.status == 207:
            yield event


def _out_of_order(arrived: Sequence[tuple[Posted, Any]]) -> Iterator[str]:
    """Events in the order of their first arrival of which one came before another that was posted first.

    Of two posts under way at once nobody can say which is first; of two events of one post everybody can.
    """
    newest: dict[tuple[str, ...], Posted] = {}
    last_of_post: dict[tuple[int, tuple[str, ...]], int] = {}
    for each, event in arrived:
        mark = mark_of(event)
        whose = (each.post.key, *each.post.lane.in_order_with(user_of(event)))
        before = newest.setdefault(whose, each)
        if each.answered_at < before.sent_at:
            yield f"{mark} came after {mark_of(before.post.events[0])}, which was posted later"
        if each.sent_at > before.sent_at:
            newest[whose] = each
        place = int(mark.rpartition("/")[2])
        if last_of_post.get((each.sent_at, whose), -1) > place:
            yield f"{mark} came after a later event of its own post"
        last_of_post[each.sent_at, whose] = place
