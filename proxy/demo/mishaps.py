"""What goes wrong upstream in the course of a run, and when."""

from dataclasses import dataclass

from proxy.demo.marks import KEY, POISON
from proxy.sandbox import Fault, LimitChange, Link, Names, Programme, Script, What

LATENCY_MS = 40
"""Of every upstream answer: what a request to another region takes."""
FORBIDDEN_ORIGIN = "https://docs.shop.example"
"""One of those that visitors come from."""
LOWERED_PER_S = 50
SABOTAGE = {"drop": What.DROP, "double": What.DOUBLE, "swap": What.SWAP}

_NAMED, _UNNAMED = f"{POISON}named", f"{POISON}unnamed"

THROUGHOUT = Script(
    faults=(
        Fault(what=What.REFUSE, event=_NAMED, names=Names.PATHS),
        Fault(what=What.REFUSE, event=_UNNAMED),
    ),
    links=(Link(latency_ms=LATENCY_MS),),
)
"""How upstream is from the beginning to the end."""


@dataclass(frozen=True, slots=True)
class Mishap:
    """What happens so many seconds into the run, and what is said of it: one of the following.

    `fault` or `limit`: ordered of upstream. `planted`: the name of an event that upstream refuses; a new
    visitor sends it. `retried`: an operator has what waits sent again at once.
    """

    at_s: float
    said: str
    fault: Fault | None = None
    limit: LimitChange | None = None
    planted: str | None = None
    retried: bool = False

    @property
    def lasts_s(self) -> float:
        """For how long upstream is so."""
        order = self.fault or self.limit
        return (order.seconds or 0.0) if order is not None else 0.0


def mishaps(run_s: float, sabotage: str | None) -> tuple[Mishap, ...]:
    """The mishaps of a run of so many seconds, in order: at the same shares of every run.

    None lasts longer than in a run of 20 s: what came meanwhile has to be sent before the end. `sabotage`: a
    word in `SABOTAGE`.
    """
    outage_s, forbidden_s, refused_s, limited_s, lowered_s = (
        min(most, share * run_s) for most, share in ((3, 0.15), (2, 0.1), (1, 0.05), (1, 0.05), (2, 0.1))
    )
    planned = [
        Mishap(
            0.04 * run_s,
            "a visitor sends an event that upstream refuses, and names: 400",
            planted=_NAMED,
        ),
        Mishap(
            0.12 * run_s,
            "another sends one that upstream refuses without a word which it is: 400",
            planted=_UNNAMED,
        ),
        Mishap(
            0.20 * run_s,
            f"upstream fails: 503 to everything for {outage_s:.1f} s",
            Fault(what=What.STATUS, status=503, seconds=outage_s),
        ),
        Mishap(
            0.37 * run_s,
            f"upstream forbids one of the two websites: 403 to its Origin for {forbidden_s:.1f} s",
            Fault(what=What.STATUS, status=403, origin=FORBIDDEN_ORIGIN, seconds=forbidden_s),
        ),
        Mishap(
            0.48 * run_s,
            f"upstream does not know the key: 401 for {refused_s:.1f} s",
            Fault(what=What.STATUS, status=401, public_key=KEY, seconds=refused_s),
        ),
        Mishap(
            0.55 * run_s,
            "the operator has mended both, and does not wait for the next try: outlit-proxy keys retry",
            retried=True,
        ),
        Mishap(
            0.60 * run_s,
            "upstream takes one request and resets the connection: its sender cannot know that it was taken",
            Fault(what=What.RESET, requests=1),
        ),
        Mishap(
            0.63 * run_s,
            "upstream refuses one event of a request: 207",
            Fault(what=What.REFUSE_INDICES, indices=(0,), requests=1),
        ),
        Mishap(
            0.66 * run_s,
            f"upstream refuses for want of budget: 429 to everything for {limited_s:.1f} s",
            Fault(what=What.STATUS, status=429, seconds=limited_s),
        ),
        Mishap(
            0.75 * run_s,
            f"upstream allows {LOWERED_PER_S} requests a second for {lowered_s:.1f} s",
            limit=LimitChange(limit=LOWERED_PER_S, seconds=lowered_s),
        ),
    ]
    if sabotage is not None:
        fault = Fault(what=SABOTAGE[sabotage], requests=1)
        # Before the reset: dropped from the second of two deliveries, an event would not be missed.
        planned.insert(1, Mishap(0.10 * run_s, f"sabotage: the record will {sabotage} one event", fault))
    return tuple(planned)


def calm(programme: Programme, now: float) -> bool:
    """End what would end by itself, for who ends the run early, and say whether there was any.

    `now`: Unix seconds.
    """
    running = programme.running(now)
    lasting = [each.order for each in running if each.until is None]
    programme.clear()
    programme.add(*lasting, now=now)
    return len(lasting) < len(running)


def is_waiting(programme: Programme, sabotage: str, now: float) -> bool:
    """Whether the sabotage that was ordered has struck nobody yet."""
    return any(running.order.what is SABOTAGE[sabotage] for running in programme.running(now))
