"""A buffer for benchmarks: empty and to itself, with a look at its store from outside."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import NamedTuple

from proxy.buffer.contract import Buffer
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

BENCH_KEY = PublicKey("pk_outlit_proxy_bench")
"""The only public key that a benchmark appends to."""


class BenchRefused(Exception):
    """The benchmark cannot run there; the message is one line with the remedy."""


class Spent(NamedTuple):
    """What a store has spent on its clients' calls since it was started; of these, `us` microseconds."""

    calls: int
    us: int


class Bench(ABC):
    """What is measured. Nothing of it is delivered by any proxy, and nothing is left when it is closed."""

    buffer: Buffer
    """Another object after `stored_bytes`."""

    store: str
    """What it is, in some words: program, release, durability."""

    @abstractmethod
    async def spent(self) -> Spent | None:
        """What the store has spent until now; None where it runs in this process."""

    @abstractmethod
    async def stored_bytes(self) -> int:
        """Bytes of memory, or of its files, that the store takes now for what it holds."""

    @abstractmethod
    async def empty(self, queues: Iterable[QueueId], tokens: Iterable[bytes] = ()) -> None:
        """Take out all that was stored in these queues, and all that is known of the key and these leases."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the store."""
