"""The stand-in for Outlit's Platform API.

``desk`` walks one call through: it is ``judged`` as the real service would (``routes`` say what stands where;
``tools`` and ``integrations`` give a ``verdict``, out of the ``context`` of the customers, which ``query``
reads by SQL, and of the ``workspace``, which calls can change), an order may strike it (``incidents``), then
it takes effect or not, is written down (``calls``) and answered.
"""

from proxy.sandbox.platform.calls import CALLS_BOUND, Call, Calls
from proxy.sandbox.platform.incidents import Asked, Happens, Incident, Incidents
from proxy.sandbox.platform.routes import Route
from proxy.sandbox.platform.state import Platform

__all__ = [
    "CALLS_BOUND",
    "Asked",
    "Call",
    "Calls",
    "Happens",
    "Incident",
    "Incidents",
    "Platform",
    "Route",
]
