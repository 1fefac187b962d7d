"""Dead letters."""

from pydantic import Field

from proxy.settings.kinds import Bytes, Seconds
from proxy.settings.tables.table import DAY_S, MB, MINUTE_S, TB, YEAR_S, FrozenTable


class DeadSettings(FrozenTable):
    """Dead letters: events that ended undelivered and are kept to be looked at."""

    max_bytes: Bytes = Field(
        default=500 * MB,
        ge=MB,
        le=TB,
        description="stored bytes of dead letters, in all; beyond, the oldest are given up",
    )
    retention_s: Seconds = Field(
        default=30.0 * DAY_S,
        validation_alias="retention",
        ge=MINUTE_S,
        le=10 * YEAR_S,
        description="how long a dead letter is kept; then it is given up",
    )
