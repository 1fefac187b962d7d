"""What operators see in numbers.

``catalogue`` defines every metric, ``gateway`` those of the gateway; ``families`` says how one is made.
"""

from proxy.metrics.catalogue import LEDGER, OTHER_KEYS, REPAIRED, Metrics
from proxy.metrics.gateway import OTHER_TOOLS, GatewayMetrics

__all__ = ["LEDGER", "OTHER_KEYS", "OTHER_TOOLS", "REPAIRED", "GatewayMetrics", "Metrics"]
