"""Writes and syncs that fail: nothing is acknowledged that is not on the disk, and nothing is tried twice."""

from collections.abc import Callable, Sequence
from contextlib import suppress

import pytest

from tests.faults.installation import assert_ended_with_one_line
from tests.faults.load import Client, clients, post_again, under_load
from tests.faults.promises import assert_promises_kept
from tests.faults.tracing import Fault, struck
from tests.programs import Proxy, Sandbox, http

EIO = "error=EIO"


def _fail_under_load(proxy: Proxy, sandbox: Sandbox, faults: Sequence[Fault], *, seed: int) -> None:
    """A life for each fault; clients post nothing again until the last is over."""
    posted: list[Client] = []
    for number, fault in enumerate(faults):
        posting = clients(browsers=8, servers=4, seed=seed + number)
        posted += posting
        with struck(proxy.program, fault), under_load(proxy, posting, again=False):
            assert_ended_with_one_line(proxy)
        proxy.start()
    post_again(proxy, posted)
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posted)


def test_a_storage_error_under_load_ends_it_and_the_next_start_recovers_all_that_was_acknowledged(
    proxy: Proxy, sandbox: Sandbox
) -> None:
    _fail_under_load(
        proxy,
        sandbox,
        [Fault("fdatasync", EIO, "5+"), Fault("fdatasync", EIO, "7"), Fault("pwrite64", EIO, "20+")],
        seed=500,
    )


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("call", ["fdatasync", "pwrite64"])
def test_a_storage_error_at_any_call_ends_it_and_the_next_start_recovers_all_that_was_acknowledged(
    proxy: Proxy, sandbox: Sandbox, call: str
) -> None:
    faults = [Fault(call, EIO, f"{1 + 3 * number}+") for number in range(20)]
    _fail_under_load(proxy, sandbox, faults, seed=5000)


def test_a_read_error_that_only_a_count_meets_ends_it_as_well(proxy: Proxy, sandbox: Sandbox) -> None:
    posting = clients(browsers=2, servers=1, seed=61)
    with under_load(proxy, posting):
        proxy.wait_until_accepted(20)
    with struck(proxy.program, Fault("pread64", EIO, "1+")):
        with suppress(OSError):
            http(f"{proxy.ops_url}/metrics")
        assert_ended_with_one_line(proxy)
    proxy.start()
    proxy.wait_until_empty()
    assert_promises_kept(proxy, sandbox, posting)


@pytest.mark.parametrize("and_later_ones", ["", "+"], ids=["one", "all"])
def test_after_a_failed_sync_nothing_is_acknowledged_and_no_sync_is_tried_again(
    install_proxy: Callable[..., Proxy], sandbox: Sandbox, and_later_ones: str
) -> None:
    proxy = install_proxy(DELIVERY_LINGER="1m")  # so that every sync is an append's
    proxy.start()
    posting = clients(browsers=1, servers=0, seed=60)
    fault = Fault("fsync,fdatasync", EIO, f"3{and_later_ones}")
    with struck(proxy.program, fault) as calls, under_load(proxy, posting, again=False):
        assert_ended_with_one_line(proxy)
    assert len(posting[0].posts) - len(posting[0].unanswered) == 2
    assert calls.names() == ["fdatasync"] * 3
