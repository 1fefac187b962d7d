"""What clients posted and were told is kept, held against what upstream received.

Pure: two lists of values in, a verdict out. It knows events by the marker that each carries in its content,
not by uuid or position, so that it can notice wrong ones of either.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Sender:
    """All that applies to a whole request, and so to each event in it.

    `envelope` is its canonical JSON without the events: as text, because to Python 1, 1.0 and true are equal.
    """

    envelope: str
    client_ip: str | None
    user_agent: str | None
    origin: str | None


@dataclass(frozen=True, slots=True)
class Posted:
    """An event as a client posted it. `stream` is whose it is, `number` its place there, rising from 1.

    `content` is the canonical JSON in which it must arrive: without its secrets, and without its uuid, which
    stands in `uuid`, None where the client gave none.
    """

    marker: str
    stream: str
    number: int
    uuid: str | None
    content: str
    sender: Sender


@dataclass(frozen=True, slots=True)
class Arrival:
    """An event as upstream took it. `request` is the number of the request that brought it, rising."""

    marker: str
    request: int
    uuid: str
    content: str
    sender: Sender


@dataclass(frozen=True, slots=True)
class Evidence:
    """What upstream tells.

    `arrivals` in the order in which they were taken. `refused`: markers of events that it will never take.
    `unanswered`: requests that it took and left without an answer. `exposed`: places of secrets that should
    not have left. `others`: events taken that no visitor of ours sent.
    """

    arrivals: Sequence[Arrival]
    refused: frozenset[str] = frozenset()
    unanswered: frozenset[int] = frozenset()
    exposed: tuple[str, ...] = ()
    others: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the two compare. The tuples hold one readable finding for each event; all empty is as promised.

    `dead`: acknowledged events that upstream refused and that are kept as dead letters. `announced`: events
    that arrived again, each time after a delivery that the proxy itself reports as ambiguous.
    """

    acknowledged: int
    dead: int
    announced: int
    others: int
    lost: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    misattributed: tuple[str, ...] = ()
    out_of_order: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()

    @property
    def kept(self) -> int:
        """How many of the acknowledged events are where they belong: delivered, or among the dead letters."""
        return self.acknowledged - len(self.lost)

    @property
    def findings(self) -> Mapping[str, tuple[str, ...]]:
        """All that speaks against the promise, by kind; a kind without findings is left out."""
        by_kind = {
            "lost": self.lost,
            "doubled without saying so": self.doubled,
            "misattributed": self.misattributed,
            "out of order": self.out_of_order,
            "altered on the way": self.altered,
            "secrets that left the proxy": self.exposed,
        }
        return {kind: found for kind, found in by_kind.items() if found}


def compare(
    acknowledged: Sequence[Posted],
    unacknowledged: Sequence[Posted],
    evidence: Evidence,
    *,
    ambiguous: int,
    dead: int,
) -> Verdict:
    """Hold what was posted against what arrived.

    `unacknowledged` events may arrive or not, but not twice, changed or in the wrong place. `ambiguous`: how
    many deliveries the proxy reports that upstream may have taken unseen. `dead`: how many dead letters it
    reports; an event that upstream refused is kept only as one of these.
    """
    posted = {event.marker: event for event in (*acknowledged, *unacknowledged)}
    arrived: dict[str, list[Arrival]] = defaultdict(list)
    for arrival in evidence.arrivals:
        if arrival.marker in posted:
            arrived[arrival.marker].append(arrival)
    missing = [event for event in acknowledged if event.marker not in arrived]
    buried = [event for event in missing if event.marker in evidence.refused][:dead]
    buried_markers = {event.marker for event in buried}
    announced = _announced(arrived, evidence.unanswered, ambiguous)
    again = [marker for marker, each in arrived.items() if len(each) > 1]
    doubled = [marker for marker in again if not _is_explained(arrived[marker], announced)]
    return Verdict(
        acknowledged=len(acknowledged),
        dead=len(buried),
        announced=len(again) - len(doubled),
        others=evidence.others,
        lost=tuple(
            f"{event.marker} was acknowledged and never arrived"
            for event in missing
            if event.marker not in buried_markers
        ),
        doubled=tuple(
            f"{marker} arrived {len(arrived[marker])} times, in {_requests(arrived[marker])}"
            for marker in doubled
        ),
        misattributed=tuple(_misattributed(posted, arrived)),
        out_of_order=tuple(_out_of_order(posted, arrived)),
        altered=tuple(_altered(posted, arrived)),
        exposed=evidence.exposed,
    )


def content_of(event: Mapping[str, Any]) -> str:
    """An event's canonical JSON without its uuid."""
    return canonical({name: value for name, value in event.items() if name != "uuid"})


def canonical(value: object) -> str:
    """One text for one value, whatever the order of names."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _announced(
    arrived: Mapping[str, Sequence[Arrival]], unanswered: frozenset[int], ambiguous: int
) -> frozenset[int]:
    """The requests after which the same events could rightly come again.

    As many as the proxy says it was unsure of. First those that upstream knows it left unanswered; what is
    then over can be answers that upstream sent and the proxy did not get in time.
    """
    repeated = {each.request for arrivals in arrived.values() for each in arrivals[:-1]}
    candidates = [*sorted(unanswered), *sorted(repeated - unanswered)]
    return frozenset(candidates[:ambiguous])


def _is_explained(arrivals: Sequence[Arrival], announced: frozenset[int]) -> bool:
    """Whether each repetition followed an announced request, under the uuid that lets it be recognised."""
    requests = [arrival.request for arrival in arrivals]
    one_each = len(set(requests)) == len(requests)
    one_uuid = len({arrival.uuid for arrival in arrivals}) == 1
    return one_each and one_uuid and announced.issuperset(requests[:-1])


def _misattributed(posted: Mapping[str, Posted], arrived: Mapping[str, Sequence[Arrival]]) -> Iterator[str]:
    for marker, arrivals in arrived.items():
        sender = posted[marker].sender
        for arrival in arrivals:
            wrong = "; ".join(_differences(arrival.sender, sender))
            if wrong:
                yield f"{marker} arrived in request {arrival.request} with {wrong}"
                break


def _differences(arrived: Sender, posted: Sender) -> Iterator[str]:
    for each in fields(Sender):
        here, there = getattr(arrived, each.name), getattr(posted, each.name)
        if here != there:
            yield f"{each.name} {here} instead of {there}"


def _out_of_order(posted: Mapping[str, Posted], arrived: Mapping[str, Sequence[Arrival]]) -> Iterator[str]:
    """By first arrivals: that is the order in which `arrived` came to have its markers."""
    last: dict[str, Posted] = {}
    for marker in arrived:
        event = posted[marker]
        before = last.get(event.stream)
        if before is not None and event.number < before.number:
            yield f"{marker} arrived after {before.marker}"
        else:
            last[event.stream] = event


def _altered(posted: Mapping[str, Posted], arrived: Mapping[str, Sequence[Arrival]]) -> Iterator[str]:
    for marker, arrivals in arrived.items():
        event = posted[marker]
        for arrival in arrivals:
            if event.uuid not in (None, arrival.uuid):
                yield f"{marker} arrived with uuid {arrival.uuid} instead of {event.uuid}"
                break
            if arrival.content != event.content:
                yield f"{marker} arrived as {arrival.content} instead of {event.content}"
                break


def _requests(arrivals: Iterable[Arrival]) -> str:
    return "requests " + ", ".join(str(arrival.request) for arrival in arrivals)
