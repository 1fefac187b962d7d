"""Bytes per held event: in the files, and as counted against `buffer.max_bytes`.

    python -m tests.bench.held [--events 30000]

Posted over HTTP, queues interleaved, dedup ids of all of them still remembered. The file is measured after
a stop; `log` is the most that SQLite's write-ahead log took beside it meanwhile.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from proxy.bench.table import Table
from proxy.bench.visits import DATA, Visits
from tests.bench.load import Load
from tests.bench.machine import LOAD_CORE, on_core, say_where
from tests.bench.servers import proxy
from tests.bench.stores import Store

_SHAPES = ((1, 1), (1, 5), (5, 1), (3, 10), (1, 30), (100, 1))
"""Events a post, posts a queue."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=30_000, help="held events, for each row")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, on_core(LOAD_CORE):
        folder = Path(name)
        print("held: bytes per held event, with its dedup id")
        say_where(folder)
        print(f"{DATA}\n{options.events:,} events of one key")
        table = Table(
            *(
                "events a queue",
                "posts a queue",
                "posted bytes",
                "counted",
                "in the file",
                "counted/file",
                "log, MB",
            )
        )
        for events, posts in _SHAPES:
            _measure(folder / f"{events}x{posts}.db", events, posts, options.events, table)


def _measure(file: Path, events: int, posts: int, wanted: int, table: Table) -> None:
    visitors = wanted // (events * posts)
    made = Visits(time.time() * 1000, events=events, posts=posts).of(visitors)
    body_bytes = log_bytes = 0

    def requests() -> Iterator[bytes]:
        nonlocal body_bytes, log_bytes
        for number, post in enumerate(made):
            body_bytes += len(post.body)
            if number % 20 == 0:
                log_bytes = max(log_bytes, _size(file, "-wal"))
            yield post.request()

    with proxy(Store(f"sqlite:///{file}", "normal")) as server:
        with Load(server.port) as load:
            load.all_of(requests())
        held, counted_bytes = server.held(), server.metric("buffer_bytes")
        server.stop()
    file_bytes = _size(file)
    table.row(
        *(f"{events * posts}", f"{posts}", f"{body_bytes / held:,.0f}", f"{counted_bytes / held:,.0f}"),
        *(f"{file_bytes / held:,.0f}", f"{counted_bytes / file_bytes:.2f}", f"{log_bytes / 1e6:,.1f}"),
    )


def _size(file: Path, suffix: str = "") -> int:
    path = file.with_name(file.name + suffix)
    return path.stat().st_size if path.exists() else 0


if __name__ == "__main__":
    main()
