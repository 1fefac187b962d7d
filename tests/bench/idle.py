"""What an idle fleet asks of its Redis: replicas that run, keys that are known and quiet, and nothing to do.

    python -m tests.bench.idle [--replicas 4] [--keys 100] [--seconds 60]

Each key gets an event, which is delivered; then nobody posts and nobody looks at the replicas' operations.
Counted are all commands that the Redis carries out, those within scripts among them. What a look at the
operations of one replica costs stands in the second table.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from proxy.bench.table import Table
from proxy.bench.visits import KEY, Visits
from tests.bench.load import Load
from tests.bench.machine import LOAD_CORE, on_core, say_where
from tests.bench.servers import fast_upstream, proxy
from tests.bench.stores import Store
from tests.programs import wait_for
from tests.redis_servers import RedisServer

_CALM_S = 10.0
"""From the last delivery until it is counted: what an event leads to is over by then."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=60, help="for which commands are counted")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, ExitStack() as running, on_core(LOAD_CORE):
        folder = Path(name)
        print("idle: commands a second that a fleet with nothing to do asks of its Redis")
        say_where(folder)
        print(f"{options.replicas} replicas, {options.keys} quiet keys, {options.seconds:g} s")
        redis = running.enter_context(RedisServer(folder / "redis"))
        upstream = running.enter_context(fast_upstream())
        store = Store(redis.url, "everysec", redis.pid)
        settings = {"FRONT_PUBLIC_KEYS": "[]", "DELIVERY_LIMIT_PER_S": "100", "DELIVERY_LINGER": "0s"}
        replicas = [
            running.enter_context(proxy(store, upstream.url, **settings)) for _ in range(options.replicas)
        ]
        keys = [f"pk_quiet_{number}" for number in range(options.keys)]
        posts = islice(Visits(time.time() * 1000, events=1, posts=1).posts(), options.keys)
        requests = [
            post.request().replace(f"/{KEY}/".encode(), f"/{key}/".encode(), 1)
            for key, post in zip(keys, posts, strict=True)
        ]
        with Load(replicas[0].port, 8) as load:
            load.all_of(requests)
        wait_for("all is delivered", lambda: replicas[0].held() == 0)
        time.sleep(_CALM_S)
        before = _commands(redis)
        time.sleep(options.seconds)
        after = _commands(redis)
        _show({name: (after[name] - before.get(name, 0)) / options.seconds for name in after})
        table = Table("asked of one replica", "commands", first_width=20)
        for path in ("/readyz", "/metrics", "/ledger"):
            before = _commands(redis)
            replicas[0].get(path)
            asked = sum(_commands(redis).values()) - sum(before.values())
            table.row(path, f"{asked:,}")


def _commands(redis: RedisServer) -> Mapping[str, int]:
    """How often each command was carried out; without the questions of this benchmark."""
    stats = redis.client.info("commandstats")
    return {
        name.removeprefix("cmdstat_"): int(of["calls"])
        for name, of in stats.items()
        if name != "cmdstat_info"
    }


def _show(per_s: Mapping[str, float]) -> None:
    table = Table("command", "a second", first_width=20)
    for name, rate in sorted(per_s.items(), key=lambda each: -each[1]):
        if rate:
            table.row(name, f"{rate:.2f}")
    table.row("all", f"{sum(per_s.values()):.2f}")


if __name__ == "__main__":
    main()
