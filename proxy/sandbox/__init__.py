"""The stand-in for Outlit's Ingest API: strict validation, limits with headers, faults, and a record.

It is a second, independent reading of the wire contract and imports nothing from the other rooms, so that
a misreading shows as a disagreement between the two.

``ingest`` walks one request through the room: its budget is taken (``window``), its body read (``body``)
and judged (``schema`` with ``checks``, and ``sensitive``), which gives an ``outcome`` with one of the
``answers``; a fault may strike it (``faults``, ``sabotage``); it is written down (``record``, ``transcript``)
and answered (``delivery``). ``control`` switches faults (``orders``) and shows the record over HTTP. ``app``
builds it all.
"""

from proxy.sandbox.answers import ErrorForm
from proxy.sandbox.app import LIMIT_PER_S, Sandbox
from proxy.sandbox.faults import Fault, FaultError, Programme, Running, What
from proxy.sandbox.outcome import Violation, ViolationKind
from proxy.sandbox.record import Entry, Record, Stats
from proxy.sandbox.window import WINDOWS, Allowance, FixedWindow, Window

__all__ = [
    "LIMIT_PER_S",
    "WINDOWS",
    "Allowance",
    "Entry",
    "ErrorForm",
    "Fault",
    "FaultError",
    "FixedWindow",
    "Programme",
    "Record",
    "Running",
    "Sandbox",
    "Stats",
    "Violation",
    "ViolationKind",
    "What",
    "Window",
]
