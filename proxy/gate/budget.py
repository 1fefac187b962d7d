"""How fast a key may send: a token bucket kept as one timestamp (GCRA), whose rate learns from the answers.

`tat_ms` is the theoretical arrival time of the next request. A request may leave once it is reached and moves
it one period on; a late claim may catch up `CATCH_UP_MS`.

The rate learns how upstream counts from one figure, the least `Remaining` of each second. At a rate too low
it stays high; at one too high it falls to 0, and the next request is a 429. In between lies a margin that
depends on how much the figure swings by itself, for jitter of the network or somebody else on the same key.
The swing is measured, and the rate steered so that the least Remaining stays `SWINGS` of it above 0. Within
a second each answer moves `tat_ms` a little, towards the usual Remaining.

Where upstream counts whole seconds, `window` finds that out, and spends them one by one instead.

Whatever the headers say, the rate is bounded by the operator's limit, times the share of it that is this
deployment's. Without headers it is 0.92 of that. `python -m tests.gate` measures all this against five kinds
of limit. Times are Unix milliseconds of the store's clock, which may jump: a moment that could not have come
about by itself is taken for none.
"""

from math import ceil

import msgspec

from proxy.gate import window
from proxy.gate.values import Feedback, Outcome
from proxy.gate.window import NONE, UNSEEN, Window

SHARE_OF_LIMIT = 0.9
"""The rate at first, and after windows were spent, as a share of the limit."""

UNTOLD_SHARE = 0.92
"""The rate as a share of the limit while answers carry no headers."""

CATCH_UP_MS = 25
"""How late a claim may be without losing its place. Without it late wake-ups cost 1.5 points in real time."""

MOST_AHEAD_MS = 1000
"""A next request further ahead than this, or than a period, is of a clock that has jumped back. (Several
nudges put it some periods ahead.)"""

SECOND_MS = 1000
"""How long Remaining is watched for its least, and 429s lower the rate once."""

HOLD_MS = SECOND_MS
"""How long nothing goes when windows are spent no more."""

LATE_SECOND_MS = 1500
"""A second of answers that took longer than this was an idle one."""

UNTOLD_MS = 2000
"""After so long without headers there are none."""

BUSY_SHARE = 0.9
"""The share of the rate that must have been answered in a second for it to teach more than caution: an idle
key that climbed caused 30 429s when work came."""

LEAST_SHARE = 0.01
"""The margin aimed at: this share of the limit, and `SWINGS` times the measured swing."""

SWINGS = 1.5
"""At 1.25 there were 3 429s in 80,000 requests by jitter of 90 ms alone (sliding log), at 1.5 none in
400,000. Each quarter costs 0.2 points there."""

MOST_MARGIN_SHARE = 0.25
"""The margin is no more than this share of the limit: of a limit of 3 it would be all."""

FIRST_SWING = 2.0
"""Requests: the swing before any was measured."""

MOST_SWING = 10.0
"""One second can show no more swing than this."""

SWING_WEIGHT = 0.1
"""Of the latest second in the mean swing."""

RAISE = 0.2
"""The part of a surplus by which the rate is raised in a second; by a deficit it is lowered at once."""

MOST_SURPLUS = 10.0
"""One second raises the rate by no more than a part of this."""

USUAL_WEIGHT = 0.005
"""Of the latest answer in the usual Remaining: a mean over about two seconds."""

NUDGE = 0.015
"""Periods by which an answer moves the next request, for each request by which Remaining differs from the
usual. A feedback gain of about 1.4 at 100 a second: 0.04 oscillates on a sliding log, 0 costs 2 points on
spiky links."""

MOST_NUDGE = 0.5
"""Periods by which one answer moves the next request at most."""

CUT = 0.9
"""By a 429 the rate is multiplied with this, once a second."""

FLOOR_SHARE = 0.1
"""The least rate as a share of the limit: a Remaining that is always 0 and yet no 429 lies. (With 0.25 five
separate senders collided.)"""

CUT_FORGOTTEN_MS = 30_000
"""How long after a 429 the rate may fall below that, down to `LIMITED_PER_S`."""

SMALL_PER_S = 3.0
"""Of a limit up to this Remaining says next to nothing: it is 0 after most requests."""

SMALL_SHARE = 0.5
"""The least rate as a share of such a limit."""

LIMITED_PER_S = 1.0
"""The least rate that a low Remaining makes after a 429."""


class Budget(msgspec.Struct):
    """The state of one key's budget."""

    most_per_s: float
    """The operator's limit."""
    share: float
    """This deployment's part of what is allowed, up to 1: the operator's."""
    limit_per_s: float
    """What upstream's headers say, the operator's limit until they do."""
    rate_per_s: float
    tat_ms: float
    held_until_ms: int
    """Until when nothing goes since windows are spent no more."""
    cut_ms: int
    """When a 429 last lowered the rate."""
    second_ms: int
    """When the present second of answers began."""
    answers: int
    """Answers of the present second."""
    least: float
    """The least Remaining of the present second, `UNSEEN` before its first answer."""
    least_before: float
    """The same of the second before, `NONE` where that was not busy."""
    swing: float
    """How much the least Remaining differs from one busy second to the next, a mean."""
    usual: float
    """Remaining, a mean. It begins at the limit: what is left is then less than usual, the pace careful."""
    window: Window


def opened(most_per_s: float, share: float) -> Budget:
    """The budget of a key that never sent anything."""
    return Budget(
        most_per_s=most_per_s,
        share=share,
        limit_per_s=most_per_s,
        rate_per_s=SHARE_OF_LIMIT * most_per_s * share,
        tat_ms=0.0,
        held_until_ms=0,
        cut_ms=0,
        second_ms=0,
        answers=0,
        least=UNSEEN,
        least_before=NONE,
        swing=FIRST_SWING,
        usual=most_per_s,
        window=window.opened(),
    )


def tune(budget: Budget, most_per_s: float, share: float) -> None:
    """Follow what the operator set since the budget was stored; nothing changes where that is the same."""
    if (most_per_s, share) == (budget.most_per_s, budget.share):
        return
    was_on, before = window.is_on(budget.window), _bound(budget)
    if budget.limit_per_s == budget.most_per_s:  # upstream never said otherwise
        budget.limit_per_s = most_per_s
    budget.most_per_s, budget.share = most_per_s, share
    _rescale(budget, before)
    if was_on and not window.is_on(budget.window):
        _back_to_pace(budget)


def present_per_s(budget: Budget) -> float:
    """How many requests a second it lets through now."""
    if window.is_on(budget.window):
        return budget.limit_per_s - budget.window.strangers
    return budget.rate_per_s


def claim(budget: Budget, now_ms: int) -> int:
    """Take a token: 0, or how many milliseconds to wait (at least 1).

    What a wait changes need not be stored: the next claim comes to the same.
    """
    if 0 < budget.held_until_ms - now_ms <= HOLD_MS:
        return budget.held_until_ms - now_ms
    period_ms = 1000 / budget.rate_per_s
    if budget.tat_ms > now_ms + max(period_ms, MOST_AHEAD_MS):  # the clock jumped back
        budget.tat_ms = float(now_ms)
    if window.is_on(budget.window) and window.turn(budget.window, budget.limit_per_s, now_ms):
        if not window.is_on(budget.window):
            _back_to_pace(budget)
            _hold(budget, now_ms)
            return 0  # one goes, so that this is stored and an answer comes
        budget.tat_ms = window.began_ms(budget.window)
    spends = window.is_on(budget.window)
    if spends and (wait_ms := window.wait_ms(budget.window, now_ms)):
        return ceil(wait_ms)
    if now_ms < budget.tat_ms:
        return ceil(budget.tat_ms - now_ms)
    if spends:
        budget.window.claims += 1
        period_ms = window.period_ms(budget.window, budget.limit_per_s)
    budget.tat_ms = max(budget.tat_ms, now_ms - CATCH_UP_MS) + period_ms
    return 0


def settle(budget: Budget, feedback: Feedback, now_ms: int) -> None:
    """Learn from the end of a request."""
    if feedback.outcome is Outcome.NONE:
        return
    was_on = window.is_on(budget.window)
    if feedback.outcome is Outcome.RATE_LIMITED:
        _cut(budget, now_ms)
    headers = feedback.headers
    if headers is None or headers.limit is None or headers.remaining is None:
        _untold(budget, feedback, now_ms)
    else:
        _told(budget, feedback, headers.limit, headers.remaining, headers.reset_at, now_ms)
    if was_on and not window.is_on(budget.window):
        _back_to_pace(budget)
        _hold(budget, now_ms)


# -- what an answer teaches ----------------------------------------------------------------------------


def _cut(budget: Budget, now_ms: int) -> None:
    """A 429 says that the rate is too high; several of one second say so once.

    What its pause leaves unused must not be made up for by nudges: that brought the next 429s.
    """
    if not 0 <= now_ms - budget.cut_ms < SECOND_MS:
        budget.rate_per_s *= CUT
        budget.cut_ms = now_ms
        _forget_seconds(budget)
        if window.is_on(budget.window):
            window.doubt(budget.window)


def _untold(budget: Budget, feedback: Feedback, now_ms: int) -> None:
    """No answer, or one without headers: after a while the rate is what is safe without any."""
    budget.answers += 1
    if window.is_on(budget.window):
        window.follow_blindly(budget.window, feedback.sent_ms, counted=_counted(feedback))
    if not 0 <= now_ms - budget.second_ms < UNTOLD_MS:
        window.forget(budget.window)
        budget.rate_per_s = min(UNTOLD_SHARE * _bound(budget), budget.rate_per_s + 1)
        budget.second_ms = now_ms
        _forget_seconds(budget)


def _told(
    budget: Budget, feedback: Feedback, limit: int, left: int, reset_at: int | None, now_ms: int
) -> None:
    """An answer with headers. `left`: its Remaining."""
    if limit != budget.limit_per_s:
        before = _bound(budget)
        budget.limit_per_s = float(limit)
        _rescale(budget, before)
    if window.is_on(budget.window):
        budget.second_ms = now_ms
        if reset_at is None:
            window.follow_blindly(budget.window, feedback.sent_ms, counted=_counted(feedback))
        else:
            window.follow(budget.window, left, reset_at, feedback.sent_ms, counted=_counted(feedback))
        return
    if reset_at is not None and _may_spend_windows(budget):
        sent_ms, counted = feedback.sent_ms, _counted(feedback)
        if window.learn(budget.window, limit, left, reset_at, sent_ms, now_ms, counted=counted):
            _back_to_pace(budget)  # all is free again, too: no sign that more may be sent
    _nudge(budget, left)
    _steer(budget, left, now_ms)


def _nudge(budget: Budget, left: int) -> None:
    """Move the next request towards the usual Remaining."""
    budget.usual += USUAL_WEIGHT * (left - budget.usual)
    if budget.least_before != NONE:
        period_ms = 1000 / budget.rate_per_s
        budget.tat_ms += max(-MOST_NUDGE, min(NUDGE * (budget.usual - left), MOST_NUDGE)) * period_ms


def _steer(budget: Budget, left: int, now_ms: int) -> None:
    """Add an answer to the present second, and at its end steer the rate."""
    budget.least = min(budget.least, left)
    budget.answers += 1
    took_ms = now_ms - budget.second_ms
    if 0 <= took_ms < SECOND_MS:
        return
    is_busy = 0 <= took_ms < LATE_SECOND_MS and budget.answers >= BUSY_SHARE * budget.rate_per_s
    if is_busy and budget.least_before != NONE:
        swing = min(abs(budget.least - budget.least_before), MOST_SWING)
        budget.swing += SWING_WEIGHT * (swing - budget.swing)
    margin = LEAST_SHARE * _bound(budget) + SWINGS * budget.swing
    surplus = budget.least - min(margin, MOST_MARGIN_SHARE * _bound(budget))
    if surplus < 0:
        budget.rate_per_s += surplus
    elif is_busy:
        budget.rate_per_s += RAISE * min(surplus, MOST_SURPLUS)
    budget.rate_per_s = max(_floor(budget, now_ms), min(budget.rate_per_s, _bound(budget)))
    budget.least_before = budget.least if is_busy else NONE
    budget.least, budget.answers, budget.second_ms = UNSEEN, 0, now_ms


# -- bounds --------------------------------------------------------------------------------------------


def _bound(budget: Budget) -> float:
    """The most that the rate may be."""
    return min(budget.limit_per_s, budget.most_per_s) * budget.share


def _floor(budget: Budget, now_ms: int) -> float:
    """The least that a low Remaining may make the rate."""
    bound = _bound(budget)
    floor = max(FLOOR_SHARE * bound, SMALL_SHARE * min(bound, SMALL_PER_S))
    return min(floor, LIMITED_PER_S) if 0 <= now_ms - budget.cut_ms < CUT_FORGOTTEN_MS else floor


def _may_spend_windows(budget: Budget) -> bool:
    """Whether the whole of upstream's limit is ours, and large enough for what windows leave over."""
    return budget.share == 1 and window.LEAST_LIMIT <= budget.limit_per_s <= budget.most_per_s


def _rescale(budget: Budget, before: float) -> None:
    """Keep the rate where it was in proportion, after the bound was another one `before`."""
    budget.rate_per_s *= _bound(budget) / before
    _forget_seconds(budget)
    if window.is_on(budget.window) and not _may_spend_windows(budget):
        window.forget(budget.window)


def _back_to_pace(budget: Budget) -> None:
    """Begin as at first, beside the strangers that were seen."""
    free = SHARE_OF_LIMIT * (_bound(budget) - budget.window.strangers)
    budget.rate_per_s = min(_bound(budget), max(LIMITED_PER_S, free))
    _forget_seconds(budget)


def _hold(budget: Budget, now_ms: int) -> None:
    """Let a second pass: the present one may be spent, and its end is not known any more."""
    budget.held_until_ms = now_ms + HOLD_MS


def _forget_seconds(budget: Budget) -> None:
    """What was seen of Remaining is of another time."""
    budget.least, budget.answers, budget.least_before = UNSEEN, 0, NONE
    budget.usual = budget.limit_per_s


def _counted(feedback: Feedback) -> bool:
    """Whether upstream's window counted the request: a refused one takes nothing."""
    return feedback.outcome is not Outcome.RATE_LIMITED
