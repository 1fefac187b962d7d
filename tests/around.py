"""A buffer around another: what its heirs do not say otherwise goes through as it is."""

from collections.abc import Callable, Mapping, Sequence

from proxy.buffer import (
    ALL_LETTERS,
    Appended,
    Batch,
    Buffer,
    BufferBroken,
    DeadLetter,
    Erased,
    Head,
    Idle,
    KeyFigures,
    Lease,
    Portion,
    Settled,
    Settlement,
    Spent,
    Terms,
    Traces,
    Which,
)
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey


class BufferAround(Buffer):
    """Every verb of `inner`."""

    def __init__(self, inner: Buffer) -> None:
        self.inner = inner

    async def append(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        return await self.inner.append(key, portions)

    async def claim(self, key: PublicKey, token: bytes, *, early: bool = False) -> Lease | Idle:
        return await self.inner.claim(key, token, early=early)

    async def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        return await self.inner.read(lease, max_events, max_bytes)

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        return await self.inner.settle(lease, settlement)

    async def pause(self, key: PublicKey) -> bool:
        return await self.inner.pause(key)

    async def resume(self, key: PublicKey) -> bool:
        return await self.inner.resume(key)

    async def retry(self, key: PublicKey) -> int | None:
        return await self.inner.retry(key)

    async def dead_letters(
        self, which: Which = ALL_LETTERS, *, before_id: int | None = None, limit: int = 100
    ) -> list[DeadLetter]:
        return await self.inner.dead_letters(which, before_id=before_id, limit=limit)

    async def count_dead(self, which: Which = ALL_LETTERS) -> int:
        return await self.inner.count_dead(which)

    async def replay(self, which: Which) -> int:
        return await self.inner.replay(which)

    async def purge(self, which: Which) -> int:
        return await self.inner.purge(which)

    async def erase(
        self,
        is_theirs: Callable[[bytes, bytes], bool],
        *,
        key: PublicKey | None = None,
        queue: QueueId | None = None,
    ) -> Erased:
        return await self.inner.erase(is_theirs, key=key, queue=queue)

    async def trace(
        self, uuid: bytes, *, key: PublicKey | None = None, queue: QueueId | None = None
    ) -> Traces:
        return await self.inner.trace(uuid, key=key, queue=queue)

    async def ambiguous(self, key: PublicKey | None = None, *, limit: int = 100) -> list[Batch]:
        return await self.inner.ambiguous(key, limit=limit)

    async def figures(self, *, recount: bool = False) -> Mapping[PublicKey, KeyFigures]:
        return await self.inner.figures(recount=recount)

    async def may_recount(self, every_s: float) -> bool:
        return await self.inner.may_recount(every_s)

    async def keys_with_work(self) -> Sequence[PublicKey]:
        return await self.inner.keys_with_work()

    def on_append(self, wake: Callable[[PublicKey, float], None]) -> None:
        self.inner.on_append(wake)

    def set_terms(self, terms: Terms) -> None:
        self.inner.set_terms(terms)

    async def check(self) -> None:
        await self.inner.check()

    async def failed(self) -> BufferBroken:
        return await self.inner.failed()

    async def close(self) -> None:
        await self.inner.close()
