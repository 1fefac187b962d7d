"""Pause, resume and retry: the operator's word about a public key."""

from collections.abc import Sequence

from proxy.buffer.redis.keys import names
from proxy.buffer.redis.lists import damaged_gate, queues_of
from proxy.buffer.redis.scripts import load
from proxy.buffer.redis.store import Store
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

PAUSE, RETRY = load("pause"), load("retry")


class Pauses:
    """The verbs `pause`, `resume` and `retry`; each raises BufferUnavailable where a gate is damaged, too."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def pause(self, key: PublicKey) -> bool:
        return await self._set(key, paused=True)

    async def resume(self, key: PublicKey) -> bool:
        return await self._set(key, paused=False)

    async def _set(self, key: PublicKey, *, paused: bool) -> bool:
        of, store = names(key), self._store
        word, *rest = await store.link.run(
            PAUSE, (of.books, of.gate), (*store.of_gates(), int(paused)), kept=True
        )
        if word == b"damaged":
            raise damaged_gate(rest[0])
        return bool(word == b"done")

    async def retry(self, key: PublicKey) -> int | None:
        """Some queues at a time; where it raises, asking again does the rest."""
        waited = 0
        async for queues in queues_of(self._store, key):
            waited += await self._retry(key, queues) or 0
        is_known = await self._retry(key, (), are_last=True) is not None
        return waited if is_known else None

    async def _retry(
        self, key: PublicKey, queues: Sequence[QueueId], *, are_last: bool = False
    ) -> int | None:
        of, store = names(key), self._store
        word, *rest = await store.link.run(
            RETRY,
            (of.books, of.due, of.queues, of.gate),
            (store.clock.argument(), *store.of_gates(), int(are_last), *queues),
            kept=are_last,  # Redis waits for all that a connection has written before
        )
        match word:
            case b"retried":
                return int(rest[0])
            case b"damaged":
                raise damaged_gate(rest[0])
            case _:
                return None
