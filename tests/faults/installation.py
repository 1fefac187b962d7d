"""The proxy as these tests set it up: with the shortest of leases, and clients that have addresses."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.stand_in import running_sandbox
from tests.programs import Proxy, Sandbox, installed_proxy, running_proxy

SHORT_LEASE_S = 6.5
"""A killed process leaves leases behind. They must outlast `delivery.timeout` by 5 s."""

SETTINGS = {
    "OUTLIT_PROXY_DELIVERY_TIMEOUT": "1s",
    "OUTLIT_PROXY_DELIVERY_LEASE": f"{SHORT_LEASE_S * 1000:.0f}ms",
    "OUTLIT_PROXY_FRONT_TRUSTED_PROXIES": '["127.0.0.1"]',
}

on_each_engine = pytest.mark.parametrize("engine", ["sqlite", "redis"], indirect=True)
"""For a test that goes by what is promised, whatever keeps the events."""

END_S = 10.0
"""Longer than the proxy holds requests while its buffer does not answer."""


@contextmanager
def installed(folder: Path, sandbox: Sandbox, **settings: str) -> Iterator[Proxy]:
    """As `installed_proxy`; `settings` without their prefix: `DELIVERY_LINGER="0s"`."""
    given = {f"OUTLIT_PROXY_{name}": value for name, value in settings.items()}
    with installed_proxy(folder, sandbox, **{**SETTINGS, **given}) as proxy:
        yield proxy


@contextmanager
def running_pair(folder: Path) -> Iterator[tuple[Proxy, Sandbox]]:
    """A proxy with a sandbox of its own, both running; for tests that need several at one time."""
    folder.mkdir(parents=True)
    with running_sandbox(folder) as sandbox, running_proxy(folder, sandbox, **SETTINGS) as proxy:
        yield proxy, sandbox


def assert_ended_with_one_line(proxy: Proxy) -> str:
    """Exit code 1, and what it says last is for a person: what is wrong; what to do. Returns that line."""
    assert proxy.program.wait_until_ended(END_S) == 1
    *before, last = proxy.program.log.strip().splitlines()
    assert last.startswith("outlit-proxy: ")
    assert ";" in last, f"no remedy: {last}"
    assert all(line.startswith('{"timestamp":') for line in before), proxy.program.log
    return last
