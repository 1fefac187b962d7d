"""How long what is held takes to go out."""

from math import ceil

from proxy.buffer import KeyFigures
from proxy.wire.limits import EVENTS_PER_REQUEST

DRAIN_S = 30.0
"""What takes longer than this to go out at a key's rate waits because of the rate, not of the linger."""


def requests_needed(of: KeyFigures) -> int:
    """How many requests the key's held events take at least: each queue needs one of its own."""
    return max(of.queues, ceil(of.books.held / EVENTS_PER_REQUEST))


def drain_s(of: KeyFigures) -> float:
    """How long the key's held events take at its rate.

    A pause that will end is waited for. How long the operator's lasts nobody knows: it is left out, or the
    figure would say no more than `gate_paused` does.
    """
    requests = requests_needed(of)
    return requests / of.gate.rate_per_s + of.gate.paused_for_s if requests else 0.0
