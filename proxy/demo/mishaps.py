"""What goes wrong upstream in the course of a run, and when."""

from dataclasses import dataclass, replace

from proxy.sandbox import Fault, Programme, Running, What

LATENCY_MS = 40
"""Of every upstream answer: what a request to another region takes."""
LATENCY = Fault(what=What.LATENCY, latency_ms=LATENCY_MS)
SABOTAGE = {"drop": What.DROP, "double": What.DOUBLE, "swap": What.SWAP}


@dataclass(frozen=True, slots=True)
class Mishap:
    """A fault, how many seconds into the run it strikes, and what is said of it."""

    at_s: float
    fault: Fault
    said: str


def mishaps(run_s: float, sabotage: str | None) -> tuple[Mishap, ...]:
    """The mishaps of a run of so many seconds, in order: at the same shares of every run.

    The outages last 3 s and 1 s of a run of 20 s, and never longer: what came meanwhile has to be sent
    before the end. `sabotage`: a word in `SABOTAGE`.
    """
    outage_s, limited_s = min(3.0, 0.15 * run_s), min(1.0, 0.05 * run_s)
    planned = [
        Mishap(
            0.25 * run_s,
            Fault(what=What.STATUS, status=503, seconds=outage_s, latency_ms=LATENCY_MS),
            f"upstream fails: 503 to everything for {outage_s:.1f} s",
        ),
        Mishap(
            0.50 * run_s,
            Fault(what=What.RESET, requests=1, latency_ms=LATENCY_MS),
            "upstream takes one request and resets the connection: its sender cannot know that it was taken",
        ),
        Mishap(
            0.55 * run_s,
            Fault(what=What.REFUSE_INDICES, indices=(0,), requests=1, latency_ms=LATENCY_MS),
            "upstream refuses one event of a request: 207",
        ),
        Mishap(
            0.65 * run_s,
            Fault(what=What.STATUS, status=429, seconds=limited_s, latency_ms=LATENCY_MS),
            f"upstream refuses for want of budget: 429 to everything for {limited_s:.1f} s",
        ),
    ]
    if sabotage is not None:
        fault = Fault(what=SABOTAGE[sabotage], requests=1, latency_ms=LATENCY_MS)
        # Before the reset: dropped from the second of two deliveries, an event would not be missed.
        planned.insert(0, Mishap(0.10 * run_s, fault, f"sabotage: the record will {sabotage} one event"))
    return tuple(planned)


def strike(programme: Programme, fault: Fault, now: float) -> None:
    """Switch `fault` on ahead of all that runs: the oldest strikes first, and the latency meets everyone.

    `now`: Unix seconds.
    """
    waiting = programme.running(now)
    programme.clear()
    programme.add(fault, *(_rest(each, now) for each in waiting), now=now)


def is_waiting(programme: Programme, sabotage: str, now: float) -> bool:
    """Whether the sabotage that was ordered has struck nobody yet."""
    return any(each.fault.what is SABOTAGE[sabotage] for each in programme.running(now))


def _rest(running: Running, now: float) -> Fault:
    seconds = None if running.until is None else running.until - now
    return replace(running.fault, seconds=seconds, requests=running.left)
