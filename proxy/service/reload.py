"""Reads the settings anew when asked, and has what is good of them taken over while the process runs.

All of it is checked before any of it counts: where one setting is wrong, every one stays as it was. A setting
that only a start reads keeps its value, and is named until the process is restarted or the setting is back.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import structlog

from proxy.clock import wall_ms
from proxy.metrics import Metrics
from proxy.ops.reloads import Reloads
from proxy.service.supervisor import Supervisor
from proxy.settings import SETTINGS, Setting, Settings, SettingsError

_READ_S = 30.0
"""How long the sources may take: a disk that hangs, or a pipe that nobody writes to, may take for ever."""


@dataclass(frozen=True, slots=True)
class Change:
    """A setting that has another value than before."""

    setting: Setting
    old: object
    new: object

    def in_words(self) -> str:
        """Both values, as an operator writes them; of a secret, a list or a table only that it changed."""
        setting = self.setting
        if setting.secret or setting.is_json:
            return "changed"
        return f"{setting.shown(self.old)} -> {setting.shown(self.new)}"


def changes(old: Settings, new: Settings) -> list[Change]:
    """What differs, in the order of SETTINGS."""
    found = [Change(setting, _value(old, setting), _value(new, setting)) for setting in SETTINGS]
    return [change for change in found if change.old != change.new]


def taken_over(old: Settings, new: Settings) -> Settings:
    """The new settings, but those that only a start reads as they were."""
    kept: dict[str, dict[str, Any]] = {}
    for setting in SETTINGS:
        if not setting.reloads:
            kept.setdefault(setting.table, {})[setting.attribute] = _value(old, setting)
    tables = {table: getattr(new, table).model_copy(update=values) for table, values in kept.items()}
    return new.model_copy(update=tables)


def _value(settings: Settings, setting: Setting) -> object:
    return getattr(getattr(settings, setting.table), setting.attribute)


class Reload:
    """Reloads one process. `ask` may be called as often as one likes, at any time.

    `read` reads the sources: it raises SettingsError. `take` has every room go by other settings. `reloads`
    is told how it went.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        take: Callable[[Settings], None],
        reloads: Reloads,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._read = read
        self._take = take
        self._reloads = reloads
        self._metrics = metrics
        self._asked = asyncio.Event()
        self._log = structlog.get_logger("settings")

    def ask(self) -> None:
        """Reload soon: once, where it is asked for several times meanwhile."""
        self._asked.set()

    async def run(self, supervisor: Supervisor, status: Callable[[], str]) -> None:
        """Reload whenever it is asked for, until cancelled. `status`: what the supervisor is told then."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            supervisor.reloading()
            try:
                await self._reload()
            finally:
                supervisor.ready(status())

    async def _reload(self) -> None:
        try:
            async with asyncio.timeout(_READ_S):
                new = await _beside(self._read)
        except SettingsError as error:
            self._refuse(error.lines)
            return
        except TimeoutError:
            problem = f"the settings could not be read within {_READ_S:g} s"
            self._refuse([f"{problem}: see whether a disk hangs, or one of their files is a pipe"])
            return
        before, self._settings = self._settings, taken_over(self._settings, new)
        taken = changes(before, self._settings)
        if taken:
            self._take(self._settings)
        self._say(taken, changes(self._settings, new))

    def _say(self, taken: Sequence[Change], left: Sequence[Change]) -> None:
        reloads = self._reloads
        reloads.at_ms, reloads.successful, reloads.error = wall_ms(), True, None
        reloads.needs_restart = tuple(change.setting.name for change in left)
        self._metrics.reload_successful.set(1)
        self._metrics.reload_success_time.set_to_current_time()
        self._log.info(
            "settings reloaded",
            changed={change.setting.name: change.in_words() for change in taken} or "nothing",
        )
        if left:
            self._log.warning(
                "settings that a reload cannot change keep their values until the next start",
                settings={change.setting.name: change.in_words() for change in left},
            )

    def _refuse(self, lines: Sequence[str]) -> None:
        reloads = self._reloads
        reloads.at_ms, reloads.successful, reloads.error = wall_ms(), False, "\n".join(lines)
        self._metrics.reload_successful.set(0)
        for line in lines:
            self._log.error(f"not reloaded, all settings stay as they are: {line}")


async def _beside(read: Callable[[], Settings]) -> Settings:
    """Read on a thread of its own: one that hangs holds up nobody else, nor the end of the process."""
    found: Future[Settings] = Future()

    def work() -> None:
        found.set_running_or_notify_cancel()  # from now on it cannot be cancelled, and takes what comes
        try:
            found.set_result(read())
        except Exception as error:  # noqa: BLE001  # it is raised where it was asked for
            found.set_exception(error)

    threading.Thread(target=work, name="read the settings", daemon=True).start()
    return await asyncio.wrap_future(found)
