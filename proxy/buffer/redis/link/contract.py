"""A Redis deployment as the engine sees it: scripts and commands, whatever stands behind the address."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from proxy.buffer.contract import BufferUnavailable
from proxy.buffer.redis.scripts import Script

Argument = bytes | str | int


class OutOfMemory(BufferUnavailable):
    """Redis has reached its `maxmemory`: what was asked was refused, and nothing was done."""


class Link(ABC):
    """Every method may be called from many tasks at once; answers are raw: bytes, integers, lists, None.

    Each raises BufferUnavailable where Redis did not answer or refused: what was asked may or may not have
    been done, and nothing is asked twice by the link itself unless it is certain that it was not done. A
    caller that is cancelled never leaves its answer to the next one.
    """

    @abstractmethod
    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        """Run a script where its keys live; all lie in one slot.

        `kept`: return only when what it wrote is as durable as the operator chose, and raise
        BufferUnavailable where that is not known. A script that finds its work done before must write
        something all the same, and last: Redis waits for a connection's own writes, and the earlier one may
        have come by another connection, unkept. Raises OutOfMemory: nothing was done.
        """

    @abstractmethod
    async def ask(self, command: str, key: bytes, *args: Argument) -> Any:
        """One command about one key."""

    @abstractmethod
    async def ask_each(self, commands: Sequence[tuple[str, bytes, *tuple[Argument, ...]]]) -> list[Any]:
        """Many commands about a key each, in as few round trips as can be; answers in the same order.

        Commands about keys with the same hash tag are done in the order given, on one connection.
        """

    @abstractmethod
    async def run_everywhere(self, script: Script, args: Sequence[Argument]) -> list[Any]:
        """Run a script that has no keys on every primary."""

    @abstractmethod
    async def info(self) -> list[dict[str, str]]:
        """What INFO says of each primary: field to text."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of all connections."""
