"""What the proxy keeps its events in while it is measured: a file, or a Redis of the benchmark's own.

That Redis works on the load's core, and is not the machine's: its share of that core stands in the tables.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.redis_servers import VALKEY, RedisServer


@dataclass(frozen=True, slots=True)
class Store:
    """An empty one, for one round. `pid`: of the process that it is, None where it is the proxy's own."""

    url: str
    durability: str
    pid: int | None = None


MakeStore = Callable[..., AbstractContextManager[Store]]
"""Of a folder, and a durability other than the default."""


@contextmanager
def sqlite(folder: Path, durability: str = "always") -> Iterator[Store]:
    """A file in that folder."""
    file = folder / f"{uuid.uuid4()}.db"
    yield Store(f"sqlite:///{file}", durability)
    for left in folder.glob(f"{file.name}*"):
        left.unlink()


@contextmanager
def redis(folder: Path, durability: str = "everysec", program: str = "redis-server") -> Iterator[Store]:
    """A server that keeps its append-only file in that folder."""
    options = {"appendfsync": "always" if durability == "always" else "everysec"}
    with RedisServer(folder / f"{uuid.uuid4()}", program=program, options=options) as server:
        yield Store(server.url, durability, server.pid)


@contextmanager
def valkey(folder: Path, durability: str = "everysec") -> Iterator[Store]:
    """The same of Valkey."""
    with redis(folder, durability, VALKEY) as store:
        yield store


STORES: Mapping[str, MakeStore] = {"sqlite": sqlite, "redis": redis, "valkey": valkey}
"""By the name that `--stores` takes."""
