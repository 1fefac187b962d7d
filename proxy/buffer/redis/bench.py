"""The engine on Redis for benchmarks: on the real deployment, under a public key that no proxy looks at.

Of that nothing stands in the fleet's own keys (`roster`), so the replicas that run on the same Redis neither
look it up nor sweep it, and deliver nothing of what a benchmark stores.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import Any

from proxy.buffer.bench import BENCH_KEY, Bench, BenchRefused, Spent
from proxy.buffer.redis.engine import RedisBuffer
from proxy.buffer.redis.keys import ACTIVE, FACTS, KNOWN, names
from proxy.buffer.redis.link import Argument, Link
from proxy.buffer.redis.scripts import Script
from proxy.buffer.values import Terms
from proxy.lanes import QueueId

_FLEET = {KNOWN, ACTIVE, FACTS}

_NAMES = names(BENCH_KEY)
_OF_KEY = tuple(
    value
    for name in type(_NAMES).__slots__
    if name not in ("key", "_prefix") and isinstance(value := getattr(_NAMES, name), bytes)
)

_DELETED_AT_ONCE = 500
_LOOK_S = 0.05

_NOT_HELD = ("mem_clients_normal", "mem_clients_slaves", "mem_aof_buffer", "mem_replication_backlog")
"""Memory that comes and goes with the work, and holds no events."""

_SCRIPTS = ("cmdstat_evalsha", "cmdstat_eval", "cmdstat_fcall")


class RedisBench(Bench):
    """Construct with `opened`."""

    def __init__(self, link: Link, terms: Terms, said: Mapping[str, str], durability: str) -> None:
        program = "Valkey" if "valkey_version" in said else "Redis"
        release = said.get("valkey_version") or said["redis_version"]
        self.store = f"{program} {release}, durability {durability}"
        self._link = link
        self._terms = terms

    @classmethod
    async def opened(cls, link: Link, terms: Terms, durability: str) -> "RedisBench":
        """On a deployment that was found fit; it closes the link. Raises BenchRefused."""
        (first, *_) = await link.info()
        bench = cls(link, terms, first, durability)
        found = await link.ask_each([("EXISTS", name) for name in _OF_KEY])
        if any(found):
            await link.close()
            raise BenchRefused(
                f"the buffer holds data of {BENCH_KEY}: wait until the benchmark that runs there has ended,"
                " or say --clean to take out what one that was killed has left"
            )
        bench.buffer = await RedisBuffer.opened(_Unlisted(link), terms, background=False)
        return bench

    async def spent(self) -> Spent | None:
        said = await self._info("commandstats")
        stats = [
            dict(field.split("=") for field in said.get(each, "").split(",") if field) for each in _SCRIPTS
        ]
        return Spent(*(sum(int(each.get(what, 0)) for each in stats) for what in ("calls", "usec")))

    async def stored_bytes(self) -> int:
        # What was deleted still takes memory, and Redis tells nobody when it does no longer.
        said = await self._info("memory")
        while int(said.get("lazyfree_pending_objects", 0)):
            await asyncio.sleep(_LOOK_S)
            said = await self._info("memory")
        return int(said["used_memory"]) - sum(int(said.get(name, 0)) for name in _NOT_HELD)

    async def _info(self, section: str) -> Mapping[str, str]:
        """A section of what the server says that has the key; it is found by the name of one of its keys."""
        # Of the sections that are asked for Redis leaves out those that it does not know.
        text = await self._link.ask("INFO", _NAMES.books, section)
        lines = (line.partition(":") for line in text.decode().splitlines())
        return {name: value for name, _, value in lines}

    async def empty(self, queues: Iterable[QueueId], tokens: Iterable[bytes] = ()) -> None:
        await empty(self._link, queues, tokens)

    async def close(self) -> None:
        await self.buffer.close()


async def empty(link: Link, queues: Iterable[QueueId], tokens: Iterable[bytes] = ()) -> None:
    """Delete whatever the engine has under the bench's key."""
    stored = iter(
        (
            *_OF_KEY,
            *chain.from_iterable(map(_NAMES.of_queue, queues)),
            *(_NAMES.settled(token) for token in tokens),
        )
    )
    while some := list(islice(stored, _DELETED_AT_ONCE)):
        await link.ask_each([("DEL", name) for name in some])


class _Unlisted(Link):
    """The link without what the fleet's own keys are told and say."""

    def __init__(self, inner: Link) -> None:
        self._inner = inner

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        return 0 if _FLEET.intersection(keys) else await self._inner.run(script, keys, args, kept=kept)

    async def ask(self, command: str, key: bytes, *args: Argument) -> Any:
        return [] if key in _FLEET else await self._inner.ask(command, key, *args)

    async def ask_each(self, commands: Sequence[tuple[str, bytes, *tuple[Argument, ...]]]) -> list[Any]:
        if any(key in _FLEET for _, key, *_ in commands):
            return [0] * len(commands)
        return await self._inner.ask_each(commands)

    async def run_everywhere(self, script: Script, args: Sequence[Argument]) -> list[Any]:
        return await self._inner.run_everywhere(script, args)

    async def info(self) -> list[dict[str, str]]:
        return await self._inner.info()

    async def close(self) -> None:
        await self._inner.close()
