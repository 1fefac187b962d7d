"""The listener for operators."""

from typing import Annotated

from pydantic import Field

from proxy.settings.addresses import ListenAddress
from proxy.settings.kinds import ALL, RESTART, Hosts, Listen, Token
from proxy.settings.tables.table import FrozenTable


class OpsSettings(FrozenTable):
    """The listener for operators: health, metrics, administration."""

    listen: Annotated[Listen, RESTART] = Field(
        default=ListenAddress("127.0.0.1", 9090), description="where operators, probes and Prometheus connect"
    )
    token: Token = Field(
        default=None,
        description="bearer token of administration and gateway, 8 to 512 characters; off without one",
    )
    allowed_hosts: Hosts = Field(
        default=(ALL,),
        description="names by which this listener may be called, without port; by another it answers 403",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """Those by which the listener may be called: its own, too, by which commands beside it ask."""
        return (*self.allowed_hosts, self.listen.host.lower())
