"""Every setting of the proxy: parsed once, checked as a whole, frozen.

``values`` says how a text becomes a value (``"10m"``, ``"1MB"``), ``addresses`` how what connects does
(``"[::1]:8080"``) and ``credentials`` how a secret does; ``kinds`` how each type is called and shown;
``tables`` is the list of settings, with default, bounds and meaning, ``setting`` what is read off it;
``sources`` reads them from a file, the environment and flags. ``example``, ``reference`` and ``schema`` tell
people and editors of them, with ``notes`` on what does not fit into a line.

**Two names for a setting.** What operators write is fixed: ``delivery.linger``, ``front.max_body``. The
attribute adds the unit where the operator writes it in the value: ``settings.delivery.linger_s`` (seconds),
``settings.front.max_body_bytes``. Where the name says it already (``limit_per_s``, ``buffer.max_bytes``) both
are the same. ``Setting.attribute`` is the second; everything printed uses the first.
"""

from proxy.settings.addresses import BufferUrl, ListenAddress, is_in_clear, parse_buffer_url, parse_listen
from proxy.settings.kinds import ALL, toml_text
from proxy.settings.redis_url import is_loopback
from proxy.settings.setting import Setting
from proxy.settings.sources import SettingsError, load, load_what_is_right
from proxy.settings.tables import (
    SETTINGS,
    SETTLE_S,
    BufferSettings,
    DeadSettings,
    DeliverySettings,
    FrontSettings,
    GatewaySettings,
    LogSettings,
    MetricsSettings,
    OpsSettings,
    Settings,
    UnknownKeyQuota,
    UpstreamSettings,
)

__all__ = [
    "ALL",
    "SETTINGS",
    "SETTLE_S",
    "BufferSettings",
    "BufferUrl",
    "DeadSettings",
    "DeliverySettings",
    "FrontSettings",
    "GatewaySettings",
    "ListenAddress",
    "LogSettings",
    "MetricsSettings",
    "OpsSettings",
    "Setting",
    "Settings",
    "SettingsError",
    "UnknownKeyQuota",
    "UpstreamSettings",
    "is_in_clear",
    "is_loopback",
    "load",
    "load_what_is_right",
    "parse_buffer_url",
    "parse_listen",
    "toml_text",
]
