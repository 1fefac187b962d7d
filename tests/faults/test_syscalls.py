"""Death at the n-th system call, wherever that falls: in an append, between an answer and its settlement …"""

import itertools
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.installation import running_pair
from tests.faults.load import Client, clients, post_again, post_once, under_load
from tests.faults.promises import assert_promises_kept, halves
from tests.faults.tracing import Fault, started_with, struck
from tests.programs import Proxy, Sandbox

WRITES, SYNCS, SENDS, READS = "pwrite64", "fdatasync", "sendto", "recvfrom"
KILL = "signal=SIGKILL"
KILLED = -9


class Station(NamedTuple):
    """Where a post can be when its process dies, and how often upstream has had it in the end."""

    fault: Fault
    requests: int


def _assert_dying_there_sends(stations: Sequence[Station], folder: Path) -> None:
    with ExitStack() as programs:
        lives = []
        for number, station in enumerate(stations):
            proxy, sandbox, posting = programs.enter_context(_fresh(folder / str(number)))
            with struck(proxy.program, station.fault):
                post_once(proxy, posting[0])
                assert proxy.program.wait_until_ended() == KILLED, proxy.program.log
            lives.append((station, proxy, sandbox, posting))
        for _, proxy, *_ in lives:  # beside one another, for a lease takes its time
            proxy.start()
        for station, proxy, sandbox, posting in lives:
            post_again(proxy, posting)
            proxy.wait_until_empty()
            twice = assert_promises_kept(proxy, sandbox, posting)
            assert len(sandbox.requests()) == station.requests, station
            assert bool(twice) == (station.requests == 2), station


@contextmanager
def _fresh(folder: Path) -> Iterator[tuple[Proxy, Sandbox, list[Client]]]:
    """A browser that posts the same each time to a proxy that has never seen anything."""
    with running_pair(folder) as (proxy, sandbox):
        yield proxy, sandbox, clients(browsers=1, servers=0, seed=100)


def _writes_of_one_post(folder: Path) -> tuple[int, int]:
    """How many writes its append and claim take, and how many the settlement."""
    with _fresh(folder) as (proxy, _, posting):
        with struck(proxy.program, Fault(f"{WRITES},{SYNCS}")) as calls:
            post_once(proxy, posting[0])
            proxy.wait_until_empty()
        names = calls.names()
    syncs = [place for place, name in enumerate(names) if name == SYNCS]
    assert len(syncs) == 3, f"not an append, a claim and a settlement: {names}"
    return syncs[1] - 1, syncs[2] - syncs[1] - 1


def test_death_between_an_answer_and_its_settlement_sends_the_batch_once_more_and_elsewhere_not(
    tmp_path: Path,
) -> None:
    before, settling = _writes_of_one_post(tmp_path / "alive")
    _assert_dying_there_sends(
        [
            # The main thread sends the client its answer, then the batch.
            Station(Fault(SENDS, KILL, 1, main_only=True), 1),
            Station(Fault(SENDS, KILL, 2, main_only=True), 1),
            Station(Fault(WRITES, KILL, before), 1),
            Station(Fault(WRITES, KILL, before + 1), 2),
            Station(Fault(WRITES, KILL, before + settling), 2),
        ],
        tmp_path,
    )


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_death_at_any_write_of_a_post(tmp_path: Path) -> None:
    before, settling = _writes_of_one_post(tmp_path / "alive")
    stations = [
        Station(Fault(WRITES, KILL, n), 1 if n <= before else 2) for n in range(1, before + settling + 1)
    ]
    for first in range(0, len(stations), 5):
        _assert_dying_there_sends(stations[first : first + 5], tmp_path / str(first))


def _die_under_load(proxy: Proxy, sandbox: Sandbox, points: Sequence[tuple[str, int]], *, seed: int) -> None:
    """A life for each point; clients post nothing again until the last is over."""
    posted: list[Client] = []
    for number, (call, when) in enumerate(points):
        posting = clients(browsers=6, servers=2, seed=seed + number)
        posted += posting
        with struck(proxy.program, Fault(call, KILL, when)), under_load(proxy, posting, again=False):
            assert proxy.program.wait_until_ended() == KILLED, proxy.program.log
        proxy.start()
    proxy.wait_until_empty(60)
    assert any(client.unanswered for client in posted), "no death met a post: nothing was tested"
    assert not halves(sandbox, posted)

    post_again(proxy, posted)
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posted)


@pytest.mark.parametrize(
    ("engine", "points"),
    [
        ("sqlite", [(SYNCS, 2), (WRITES, 31), (SENDS, 9), (SYNCS, 7), (WRITES, 200)]),
        ("redis", [(SENDS, 8), (READS, 30), (SENDS, 61)]),
    ],
    indirect=["engine"],
    ids=["sqlite", "redis"],
)
def test_death_at_a_system_call_keeps_whole_posts_and_loses_nothing(
    proxy: Proxy, sandbox: Sandbox, points: Sequence[tuple[str, int]]
) -> None:
    _die_under_load(proxy, sandbox, points, seed=10)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("engine", "call"),
    [("sqlite", WRITES), ("sqlite", SYNCS), ("sqlite", SENDS), ("redis", SENDS), ("redis", READS)],
    indirect=["engine"],
)
def test_death_at_each_of_many_system_calls(proxy: Proxy, sandbox: Sandbox, call: str) -> None:
    step = {WRITES: 7, SYNCS: 1, SENDS: 3, READS: 5}[call]
    _die_under_load(proxy, sandbox, [(call, 1 + step * n) for n in range(30)], seed=1000)


def _die_in_the_first_start(install_proxy: Callable[..., Proxy], folder: Path, fault: Fault) -> bool:
    """Whether the fault came to pass. The next start finds nothing in its way."""
    proxy = install_proxy()
    proxy.program.start(under=started_with(fault, folder))
    died = not proxy.comes_up()
    proxy.program.kill()
    proxy.start()
    assert proxy.program.stop() == 0
    shutil.rmtree(proxy.database.parent)
    return died


def test_death_in_the_first_start_leaves_nothing_in_the_way_of_the_next(
    install_proxy: Callable[..., Proxy], tmp_path: Path
) -> None:
    for call, when in [(WRITES, 15), (SYNCS, 4), ("ftruncate", 1)]:
        assert _die_in_the_first_start(install_proxy, tmp_path, Fault(call, KILL, when))


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("call", [WRITES, SYNCS, "ftruncate", "fsync", "unlink", "bind", "listen"])
def test_death_at_any_system_call_of_the_first_start_leaves_nothing_in_the_way_of_the_next(
    install_proxy: Callable[..., Proxy], tmp_path: Path, call: str
) -> None:
    points = itertools.count(1)
    while _die_in_the_first_start(install_proxy, tmp_path, Fault(call, KILL, next(points))):
        pass
