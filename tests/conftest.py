import io
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import settings

from proxy import log
from tests.stack import Stack, StartStack, running_stack

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
