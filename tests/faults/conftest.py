from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.faults.installation import installed
from tests.faults.stand_in import running_sandbox
from tests.programs import Proxy, Sandbox
from tests.redis_servers import IN_MEMORY, RedisServer


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path) as running:
        yield running


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A Redis of the test's own, running, with the options that it asks for.

    Its files lie in memory: while a sync lasts, an everysec Redis answers what it has not written yet, so on
    a slow disk the death of its process alone loses up to 2 s (`losses.killed_beside_a_slow_disk`).
    """
    with (
        TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder,
        RedisServer(Path(folder), options=getattr(request, "param", None)) as server,
    ):
        yield server


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> dict[str, str]:
    """What the proxy is told of its buffer: nothing; or, where a test asks for "redis", where `server` is."""
    if getattr(request, "param", "sqlite") == "redis":
        return {"BUFFER_URL": request.getfixturevalue("server").url}
    return {}


@pytest.fixture
def install_proxy(tmp_path: Path, sandbox: Sandbox, engine: dict[str, str]) -> Iterator[Callable[..., Proxy]]:
    """Make a proxy, with settings of the test's own, to be started: `install_proxy(DELIVERY_LINGER="0s")`."""
    with ExitStack() as proxies:
        yield lambda **settings: proxies.enter_context(installed(tmp_path, sandbox, **{**engine, **settings}))


@pytest.fixture
def proxy(install_proxy: Callable[..., Proxy]) -> Iterator[Proxy]:
    """One that runs. In the end it must have stopped by SIGTERM, with exit code 0."""
    proxy = install_proxy()
    proxy.start()
    yield proxy
    assert proxy.program.stop() == 0, proxy.program.log
