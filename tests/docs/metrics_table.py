"""`deploy/prometheus/metrics.md`: every metric, from its definition.

`python -m tests.docs.metrics_table` writes it anew.
"""

from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.metrics import MetricWrapperBase

from proxy.metrics import OTHER_KEYS, Metrics
from tests.docs.documents import ROOT

FILE = ROOT / "deploy" / "prometheus" / "metrics.md"

HEAD = """# Metrics

Every metric of `/metrics`, generated from their definitions; do not edit. What to alert on is in
[the README](../../README.md#what-to-alert-on), what each means when it moves in
[Troubleshooting](../../README.md#which-number-moves).

*Scope*: what is *of the buffer* is the same from each replica on one Redis: take `max`. All else is of the
process: take `sum` of counters. Every value of a label that stands here is there from the start, at 0. A
label `key` without values has the first `metrics.max_key_labels` public keys that Outlit confirmed, and
`other` for the rest. A histogram has `_bucket`, `_sum` and `_count`.

| metric | type | labels | scope | meaning |
|---|---|---|---|---|
"""


def text() -> str:
    """The document as it should be."""
    registry = Metrics().registry
    labels = dict(_label_names(registry))
    return HEAD + "".join(_row(family, labels.get(family.name, ())) for family in registry.collect())


def _label_names(registry: CollectorRegistry) -> Iterator[tuple[str, Sequence[str]]]:
    """The labels of each family; also of those that have no sample yet."""
    for collector in registry._collector_to_names:
        if isinstance(within := getattr(collector, "registry", None), CollectorRegistry):
            yield from _label_names(within)
        elif isinstance(collector, MetricWrapperBase):
            yield collector._name, collector._labelnames


def _row(family: Metric, labels: Sequence[str]) -> str:
    name = f"{family.name}_total" if family.type == "counter" else family.name
    meaning = family.documentation.removesuffix("; of the buffer.")
    scope = "process" if meaning == family.documentation else "buffer"
    shown = "; ".join(f"`{label}`{_values(family, label)}" for label in labels)
    return f"| `{name}` | {family.type} | {shown} | {scope} | {meaning.rstrip('.')}. |\n"


def _values(family: Metric, label: str) -> str:
    """What a label can be, where that is a closed list."""
    values = dict.fromkeys(sample.labels[label] for sample in family.samples)
    if family.name.endswith("_info") or (label == "key" and set(values) <= {OTHER_KEYS}):
        return ""
    return f": {', '.join(values)}"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
