"""The stand-in for Outlit's Platform API.

``desk`` walks one call through: it is ``judged`` as the real service would (``routes`` say what stands where;
``tools`` and ``integrations`` give a ``verdict``, out of the ``context`` of the customers, which ``query``
reads by SQL, and of the ``workspace``, which calls can change), an order may strike it (``incidents``), then
it takes effect or not, is written down (``calls``, without its ``keys``) and answered. The ``state`` is what
lasts of all this from call to call.
"""

from proxy.sandbox.platform.calls import CALLS_BOUND, Call, Calls
from proxy.sandbox.platform.incidents import Happens, Incident
from proxy.sandbox.platform.routes import Route
from proxy.sandbox.platform.state import PlatformState

__all__ = [
    "CALLS_BOUND",
    "Call",
    "Calls",
    "Happens",
    "Incident",
    "PlatformState",
    "Route",
]
