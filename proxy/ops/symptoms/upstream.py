"""Whether upstream answers."""

from collections.abc import Iterator, Mapping
from typing import Final

from proxy.ledger import Answered
from proxy.ops.symptoms.values import Finding, Seen, Symptom
from proxy.ops.symptoms.wording import length
from proxy.ops.window import Window

SILENT_S = 3.0
"""So long requests may be under way, and none answered, before somebody is told."""

FAILING_S = 2.0
FAILED_IN_A_ROW = 10
"""An outage: nothing answered for `FAILING_S` since the first failure, or so many failures in a row. Sooner
it may be one server of Outlit's that is restarted."""

UNSTEADY_SHARE = 0.1
UNSTEADY_FAILED = 5
"""More than this part of the requests, and so many at least, fail while others are answered: unsteady."""

_FAILURES: Final[Mapping[Answered, str]] = {
    Answered.FAILED: "answered with a server error",
    Answered.UNANSWERED: "without an answer",
    Answered.UNREACHED: "without a connection",
}


def of_upstream(seen: Seen) -> Iterator[Finding]:
    """Away, or unsteady."""
    window = seen.window
    if is_away(seen):
        yield Finding(
            Symptom.UPSTREAM_NOT_ANSWERING,
            "error",
            _how_it_is_away(window),
            "Nothing has to be done to keep events: they wait, in order, and go out when it is back. See"
            " Outlit's status; where it cannot be reached, name resolution, TLS and the network from here.",
        )
        return
    failed = round(window.failed_per_s * window.window_s)
    if failed >= UNSTEADY_FAILED and window.failed_per_s > UNSTEADY_SHARE * window.requests_per_s:
        share = window.failed_per_s / window.requests_per_s
        yield Finding(
            Symptom.UPSTREAM_UNSTEADY,
            "warning",
            f"Of the requests to Outlit {share:.0%} failed in the last {length(window.window_s)} (server"
            " errors, no answer, no connection).",
            "They are sent again by themselves. If it goes on, see Outlit's status.",
        )


def is_away(seen: Seen) -> bool:
    """Whether upstream answers nothing: it may be away, or out of reach.

    Where nothing is held any more nobody asks: what is left was erased, or another replica has delivered it.
    """
    nothing_held = seen.figures is not None and not any(of.books.held for of in seen.figures.values())
    return answers_nothing(seen.window) and not nothing_held


def answers_nothing(window: Window) -> bool:
    """Whether this process's latest requests were all in vain, or wait for an answer for long."""
    failed = sum(window.failed_in_a_row.values())
    failing = failed > 0 and (window.failing_s >= FAILING_S or failed >= FAILED_IN_A_ROW)
    return failing or window.silent_s >= SILENT_S


def _how_it_is_away(window: Window) -> str:
    failed = window.failed_in_a_row
    if failed:
        kinds = ", ".join(f"{count:,} {_FAILURES[name]}" for name, count in failed.items())
        ago = length(window.failing_s)
        return f"Outlit does not answer: for {ago} no request has succeeded ({kinds})."
    waiting = "a request waits" if window.in_flight == 1 else f"{window.in_flight} requests wait"
    return f"Outlit does not answer: {waiting}, and none was answered for {length(window.silent_s)}."
