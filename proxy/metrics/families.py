"""How metrics are made: under our name, in a registry that may be hidden for a while."""

from collections.abc import Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    disable_created_metrics,
)
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge beside each counter that says what process_start_time_seconds says

_P = "outlit_proxy_"


class WhileKnown(Collector):
    """Metrics that are shown only while what they say is known."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.is_known = True

    def collect(self) -> Iterable[Metric]:
        return self.registry.collect() if self.is_known else ()


class Makers:
    """Makes metrics of ours in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def counter(self, name: str, help_: str) -> Counter:
        return Counter(f"{_P}{name}", help_, registry=self._registry)

    def counters(self, name: str, help_: str, label: str, values: Iterable[str]) -> Mapping[str, Counter]:
        family = Counter(f"{_P}{name}", help_, (label,), registry=self._registry)
        return {str(value): family.labels(str(value)) for value in values}

    def counter_by(self, name: str, help_: str, *labels: str) -> Counter:
        """A counter whose labels' values are not all known beforehand; nor are a `gauge_by`'s."""
        return Counter(f"{_P}{name}", help_, labels, registry=self._registry)

    def gauge(self, name: str, help_: str) -> Gauge:
        return Gauge(f"{_P}{name}", help_, registry=self._registry)

    def gauges(self, name: str, help_: str, label: str, values: Iterable[str]) -> Mapping[str, Gauge]:
        family = Gauge(f"{_P}{name}", help_, (label,), registry=self._registry)
        return {str(value): family.labels(str(value)) for value in values}

    def gauge_by(self, name: str, help_: str, *labels: str) -> Gauge:
        return Gauge(f"{_P}{name}", help_, labels, registry=self._registry)

    def histogram(self, name: str, help_: str, buckets: Iterable[float]) -> Histogram:
        return Histogram(f"{_P}{name}", help_, registry=self._registry, buckets=tuple(buckets))
