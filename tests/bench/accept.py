"""Accepting beside a bare aiohttp handler that only reads the body: posts a second, and latencies.

    python -m tests.bench.accept [--rounds 3] [--seconds 2] [--events 1 10 100] [--stores sqlite redis]

One core for the server, another for the load, 256 connections. In each round one server after the other, for
machines drift: a ratio is the median of the rounds' ratios. `busy` is what the server and the load took of
their cores: the server's must be full and the load's not, or it was the load that was measured. A Redis works
on the load's core, and its share of that stands third. Nothing is delivered meanwhile.

Where others work on the machine too, the bare handler loses more by it than the proxy, and the ratio is too
good. The processor time of a post stays nearer to the truth: of the rounds the least, for others only add to
it (a third to the bare handler's, in disturbed rounds).

Where a post's processor time goes is measured apart (`stages`), in this process and without HTTP; what is
left of it is HTTP and the rest.

Latencies are to the whole answer: with every connection busy (256 divided by the rate, at best), and at a
moderate load, where posts come at random moments whether the last was answered or not.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path

from proxy.bench.table import Table, ratio
from proxy.bench.visits import DATA, Post, Visits
from tests.bench.load import CONNECTIONS, Latencies, Load
from tests.bench.machine import LOAD_CORE, SERVER_CORE, Shares, on_core, say_if_disturbed, say_where
from tests.bench.servers import Server, bare_handler, proxy
from tests.bench.stages import measure_stages
from tests.bench.stores import STORES

_FASTEST_PER_S = {1: 14_000, 10: 9_000, 100: 3_500}
"""Posts are made ready for a proxy that takes this many a second; a faster one is measured for less long."""

_STAGE_POSTS = 4_000

_MODERATE_EVENTS_PER_S = 20_000
_MODERATE_S = 1.5


@dataclass(slots=True)
class Measured:
    """A server's rounds."""

    rates: list[float] = field(default_factory=list)
    post_us: list[float] = field(default_factory=list)
    store_us: list[float] = field(default_factory=list)
    shares: list[Shares] = field(default_factory=list)
    posts: int = 0
    """Of the last round, all that were answered."""
    full: Latencies = field(default_factory=Latencies)
    moderate: Latencies = field(default_factory=Latencies)

    def measure(self, server: Server, requests: Iterator[bytes], seconds: float, per_s: float) -> None:
        with Load(server.port) as load:
            moderate = load.paced(requests, per_s, _MODERATE_S)
            shares = Shares(server.pid, server.store_pid)
            rate, full = load.full(requests, seconds, shares)
            self.posts = load.answers
        self.rates.append(rate)
        self.post_us.append(1_000_000 * shares.server / rate)
        self.store_us.append(1_000_000 * shares.store / rate)
        self.shares.append(shares)
        self.full.all += full.all
        self.moderate.all += moderate.all


@dataclass(slots=True)
class Beside:
    """The bare handler and the proxy on each store, with posts of so many events, and the moderate load."""

    events: int
    per_s: float
    bare: Measured = field(default_factory=Measured)
    proxies: dict[str, Measured] = field(default_factory=dict)

    def each(self) -> Iterator[tuple[str, Measured]]:
        yield "bare", self.bare
        yield from self.proxies.items()

    def rows(self) -> Iterator[tuple[str, ...]]:
        for name, of in self.each():
            rate = statistics.median(of.rates)
            taken = [
                statistics.median(getattr(share, of_whom) for share in of.shares)
                for of_whom in ("server", "load", "store")
            ]
            is_bare = of is self.bare
            yield (
                *(f"{self.events}", name, f"{rate:,.0f}", f"{rate * self.events:,.0f}"),
                *(("", "") if is_bare else ratio(of.rates, self.bare.rates)),
                " + ".join(f"{share:.0%}" for share in taken if share),
                f"{min(of.post_us):,.0f}",
                "" if is_bare else f"{min(self.bare.post_us) / min(of.post_us):.2f}",
            )

    def latencies(self) -> Iterator[tuple[str, ...]]:
        for name, of in self.each():
            full, moderate = (
                [f"{latencies.ms(share):.1f}" for share in (0.5, 0.99, 1)]
                for latencies in (of.full, of.moderate)
            )
            yield (f"{self.events}", name, *full, f"{self.per_s:,.0f}", *moderate)

    def stages(self, posts: Sequence[Post], folder: Path) -> Iterator[tuple[str, ...]]:
        for name, of in self.proxies.items():
            post_us = min(of.post_us)
            with STORES[name](folder) as store, on_core(SERVER_CORE):
                stages = measure_stages(posts, store)
            rest_us = post_us - stages.reading_us - stages.append_us
            yield (
                *(f"{self.events}", name, f"{post_us:,.0f}", f"{rest_us:,.0f}"),
                *(f"{stages.reading_us:,.0f}", f"{stages.append_us:,.0f}"),
                f"{min(of.store_us):,.0f}" if any(of.store_us) else "",
                f"{min(self.bare.post_us):,.0f}",
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of full load, in each round")
    parser.add_argument("--events", type=int, nargs="+", default=[1, 10, 100], help="events a post")
    parser.add_argument("--per-s", type=float, default=500, help="posts a second of the moderate load")
    parser.add_argument("--stores", nargs="+", choices=sorted(STORES), default=["sqlite", "redis"])
    parser.add_argument("--durability", help="always or normal with sqlite, else everysec or always")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, on_core(LOAD_CORE):
        folder = Path(name)
        print("accept: posts a second, beside a bare aiohttp handler that only reads the body")
        say_where(folder)
        print(
            f"{DATA}\n3 posts a visitor; a core for the server, one for the load; {CONNECTIONS} connections;"
            f" durability {options.durability or 'as by default'};"
            f" {options.rounds} rounds of {options.seconds:g} s"
        )
        table = Table(
            *("events a post", "server", "posts/s", "events/s", "ratio", "min-max"),
            *("busy: server + load + Redis", "cpu µs a post", "cpu ratio"),
        )
        measured = []
        for events in options.events:
            beside = Beside(events, min(options.per_s, _MODERATE_EVENTS_PER_S / events))
            _measure(beside, options, folder)
            for row in beside.rows():
                table.row(*row)
            measured.append(beside)
        table = Table(
            *("events a post", "server", "cpu µs a post", "HTTP and the rest", "reading", "append"),
            *("beside it: Redis", "the bare handler"),
        )
        for beside in measured:
            posts = list(islice(Visits(time.time() * 1000, events=beside.events).posts(), _STAGE_POSTS))
            for row in beside.stages(posts, folder):
                table.row(*row)
        table = Table(
            *("events a post", "server", "full load: p50 ms", "p99", "longest"),
            *("posts/s", "p50 ms", "p99", "longest"),
        )
        for beside in measured:
            for row in beside.latencies():
                table.row(*row)
        say_if_disturbed([share for beside in measured for _, of in beside.each() for share in of.shares])


def _measure(beside: Beside, options: argparse.Namespace, folder: Path) -> None:
    fastest_per_s = _FASTEST_PER_S.get(beside.events, max(_FASTEST_PER_S.values()))
    enough = fastest_per_s * options.seconds + beside.per_s * 2 * _MODERATE_S
    posts = Visits(time.time() * 1000, events=beside.events).posts()
    ready = [post.request() for post in islice(posts, int(enough))]
    durability = (options.durability,) if options.durability else ()
    for _ in range(options.rounds):
        with bare_handler() as server:
            # To it a post that comes again is as good as another.
            beside.bare.measure(server, cycle(ready), options.seconds, beside.per_s)
        for name in options.stores:
            of = beside.proxies.setdefault(name, Measured())
            with STORES[name](folder, *durability) as store, proxy(store) as server:
                of.measure(server, iter(ready), options.seconds, beside.per_s)
                # What is measured is acceptance: no figure for what was answered and not kept.
                if (held := server.held()) != (answered := of.posts * beside.events):
                    sys.exit(f"{answered:,} events were answered with 200, and {held:,} are held")


if __name__ == "__main__":
    main()
