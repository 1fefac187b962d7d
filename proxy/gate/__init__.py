"""The gate of one public key: when its next upstream request may leave.

Pure, with the time passed in (milliseconds on the store's clock). The buffer keeps it beside the key's queues
and changes it only inside claim and settle (and at the operator's word), so that a claim takes its rate token
in the same transaction as its queue: nothing to hand back, and no lease waits for the limit.

`budget` says how fast (a token bucket whose rate learns from the answers' headers), `standing` whether at
all: pauses, probes, and what upstream made of the latest requests. Redis runs the same rules in Lua
(`buffer/redis/lua/{budget,standing,gate}.lua`); a property test holds the two equal, so these functions
change the gate that they are given, as Lua's do.
"""

import msgspec

from proxy.gate import budget, standing
from proxy.gate.budget import Budget
from proxy.gate.standing import Standing
from proxy.gate.values import NO_EVIDENCE, NO_FEEDBACK, Evidence, Feedback, Outcome, View

__all__ = [
    "NO_EVIDENCE",
    "NO_FEEDBACK",
    "Evidence",
    "Feedback",
    "Gate",
    "Outcome",
    "View",
    "claim",
    "dump",
    "evidence",
    "load",
    "opened",
    "pause",
    "resume",
    "retry",
    "settle",
    "view",
    "wants_untroubled",
]


class Gate(msgspec.Struct):
    """The state of one key's gate."""

    budget: Budget
    standing: Standing


# Made here: the first two to read a struct at once, on two threads, would end the process (`wire.reading`).
_decode = msgspec.msgpack.Decoder(Gate).decode


def opened(limit_per_s: float, share: float) -> Gate:
    """The gate of a key that never sent anything.

    `limit_per_s`: the operator's, a bound for whatever upstream says; `share`: this deployment's part of it.
    """
    return Gate(budget.opened(limit_per_s, share), standing.opened())


def claim(gate: Gate, now_ms: int, lease_ms: int) -> int:
    """Take the right to one request: 0, or how many milliseconds to wait (at least 1).

    Whoever is told to wait need not store the gate.
    """
    if wait_ms := standing.wait_ms(gate.standing, now_ms):
        return wait_ms
    if wait_ms := budget.claim(gate.budget, now_ms):
        return wait_ms
    standing.granted(gate.standing, now_ms, lease_ms)
    return 0


def wants_untroubled(gate: Gate) -> bool:
    """Whether the next claim should take a queue that upstream has not refused, where there is one."""
    return standing.wants_untroubled(gate.standing)


def settle(gate: Gate, feedback: Feedback, queue: bytes, claimed_ms: int, now_ms: int) -> None:
    """Learn from the end of a request of `queue` whose lease was claimed at `claimed_ms`."""
    budget.settle(gate.budget, feedback, now_ms)
    standing.settle(gate.standing, feedback, queue, claimed_ms, now_ms)


def evidence(gate: Gate, queue: bytes) -> Evidence:
    """How the key fares, seen from a queue of it."""
    return standing.evidence(gate.standing, queue)


def pause(gate: Gate) -> None:
    """The operator's pause."""
    gate.standing.by_operator = True


def resume(gate: Gate) -> None:
    """The end of the operator's pause."""
    gate.standing.by_operator = False


def retry(gate: Gate) -> None:
    """End every other pause; where upstream refused the key or failed, one probe still goes first."""
    standing.retry(gate.standing)


def view(gate: Gate, now_ms: int) -> View:
    """The gate as people see it."""
    rate_per_s, limit_per_s = budget.present_per_s(gate.budget), gate.budget.limit_per_s
    return standing.view(gate.standing, rate_per_s, limit_per_s, now_ms)


def dump(gate: Gate) -> bytes:
    """The gate as it is stored: MessagePack, as Redis's scripts read and write it too."""
    return msgspec.msgpack.encode(gate)


def load(text: bytes, limit_per_s: float, share: float) -> Gate:
    """A stored gate, under what the operator's settings say now.

    Raises msgspec.MsgspecError where `text` is none.
    """
    try:
        gate = _decode(text)
    except UnicodeDecodeError as error:  # which msgspec lets through
        raise msgspec.DecodeError(str(error)) from error
    budget.tune(gate.budget, limit_per_s, share)
    return gate
