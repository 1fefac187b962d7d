"""How much is told by logs."""

from typing import Literal

from pydantic import Field

from proxy.settings.tables.table import FrozenTable


class LogSettings(FrozenTable):
    """Logs, which go to stderr."""

    format: Literal["auto", "json", "text"] = Field(
        default="auto", description="how they are written; auto: as text on a terminal, as JSON elsewhere"
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="the least severe lines that are written"
    )
