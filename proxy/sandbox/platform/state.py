"""What the Platform API is made of while the sandbox runs."""

from dataclasses import dataclass, field

from proxy.sandbox.platform.calls import Calls
from proxy.sandbox.platform.incidents import Incidents
from proxy.sandbox.platform.workspace import Workspace


@dataclass(frozen=True, slots=True)
class PlatformState:
    """What was ordered of it, what it received, and what it is about."""

    calls: Calls
    incidents: Incidents = field(default_factory=Incidents)
    workspace: Workspace = field(default_factory=Workspace)
