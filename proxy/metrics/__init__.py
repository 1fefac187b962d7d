"""What operators see in numbers: ``catalogue`` defines every metric, ``families`` says how one is made."""

from proxy.metrics.catalogue import LEDGER, OTHER_KEYS, OTHER_TOOLS, REPAIRED, Metrics

__all__ = ["LEDGER", "OTHER_KEYS", "OTHER_TOOLS", "REPAIRED", "Metrics"]
