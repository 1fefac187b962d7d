"""A disk that fills: by the buffer itself, and by another program."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.installation import assert_ended_with_one_line, installed
from tests.faults.load import clients, post_again, post_once, refusals, under_load, wait_until_all_are_refused
from tests.faults.promises import assert_back_to, assert_promises_kept, footprint
from tests.faults.small_disk import Disk, small_disk
from tests.faults.tracing import Fault, struck
from tests.programs import Proxy, Sandbox, http, wait_for

MEGABYTES = 12
EVENT_BYTES = 3_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "buffer", MEGABYTES) as disk:
        yield disk


@pytest.fixture
def proxy(tmp_path: Path, disk: Disk, sandbox: Sandbox) -> Iterator[Proxy]:
    """One that keeps its buffer on that disk; gone before the disk is."""
    with installed(tmp_path, sandbox) as proxy:
        proxy.start()
        yield proxy
        assert proxy.program.stop() == 0, proxy.program.log


def test_a_full_buffer_refuses_before_the_disk_is_full_and_drains_without_new_room(
    proxy: Proxy, disk: Disk, sandbox: Sandbox
) -> None:
    sandbox.fault("status", status=429, retry_after_s=1)
    posting = clients(browsers=4, servers=8, seed=40, event_bytes=EVENT_BYTES)
    with under_load(proxy, posting):
        wait_until_all_are_refused(posting)
        status, said = http(f"{proxy.ops_url}/readyz")
        assert (status, b"bound" in said) == (503, True), said
        assert disk.free_bytes() > 0
        disk.fill()  # so that nothing of that can be needed
        accepted = proxy.ledger()["accepted"]
        sandbox.clear_faults()
        proxy.wait_until_accepted(accepted + 200)  # it takes again, long before it is empty
    assert refusals(posting) == {"buffer_full"}
    proxy.wait_until_empty(60)
    disk.unfill()
    proxy.wait_until_ready()
    assert_promises_kept(proxy, sandbox, posting)


def test_a_disk_that_another_program_fills_costs_nothing_acknowledged(
    proxy: Proxy, disk: Disk, sandbox: Sandbox
) -> None:
    posting = clients(browsers=4, servers=8, seed=41, event_bytes=EVENT_BYTES)
    with under_load(proxy, posting):
        proxy.wait_until_delivered(200)
    proxy.wait_until_empty()
    before = footprint(proxy)
    with under_load(proxy, posting):
        proxy.wait_until_delivered(400)
        disk.fill()
        # What the buffer's files have of the disk they keep, and it suffices while all is delivered at once.
        sandbox.fault("status", status=429, retry_after_s=1)
        wait_until_all_are_refused(posting)
        sandbox.clear_faults()
        disk.unfill()
        proxy.wait_until_ready()
        proxy.wait_until_delivered(proxy.ledger()["delivered"] + 200)  # the same process goes on
    assert refusals(posting) <= {"buffer_full", "buffer_unavailable"}
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)
    assert_back_to(before, proxy)


def test_while_a_disk_takes_nothing_the_probe_says_so_and_afterwards_the_process_goes_on(
    proxy: Proxy, sandbox: Sandbox
) -> None:
    posting = clients(browsers=2, servers=1, seed=43)
    with struck(proxy.program, Fault("pwrite64", "error=ENOSPC", "1+")):
        for client in posting:
            post_once(proxy, client)
        status, said = http(f"{proxy.ops_url}/readyz")
        assert (status, b"disk is full" in said) == (503, True), said
    assert all(client.unanswered for client in posting)
    proxy.wait_until_ready()
    post_again(proxy, posting)
    proxy.wait_until_empty()
    assert_promises_kept(proxy, sandbox, posting)


def test_a_process_stopped_and_started_beside_a_full_disk_recovers_when_there_is_room(
    proxy: Proxy, disk: Disk, sandbox: Sandbox
) -> None:
    sandbox.fault("status", status=429, retry_after_s=1)
    posting = clients(browsers=4, servers=8, seed=42, event_bytes=EVENT_BYTES)
    with under_load(proxy, posting):
        proxy.wait_until_accepted(200)
        disk.fill()
        wait_until_all_are_refused(posting)
        assert proxy.program.stop() == 0, proxy.program.log
        proxy.program.start()
        wait_for("it to say that it cannot", lambda: _cannot(proxy))
        disk.unfill()
        if proxy.program.process.poll() is not None:
            assert "disk is full" in assert_ended_with_one_line(proxy)
            proxy.program.start()
        proxy.wait_until_ready()
        sandbox.clear_faults()
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)


def _cannot(proxy: Proxy) -> bool:
    """It has ended, or says that it is not ready."""
    if proxy.program.process.poll() is not None:
        return True
    try:
        return http(f"{proxy.ops_url}/readyz")[0] == 503
    except OSError:
        return False
