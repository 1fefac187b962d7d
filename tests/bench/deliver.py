"""Delivering to an upstream without limits, beside a bare aiohttp client that posts ready-made bodies.

    python -m tests.bench.deliver [--rounds 3] [--requests 2400] [--events 1 10 100] [--stores sqlite redis]

The proxy is filled while it may deliver one request a second, stopped, and started again on the same store
with `delivery.limit_per_s` at its maximum, at which its gate lets 9,000 requests a second leave. One core for
the proxy or the client, another for the upstream, which counts what comes and reads no more of it than its
length; there the Redis works too. What is measured lies between the first tenth of the requests and the last.

Of a single key three quarters of `delivery.in_flight` fly at once: 48 of 64. The client has as many.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from proxy.bench.table import Table, ratio
from proxy.bench.visits import DATA, Visits
from tests.bench.load import Load
from tests.bench.machine import LOAD_CORE, Shares, on_core, say_if_disturbed, say_where
from tests.bench.servers import Server, bare_client, fast_upstream, proxy
from tests.bench.stores import STORES, Store

_POSTS = {1: 1, 10: 2, 100: 10}
"""In so many posts the events of a batch come."""

_IN_FLIGHT = 64
_OF_ONE_KEY = 48
_PATIENCE_S = 60.0


@dataclass(slots=True)
class Measured:
    """A sender's rounds."""

    rates: list[float] = field(default_factory=list)
    request_us: list[float] = field(default_factory=list)
    store_us: list[float] = field(default_factory=list)
    shares: list[Shares] = field(default_factory=list)

    def measure(self, sender_pid: int, upstream: Server, requests: int, store_pid: int | None = None) -> None:
        """Wait until the first tenth of its requests has come, and then until nine tenths have."""
        before = _posts(upstream)
        first = _wait_for(upstream, before + requests // 10)
        shares, began_at = Shares(sender_pid, store_pid), time.perf_counter()
        last = _wait_for(upstream, before + requests * 9 // 10)
        rate = (last - first) / (time.perf_counter() - began_at)
        shares.end()
        self.rates.append(rate)
        self.request_us.append(1_000_000 * shares.server / rate)
        self.store_us.append(1_000_000 * shares.store / rate)
        self.shares.append(shares)

    def row(self, name: str, events: float, beside: "Measured | None" = None) -> tuple[str, ...]:
        rate = statistics.median(self.rates)
        busy = statistics.median(share.server for share in self.shares)
        return (
            *(f"{events:,.1f}", name, f"{rate:,.0f}", f"{rate * events:,.0f}"),
            *(ratio(self.rates, beside.rates) if beside else ("", "")),
            *(f"{busy:.0%}", f"{min(self.request_us):,.0f}"),
            f"{min(beside.request_us) / min(self.request_us):.2f}" if beside else "",
            f"{min(self.store_us):,.0f}" if any(self.store_us) else "",
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=2_400, help="of each round; with 100 events a third")
    parser.add_argument("--events", type=int, nargs="+", choices=sorted(_POSTS), default=sorted(_POSTS))
    parser.add_argument("--stores", nargs="+", choices=sorted(STORES), default=["sqlite", "redis"])
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, on_core(LOAD_CORE), fast_upstream() as upstream:
        folder = Path(name)
        print(
            "deliver: upstream requests a second, beside a bare aiohttp client that posts ready-made bodies"
        )
        say_where(folder)
        print(
            f"{DATA}\none key, a visitor a request; {_OF_ONE_KEY} requests in flight;"
            f" {options.rounds} rounds of {options.requests:,} requests"
        )
        table = Table(
            *("events a request", "sender", "requests/s", "events/s", "ratio", "min-max", "busy"),
            *("cpu µs a request", "cpu ratio", "of Redis, cpu µs"),
        )
        shares = []
        for events in options.events:
            requests = options.requests // (3 if events == 100 else 1)
            bare, ours = Measured(), {name: Measured() for name in options.stores}
            found = dict.fromkeys(ours, 0.0)
            for _ in range(options.rounds):
                with bare_client(upstream, events, _OF_ONE_KEY) as sender:
                    bare.measure(sender.pid, upstream, requests)
                for store, of in ours.items():
                    with STORES[store](folder) as filled:
                        _fill(filled, upstream, events, requests)
                        with _released(filled, upstream) as sender:
                            of.measure(sender.pid, upstream, requests, filled.pid)
                            batches = sender.metric("batch_events_count")
                            found[store] = sender.metric("batch_events_sum") / batches
            table.row(*bare.row("bare", events))
            for store, of in ours.items():
                table.row(*of.row(store, found[store], bare))
                shares += of.shares
            shares += bare.shares
        say_if_disturbed(shares)


def _fill(store: Store, upstream: Server, events: int, requests: int) -> None:
    """So many queues, each of which is a full batch of so many events."""
    posts = _POSTS[events]
    made = Visits(time.time() * 1000, events=events // posts, posts=posts).of(requests)
    with proxy(store, upstream.url, DELIVERY_LINGER="0s") as server, Load(server.port) as load:
        load.all_of(post.request() for post in made)


@contextmanager
def _released(store: Store, upstream: Server) -> Iterator[Server]:
    """The proxy on what was filled, with nothing that holds it back."""
    with proxy(
        store,
        upstream.url,
        DELIVERY_LINGER="0s",
        DELIVERY_LIMIT_PER_S="10000",
        DELIVERY_IN_FLIGHT=f"{_IN_FLIGHT}",
    ) as sender:
        yield sender


def _posts(upstream: Server) -> int:
    return int(upstream.get("/"))


def _wait_for(upstream: Server, posts: int) -> int:
    """Wait until so many posts have come. Returns how many it then were."""
    deadline = time.monotonic() + _PATIENCE_S
    while (came := _posts(upstream)) < posts:
        if time.monotonic() > deadline:
            sys.exit(f"{came:,} posts of {posts:,} came upstream within {_PATIENCE_S:.0f} s")
        time.sleep(0.005)
    return came


if __name__ == "__main__":
    main()
