"""Death of the proxy at the questions that it asks Redis: before one arrived, and before its answer came."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.faults.between import CUT, PASSED, Between, Treatment, always, between, untouched
from tests.faults.installation import installed
from tests.faults.load import Client, clients, post_again, post_once
from tests.faults.promises import assert_promises_kept
from tests.faults.stand_in import running_sandbox
from tests.programs import Proxy, Sandbox
from tests.redis_servers import RedisServer

KILLED = -signal.SIGKILL


class Station(NamedTuple):
    """Where a post can be when its process dies, and how often upstream has had it in the end."""

    question: str
    was_asked: bool
    """Redis has done what it was asked; its answer came to nobody."""
    requests: int


def test_death_between_an_answer_and_its_settlement_sends_the_batch_once_more_and_elsewhere_not(
    tmp_path: Path,
) -> None:
    stations = [
        Station("append", was_asked=True, requests=1),
        Station("claim", was_asked=True, requests=1),
        Station("settle", was_asked=False, requests=2),
        Station("settle", was_asked=True, requests=1),
    ]
    with ExitStack() as programs:
        lives = []
        for number, station in enumerate(stations):
            proxy, sandbox, wire = programs.enter_context(_fresh(tmp_path / str(number)))
            posting = clients(browsers=1, servers=0, seed=250 + number)
            _die_at(station, proxy, wire, posting)
            lives.append((station, proxy, sandbox, posting))
        for _, proxy, *_ in lives:  # beside one another, for a lease takes its time
            proxy.start()
        for station, proxy, sandbox, posting in lives:
            post_again(proxy, posting)
            proxy.wait_until_empty(60)
            twice = assert_promises_kept(proxy, sandbox, posting)
            assert len(sandbox.requests()) == station.requests, station
            assert bool(twice) == (station.requests == 2), station
            assert proxy.program.stop() == 0, proxy.program.log


@contextmanager
def _fresh(folder: Path) -> Iterator[tuple[Proxy, Sandbox, Between]]:
    """A proxy that has never seen anything, with a Redis and a sandbox of its own."""
    folder.mkdir()
    with (
        running_sandbox(folder) as sandbox,
        RedisServer(folder / "redis") as server,
        between(server.port) as wire,
        installed(folder, sandbox, BUFFER_URL=f"redis://127.0.0.1:{wire.port}") as proxy,
    ):
        proxy.start()
        yield proxy, sandbox, wire


def _die_at(station: Station, proxy: Proxy, wire: Between, posting: Sequence[Client]) -> None:
    """Have a client post something, and the proxy die of it."""

    def strikes(what: str) -> bool:
        if what != station.question or proxy.program.process.poll() is not None:
            return False
        proxy.program.process.kill()
        return True

    def treat(what: str) -> Treatment:
        return CUT if strikes(what) else PASSED

    if station.was_asked:
        wire.treat = treat
    else:
        wire.arrives = lambda what: not strikes(what)
    post_once(proxy, posting[0])
    assert proxy.program.wait_until_ended() == KILLED, proxy.program.log
    wire.treat, wire.arrives = untouched, always
