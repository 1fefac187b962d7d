"""Whether the Platform API answers what comes through the gateway, and takes its key."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from proxy.gateway.figures import Figures, Refused
from proxy.ledger import PlatformOutcome
from proxy.ops.symptoms.values import Finding, Seen, Symptom
from proxy.ops.symptoms.wording import counted, length, when
from proxy.ops.window import Window

MAX_EXHAUSTED = 5
"""Findings about one API key's plan: more would say nothing new, and crowd out the rest."""

ANSWERING: Final = (PlatformOutcome.ANSWERED, PlatformOutcome.REFUSED)
FAILING: Final[Mapping[PlatformOutcome, str]] = {
    PlatformOutcome.FAILED: "answered with a server error",
    PlatformOutcome.UNREACHABLE: "without a connection",
    PlatformOutcome.BROKEN: "without a whole answer",
}

_WAIT: Final = (
    "Nothing until then: calls that it would refuse too are answered here, and cost nothing. Whoever upgrades"
    " the plan before says `outlit-proxy platform retry`."
)


def of_the_gateway(seen: Seen) -> Iterator[Finding]:
    """Its key refused, plans used up, or nothing answered."""
    if seen.gateway is not None:
        yield from _of_the_key(seen.gateway, seen.now_ms)
        yield from _of_plans(seen.gateway.refused, seen.now_ms)
    yield from _of_calls(seen.window)


def _of_the_key(gateway: Figures, now_ms: int) -> Iterator[Finding]:
    if not gateway.api_key or gateway.key_refused_at_ms is None:
        return
    ago = length((now_ms - gateway.key_refused_at_ms) / 1000)
    yield Finding(
        Symptom.API_KEY_REFUSED,
        "error",
        f"Outlit refuses gateway.api_key, as it said {ago} ago: callers with ops.token get a 401, which"
        " is not about their token.",
        "See at Outlit whether the key was revoked, then set gateway.api_key to one that is valid and reload"
        " (SIGHUP), or restart where it comes as a variable or credential.",
    )


def _of_plans(refused: Sequence[Refused], now_ms: int) -> Iterator[Finding]:
    own = [each for each in refused if each.is_own]
    for each in own[:MAX_EXHAUSTED]:
        plan = "The plan" if each.plan is None else f"The plan {each.plan}"
        what = each.feature or "what it includes"
        yield Finding(
            Symptom.PLAN_EXHAUSTED,
            "warning",
            f"{plan} of gateway.api_key has used up {what} ({each.status} {each.code}) until"
            f" {when(each.until_ms)}, {length((each.until_ms - now_ms) / 1000)} from now;"
            f" {counted(each.answered, 'call')} answered here since.",
            _WAIT,
        )
    others = [each for each in refused if not each.is_own]
    if others:
        last = max(each.until_ms for each in others)
        answered = sum(each.answered for each in others)
        what = ", ".join(dict.fromkeys(each.feature or each.code for each in others[:MAX_EXHAUSTED]))
        yield Finding(
            Symptom.PLAN_EXHAUSTED,
            "warning",
            f"Plans of callers' own API keys have used up what they include ({counted(len(others), 'case')}:"
            f" {what}), the last until {when(last)}; {counted(answered, 'call')} answered here"
            " since.",
            _WAIT,
        )


def _of_calls(window: Window) -> Iterator[Finding]:
    """Of those that went to Outlit in the last minute; one answer is enough to say that it is there."""
    if any(window.recent.get(f"platform_{outcome}") for outcome in ANSWERING):
        return
    failed = {
        said: count
        for outcome, said in FAILING.items()
        if (count := window.recent.get(f"platform_{outcome}"))
    }
    if failed:
        kinds = ", ".join(f"{count:,} {said}" for said, count in failed.items())
        yield Finding(
            Symptom.GATEWAY_FAILING,
            "warning",
            f"In the last minute no call to Outlit's Platform API succeeded ({kinds}).",
            "Callers are told. See Outlit's status; where it cannot be reached, name resolution, TLS and the"
            " network from here; where it takes long, gateway.timeout.",
        )
