"""Many seeds by a command: `make simulate`."""

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.evidence import Met
from tests.simulation.report import LINES, failure
from tests.simulation.simulation import simulate
from tests.simulation.stage import ENGINES

_SHARE = 20
"""Seeds that a process is given at a time."""


@dataclass(slots=True)
class Tally:
    """What several runs came to; `failures` are ready to be printed."""

    events: int = 0
    requests: int = 0
    virtual_s: float = 0.0
    met: Counter[Met] = field(default_factory=Counter)
    runs_that_met: Counter[Met] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Add what other runs came to."""
        self.events += other.events
        self.requests += other.requests
        self.virtual_s += other.virtual_s
        self.met += other.met
        self.runs_that_met += other.runs_that_met
        self.failures += other.failures


def tallied(engine: str, seeds: range, lines: int) -> Tally:
    """Simulate these seeds."""
    tally = Tally()
    for seed in seeds:
        run = simulate(seed, engine)
        evidence = run.evidence
        tally.events += sum(len(post.events) for post in evidence.posts)
        tally.requests += len(evidence.requests)
        tally.virtual_s += evidence.world.now_s
        tally.met += evidence.met
        tally.runs_that_met += Counter(met for met, times in evidence.met.items() if times)
        if run.broken is not None:
            tally.failures.append(failure(run, lines))
    return tally


def main() -> int:
    """Simulate, print what broke, and say how it went: 0 where every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument(
        "--engine", choices=ENGINES, default=ENGINES[0], help="what holds the events (sqlite)"
    )
    parser.add_argument("--seeds", type=int, default=10_000, help="how many (10000)")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--lines", type=int, default=LINES, help=f"of a broken run's trace ({LINES})")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one a core)")
    asked = parser.parse_args()
    seeds = range(asked.first, asked.first + asked.seeds)
    shares = [seeds[start : start + _SHARE] for start in range(0, len(seeds), _SHARE)]
    started = time.monotonic()
    total = Tally()
    with ProcessPoolExecutor(asked.jobs) as pool:
        for number, share in enumerate(pool.map(partial(tallied, asked.engine, lines=asked.lines), shares)):
            for text in share.failures:
                print(text, end="\n\n", flush=True)
            total.add(share)
            if sys.stderr.isatty():
                print(f"\r{shares[number].stop - seeds.start} of {len(seeds)}", end="\r", file=sys.stderr)
    for met in Met:
        print(f"{met:<32}{total.met[met]:>9} times in {total.runs_that_met[met]:>6} runs")
    print(
        f"{total.events} events and {total.requests} upstream requests in {total.virtual_s / 3600:.1f}"
        f" simulated hours, {time.monotonic() - started:.0f} s\n"
        f"on {asked.engine}, seeds {seeds.start} to {seeds.stop - 1}: {len(seeds) - len(total.failures)} kept"
        f" every promise, {len(total.failures)} did not"
    )
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
