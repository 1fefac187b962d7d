"""Several replicas on one buffer, behind something that spreads requests over those that are listed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.faults.installation import installed
from tests.programs import Proxy, Sandbox


@dataclass(slots=True)
class Fleet:
    """Replicas that come and go. `listed`: those that are sent requests, as `load.under_load` takes it."""

    _folder: Path
    _sandbox: Sandbox
    _settings: dict[str, str]
    _replicas: ExitStack
    listed: list[Proxy] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    def grow(self, replicas: int) -> list[Proxy]:
        """Start so many more, beside one another, and list them when they are ready. Returns them."""
        new = []
        for _ in range(replicas):
            folder = self._folder / f"replica-{next(self._numbers)}"
            folder.mkdir()
            proxy = self._replicas.enter_context(installed(folder, self._sandbox, **self._settings))
            proxy.program.start()
            new.append(proxy)
        for proxy in new:
            proxy.wait_until_ready()
        self.listed += new
        return new

    def stop(self, proxy: Proxy) -> None:
        """By SIGTERM. Only when it is gone it is no longer listed: until then some are turned away."""
        assert proxy.program.stop() == 0, proxy.program.log
        self.listed.remove(proxy)

    def kill(self, proxy: Proxy) -> None:
        """By SIGKILL."""
        proxy.program.kill()
        self.listed.remove(proxy)


@contextmanager
def fleet(folder: Path, sandbox: Sandbox, buffer_url: str, **settings: str) -> Iterator[Fleet]:
    """One without replicas yet. In the end those that are listed must stop by SIGTERM, with exit code 0."""
    with ExitStack() as replicas:
        made = Fleet(folder, sandbox, {"BUFFER_URL": buffer_url, **settings}, replicas)
        yield made
        for proxy in list(made.listed):
            made.stop(proxy)
