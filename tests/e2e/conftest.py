from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import Proxy, Sandbox, running_proxy, running_sandbox


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path) as sandbox:
        yield sandbox


@pytest.fixture
def proxy(tmp_path: Path, sandbox: Sandbox) -> Iterator[Proxy]:
    with running_proxy(tmp_path, sandbox) as proxy:
        yield proxy
