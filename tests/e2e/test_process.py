"""What the process asks of its surroundings, and what it ignores of them."""

import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.programs import OUTLIT_PROXY, Proxy, Sandbox, running_proxy


def test_the_health_check_asks_the_process_itself_whatever_proxy_the_environment_names(proxy: Proxy) -> None:
    asked = subprocess.run(
        [OUTLIT_PROXY, "healthcheck", "--ops-url", proxy.ops_url],
        env=os.environ | {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"},
        capture_output=True,
        check=False,
        text=True,
        timeout=20,
    )
    assert (asked.returncode, asked.stdout) == (0, "ok\n"), asked.stderr


@pytest.fixture
def few_files() -> Iterator[int]:
    """The usual soft limit, inherited by what is started meanwhile; gives the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_files_may_be_open_as_connections_are_allowed(
    few_files: int, tmp_path: Path, sandbox: Sandbox
) -> None:
    with running_proxy(tmp_path, sandbox) as proxy:
        limits = Path(f"/proc/{proxy.program.process.pid}/limits").read_text()
    [soft] = re.findall(r"Max open files +(\d+)", limits)
    wanted = 10_000  # front.max_connections
    assert int(soft) >= (wanted if few_files == resource.RLIM_INFINITY else min(wanted, few_files))
