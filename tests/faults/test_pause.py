"""SIGSTOP for longer than a lease: who wakes finds that what it held is due again."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.faults.installation import SHORT_LEASE_S, on_each_engine, running_pair
from tests.faults.load import clients, post_once, under_load
from tests.faults.promises import assert_back_to, assert_promises_kept, footprint
from tests.faults.tracing import Fault, struck
from tests.programs import Proxy, Sandbox, wait_for

AT_THE_CLAIM = Fault("fdatasync", "signal=SIGSTOP", 2)  # the append is the first
AT_THE_POST = Fault("sendto", "signal=SIGSTOP", 2, main_only=True)  # the client's answer is the first
AT_THE_SETTLEMENT = Fault("fdatasync", "signal=SIGSTOP", 3)


@contextmanager
def _paused(proxy: Proxy, fault: Fault | None = None) -> Iterator[None]:
    """After the `with` the program is stopped: by `fault`, or where it happens to be."""
    with ExitStack() as tracing:
        if fault is not None:
            tracing.enter_context(struck(proxy.program, fault))
        yield
        if fault is None:
            proxy.program.process.send_signal(signal.SIGSTOP)
        status = Path(f"/proc/{proxy.program.process.pid}/status")
        wait_for("the program to stop", lambda: status.read_text().partition("State:\t")[2][0] in "Tt")


def _sleep_through_the_lease() -> None:
    time.sleep(SHORT_LEASE_S + 0.5)  # a lease ends by time, and nobody is there to ask


def _go_on(proxy: Proxy) -> None:
    proxy.program.process.send_signal(signal.SIGCONT)


def test_a_worker_paused_beyond_its_lease_loses_nothing_and_posts_again_only_what_may_have_arrived(
    tmp_path: Path,
) -> None:
    with ExitStack() as programs:
        # Beside one another, for a lease takes its time.
        cases = []
        for number, (fault, most) in enumerate([(AT_THE_CLAIM, 1), (AT_THE_POST, 2), (AT_THE_SETTLEMENT, 1)]):
            proxy, sandbox = programs.enter_context(running_pair(tmp_path / str(number)))
            posting = clients(browsers=1, servers=0, seed=30 + number)
            with _paused(proxy, fault):
                post_once(proxy, posting[0])
            cases.append((proxy, sandbox, posting, fault, most))
        _sleep_through_the_lease()
        for proxy, *_ in cases:
            _go_on(proxy)
        for proxy, sandbox, posting, fault, most in cases:
            proxy.wait_until_empty()
            twice = assert_promises_kept(proxy, sandbox, posting)
            assert len(sandbox.requests()) <= most, fault
            assert bool(twice) == (len(sandbox.requests()) > 1), fault


def _pause_under_load(proxy: Proxy, sandbox: Sandbox, *, pauses: int, seed: int) -> None:
    sandbox.fault("latency", latency_ms=200)  # so that some is in flight at any time
    posting = clients(browsers=12, servers=4, seed=seed)
    with under_load(proxy, posting):
        proxy.wait_until_delivered(1000)
    proxy.wait_until_empty()
    before = footprint(proxy)
    with under_load(proxy, posting):
        for _ in range(pauses):
            proxy.wait_until_delivered(proxy.ledger()["delivered"] + 200)
            with _paused(proxy):
                pass
            _sleep_through_the_lease()
            _go_on(proxy)
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)
    assert_back_to(before, proxy)


def test_pause_under_load_beyond_the_lease_loses_nothing(proxy: Proxy, sandbox: Sandbox) -> None:
    _pause_under_load(proxy, sandbox, pauses=1, seed=33)


@pytest.mark.long
@pytest.mark.timeout(600)
@on_each_engine
def test_ten_pauses_under_load_lose_nothing(proxy: Proxy, sandbox: Sandbox) -> None:
    _pause_under_load(proxy, sandbox, pauses=10, seed=34)
