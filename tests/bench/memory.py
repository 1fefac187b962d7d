"""What a million held events cost: memory, a recount, the search for one of them, and the time of a start.

    python -m tests.bench.memory [--events 1000000]

Posted over HTTP, 10 events a post, 3 posts a visitor. While the operations listener answers, clients go on
posting: the longest that one of them waited stands beside how long the answer took.
"""

import argparse
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import orjson

from proxy.bench.table import Table
from proxy.bench.visits import DATA, KEY, Visits
from tests.bench.load import Load
from tests.bench.machine import LOAD_CORE, memory_bytes, on_core, process_s, say_where
from tests.bench.servers import Server, proxy
from tests.bench.stores import Store

_EVENTS_A_POST = 10
_MORE_POSTS = 1_000
_PER_S = 100.0
_ASKED_S = 3.0
_ANSWER_S = 120.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="held events")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, on_core(LOAD_CORE):
        folder = Path(name)
        print(f"memory: {options.events:,} held events")
        say_where(folder)
        print(
            f"{DATA}\n{_EVENTS_A_POST} events a post, 3 posts a visitor;"
            f" while something is asked for, {_PER_S:.0f} posts a second"
        )
        table = Table(
            *("", "took, s", "cpu, s", "longest wait of a post, ms", "memory, MB", "its peak, MB"),
            first_width=24,
        )
        _measure(folder / "held.db", options.events, table)


def _measure(file: Path, events: int, table: Table) -> None:
    posts = Visits(time.time() * 1000, events=_EVENTS_A_POST).posts()
    first = next(posts)
    uuid = orjson.loads(first.body)["events"][0]["uuid"]
    requests = (post.request() for post in posts)
    store = Store(f"sqlite:///{file}", "normal")
    with proxy(store) as server:
        _show_start("started, empty", server, table)
        with Load(server.port) as load:
            _take(server, load, [first.request()], table)
            for share in (0.01, 0.1, 0.25, 0.5, 0.75, 1):
                more = int(events * share) - server.held()
                _take(server, load, islice(requests, more // _EVENTS_A_POST), table)
            for what, path in (
                ("nothing asked for", None),
                ("metrics", "/metrics"),
                ("recount", "/ledger"),
                ("an event", f"/events/{uuid}"),
                ("an event, its key told", f"/events/{uuid}?key={KEY}"),
            ):
                took_s, longest_ms = _asked(server, path, load, requests)
                table.row(what, f"{took_s:.2f}", "", f"{longest_ms:,.0f}", *_memory(server))
        began_at = time.perf_counter()
        server.stop()
        table.row("stopped", f"{time.perf_counter() - began_at:.2f}", *[""] * 4)
    for before in ("a stop", "a kill"):
        with proxy(store) as server:
            _show_start(f"started after {before}", server, table)
            with Load(server.port) as load:
                _take(server, load, islice(requests, _MORE_POSTS), table)
            server.stop(signal.SIGKILL)


def _show_start(what: str, server: Server, table: Table) -> None:
    cpu_s = process_s(server.pid)
    table.row(what, f"{server.started_s:.2f}", f"{cpu_s:.2f}", "", *_memory(server))


def _take(server: Server, load: Load, requests: Iterable[bytes], table: Table) -> None:
    began_at, cpu_s = time.perf_counter(), process_s(server.pid)
    load.all_of(requests)
    took_s, cpu_s = time.perf_counter() - began_at, process_s(server.pid) - cpu_s
    table.row(f"{server.held():,} held", f"{took_s:.2f}", f"{cpu_s:.2f}", "", *_memory(server))


def _asked(server: Server, path: str | None, load: Load, requests: Iterator[bytes]) -> tuple[float, float]:
    """Ask for `path` while clients post: how long it took, in s, and the longest wait of a post, in ms."""
    took_s = 0.0

    def ask() -> None:
        nonlocal took_s
        time.sleep(0.3)  # the load has begun
        began_at = time.perf_counter()
        if path is not None:
            server.get(path, _ANSWER_S)
        took_s = time.perf_counter() - began_at

    asking = threading.Thread(target=ask)
    asking.start()
    latencies = load.paced(requests, _PER_S, _ASKED_S)
    asking.join()
    return took_s, latencies.ms(1)


def _memory(server: Server) -> tuple[str, str]:
    now, peak = (memory_bytes(server.pid, what) for what in ("VmRSS", "VmHWM"))
    return f"{now / 1e6:,.0f}", f"{peak / 1e6:,.0f}"


if __name__ == "__main__":
    main()
