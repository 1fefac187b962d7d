"""Whether a key may send at all: pauses, probes, and what upstream made of its latest requests.

| what happens | the pause | what ends it |
|---|---|---|
| the operator pauses | | the operator |
| 429 | until `Retry-After`, else until the reset, else 250 ms | time |
| the key is refused | 15 s, doubling to 300 s | an answer about events, or about their Origin |
| of 20 requests or more in 30 s, 70 % fail | 15 s, doubling to 300 s | the same |
| a *storm*: all of 20 answers about events are refusals | 5 s, doubling to 60 s | events taken |

After a pause of the last three, requests leave one at a time, each a *probe*, until an answer ends it; a
probe that fails in whatever way begins the next pause. Only a probe's answer does either: a request that was
claimed before says nothing of now. Where a probe says neither (no request was made, 429, 403 in a storm),
another one goes.

Nothing stops a key for longer than its bound, whatever the clock does: a moment further ahead than anything
here puts it was written before the clock jumped back, and is over.
"""

from math import ceil

import msgspec

from proxy.gate.values import Evidence, Feedback, Outcome, View
from proxy.ledger import Pause
from proxy.wire.rate_headers import MAX_WAIT_S, RateHeaders

RATE_LIMITED_PAUSE_MS = 250
"""The pause after a 429 that says nothing of how long, and the shortest by its reset."""

DATE_MS = 1_000
"""An answer's `Date` is whole seconds, so it may have been sent so much later."""

FIRST_PAUSE_MS = {Pause.KEY_REFUSED: 15_000, Pause.UPSTREAM_FAILING: 15_000, Pause.REFUSAL_STORM: 5_000}
LONGEST_PAUSE_MS = {Pause.KEY_REFUSED: 300_000, Pause.UPSTREAM_FAILING: 300_000, Pause.REFUSAL_STORM: 60_000}

GIVEN_UP_PAUSE_MS = 1_000
"""The pause where the refused key's events became dead letters: it is to hold nothing, and soon."""

MAX_PAUSE_MS = int(MAX_WAIT_S * 1000)
"""No pause is longer."""

PROBE_LOOK_MS = 1_000
"""How soon to ask again while a probe is out: its answer comes long before its lease ends, and who waits for
that is told of it by nobody."""

OPERATOR_WAIT_MS = 60_000
"""When to ask again during the operator's pause, which says nothing of its end."""

FAILING_WINDOW_MS = 30_000
FAILING_REQUESTS = 20
FAILING_PERCENT = 70

REMEMBERED = 20
"""Answers about events that are remembered, and all refusals of a storm."""

STORM_QUEUES = 5
"""Fewer queues than these may be one sender's mistake."""

SHOWN_ORIGINS = 20


class Standing(msgspec.Struct):
    """The state. Moments are 0 where there is none.

    `requests`, `successes`, `proven_ms`, `refused_since_ms`: as in `Evidence`. `recent`: of the latest
    answers about events, oldest first, twice the number that the first four bytes of the queue are, and 1
    more where upstream took something (a list of pairs takes Redis twice as long to read and write).
    `limited_until_ms`: when the pause of a 429 ends.

    `reason`: why requests are held back, or probe ("": they are not); `pause_until_ms`: when the next probe
    may go; `pause_ms`: how long the latest pause was, 0 where the next is a first one. `probed_ms`: when the
    latest probe was claimed; `probe_until_ms`: when its lease ends, 0 once it was answered.

    `window_ms`: when the present window of `FAILING_WINDOW_MS` began, with its requests and the failed ones.
    """

    requests: int
    successes: int
    proven_ms: int
    recent: list[int]
    limited_until_ms: int
    reason: str
    pause_until_ms: int
    pause_ms: int
    probed_ms: int
    probe_until_ms: int
    refused_since_ms: int
    window_ms: int
    window_requests: int
    window_failed: int
    forbidden_origins: list[str]
    by_operator: bool


def opened() -> Standing:
    """The standing of a key that never sent anything."""
    return Standing(
        requests=0,
        successes=0,
        proven_ms=0,
        recent=[],
        limited_until_ms=0,
        reason="",
        pause_until_ms=0,
        pause_ms=0,
        probed_ms=0,
        probe_until_ms=0,
        refused_since_ms=0,
        window_ms=0,
        window_requests=0,
        window_failed=0,
        forbidden_origins=[],
        by_operator=False,
    )


def wait_ms(standing: Standing, now_ms: int) -> int:
    """When to ask again, for nothing may be claimed now; 0: something may."""
    if standing.by_operator:
        return OPERATOR_WAIT_MS
    left_ms = max(_left_ms(standing.limited_until_ms, now_ms), _left_ms(standing.pause_until_ms, now_ms))
    if standing.reason and standing.probed_ms <= now_ms:  # else the clock jumped back since the probe
        left_ms = max(left_ms, min(standing.probe_until_ms - now_ms, PROBE_LOOK_MS))
    return left_ms


def granted(standing: Standing, now_ms: int, lease_ms: int) -> None:
    """Note that a claim was granted: while the key probes, it is the probe."""
    if standing.reason:
        standing.probed_ms = now_ms
        standing.probe_until_ms = now_ms + lease_ms
    _forget_the_future(standing, now_ms)


def wants_untroubled(standing: Standing) -> bool:
    """Whether the next claim should take a queue without trouble: in a storm, one that is taken is sought."""
    return standing.reason == Pause.REFUSAL_STORM


def settle(standing: Standing, feedback: Feedback, queue: bytes, claimed_ms: int, now_ms: int) -> None:
    """Learn from the end of a request."""
    is_probe = standing.probe_until_ms > 0 and claimed_ms == standing.probed_ms
    if is_probe:
        standing.probe_until_ms = 0
    _forget_the_future(standing, now_ms)
    outcome = feedback.outcome
    if outcome is Outcome.NONE:
        return
    if outcome is Outcome.RATE_LIMITED:
        pause_ms = max(_left_ms(standing.limited_until_ms, now_ms), _limited_ms(feedback.headers))
        standing.limited_until_ms = now_ms + pause_ms
        return
    _remember(standing, outcome, queue, claimed_ms, now_ms)
    _note_origin(standing, outcome, feedback.origin or "")
    if standing.reason:
        if is_probe:
            _probed(standing, feedback, now_ms)
    elif not claimed_ms < standing.probed_ms <= now_ms:  # claimed before what ended a pause
        _watch(standing, feedback, now_ms)


def evidence(standing: Standing, queue: bytes) -> Evidence:
    """How the key fares, seen from a queue of it."""
    own = 2 * _number(queue)
    taken = 0
    refused_elsewhere = False
    for answer in reversed(standing.recent):
        if answer % 2 == 1:
            taken += 1
        elif taken == 0 and answer != own:
            refused_elsewhere = True
    return Evidence(
        standing.requests,
        standing.successes,
        standing.proven_ms,
        len(standing.recent),
        taken,
        refused_elsewhere,
        standing.refused_since_ms,
    )


def retry(standing: Standing) -> None:
    """End every pause but the operator's, and wait for no probe; where there was one, a probe goes next."""
    standing.limited_until_ms = standing.pause_until_ms = standing.probe_until_ms = 0
    standing.pause_ms = 0


def view(standing: Standing, rate_per_s: float, limit_per_s: float, now_ms: int) -> View:
    """The gate as people see it."""
    limited_ms = _left_ms(standing.limited_until_ms, now_ms)
    paused: Pause | None = None
    paused_ms = max(limited_ms, _left_ms(standing.pause_until_ms, now_ms))
    if standing.by_operator:
        paused, paused_ms = Pause.OPERATOR, 0
    elif standing.reason:
        paused = Pause(standing.reason)
    elif limited_ms:
        paused = Pause.RATE_LIMITED
    return View(
        rate_per_s,
        limit_per_s,
        paused,
        paused_ms / 1000,
        standing.by_operator,
        tuple(standing.forbidden_origins),
    )


# -- what is remembered --------------------------------------------------------------------------------


def _remember(standing: Standing, outcome: Outcome, queue: bytes, claimed_ms: int, now_ms: int) -> None:
    standing.requests += 1
    if outcome is Outcome.TAKEN:
        standing.successes += 1
        if standing.proven_ms < claimed_ms <= now_ms:
            standing.proven_ms = claimed_ms
    if outcome in (Outcome.TAKEN, Outcome.REFUSED):
        standing.recent.append(2 * _number(queue) + (outcome is Outcome.TAKEN))
        if len(standing.recent) > REMEMBERED:
            del standing.recent[0]


def _note_origin(standing: Standing, outcome: Outcome, origin: str) -> None:
    origins = standing.forbidden_origins
    if outcome in (Outcome.TAKEN, Outcome.FORBIDDEN) and origin in origins:
        origins.remove(origin)
    if outcome is Outcome.FORBIDDEN:
        origins.insert(0, origin)
        if len(origins) > SHOWN_ORIGINS:
            del origins[-1]


def _forget_the_future(standing: Standing, now_ms: int) -> None:
    """After a jump back nothing may seem proven or refused for as long as that, nor a pause come again."""
    if standing.proven_ms > now_ms:
        standing.proven_ms = 0
    standing.refused_since_ms = min(standing.refused_since_ms, now_ms)
    if standing.limited_until_ms - now_ms > MAX_PAUSE_MS:
        standing.limited_until_ms = 0
    if standing.pause_until_ms - now_ms > MAX_PAUSE_MS:
        standing.pause_until_ms = 0


def _number(queue: bytes) -> int:
    return int.from_bytes(queue[:4], "big")


# -- pauses --------------------------------------------------------------------------------------------


def _watch(standing: Standing, feedback: Feedback, now_ms: int) -> None:
    """Begin a pause where this answer, with those before it, asks for one."""
    if not 0 <= now_ms - standing.window_ms < FAILING_WINDOW_MS:
        standing.window_ms = now_ms
        standing.window_requests = standing.window_failed = 0
    standing.window_requests += 1
    if feedback.outcome is Outcome.FAILED:
        standing.window_failed += 1
        if _fails(standing):
            _pause(standing, Pause.UPSTREAM_FAILING, now_ms)
    elif feedback.outcome is Outcome.REFUSED:
        if _storms(standing):
            _pause(standing, Pause.REFUSAL_STORM, now_ms)
    elif feedback.outcome is Outcome.KEY_REFUSED:
        _pause_of_key(standing, feedback, now_ms)


def _probed(standing: Standing, feedback: Feedback, now_ms: int) -> None:
    """End the pause or begin the next, as the probe's answer says."""
    storm = standing.reason == Pause.REFUSAL_STORM
    outcome = feedback.outcome
    if outcome is Outcome.KEY_REFUSED:
        _pause_of_key(standing, feedback, now_ms)
    elif outcome is Outcome.FAILED or (storm and outcome is Outcome.REFUSED):
        _pause(standing, Pause(standing.reason), now_ms)
    elif outcome is Outcome.TAKEN or not storm:
        standing.reason = ""
        standing.pause_until_ms = standing.refused_since_ms = 0
        _watch(standing, feedback, now_ms)


def _pause(standing: Standing, reason: Pause, now_ms: int) -> None:
    """The first pause for this reason, or one twice as long as the last."""
    if standing.reason == reason and standing.pause_ms > 0:
        standing.pause_ms = min(2 * standing.pause_ms, LONGEST_PAUSE_MS[reason])
    else:
        standing.pause_ms = FIRST_PAUSE_MS[reason]
    standing.reason = reason.value
    standing.pause_until_ms = now_ms + standing.pause_ms
    standing.window_ms = standing.window_requests = standing.window_failed = 0


def _pause_of_key(standing: Standing, feedback: Feedback, now_ms: int) -> None:
    _pause(standing, Pause.KEY_REFUSED, now_ms)
    if feedback.given_up:
        standing.pause_until_ms = now_ms + GIVEN_UP_PAUSE_MS
    if standing.refused_since_ms == 0:
        standing.refused_since_ms = now_ms


def _fails(standing: Standing) -> bool:
    return (
        standing.window_requests >= FAILING_REQUESTS
        and 100 * standing.window_failed >= FAILING_PERCENT * standing.window_requests
    )


def _storms(standing: Standing) -> bool:
    return (
        len(standing.recent) >= REMEMBERED
        and all(answer % 2 == 0 for answer in standing.recent)
        and len(set(standing.recent)) >= STORM_QUEUES
    )


def _left_ms(until_ms: int, now_ms: int) -> int:
    left_ms = until_ms - now_ms
    return left_ms if 0 < left_ms <= MAX_PAUSE_MS else 0


def _limited_ms(headers: RateHeaders | None) -> int:
    """The pause of a 429: as long as it says, or to its reset, less the second that its `Date` may lack.

    (A fixed window's 429s come at its end. Waiting for that second too cost 6 points of the limit beside a
    stranger of 30 requests a second, and avoided no 429.)
    """
    if headers is not None and headers.retry_after_s:
        return min(ceil(headers.retry_after_s * 1000), MAX_PAUSE_MS)
    if headers is not None and headers.reset_in_s:
        return max(RATE_LIMITED_PAUSE_MS, min(ceil(headers.reset_in_s * 1000) - DATE_MS, MAX_PAUSE_MS))
    return RATE_LIMITED_PAUSE_MS
