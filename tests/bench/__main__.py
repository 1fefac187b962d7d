"""All benchmarks, or one: tables of what accepting, holding and delivering cost on this machine.

    python -m tests.bench                    all of them: eight minutes at most
    python -m tests.bench --thorough         the same with more and longer rounds: an hour
    python -m tests.bench accept [...]       or held, memory, deliver, idle; with their options (--help)

What the buffer alone costs is measured by `outlit-proxy bench buffer`.

Nothing is asserted: a figure says little without the machine that it was measured on.
"""

import sys
import time
from collections.abc import Callable, Sequence

from tests.bench import accept, deliver, held, idle, memory

_ALL: dict[str, Callable[[Sequence[str]], None]] = {
    "accept": accept.main,
    "held": held.main,
    "memory": memory.main,
    "deliver": deliver.main,
    "idle": idle.main,
}
_THOROUGH = {
    "accept": ["--rounds", "15", "--seconds", "5"],
    "held": ["--events", "200000"],
    "memory": ["--events", "3000000"],
    "deliver": ["--rounds", "9", "--requests", "10000"],
}


def main(arguments: Sequence[str]) -> None:
    match arguments:
        case []:
            _run_all({})
        case ["--thorough"]:
            _run_all(_THOROUGH)
        case [name, *options] if name in _ALL:
            sys.argv[0] = f"bench {name}"
            _ALL[name](options)
        case _:
            sys.exit(__doc__)


def _run_all(options: dict[str, list[str]]) -> None:
    began_at = time.monotonic()
    for name, bench in _ALL.items():
        bench(options.get(name, []))
        print()
    print(f"All of it took {time.monotonic() - began_at:.0f} s.")


if __name__ == "__main__":
    main(sys.argv[1:])
