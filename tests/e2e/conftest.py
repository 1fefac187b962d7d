from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import Proxy, Sandbox, running_proxy, running_sandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path) as sandbox:
        yield sandbox


@pytest.fixture
def settings() -> dict[str, str]:
    """What the proxy of a test is told besides: by variables of the environment."""
    return {}


@pytest.fixture
def proxy(tmp_path: Path, sandbox: Sandbox, settings: dict[str, str]) -> Iterator[Proxy]:
    with running_proxy(tmp_path, sandbox, **settings) as proxy:
        yield proxy
