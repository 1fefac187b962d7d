"""Benchmarks: what the buffer's verbs cost and what an event takes that it holds; how the limit is used.

``measure`` measures the buffer on a `Bench`, and gives figures as values; ``visits`` makes up what is stored.
``budget`` measures the use of the limit: a ``fleet`` of proxies sends to a ``stand_in``. ``table`` prints.
The benchmarks of the whole proxy, which need servers around it, are in `tests/bench`.
"""

from proxy.bench.budget import ALLOWED, Case, Usage, as_document, cases, measure_usage, names
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
    "ALLOWED",
    "APPENDS",
    "DATA",
    "SHAPES",
    "AppendCost",
    "Case",
    "ClaimCost",
    "HeldSize",
    "Table",
    "Usage",
    "all_queues",
    "as_document",
    "cases",
    "measure_appends",
    "measure_claims",
    "measure_held",
    "measure_usage",
    "names",
]
