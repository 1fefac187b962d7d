"""The gate of one public key: when its next upstream request may leave.

Rate budget and pause in one value, pure, with the time passed in (milliseconds on the store's clock). The
buffer keeps it beside the key's queues and changes it only inside claim and settle, so that a claim takes
its rate token in the same transaction as its queue: nothing to hand back, and no lease waits for the limit.

The budget is a token bucket kept as one timestamp (GCRA): `tat_ms` is the theoretical arrival time of the
next request. A request may leave once `tat_ms` is reached and moves it one period on; a late claim may
catch up `CATCH_UP_MS` (without it late wake-ups cost 1.5 points of the limit in real time).

The rate is fixed at `SHARE_OF_LIMIT` of the limit. What the headers teach about the rate belongs in
`settle`, which already sees every answer; the state for it belongs in `Gate`.
"""

from dataclasses import dataclass, replace
from math import ceil

import msgspec

from proxy.ledger import Pause
from proxy.wire.rate_headers import MAX_WAIT_S, RateHeaders

SHARE_OF_LIMIT = 0.9
"""The rate as a share of the limit: what is left covers the spread of travel times around a window's end."""

CATCH_UP_MS = 25
"""How late a claim may be without losing its place."""

RATE_LIMITED_PAUSE_MS = 250
"""The pause after a 429 that says nothing of how long."""

MAX_PAUSE_MS = int(MAX_WAIT_S * 1000)
"""No pause is longer; one that ends further ahead is of a clock that jumped back since, and is over."""


@dataclass(frozen=True, slots=True)
class Gate:
    """The state of one key's gate. All times are Unix milliseconds of the store's clock."""

    limit_per_s: float
    rate_per_s: float
    tat_ms: float = 0.0
    pause_until_ms: int = 0
    pause_reason: Pause | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """What an answer teaches the gate. No headers: there was no answer."""

    rate_limited: bool = False
    headers: RateHeaders | None = None


NO_FEEDBACK = Feedback()
"""Nothing to learn: no request was made, or it had no answer."""


def opened(limit_per_s: float) -> Gate:
    """The gate of a key that never sent anything, for a limit of so many requests a second."""
    return Gate(limit_per_s, SHARE_OF_LIMIT * limit_per_s)


def with_limit(gate: Gate, limit_per_s: float) -> Gate:
    """The gate under another limit, its rate in proportion: what the operator set since it was stored."""
    if limit_per_s == gate.limit_per_s:
        return gate
    return replace(gate, limit_per_s=limit_per_s, rate_per_s=gate.rate_per_s * limit_per_s / gate.limit_per_s)


def claim(gate: Gate, now_ms: int) -> Gate | int:
    """Take the right to one request: the gate after it, or how many milliseconds to wait (at least 1)."""
    if pause_ms := paused_ms(gate, now_ms):
        return pause_ms
    period_ms = 1000.0 / gate.rate_per_s
    # No claim puts it further ahead than one period: then the clock jumped back, and the key goes on at
    # once. (Pulling it back to one period would not do: who is told to wait stores nothing.)
    tat_ms = gate.tat_ms if gate.tat_ms <= now_ms + period_ms else float(now_ms)
    if now_ms < tat_ms:
        return ceil(tat_ms - now_ms)
    tat_ms = max(tat_ms, now_ms - CATCH_UP_MS) + period_ms
    return replace(gate, tat_ms=tat_ms, pause_until_ms=0, pause_reason=None)


def paused_ms(gate: Gate, now_ms: int) -> int:
    """How much longer the gate is paused, 0 where it is not."""
    left_ms = gate.pause_until_ms - now_ms
    return left_ms if 0 < left_ms <= MAX_PAUSE_MS else 0


def settle(gate: Gate, feedback: Feedback, now_ms: int) -> Gate:
    """Learn from the answer to a request."""
    pause_ms, reason = pause_of(feedback)
    if pause_ms <= paused_ms(gate, now_ms):
        return gate
    return replace(gate, pause_until_ms=now_ms + pause_ms, pause_reason=reason)


def pause_of(feedback: Feedback) -> tuple[int, Pause | None]:
    """How long an answer pauses the gate (milliseconds, 0: not at all), and why."""
    return (_pause_ms(feedback.headers), Pause.RATE_LIMITED) if feedback.rate_limited else (0, None)


def _pause_ms(headers: RateHeaders | None) -> int:
    for wait_s in (headers.retry_after_s, headers.reset_in_s) if headers is not None else ():
        if wait_s:
            return min(MAX_PAUSE_MS, int(wait_s * 1000))
    return RATE_LIMITED_PAUSE_MS


def dump(gate: Gate) -> bytes:
    """The gate as it is stored."""
    return msgspec.json.encode(gate)


def load(text: bytes) -> Gate:
    """A stored gate. Raises msgspec.MsgspecError where `text` is none."""
    return msgspec.json.decode(text, type=Gate)
