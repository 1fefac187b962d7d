"""All settings together: what must fit across tables, and whence each value came."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Self

from pydantic import PrivateAttr, model_validator

from proxy.settings.setting import Setting, Table, settings_of, tables_of
from proxy.settings.tables.buffer import BufferSettings
from proxy.settings.tables.dead import DeadSettings
from proxy.settings.tables.delivery import DeliverySettings
from proxy.settings.tables.front import FrontSettings
from proxy.settings.tables.gateway import GatewaySettings
from proxy.settings.tables.log import LogSettings
from proxy.settings.tables.metrics import MetricsSettings
from proxy.settings.tables.ops import OpsSettings
from proxy.settings.tables.table import Clash, FrozenTable
from proxy.settings.tables.upstream import UpstreamSettings


class Settings(FrozenTable):
    """All settings of one process. `load` makes it from sources; ``Settings()`` is the defaults."""

    front: FrontSettings = FrontSettings()
    ops: OpsSettings = OpsSettings()
    buffer: BufferSettings = BufferSettings()
    delivery: DeliverySettings = DeliverySettings()
    dead: DeadSettings = DeadSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    gateway: GatewaySettings = GatewaySettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    _given: dict[str, str] = PrivateAttr(default_factory=dict)
    _overridden: tuple[str, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _listeners_apart(self) -> Self:
        if self.front.listen == self.ops.listen and self.front.listen.port != 0:
            raise Clash(
                f"ops.listen is {self.ops.listen}, as front.listen is: give operations a port of its own",
                "ops.listen",
                "front.listen",
            )
        return self

    def model_post_init(self, context: object) -> None:
        """Keep what `load` passes as validation context."""
        if isinstance(context, Mapping):
            self._given = dict(context["origins"])
            self._overridden = tuple(context["overridden"])

    @property
    def origins(self) -> Mapping[str, str]:
        """Whence each value: "default", "file /x.toml", "environment OUTLIT_PROXY_…" or "flag --…"."""
        return MappingProxyType(
            {setting.name: self._given.get(setting.name, "default") for setting in SETTINGS}
        )

    @property
    def overridden(self) -> tuple[str, ...]:
        """Settings of which the file says something else than the environment, which counts."""
        return self._overridden

    def effective(self) -> dict[str, object]:
        """Each setting's value as an operator would write it, in the order of SETTINGS.

        Texts, numbers, lists and dicts only; a secret is "***", one that is not set None.
        """
        return {
            setting.name: setting.shown(getattr(getattr(self, setting.table), setting.attribute))
            for setting in SETTINGS
        }


SETTINGS: tuple[Setting, ...] = tuple(settings_of(Settings))
TABLES: tuple[Table, ...] = tuple(tables_of(Settings))
