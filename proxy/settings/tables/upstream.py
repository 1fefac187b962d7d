"""The way to Outlit."""

from pydantic import Field

from proxy.settings.kinds import UpstreamUrl
from proxy.settings.tables.table import FrozenTable


class UpstreamSettings(FrozenTable):
    """Where batches and the gateway's calls go."""

    url: UpstreamUrl = Field(
        default="https://app.outlit.ai",
        description="Outlit's address; what is called there begins with /api/",
    )
