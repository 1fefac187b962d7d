"""Which keys exist, and which are due: what tells each process of the keys that others append to.

Both lie in the fleet's slot, so neither is written in the transaction of what it speaks of. A key is enrolled
before anything of it is stored, or a crash in between would leave events of which nobody knows. When it is
due is a hint only: whoever follows it for nothing corrects it, and all keys are swept now and then.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from proxy.buffer.contract import BufferUnavailable
from proxy.buffer.redis.facts import Fact
from proxy.buffer.redis.keys import ACTIVE, KNOWN, names
from proxy.buffer.redis.scripts import load
from proxy.buffer.redis.store import Store
from proxy.wire.limits import PublicKey

HINT = load("hint")

_ANNOUNCED_S = 1.0
"""A key's hint is written no more often than this, and corrected only where it is wrong by more."""

_KEYS_AT_ONCE = 1_000
"""Keys that one look, or one round trip of a sweep, takes."""


class Roster:
    """The keys of the fleet, as far as this process has to do with them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._announced: dict[PublicKey, float] = {}  # when, on the loop's clock
        self._followed: dict[PublicKey, bytes] = {}  # the hint that is being followed: the due time it said

    async def announce(self, key: PublicKey) -> None:
        """Enrol a key of which something is about to be stored, and say when it will be due.

        Raises BufferUnavailable where it may not be enrolled.
        """
        now_s = asyncio.get_running_loop().time()
        announced_s = self._announced.get(key)
        if announced_s is not None and now_s - announced_s < _ANNOUNCED_S:
            return
        due_ms = self._store.now_ms() + self._store.terms.linger_ms
        try:
            await self._store.link.ask_each((("SADD", KNOWN, key), ("ZADD", ACTIVE, due_ms, key)))
        except BufferUnavailable:
            if announced_s is None:
                raise
            # Enrolled it is, and a sweep does without the hint.
        self._announced[key] = now_s

    async def disown(self, key: PublicKey) -> None:
        """Strike a key off of which nothing was ever stored: there is no end of invented ones."""
        self._announced.pop(key, None)
        await self._store.link.ask_each((("SREM", KNOWN, key), ("ZREM", ACTIVE, key)))

    async def recall(self) -> None:
        """Learn from the books of every key what the bounds over all of them need."""
        store = self._store
        keys = await store.keys()
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            found = await store.link.ask_each(
                [
                    command
                    for of in map(names, some)
                    for command in (("ZCARD", of.due), ("HMGET", of.books, *Fact._fields[1:]))
                ]
            )
            for key, queues, books in zip(some, found[::2], found[1::2], strict=True):
                store.facts.learn(key, (queues, *(int(each or 0) for each in books)), Fact(), wrote=False)

    async def due(self) -> Sequence[PublicKey]:
        """The keys that are due, or will be before the next look, as far as hints say so."""
        until_ms = self._store.now_ms() + int(_ANNOUNCED_S * 1000)
        found = await self._store.link.ask(
            "ZRANGEBYSCORE", ACTIVE, "-inf", until_ms, "WITHSCORES", "LIMIT", 0, _KEYS_AT_ONCE
        )
        keys = [PublicKey(key.decode("ascii")) for key in found[::2]]
        self._followed.update(zip(keys, found[1::2], strict=True))
        return keys

    async def correct(self, key: PublicKey, due_in_s: float | None) -> None:
        """Say when a key is due (None: it holds nothing), if a hint led to it too early and still stands."""
        due_ms = self._followed.pop(key, None)
        if due_ms is None or (due_in_s is not None and due_in_s < _ANNOUNCED_S):
            return
        right = "" if due_in_s is None else self._store.now_ms() + int(due_in_s * 1000)
        await self._store.link.run(HINT, (ACTIVE,), (key, due_ms, right))

    async def hint(self, key: PublicKey, due_in_s: float) -> None:
        """Have every process look at a key when it is due, or within a second of it.

        It replaces what was said before: who follows that just now finds it changed, and corrects nothing.
        """
        with suppress(BufferUnavailable):  # a sweep does without it
            due_ms = self._store.now_ms() + int(due_in_s * 1000)
            await self._store.link.ask("ZADD", ACTIVE, due_ms, key)

    async def holding(self) -> Sequence[PublicKey]:
        """The keys that hold events, by a look at every one."""
        link = self._store.link
        if self._announced:  # one may have been disowned elsewhere in the moment in which it was stored here
            await link.ask("SADD", KNOWN, *self._announced)
        keys = await self._store.keys()
        held: list[PublicKey] = []
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = keys[start : start + _KEYS_AT_ONCE]
            counts = await link.ask_each([("ZCARD", names(key).due) for key in some])
            held += [key for key, queues in zip(some, counts, strict=True) if queues]
        return held
