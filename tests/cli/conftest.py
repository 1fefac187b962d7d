import os
from collections.abc import Iterator

import pytest

from tests.cli.operator import Operator
from tests.programs import running_proxy, running_sandbox


@pytest.fixture(scope="module")
def operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """A proxy that runs as a program of its own, and its operator. Tests keep apart by their public keys."""
    folder = tmp_path_factory.mktemp("operator")
    with (
        running_sandbox(folder) as sandbox,
        running_proxy(folder, sandbox, OUTLIT_PROXY_DELIVERY_LINGER="20ms") as proxy,
    ):
        yield Operator(proxy, sandbox)


@pytest.fixture(autouse=True)
def _no_settings_of_the_developer(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.upper().startswith("OUTLIT_PROXY_")]:
        monkeypatch.delenv(variable)


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """The test's own public key."""
    return f"pk_{abs(hash(request.node.nodeid)):x}"
