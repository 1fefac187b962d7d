"""That the benchmarks run, and that their load believes no server that it should not."""

import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import orjson
import pytest

from proxy.bench.visits import Visits
from tests.bench.load import Load

_ROOT = Path(__file__).parents[2]
_ONE_CONNECTION = 1

StartAnswering = Callable[[bytes], int]


@pytest.fixture
def answering() -> Iterator[StartAnswering]:
    """Start a server that takes one connection and gives `answer` to all that comes; its port."""
    threads = []

    def start(answer: bytes) -> int:
        listening = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            connection, _ = listening.accept()
            with connection, listening:
                while connection.recv(65_536):
                    connection.sendall(answer)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return int(listening.getsockname()[1])

    yield start
    for thread in threads:
        thread.join()


def test_a_load_ends_the_program_at_an_answer_other_than_200(answering: StartAnswering) -> None:
    port = answering(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull")
    with Load(port, _ONE_CONNECTION) as load, pytest.raises(SystemExit, match="503 Service Unavailable"):
        load.all_of([b"a post"])


@pytest.mark.parametrize("read_bytes", [1, 7, 40, 41])
def test_an_answer_in_parts_is_one_answer(
    answering: StartAnswering, read_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.bench.load._READ_BYTES", read_bytes)
    port = answering(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntake")
    with Load(port, _ONE_CONNECTION) as load:
        load.all_of([b"a post", b"another", b"a third"])
        assert load.answers == 3


def test_no_two_events_of_the_visits_are_the_same() -> None:
    posts = islice(Visits(1.8e12, events=3).posts(), 1_000)
    events = [event for post in posts for event in orjson.loads(post.body)["events"]]
    assert len({event["uuid"] for event in events}) == 3_000
    pages = {event["url"] for event in events if event["type"] == "pageview"}
    assert 800 < len(pages) < 1_500, "of 1,800 views half are of pages that others view too"


def test_the_events_of_the_visits_have_350_bytes() -> None:
    posts = islice(Visits(1.8e12, events=10).posts(), 1_000)
    sizes = [len(orjson.dumps(event)) for post in posts for event in orjson.loads(post.body)["events"]]
    assert 340 < sum(sizes) / len(sizes) < 360


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments",
    [
        "accept --rounds 1 --seconds 0.5 --events 1",
        "held --events 1000",
        "memory --events 20000",
        "deliver --rounds 1 --requests 300 --events 10",
        "idle --replicas 2 --keys 5 --seconds 2",
    ],
)
def test_each_benchmark_ends_with_a_table(arguments: str) -> None:
    command = [sys.executable, "-m", "tests.bench", *arguments.split()]
    ran = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert ran.returncode == 0, ran.stderr
    rows = [line for line in ran.stdout.splitlines() if line.startswith("|")]
    assert len(rows) >= 4, ran.stdout
