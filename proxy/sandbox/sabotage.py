"""Falsehoods about one request, to be told by the record: see `faults`."""

from dataclasses import dataclass

from proxy.sandbox.faults import What


@dataclass(frozen=True, slots=True)
class Told:
    """What the record is to say of a request instead of the truth."""

    events: tuple[object, ...]
    taken: tuple[int, ...]
    """Indices into `events`."""
    misplaced: tuple[object, ...] = ()
    """The event, if any, that is to be recorded under another request's visitor."""


def falsify(what: What | None, events: tuple[object, ...], taken: tuple[int, ...]) -> Told:
    """Tell `what` of the first event taken. Anything but sabotage, or nothing taken, is told truly."""
    if not taken:
        return Told(events, taken)
    first = taken[0]
    without = Told(
        events[:first] + events[first + 1 :],
        tuple(index - 1 for index in taken[1:]),
    )
    match what:
        case What.DROP:
            return without
        case What.SWAP:
            return Told(without.events, without.taken, misplaced=(events[first],))
        case What.DOUBLE:
            return Told(
                events[: first + 1] + events[first:],
                (first, *(index + 1 for index in taken)),
            )
        case _:
            return Told(events, taken)
