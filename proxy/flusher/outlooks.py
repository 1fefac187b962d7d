"""What a delivery leaves to the next one of its queue: how long to wait, how many events, which are suspect.

Suspects are a binary search that goes on from lease to lease: upstream did not take a batch and did not say
why, so one of its events is to blame, and the next batch holds half of them. Taken, they are innocent; not
taken, the others are out of it for now. All its state is `Trouble.suspects` and the size of the next batch,
both the queue's: a crash loses nothing of it, and each step is a delivery like any other.
"""

from dataclasses import replace
from math import ceil

from proxy.buffer import ALL_IS_WELL, Outlook, Trouble
from proxy.flusher.values import Case
from proxy.wire.limits import EVENTS_PER_REQUEST
from proxy.wire.rate_headers import MAX_WAIT_S

BACK_OFF_S = 2.0
"""The first wait of a queue after a failed try; it doubles with each further one …"""

MAX_BACK_OFF_S = MAX_WAIT_S
"""… up to this."""

JITTER = 0.2
"""Waits are spread by this share either way, so that queues that failed together do not return together."""

GROWTH = 2
"""A batch that was taken lets the next one hold so many times as many events."""

SMALL_GROWTH = 8
"""After a 413 it is by this part: the bound on bodies is likely to stay, and would refuse each doubling."""

_MANY_DOUBLINGS = 30


def doubling_s(first_s: float, longest_s: float, before: int, jitter: float) -> float:
    """The wait after `before` others, spread by `jitter` (−1 to 1)."""
    return min(first_s * 2.0 ** min(before, _MANY_DOUBLINGS), longest_s) * (1 + JITTER * jitter)


def back_off_s(case: Case, jitter: float) -> float:
    """The wait of a queue after a failed try."""
    return doubling_s(BACK_OFF_S, MAX_BACK_OFF_S, case.attempts, jitter)


def trouble_of(case: Case) -> Trouble:
    """The trouble of a head that was not taken: what was remembered, or begun now."""
    begun = Trouble(case.claimed_ms, case.evidence.requests, case.evidence.successes)
    return case.outlook.trouble or begun


def suspecting(trouble: Trouble, suspects: int, refused_ms: int = 0) -> Trouble:
    """The trouble once one of the first `suspects` is to blame, by a refusal (when it came) or otherwise.

    That a batch was too large says nothing any more.
    """
    return replace(trouble, suspects=suspects, refused_ms=refused_ms if suspects else 0, too_large=False)


def bereft(trouble: Trouble, events: int) -> Trouble:
    """The trouble once so many events at the head of the queue are dead: the suspects are fewer."""
    if not events or not trouble.suspects:
        return trouble
    return suspecting(trouble, max(0, trouble.suspects - events), trouble.refused_ms)


def halved(case: Case, trouble: Trouble) -> Outlook:
    """Next time half of this batch."""
    return Outlook(max(1, case.events // 2), trouble)


def after_success(case: Case) -> Outlook:
    """The batch was taken: half of the suspects that are left, or, where none is, more than before."""
    trouble = case.outlook.trouble
    if trouble is None:
        return grown(case)
    if (left := trouble.suspects - case.events) > 0:
        return Outlook((left + 1) // 2, progressed(case, trouble, left, taken=True))
    if trouble.too_large:
        size = case.outlook.max_events + ceil(case.outlook.max_events / SMALL_GROWTH)
        return Outlook(size, trouble) if size < EVENTS_PER_REQUEST else ALL_IS_WELL
    return grown(case)


def progressed(case: Case, trouble: Trouble, suspects: int, *, taken: bool) -> Trouble:
    """The trouble of those who are the head now, with this request behind them.

    Failed tries count from 0 again, so the key's others do, too: the old head's own must not be among them.
    """
    requests, successes = case.evidence.requests + 1, case.evidence.successes + taken
    return replace(trouble, suspects=suspects, requests=requests, successes=successes)


def grown(case: Case) -> Outlook:
    """Nothing is wrong any more: batches grow again, step by step, for bad events like company."""
    return Outlook(min(GROWTH * case.outlook.max_events, EVENTS_PER_REQUEST))
