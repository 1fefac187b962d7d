"""What queries of Prometheus name, read off their syntax trees, and whether the proxy has it."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import promql_parser as promql

from proxy.metrics import Metrics

ROOT = Path(__file__).parents[2]
ALERTS = ROOT / "deploy/prometheus/alerts.yaml"
DASHBOARD = ROOT / "deploy/grafana/outlit-proxy.json"

OF_THE_TARGET = {"job", "instance", "namespace"}
"""Labels that Prometheus puts on every series of a target."""

OF_PROMETHEUS = {"up"}
"""Series that Prometheus makes of each scrape."""


def _known() -> tuple[dict[str, dict[str, set[str]]], set[str]]:
    metrics = Metrics()
    metrics.show_engine("sqlite", "always")
    metrics.show_engine("redis", "everysec")
    names: dict[str, dict[str, set[str]]] = {}
    of_the_buffer: set[str] = set()
    for family in metrics.registry.collect():
        if not family.samples:  # by key, and there is none yet
            names[family.name] = {"key": set()}
        if family.documentation.endswith("of the buffer."):
            of_the_buffer.add(family.name)
        for sample in family.samples:
            labels = names.setdefault(sample.name, defaultdict(set))
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return names, of_the_buffer


KNOWN, OF_THE_BUFFER = _known()
"""Every sample's name with its labels and their values; and which metrics are the same from every replica."""


def parsed(query: str) -> promql.Expr:
    """A query, with Grafana's own intervals in it or not."""
    return promql.parse(query.replace("$__rate_interval", "77s").replace("$__range", "3h"))


def nodes(expression: promql.Expr) -> list[promql.Expr]:
    found: list[promql.Expr] = []

    def note(node: promql.Expr) -> bool:
        found.append(node)
        return True

    promql.walk(expression, note)
    return found


def selectors(expression: promql.Expr) -> list[tuple[promql.VectorSelector, bool]]:
    """Each selector, and whether it is of a range: then it comes right behind that."""
    found = nodes(expression)
    return [
        (node, isinstance(before, promql.MatrixSelector))
        for before, node in pairwise([None, *found])
        if isinstance(node, promql.VectorSelector)
    ]


def flaws(query: str) -> Iterator[str]:
    """What is wrong with a query of ours, whoever asks it."""
    expression = parsed(query)
    for selector, is_range in selectors(expression):
        name = selector.name
        if name in OF_PROMETHEUS:
            continue
        if name not in KNOWN:
            yield f"there is no metric {name}"
            continue
        for matcher in selector.matchers.matchers:
            if matcher.name in OF_THE_TARGET or "$" in matcher.value:
                continue
            yield from _unknown_values(KNOWN[name], matcher, name)
        is_counter = name.endswith(("_total", "_bucket", "_sum", "_count"))
        if is_counter and not is_range:
            yield f"{name} counts since the process began: it needs a rate or an increase"
    for node in nodes(expression):
        if isinstance(node, promql.AggregateExpr) and str(node.op) == "sum":
            inner = node.expr
            if isinstance(inner, promql.VectorSelector) and inner.name in OF_THE_BUFFER:
                yield f"{inner.name} is the same from every replica: no sum"


def _unknown_values(labels: dict[str, set[str]], matcher: Any, name: str) -> Iterator[str]:
    if matcher.name not in labels:
        yield f"{name} has no label {matcher.name}"
    elif matcher.name != "key":
        for value in matcher.value.split("|"):
            if not any(re.fullmatch(value, known) for known in labels[matcher.name]):
                yield f"{name} is never with {matcher.name}={value}"


def names(queries: Sequence[str]) -> set[str]:
    """The metrics that these queries are about."""
    return {selector.name for query in queries for selector, _ in selectors(parsed(query)) if selector.name}
