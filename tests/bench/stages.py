"""What reading a post and appending it cost, in processor time of this process and without HTTP.

    python -m tests.bench.stages [--events 1 10 100] [--store redis] [--profile]

Appends are under way 256 at a time, as they are under the full load of `accept`. `--profile` prints in which
functions an append spends its time: with the profiler's own share, which is half of it.
"""

import argparse
import asyncio
import cProfile
import json
import pstats
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from proxy import log
from proxy.bench.table import Table
from proxy.bench.visits import KEY, Post, Visits
from proxy.buffer import Buffer, Portion
from proxy.engines import open_engine
from proxy.front.ingest import Ingest, Sender
from proxy.metrics import Metrics
from proxy.settings import load
from proxy.wire.limits import PublicKey
from tests.bench.load import CONNECTIONS
from tests.bench.machine import LOAD_CORE, SERVER_CORE, on_core, process_s
from tests.bench.stores import STORES, Store


@dataclass(frozen=True, slots=True)
class Stages:
    """Processor time of a post, in µs; `store_us` of the store that is a process of its own."""

    reading_us: float
    append_us: float
    store_us: float


def measure_stages(posts: Sequence[Post], store: Store, profile: cProfile.Profile | None = None) -> Stages:
    """The posts' mean on an empty store."""
    log.configure("text", "error")
    return asyncio.run(_measure(posts, store, profile))


async def _measure(posts: Sequence[Post], store: Store, profile: cProfile.Profile | None) -> Stages:
    of_store = {"buffer.url": store.url, "buffer.durability": store.durability}
    settings = load(None, {}, {"front.public_keys": json.dumps([KEY]), **of_store})
    buffer = (await open_engine(settings, Metrics(1))).buffer
    try:
        ingest = Ingest(buffer, Metrics(1), max_events=10_000, unknown="forward")
        began_s = time.process_time()
        read = [await ingest._read(post.body, _sender(post)) for post in posts]
        reading_s = time.process_time() - began_s
        portions = [each.portions for each in read if not hasattr(each, "status")]
        began_s, store_began_s = time.process_time(), _store_s(store)
        if profile is not None:
            profile.enable()
        await _append(buffer, portions)
        if profile is not None:
            profile.disable()
        append_s, store_s = time.process_time() - began_s, _store_s(store) - store_began_s
    finally:
        await buffer.close()
    return Stages(*(1e6 * each / len(posts) for each in (reading_s, append_s, store_s)))


async def _append(buffer: Buffer, portions: Sequence[Sequence[Portion]]) -> None:
    left = iter(portions)

    async def one_by_one() -> None:
        for each in left:
            await buffer.append(PublicKey(KEY), each)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONNECTIONS):
            tasks.create_task(one_by_one())


def _sender(post: Post) -> Sender:
    headers = post.headers
    return Sender(headers["X-Forwarded-For"], headers["User-Agent"], headers["Origin"])


def _store_s(store: Store) -> float:
    return 0.0 if store.pid is None else process_s(store.pid)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, nargs="+", default=[1, 10, 100], help="events a post")
    parser.add_argument("--posts", type=int, default=4_000)
    parser.add_argument("--store", choices=sorted(STORES), default="redis")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args(arguments)
    table = Table("events a post", "reading, µs", "append, µs", "the store's own, µs")
    for events in options.events:
        posts = list(islice(Visits(time.time() * 1000, events=events).posts(), options.posts))
        profile = cProfile.Profile() if options.profile else None
        with (
            tempfile.TemporaryDirectory() as folder,
            on_core(LOAD_CORE),
            STORES[options.store](Path(folder)) as store,
            on_core(SERVER_CORE),
        ):
            found = measure_stages(posts, store, profile)
        table.row(f"{events}", *(f"{us:,.1f}" for us in (found.reading_us, found.append_us, found.store_us)))
        if profile is not None:
            pstats.Stats(profile).sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
