"""The demonstration: generated visitors, the real proxy, a stand-in for Outlit, and both ends compared.

``demonstration`` runs it. ``traffic`` is what visitors and servers say, and ``client`` posts it; each event
bears one of the ``marks``. ``mishaps`` is what goes wrong upstream; ``figures`` reads what the proxy tells of
itself; ``evidence`` reads the stand-in's record; ``comparison`` holds the two ends against each other;
``report`` puts it into words.
"""

from proxy.demo.demonstration import Moment, Opening, Outcome, Plan, Show, demonstrate
from proxy.demo.mishaps import SABOTAGE
from proxy.demo.report import closing_lines, failures, ledger_lines, opening_lines

__all__ = [
    "SABOTAGE",
    "Moment",
    "Opening",
    "Outcome",
    "Plan",
    "Show",
    "closing_lines",
    "demonstrate",
    "failures",
    "ledger_lines",
    "opening_lines",
]
