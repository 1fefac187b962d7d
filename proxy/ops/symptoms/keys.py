"""How each public key fares: its pauses, its Origins, its share of the buffer, what waits."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from proxy.buffer import KeyFigures
from proxy.ledger import Pause
from proxy.ops.backlog import DRAIN_S, drain_s, requests_needed
from proxy.ops.pauses import QUEUE_WAITS, WORDS
from proxy.ops.symptoms.buffer import NEARLY_FULL, nearly_full
from proxy.ops.symptoms.upstream import is_away
from proxy.ops.symptoms.values import Finding, Seen, Severity, Symptom
from proxy.ops.symptoms.wording import events, length
from proxy.ops.trends import Trend, waits_by_itself
from proxy.wire.limits import PublicKey

STEEP_S = 2.5
STEEP = 0.2
"""So much is a flood already where it grows by this part of the rate or more: what takes thirty seconds to go
out may take a minute to come together, and an operator wants to know at once."""

MAX_BY_KEY = 20
"""Findings of one kind about single keys: beyond it the rest say nothing new, and the page has an end."""

_PAUSED: Final[Mapping[Pause, tuple[Symptom, Severity]]] = {
    Pause.OPERATOR: (Symptom.PAUSED_BY_OPERATOR, "warning"),
    Pause.RATE_LIMITED: (Symptom.RATE_LIMITED, "warning"),
    Pause.KEY_REFUSED: (Symptom.KEY_REFUSED, "error"),
    Pause.UPSTREAM_FAILING: (Symptom.UPSTREAM_FAILING, "error"),
    Pause.REFUSAL_STORM: (Symptom.REFUSAL_STORM, "error"),
}


def of_keys(seen: Seen) -> Iterator[Finding]:
    """What is wrong with single keys: those first that hold most."""
    told: Counter[Symptom] = Counter()
    figures = (seen.figures or {}).items()
    for key, of in sorted(figures, key=lambda each: -each[1].books.held):
        for finding in _of_a_key(seen, key, of):
            told[finding.symptom] += 1
            if told[finding.symptom] <= MAX_BY_KEY:
                yield finding


def _of_a_key(seen: Seen, key: PublicKey, of: KeyFigures) -> Iterator[Finding]:
    gate = of.gate
    paused = Pause.OPERATOR if gate.by_operator else gate.paused
    if paused is not None:
        symptom, severity = _PAUSED[paused]
        words = WORDS[paused]
        waiting = f"{events(of.books.held)} {'waits' if of.books.held == 1 else 'wait'}"
        what = f"{words.what[0].upper()}{words.what[1:]}; {waiting}."
        yield Finding(symptom, severity, what, f"{words.what_to_do}.", key)
    if gate.forbidden_origins:
        count = len(gate.forbidden_origins)
        origins = "one Origin" if count == 1 else f"{count} Origins"
        yield Finding(
            Symptom.FORBIDDEN_ORIGINS,
            "warning",
            f"Outlit forbids (403) requests from {origins}; their queues wait, all others go on.",
            "Enable the domain at Outlit, or find out who uses the key; then `outlit-proxy keys retry`.",
            key,
        )
    if of.stored_bytes > NEARLY_FULL * seen.max_bytes_per_key:
        yield nearly_full(of.stored_bytes, seen.max_bytes_per_key, "buffer.max_bytes_per_key", key)
    is_sending = paused in (None, Pause.RATE_LIMITED) and not is_away(seen)
    yield from _of_what_waits(seen, key, of, is_sending=is_sending)
    if is_sending:
        yield from _of_a_queue_that_waits(seen, key, of)


def _of_what_waits(seen: Seen, key: PublicKey, of: KeyFigures, *, is_sending: bool) -> Iterator[Finding]:
    takes_s = drain_s(of) - of.gate.paused_for_s
    trend = seen.trends.get(key, Trend())
    growth, goes = trend.growth_per_s, is_sending and trend.is_going
    is_steep = goes and growth is not None and growth >= STEEP * of.gate.rate_per_s
    if takes_s <= (STEEP_S if is_steep else DRAIN_S):
        return
    # Where nothing goes out, only what would be too much anyway is a flood.
    unavoidable = 0.0 if goes else seen.limit_per_s
    waits = f"{requests_needed(of):,} requests wait, {length(takes_s)} at {of.gate.rate_per_s:.0f} a second"
    if growth is not None and growth > unavoidable:
        yield Finding(
            Symptom.FLOOD,
            "warning",
            f"More comes in for this key than Outlit's limit lets out: {waits}, and {growth:,.0f} more each"
            " second.",
            "Nothing is lost while the buffer has room. Find out who posts so much (a loop, a bot, a script"
            " for every event?), or ask Outlit for a higher limit. More proxies do not help.",
            key,
        )
    elif is_sending:
        to_do = "Nothing: it goes out by itself, what has waited longest first."
        if growth is None:
            to_do = "Ask again in some seconds: whether it grows is not known yet. Where it shrinks, nothing."
        yield Finding(
            Symptom.BACKLOG, "warning", f"A backlog of this key is to be worked off: {waits}.", to_do, key
        )


def _of_a_queue_that_waits(seen: Seen, key: PublicKey, of: KeyFigures) -> Iterator[Finding]:
    if waits_by_itself(of, seen.trends.get(key, Trend()), seen.now_ms):
        waited_s = (seen.now_ms - (of.oldest_held_ms or 0)) / 1000
        what = QUEUE_WAITS.what
        yield Finding(
            Symptom.QUEUE_WAITS,
            "warning",
            f"{what[0].upper()}{what[1:]}; it was accepted {length(waited_s)} ago.",
            f"{QUEUE_WAITS.what_to_do}.",
            key,
        )
