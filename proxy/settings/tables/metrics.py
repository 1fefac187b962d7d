"""How much is told by metrics."""

from pydantic import Field

from proxy.settings.kinds import Whole
from proxy.settings.tables.table import FrozenTable


class MetricsSettings(FrozenTable):
    """How much the metrics tell apart."""

    max_key_labels: Whole = Field(
        default=20,
        ge=0,
        le=1_000,
        description="public keys that metrics name one by one; the rest are `other`",
    )
