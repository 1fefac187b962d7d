"""Accepting beside a bare aiohttp handler that only reads the body: posts a second, and latencies.

    python -m tests.bench.accept [--rounds 3] [--seconds 2] [--events 1 10 100] [--per-s 500]

One core for the server, another for the load, 256 connections. In each round first the one server, then the
other, since machines drift: a ratio is the median of the rounds' ratios. `busy` is what the server and the
load took of their cores: the server's must be full and the load's not, or it was the load that was measured.
Nothing is delivered meanwhile.

Where others work on the machine too, the bare handler loses more by it than the proxy, and the ratio is too
good. The processor time of a post stays nearer to the truth: of the rounds the least, for others only add to
it (a third to the bare handler's, in disturbed rounds).

Latencies are to the whole answer: with every connection busy (256 divided by the rate, at best), and at a
moderate load, where posts come at random moments whether the last was answered or not.
"""

import argparse
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from tests.bench.load import CONNECTIONS, Latencies, Load
from tests.bench.machine import LOAD_CORE, Shares, on_core, say_if_disturbed, say_where
from tests.bench.servers import Server, bare_handler, proxy
from tests.bench.table import Table, ratio
from tests.bench.visits import DATA, Visits

_FASTEST_PER_S = {1: 14_000, 10: 9_000, 100: 3_500}
"""Posts are made ready for a proxy that takes this many a second; a faster one is measured for less long."""

_MODERATE_EVENTS_PER_S = 20_000
_MODERATE_S = 1.5


@dataclass(slots=True)
class Measured:
    """A server's rounds."""

    rates: list[float] = field(default_factory=list)
    post_us: list[float] = field(default_factory=list)
    shares: list[Shares] = field(default_factory=list)
    posts: int = 0
    """Of the last round, all that were answered."""
    full: Latencies = field(default_factory=Latencies)
    moderate: Latencies = field(default_factory=Latencies)

    def measure(self, server: Server, requests: Iterator[bytes], seconds: float, per_s: float) -> None:
        with Load(server.port) as load:
            moderate = load.paced(requests, per_s, _MODERATE_S)
            shares = Shares(server.pid)
            rate, full = load.full(requests, seconds, shares)
            self.posts = load.answers
        self.rates.append(rate)
        self.post_us.append(1_000_000 * shares.server / rate)
        self.shares.append(shares)
        self.full.all += full.all
        self.moderate.all += moderate.all


@dataclass(slots=True)
class Pair:
    """The two servers with posts of so many events, and the moderate load that they were under."""

    events: int
    per_s: float
    bare: Measured = field(default_factory=Measured)
    proxy: Measured = field(default_factory=Measured)

    def rows(self) -> Iterator[tuple[str, ...]]:
        for name, of in (("bare", self.bare), ("proxy", self.proxy)):
            rate = statistics.median(of.rates)
            server = statistics.median(share.server for share in of.shares)
            load = statistics.median(share.load for share in of.shares)
            yield (
                *(f"{self.events}", name, f"{rate:,.0f}", f"{rate * self.events:,.0f}"),
                *(ratio(of.rates, self.bare.rates) if of is self.proxy else ("", "")),
                *(f"{server:.0%} + {load:.0%}", f"{min(of.post_us):,.0f}"),
                f"{min(self.bare.post_us) / min(of.post_us):.2f}" if of is self.proxy else "",
            )

    def latencies(self) -> Iterator[tuple[str, ...]]:
        for name, of in (("bare", self.bare), ("proxy", self.proxy)):
            full, moderate = (
                [f"{latencies.ms(share):.1f}" for share in (0.5, 0.99, 1)]
                for latencies in (of.full, of.moderate)
            )
            yield (f"{self.events}", name, *full, f"{self.per_s:,.0f}", *moderate)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of full load, in each round")
    parser.add_argument("--events", type=int, nargs="+", default=[1, 10, 100], help="events a post")
    parser.add_argument("--per-s", type=float, default=500, help="posts a second of the moderate load")
    parser.add_argument("--durability", choices=["always", "normal"], default="always")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, on_core(LOAD_CORE):
        folder = Path(name)
        print("accept: posts a second, beside a bare aiohttp handler that only reads the body")
        say_where(folder)
        print(
            f"{DATA}\n3 posts a visitor; a core for the server, one for the load; {CONNECTIONS} connections;"
            f' durability "{options.durability}"; {options.rounds} rounds of {options.seconds:g} s'
        )
        table = Table(
            *("events a post", "server", "posts/s", "events/s", "ratio", "min-max", "busy: server + load"),
            *("cpu µs a post", "cpu ratio"),
        )
        pairs = []
        for events in options.events:
            pair = Pair(events, min(options.per_s, _MODERATE_EVENTS_PER_S / events))
            _measure(pair, options, folder)
            for row in pair.rows():
                table.row(*row)
            pairs.append(pair)
        table = Table(
            *("events a post", "server", "full load: p50 ms", "p99", "longest"),
            *("posts/s", "p50 ms", "p99", "longest"),
        )
        for pair in pairs:
            for row in pair.latencies():
                table.row(*row)
        say_if_disturbed([share for pair in pairs for of in (pair.bare, pair.proxy) for share in of.shares])


def _measure(pair: Pair, options: argparse.Namespace, folder: Path) -> None:
    fastest_per_s = _FASTEST_PER_S.get(pair.events, max(_FASTEST_PER_S.values()))
    enough = fastest_per_s * options.seconds + pair.per_s * 2 * _MODERATE_S
    posts = Visits(time.time() * 1000, events=pair.events).posts()
    ready = [post.request() for post in islice(posts, int(enough))]
    for _ in range(options.rounds):
        with bare_handler() as server:
            # To it a post that comes again is as good as another.
            pair.bare.measure(server, cycle(ready), options.seconds, pair.per_s)
        with _fresh_proxy(folder, options.durability) as server:
            pair.proxy.measure(server, iter(ready), options.seconds, pair.per_s)
            # What is measured is acceptance: no figure for what was answered and not kept.
            if (held := server.held()) != (answered := pair.proxy.posts * pair.events):
                sys.exit(f"{answered:,} events were answered with 200, and {held:,} are held")


@contextmanager
def _fresh_proxy(folder: Path, durability: str) -> Iterator[Server]:
    file = folder / f"{uuid.uuid4()}.db"
    with proxy(file, BUFFER_DURABILITY=durability) as server:
        yield server
    for left in folder.glob(f"{file.name}*"):
        left.unlink()


if __name__ == "__main__":
    main()
