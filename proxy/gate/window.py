"""The window mode of a budget: recognise that upstream counts whole seconds of its clock, then spend each.

A fixed window shows itself in the answers: when `Reset` changes, `Remaining` jumps back by what was used.
Where it did so three times running, requests need no even pace any more. Two things can still go wrong, and
each has its reserve:

- A request that is sent late in a window arrives in the next one. So nothing leaves in the last `gap_ms` of a
  window, and the gap grows where that happened nevertheless.
- Somebody else sends with the same key. What they take is measured (`strangers`) and left to them.

`offset_ms` leads from our clock to upstream's: the least (Reset − sent) that was seen. That was of a request
that arrived just before a boundary by the shortest way; so what is sent at the start of a window arrives just
after its start. Which of the two clocks is right does not matter, and where either jumps, answers lie outside
what the windows allow and the learning begins anew.

A window is numbered by the second of upstream's clock in which it begins. Times are milliseconds.
"""

from math import floor

import msgspec

WINDOW_MS = 1000
"""The limit is one of requests a second."""

SURE = 3.0
"""Windows running in which Remaining jumped back before the mode is on."""

SUREST = 6.0
"""Sureness at the start of the mode, and its bound: three 429s end the mode, not one."""

SURER = 0.1
"""What each window adds to the sureness again: a second with 429s in ten is too many, one in a minute is
not."""

MISTAKEN_WINDOWS = 600
"""How many windows the mode stays off where Reset proved to be no boundary (windows open with a request,
say)."""

LIMITED_WINDOWS = 60
"""How many windows the mode stays off after too many 429s."""

ENOUGH = 0.2
"""The share of the limit that we must have used in a window for it to tell anything."""

FRESH_MS = 250
"""How recent the last fall of Remaining must be for its jump back to mean the turn of a window."""

MOST_STRANGERS = 0.4
"""The share of the limit that others may take. Two equal proxies see half of it taken, and stay in pace mode,
where they share evenly; without this bound three separate ones got 18, 16 and 61 requests a second."""

MOST_STRANGERS_SLACK = 5.0
"""Requests a window by which strangers may exceed that before the mode ends, so that it does not flutter."""

STRANGERS_WEIGHT = 0.2
"""Of the latest window in the mean of what strangers take."""

STRANGERS_NOISE = 2.0
"""Requests a window that are missing without a stranger: ours that are not answered yet."""

STRANGERS_AHEAD_MS = 300.0
"""What strangers may take beyond their mean, as time: Poisson arrivals of 30 in a second vary by 5."""

LEAST_SEEN_MS = 300.0
"""What strangers took is not extrapolated from less of a window than this."""

MEAN_WAY_MS = 30.0
"""A request arrives so much later than by the shortest way, roughly."""

MARGIN = 2.0
"""Requests that must be left for one to go: itself, and one for a claim that lands before the boundary.
(With 1.5 there were 8 429s on spiky links instead of 1: a request that comes seconds late takes one too.)"""

LEAST_LIMIT = 10.0
"""Of a smaller limit one request a window is too much to leave; of a limit of 1 none would ever go."""

GAP_MS = 120.0
"""The least gap: covers ways that differ by 90 ms, and 10 ms of late wake-up."""

MOST_GAP_MS = 400.0
"""The longest gap."""

GAP_FADES_MS = 0.01
"""Each answer takes this from a longer gap: one slow request is forgotten after about 10,000."""

GAP_SPARE_MS = 5.0
"""How much earlier than a request that missed its window the next ones leave at the latest."""

SPREAD_MS = 100.0
"""The requests of a window leave evenly over it less the gap and this: time to make up for a stall."""

LOOK_AGAIN_MS = 10.0
"""How soon to look again when all that is left may be taken already, or be strangers'."""

EARLY_MS = 50.0
"""A request that seems to have come so much faster than any before is one of a clock that jumped."""

LATE_MS = 4000.0
"""An answer whose Reset lies so much further ahead than the boundary is of a clock that jumped, or lies."""

JUMP_WINDOWS = 60
"""What lies so far from the last window is of a clock that jumped. (And after a minute without a request
clocks may have drifted.)"""

FIRST_STEP_MS = 40.0
"""How far behind the boundary that was seen windows begin at first: the shortest way takes longer to show.
(In 2 of 36 returns from an outage a request came too early by up to 20 ms, to a window that was spent.)"""

STEP_MS = 10.0
"""How far the boundary is moved past what an early arrival showed."""

DRIFT_MS = 0.0005
"""How much earlier windows begin with every answer: follows clocks that drift apart by 50 µs a second."""

UNSEEN = 1e9
"""Stands for a Remaining of which nothing is known: more than any limit."""

NONE = -1
"""Stands for the number of a window: none was seen."""


class Window(msgspec.Struct):
    """What is known of upstream's windows, and of the present one."""

    sureness: float
    """That windows are fixed: from `SURE` on the mode is on. Negative: not for so many windows more."""
    offset_ms: float
    """From our clock to upstream's, with the shortest way of a request added."""
    number: int
    """Of the present window."""
    left: float
    """The least Remaining of the present window."""
    left_ms: int
    """When an answer last lowered it."""
    left_phase_ms: float
    """How far into the window the request arrived that showed it."""
    own: int
    """Our requests that the present window counted, as far as answers say so."""
    claims: float
    """Requests claimed in the present window."""
    answers: int
    """How many of those are answered, and thus seen in `left`."""
    astray: int
    """How many of the answers were of another window."""
    strangers: float
    """Requests a window that others take, a mean."""
    gap_ms: float
    """How long before the end of a window nothing leaves."""


def opened() -> Window:
    """Nothing is known."""
    return Window(
        sureness=0.0,
        offset_ms=0.0,
        number=NONE,
        left=UNSEEN,
        left_ms=0,
        left_phase_ms=0.0,
        own=0,
        claims=0.0,
        answers=0,
        astray=0,
        strangers=0.0,
        gap_ms=GAP_MS,
    )


def is_on(window: Window) -> bool:
    """Whether windows are spent, instead of a pace kept."""
    return window.sureness >= SURE


def forget(window: Window, for_windows: int = 0) -> None:
    """End the mode, or what was learned so far, and learn again; the mode stays off `for_windows`."""
    window.sureness = float(-for_windows)
    window.number = NONE


def doubt(window: Window) -> None:
    """A 429 came although windows are spent. Too many of them end the mode."""
    window.sureness -= 1
    if not is_on(window):
        forget(window, LIMITED_WINDOWS)


# -- learning ------------------------------------------------------------------------------------------


def learn(
    window: Window, limit: float, left: float, reset_at: int, sent_ms: float, now_ms: int, *, counted: bool
) -> bool:
    """See in an answer whether windows are fixed. `left`: its Remaining; `counted`: it was no 429.

    Says whether upstream's clock jumped since the last answer: then nothing holds that was learned.
    """
    number = reset_at - 1
    has_jumped = window.number != NONE and abs(number - window.number) > JUMP_WINDOWS
    if has_jumped:
        window.number = NONE
    ahead_ms = reset_at * 1000 - sent_ms
    if window.number == NONE or not 0 <= ahead_ms - window.offset_ms <= LATE_MS:
        window.offset_ms = ahead_ms
    if number > window.number:
        follows = number == window.number + 1 and 0 <= now_ms - window.left_ms < FRESH_MS
        if follows and window.own >= ENOUGH * limit:
            _weigh(window, limit, left)
        _open(window, number, UNSEEN, claims=ENOUGH * limit)  # for what is in flight, should the mode begin
    if number == window.number:
        window.own += counted
        if left < window.left:
            window.left_ms = now_ms
        _see(window, left, sent_ms)
    return has_jumped


def _weigh(window: Window, limit: float, left: float) -> None:
    """Take what the turn of a window says: a fixed one gives back at once what we used."""
    _count_strangers(window, limit)
    if left - window.left <= window.own / 2:
        window.sureness = min(window.sureness, 0.0)
        return
    if window.sureness + 1 < SURE:
        window.sureness += 1
    elif window.strangers <= MOST_STRANGERS * limit:
        window.sureness = SUREST
        window.offset_ms -= FIRST_STEP_MS


# -- spending ------------------------------------------------------------------------------------------


def turn(window: Window, limit: float, now_ms: int) -> bool:
    """Go on to the window in which a request of now arrives; whether that is another one.

    What the last one showed may end the mode.
    """
    number, _ = _place(window, now_ms)
    if -1 <= number - window.number <= 0:  # at first an answer may be ahead of us by what windows begin later
        return False
    if not 0 < number - window.number <= JUMP_WINDOWS:
        forget(window)
        return True
    if number == window.number + 1 and window.own >= ENOUGH * limit:
        _count_strangers(window, limit)
    if window.answers >= ENOUGH * limit and window.astray > window.answers / 2:
        forget(window, MISTAKEN_WINDOWS)
        return True
    _open(window, number, limit, claims=0.0)
    window.sureness = min(window.sureness + SURER, SUREST)
    if window.strangers > MOST_STRANGERS * limit + MOST_STRANGERS_SLACK:
        window.sureness = 0.0
    return True


def began_ms(window: Window) -> float:
    """When the present window began, on our clock: a request sent then arrives just after its start."""
    return window.number * WINDOW_MS - window.offset_ms


def wait_ms(window: Window, now_ms: int) -> float:
    """How long the present window lets nothing more through, 0: it does."""
    _, phase_ms = _place(window, now_ms)
    rest_ms = WINDOW_MS - phase_ms
    if rest_ms <= window.gap_ms:
        return rest_ms
    in_flight = max(0.0, window.claims - window.answers)
    of_strangers = window.strangers * (rest_ms + STRANGERS_AHEAD_MS) / WINDOW_MS
    if window.left - in_flight - of_strangers < MARGIN:
        return min(LOOK_AGAIN_MS, rest_ms)
    return 0.0


def period_ms(window: Window, limit: float) -> float:
    """Between two requests of a window."""
    return (WINDOW_MS - window.gap_ms - SPREAD_MS) / limit


def follow(window: Window, left: float, reset_at: int, sent_ms: float, *, counted: bool) -> None:
    """Keep to the windows by an answer. `left`: its Remaining; `counted`: it was no 429."""
    late_ms = reset_at * 1000 - sent_ms - window.offset_ms
    if not -EARLY_MS <= late_ms <= LATE_MS:
        forget(window)
        return
    window.offset_ms += late_ms - STEP_MS if late_ms < 0 else DRIFT_MS
    sent_in, phase_ms = _place(window, sent_ms)
    if sent_in == window.number:
        window.answers += 1
        window.astray += reset_at - 1 != window.number
    if reset_at - 1 == window.number:
        window.own += counted
        _see(window, left, sent_ms)
    if reset_at - 1 == sent_in + 1 and phase_ms > WINDOW_MS / 2:  # it missed its window
        window.gap_ms = min(max(window.gap_ms, WINDOW_MS - phase_ms + GAP_SPARE_MS), MOST_GAP_MS)
    window.gap_ms = max(window.gap_ms - GAP_FADES_MS, GAP_MS)


def follow_blindly(window: Window, sent_ms: float, *, counted: bool) -> None:
    """Keep to the windows by a request that was not answered, or without headers: it may have counted."""
    if _place(window, sent_ms)[0] == window.number:
        window.own += counted
        window.answers += 1
        window.left -= 1


# -- parts ---------------------------------------------------------------------------------------------


def _place(window: Window, at_ms: float) -> tuple[int, float]:
    """Of a request sent at `at_ms` the number of the window that it arrives in, and how far into it."""
    upstream_ms = at_ms + window.offset_ms
    number = floor(upstream_ms / WINDOW_MS)
    return number, upstream_ms - number * WINDOW_MS


def _open(window: Window, number: int, left: float, claims: float) -> None:
    window.number, window.left, window.claims = number, left, claims
    window.own = window.answers = window.astray = 0


def _see(window: Window, left: float, sent_ms: float) -> None:
    if left < window.left:
        window.left = left
        window.left_phase_ms = min(_place(window, sent_ms)[1] + MEAN_WAY_MS, float(WINDOW_MS))


def _count_strangers(window: Window, limit: float) -> None:
    """Add the window that ends to the mean: what is missing from its limit and was not ours."""
    missing = max(0.0, limit - window.left - window.own - STRANGERS_NOISE)
    in_whole = missing * WINDOW_MS / max(window.left_phase_ms, LEAST_SEEN_MS)
    window.strangers += STRANGERS_WEIGHT * (in_whole - window.strangers)
