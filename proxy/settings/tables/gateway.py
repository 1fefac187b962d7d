"""The gateway to the Platform API."""

from pydantic import Field

from proxy.settings.kinds import ALL, ApiKey, Seconds, Tools
from proxy.settings.tables.table import MINUTE_S, FrozenTable


class GatewaySettings(FrozenTable):
    """The gateway to Outlit's Platform API, on the operations listener."""

    api_key: ApiKey = Field(
        default=None,
        description="Outlit's secret API key, which is sent for callers that hold ops.token",
    )
    tools: Tools = Field(
        default=(ALL,), description="tools that may be called, by name; another is answered 403; empty: none"
    )
    timeout_s: Seconds = Field(
        default=60.0,
        validation_alias="timeout",
        ge=0.1,
        le=10 * MINUTE_S,
        description="how long one call may take, its retries and its answer included; 504 beyond",
    )
