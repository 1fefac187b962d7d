"""The stand-in for Outlit: strict validation, limits with headers, faults, and a record of what came.

It is a second, independent reading of the wire contract and imports nothing from the other rooms, so that
a misreading shows as a disagreement between the two.

``ingest`` walks one request through the room: it comes over a ``Link``, its budget is taken (``limiter``, by
a ``window``), its body read (``body``) and judged (``schema`` with ``checks``, and ``sensitive``), which
gives an ``outcome`` with one of the ``answers``; a fault may strike it (``programme``, by the ``conditions``
of the ``faults``; ``sabotage``, ``lies``); it is written down (``record``, ``transcript``) and answered
(``delivery``, in a ``manner``). What is below ``/api/`` and no events' route is the Platform API's, in the
folder ``platform``, which has the same stations and shares what is no API's own: what strikes there and here
is a ``strike``. What happens when is a ``schedule`` of strikes and of ``circumstances``; ``orders`` reads
them (``reading``) from a script, or for ``control``, which also shows the records (``chronicle``) over HTTP.
``app`` builds the ``room``.
"""

from proxy.sandbox.answers import ErrorForm
from proxy.sandbox.app import Sandbox
from proxy.sandbox.bounds import OrderError
from proxy.sandbox.circumstances import LimitChange, Link, Stranger
from proxy.sandbox.conditions import Seen
from proxy.sandbox.faults import Fault, Names, Stage, What
from proxy.sandbox.limiter import Limiter
from proxy.sandbox.orders import Script, script_of
from proxy.sandbox.outcome import Rules
from proxy.sandbox.platform import Call, Happens, Incident, PlatformState, Route
from proxy.sandbox.programme import Programme
from proxy.sandbox.record import Entry, Record, Stats
from proxy.sandbox.schedule import Running, Schedule
from proxy.sandbox.violations import Violation, ViolationKind
from proxy.sandbox.window import (
    LIMIT_PER_S,
    Allowance,
    Bucket,
    FixedWindow,
    Kind,
    Limit,
    SlidingCounter,
    SlidingLog,
    Window,
)

__all__ = [
    "LIMIT_PER_S",
    "Allowance",
    "Bucket",
    "Call",
    "Entry",
    "ErrorForm",
    "Fault",
    "FixedWindow",
    "Happens",
    "Incident",
    "Kind",
    "Limit",
    "LimitChange",
    "Limiter",
    "Link",
    "Names",
    "OrderError",
    "PlatformState",
    "Programme",
    "Record",
    "Route",
    "Rules",
    "Running",
    "Sandbox",
    "Schedule",
    "Script",
    "Seen",
    "SlidingCounter",
    "SlidingLog",
    "Stage",
    "Stats",
    "Stranger",
    "Violation",
    "ViolationKind",
    "What",
    "Window",
    "script_of",
]
