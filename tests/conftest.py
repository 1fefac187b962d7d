import io
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog
from hypothesis import settings

from proxy import log
from tests.redis_servers import Cluster, Deployment, RedisServer, Sentinels, shared
from tests.stack import Stack, StartStack, running_stack

D = TypeVar("D", bound=Deployment)

# `make test` tries the same examples each time: whether a change is good must not depend on luck. What luck
# finds is looked for by `make test-long`, and what it finds becomes an @example.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("random", deadline=None, print_blob=True)
settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    profile = settings.get_profile("random" if config.getoption("--randomly") else "same")
    times = config.getoption("--examples-times")
    settings.register_profile("asked", profile, max_examples=times * profile.max_examples)
    settings.load_profile("asked")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--randomly", action="store_true", help="draw new examples for the property tests")
    parser.addoption(
        "--examples-times",
        type=int,
        default=1,
        metavar="N",
        help="try N times as many examples in the property tests that set no number themselves",
    )


@pytest.fixture
async def start_stack(tmp_path: Path) -> AsyncIterator[StartStack]:
    """Start a service with settings of the test's own: `await start_stack(front={"max_events": 3})`."""
    async with AsyncExitStack() as stacks:

        async def started(**tables: Mapping[str, Any]) -> Stack:
            return await stacks.enter_async_context(running_stack(tmp_path, **tables))

        yield started


@pytest.fixture
async def stack(start_stack: StartStack) -> Stack:
    """A running service between a client and the sandbox."""
    return await start_stack()


# -- Redis: one deployment of each kind a worker, started at its first use, empty for each test --------


def _empty(kind: str, is_a: type[D]) -> D:
    deployment = shared(kind)
    assert isinstance(deployment, is_a)
    deployment.start()
    deployment.flush()
    return deployment


@pytest.fixture
def redis_server() -> RedisServer:
    """A running Redis that holds nothing. A test that kills or configures it makes one of its own."""
    return _empty("redis", RedisServer)


@pytest.fixture
def valkey_server() -> RedisServer:
    """The same, of Valkey."""
    return _empty("valkey", RedisServer)


@pytest.fixture
def cluster() -> Cluster:
    """A Cluster of three nodes that holds nothing."""
    return _empty("cluster", Cluster)


@pytest.fixture
def sentinels() -> Sentinels:
    """A primary with two replicas under three Sentinels that holds nothing."""
    return _empty("sentinels", Sentinels)


@pytest.fixture
def logs() -> Iterator[io.StringIO]:
    """What a process that logs as ours does would write."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    log.configure("json", "info", stream)
    yield stream
    structlog.reset_defaults()
    root.handlers = handlers
    root.setLevel(level)
