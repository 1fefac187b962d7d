from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.faults.installation import installed
from tests.programs import Proxy, Sandbox, running_sandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path) as running:
        yield running


@pytest.fixture
def install_proxy(tmp_path: Path, sandbox: Sandbox) -> Iterator[Callable[..., Proxy]]:
    """Make a proxy, with settings of the test's own, to be started: `install_proxy(DELIVERY_LINGER="0s")`."""
    with ExitStack() as proxies:
        yield lambda **settings: proxies.enter_context(installed(tmp_path, sandbox, **settings))


@pytest.fixture
def proxy(install_proxy: Callable[..., Proxy]) -> Iterator[Proxy]:
    """One that runs. In the end it must have stopped by SIGTERM, with exit code 0."""
    proxy = install_proxy()
    proxy.start()
    yield proxy
    assert proxy.program.stop() == 0, proxy.program.log
