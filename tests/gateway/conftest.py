from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pydantic import SecretStr

from proxy.gateway import client, presence
from proxy.settings import Settings
from tests.gateway.callers import Callers, fresh_key
from tests.outlit import Outlit, running_outlit
from tests.stack import running_stack


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callers]:
    """One service with the sandbox as its upstream, for the module."""
    folder = tmp_path_factory.mktemp("gateway")
    found: list[Settings] = []
    async with running_stack(folder, lambda: found[0], gateway={"api_key": SecretStr(fresh_key())}) as stack:
        yield Callers(stack, folder, found)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def raw_outlit() -> AsyncIterator[Outlit]:
    async with running_outlit() as outlit:
        yield outlit


@pytest_asyncio.fixture(loop_scope="module")
async def callers(service: Callers, raw_outlit: Outlit, request: pytest.FixtureRequest) -> Callers:
    """The service of the module, at its beginning: keys of the test's own, nothing remembered."""
    await service.begin(url=raw_outlit.url if "outlit" in request.fixturenames else None)
    return service


@pytest.fixture
def outlit(callers: Callers, raw_outlit: Outlit) -> Outlit:
    """A raw server as the service's upstream, which has seen nothing yet."""
    raw_outlit.begin()
    return raw_outlit


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked again is asked again at once."""
    monkeypatch.setattr(client, "_wait_s", lambda _state: 0.0)


@pytest.fixture
def missed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever leaves is missed at once."""
    monkeypatch.setattr(presence, "_LOOK_S", 0.02)
    monkeypatch.setattr(presence, "_HEARD_OUT_S", 0.02)
