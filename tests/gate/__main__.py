"""What the budget makes of each kind of limit, as a table: `python -m tests.gate`.

    python -m tests.gate                       every case, six runs each: some minutes
    python -m tests.gate alone "stranger 30"   these cases
    python -m tests.gate --seeds 20 alone      more runs

In each cell: how much of what upstream would have counted (a stranger's part aside) was used, in percent;
then the 429s, in percent of the requests where there were any and as a number, and behind `+` those of the
first 30 s.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

from tests.gate.cases import CASES
from tests.gate.virtual import KINDS, Tally, run

_FIRST_SEED = 11


def main(arguments: Sequence[str]) -> None:
    """Run the cases and print them as they end."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = "; ".join(CASES).replace("%", "%%")
    parser.add_argument("cases", nargs="*", metavar="case", help=f"of {names}; all where none is named")
    parser.add_argument("--seeds", type=int, default=6, help="runs of each cell")
    options = parser.parse_args(arguments)
    if unknown := set(options.cases) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    seeds = range(_FIRST_SEED, _FIRST_SEED + options.seeds)
    width = max(map(len, CASES))
    print(f"{'':{width}}" + "".join(f"  {kind:>22}" for kind in KINDS))
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for name in options.cases or CASES:
            cells = []
            for kind in KINDS:
                tally = Tally()
                for each in pool.map(partial(_run, name, kind), seeds):
                    tally.add(each)
                cells.append(_cell(tally))
            print(f"{name:{width}}" + "".join(f"  {cell:>22}" for cell in cells), flush=True)


def _run(case: str, kind: str, seed: int) -> Tally:
    return run(CASES[case](KINDS[kind]), seed)


def _cell(tally: Tally) -> str:
    learning = f"+{tally.learning}" if tally.learning else ""
    stranger = f" s{100 * tally.stranger_refused:.1f}" if tally.stranger_limited else ""
    return f"{100 * tally.used:.1f}/{100 * tally.refused:.3f} ({tally.limited}{learning}){stranger}"


if __name__ == "__main__":
    main(sys.argv[1:])
