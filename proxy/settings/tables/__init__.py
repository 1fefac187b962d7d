"""Every setting, a table a file: name, unit, bounds, default, meaning.

The models are the one list. ``SETTINGS`` is read off them; flags, environment names, ``config show``, the
example, the reference and the JSON Schema come from ``SETTINGS``. ``notes`` has what of a setting does not
fit into a line. A setting whose mechanism does not exist is not here.
"""

from proxy.settings.tables.buffer import BufferSettings
from proxy.settings.tables.dead import DeadSettings
from proxy.settings.tables.delivery import SETTLE_S, DeliverySettings
from proxy.settings.tables.front import FrontSettings, UnknownKeyQuota
from proxy.settings.tables.gateway import GatewaySettings
from proxy.settings.tables.log import LogSettings
from proxy.settings.tables.metrics import MetricsSettings
from proxy.settings.tables.ops import OpsSettings
from proxy.settings.tables.settings import SETTINGS, TABLES, Settings
from proxy.settings.tables.table import Clash
from proxy.settings.tables.upstream import UpstreamSettings

__all__ = [
    "SETTINGS",
    "SETTLE_S",
    "TABLES",
    "BufferSettings",
    "Clash",
    "DeadSettings",
    "DeliverySettings",
    "FrontSettings",
    "GatewaySettings",
    "LogSettings",
    "MetricsSettings",
    "OpsSettings",
    "Settings",
    "UnknownKeyQuota",
    "UpstreamSettings",
]
