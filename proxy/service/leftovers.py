"""What a drain had to leave behind: of each key how many events, and why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.buffer import KeyFigures
from proxy.ledger import Left, Pause
from proxy.wire.limits import PublicKey


@dataclass(frozen=True, slots=True)
class Leftover:
    """Events of one key that are still held.

    `pause`, `for_s`: what pauses the key, and for how many more seconds; of the operator's pause, or where
    its queues wait (`for_s` alone), 0 where that is not known. `in_flight`: so many of them were being sent,
    and were given up: Outlit may have them, and gets them again.
    """

    key: PublicKey
    held: int
    why: Left
    pause: Pause | None = None
    for_s: float = 0.0
    in_flight: int = 0


def leftovers(
    figures: Mapping[PublicKey, KeyFigures],
    given_up: Mapping[PublicKey, int],
    waits_s: Callable[[PublicKey], float],
) -> list[Leftover]:
    """Of each key that holds anything, those that hold most first.

    `given_up`: events whose requests were given up. `waits_s`: how long nothing of a key could be sent.
    """
    found = [
        _of_key(key, of, given_up.get(key, 0), waits_s(key)) for key, of in figures.items() if of.books.held
    ]
    return sorted(found, key=lambda left: (-left.held, left.key))


def _of_key(key: PublicKey, of: KeyFigures, in_flight: int, waits_s: float) -> Leftover:
    held, gate = of.books.held, of.gate
    if gate.by_operator:
        return Leftover(key, held, Left.PAUSED, Pause.OPERATOR, in_flight=in_flight)
    if gate.paused is not None:
        return Leftover(key, held, Left.PAUSED, gate.paused, gate.paused_for_s, in_flight)
    if waits_s > 0:
        return Leftover(key, held, Left.WAITS, None, waits_s, in_flight)
    return Leftover(key, held, Left.GRACE_OVER, in_flight=in_flight)
