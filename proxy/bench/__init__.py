"""Benchmarks of the buffer: what its verbs cost, and what an event takes that it holds.

``measure`` measures on a `Bench`, and gives figures as values; ``visits`` makes up what is stored; ``table``
prints. The benchmarks of the whole proxy, which need servers around it, are in `tests/bench`.
"""

from proxy.bench.measure import (
    APPENDS,
    SHAPES,
    AppendCost,
    ClaimCost,
    HeldSize,
    all_queues,
    measure_appends,
    measure_claims,
    measure_held,
)
from proxy.bench.table import Table
from proxy.bench.visits import DATA

__all__ = [
    "APPENDS",
    "DATA",
    "SHAPES",
    "AppendCost",
    "ClaimCost",
    "HeldSize",
    "Table",
    "all_queues",
    "measure_appends",
    "measure_claims",
    "measure_held",
]
