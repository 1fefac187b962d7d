"""What a run says: pure, from values to lines. No line holds anything that somebody else sent."""

import json
from collections.abc import Iterator
from itertools import chain, islice, zip_longest

from proxy.demo.demonstration import Moment, Opening, Outcome
from proxy.demo.figures import Figures
from proxy.demo.marks import KEY

EXAMPLES = 5
"""Findings that are named; the others are counted."""
_EXAMPLE_CHARACTERS = 400
_PASTED = {
    "visitorId": "0193b0a0-0000-7000-8000-00000000c0de",
    "events": [{"type": "pageview", "url": "https://example.com/pricing", "path": "/pricing"}],
}


def opening_lines(opening: Opening) -> Iterator[str]:
    """What listens where, and a command to paste."""
    buffer = opening.buffer
    yield f"public    {opening.front_url}   point a client's apiHost here"
    yield f"ops       {opening.ops_url}   /metrics /readyz"
    yield (
        f"buffer    {buffer.target or f'sqlite {buffer.path}'}, durability {buffer.durability}"
        f"      upstream  stand-in, {opening.limit_per_s} requests/s, with faults"
    )
    plan = opening.plan
    yield (
        f"clients   {plan.visitors} visitors at a time and {opening.servers} servers, for {plan.run_s:g} s"
        " (Ctrl-C ends it early)"
    )
    yield "in a second terminal:"
    yield (
        f"  curl -si {opening.front_url}/api/i/v1/{KEY}/events"
        f" -H 'Content-Type: application/json' -d '{json.dumps(_PASTED, separators=(',', ':'))}'"
    )


def ledger_lines(moment: Moment) -> tuple[str, str]:
    """The books, and what goes with them: two lines, or one where there is room."""
    figures = moment.figures
    per_request = f"{figures.sent / figures.requests:.1f}" if figures.requests else "–"
    oldest_s = 0.0 if figures.oldest_held_at is None else max(0.0, moment.at - figures.oldest_held_at)
    parts = [
        f"{per_request} events/request",
        f"{figures.rate_limited} × 429",
        f"oldest {oldest_s:.1f} s",
    ]
    if moment.beyond_limit:
        parts.append(f"{moment.beyond_limit} beyond the limit")
    if moment.others:
        parts.append(f"also kept {moment.others:,}")
    return books(figures), "   ".join(parts)


def books(figures: Figures) -> str:
    """The identity that must hold, with its numbers."""
    return (
        f"accepted {figures.accepted:,} = held {figures.held:,} + delivered {figures.delivered:,}"
        f" + dead {figures.dead:,} + dropped {figures.dropped:,}"
    )


def closing_lines(outcome: Outcome) -> Iterator[str]:
    """How it went; the last line is the verdict, or what speaks against it."""
    verdict, figures = outcome.verdict, outcome.figures
    if figures.requests:
        as_it_fell = f", as it fell: {outcome.as_limit_fell}" if outcome.as_limit_fell else ""
        yield (
            f"{figures.sent:,} events in {figures.requests:,} upstream requests; in the busiest second"
            f" {outcome.busiest_second} requests; 429 beyond the limit: {outcome.beyond_limit}{as_it_fell}"
        )
    yield (
        f"clients sent {outcome.sent_again:,} posts again, {figures.duplicate:,} events of them were known;"
        f" deliveries that upstream may have taken unseen: {figures.ambiguous:,}"
    )
    if verdict.others:
        yield f"also kept {verdict.others:,} that others posted, left out of the comparison"
    if outcome.unacknowledged:
        yield f"left without an answer at the end: {outcome.unacknowledged:,} events, owed to nobody"
    yield from (f"FAILED: {failure}" for failure in failures(outcome))
    # One of each kind before a second of any.
    in_turn = chain.from_iterable(zip_longest(*verdict.findings.values()))
    for finding in islice((each for each in in_turn if each is not None), EXAMPLES):
        yield f"  {_shorten(finding)}"
    yield _sentence(outcome)


def failures(outcome: Outcome) -> tuple[str, ...]:
    """What keeps a run from proving the promise; nothing, where it is proven."""
    return tuple(_failures(outcome))


def _shorten(text: str) -> str:
    """`text` in a readable length."""
    return text if len(text) <= _EXAMPLE_CHARACTERS else f"{text[:_EXAMPLE_CHARACTERS]}…"


def _failures(outcome: Outcome) -> Iterator[str]:
    verdict, figures = outcome.verdict, outcome.figures
    if not verdict.acknowledged:
        yield "no event was acknowledged, which proves nothing: run it longer, or with more visitors"
    if outcome.sabotage_missed:
        yield "the sabotage met no event: run it longer, or with more visitors"
    if figures.held:
        yield f"{figures.held:,} events still held after {outcome.drain_s:.0f} s: run it with fewer visitors"
    if not figures.balance:
        yield f"the books do not balance: {books(figures)}; difference {figures.difference:,}"
    if outcome.refused:
        yield f"the proxy refused {outcome.refused:,} events that are valid"
    for kind, found in verdict.findings.items():
        yield f"{len(found):,} {kind}"


def _sentence(outcome: Outcome) -> str:
    verdict = outcome.verdict
    remarks = []
    if verdict.dead:
        what = "a dead letter" if verdict.dead == 1 else "dead letters"
        remarks.append(f"{verdict.dead:,} of them as {what}")
    if verdict.announced:
        remarks.append(f"doubled {verdict.announced:,}, all of them announced")
    remark = f" ({'; '.join(remarks)})" if remarks else ""
    return (
        f"kept {verdict.kept:,} of {verdict.acknowledged:,}, misattributed {len(verdict.misattributed):,},"
        f" out of order {len(verdict.out_of_order):,}{remark}"
    )
