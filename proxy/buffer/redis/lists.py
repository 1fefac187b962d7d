"""Looking through what is held: the queues of a key, and their lists from one end to the other.

A list may be larger than what memory should take, so it is read in slices, while others append to its tail
and take from its head. Each slice but the first begins with a run that was in the one before: if that is not
there any more, something has moved, and the walk must begin again.
"""

from collections.abc import AsyncIterator, Sequence

from proxy.buffer.contract import BufferUnavailable
from proxy.buffer.packing import Damaged
from proxy.buffer.redis.entries import Header, Run, read_entry
from proxy.buffer.redis.keys import names
from proxy.buffer.redis.store import Store
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

HEAD_BYTES = 44
"""Of a run: what tells it from every other, and from what is left of it when an event has gone. That is its
number among the key's events and its checksum, which covers the uuids and texts."""

TRIES = 10
"""How often a list is walked that moves meanwhile."""

_QUEUES_AT_ONCE = 64
_FIRST_SLICE, _SLICE = 4, 32
"""Entries that are read at once, of many queues and then of one. A run has at most 250 kB, as a rule 2."""

_SCANNED_AT_ONCE = 500


class Moved(Exception):
    """A list was changed at its head while it was read."""


async def queues_of(
    store: Store, key: PublicKey, queue: QueueId | None = None
) -> AsyncIterator[Sequence[QueueId]]:
    """The queues of a key that hold events, some at a time; only that one where one is given.

    Those that hold events all the time are among them; one may come twice.
    """
    if queue is not None:
        yield [queue]
        return
    cursor: bytes | int = 0
    while True:
        cursor, found = await store.link.ask("ZSCAN", names(key).due, cursor, "COUNT", _SCANNED_AT_ONCE)
        queues = [QueueId(name) for name in found[::2]]
        for start in range(0, len(queues), _QUEUES_AT_ONCE):
            yield queues[start : start + _QUEUES_AT_ONCE]
        if int(cursor) == 0:
            return


async def first_slices(store: Store, key: PublicKey, queues: Sequence[QueueId]) -> list[list[bytes]]:
    """The first entries of each of these queues."""
    of = names(key)
    return await store.link.ask_each([("LRANGE", of.list(queue), 0, _FIRST_SLICE - 1) for queue in queues])


async def slices(
    store: Store, key: PublicKey, queue: QueueId, first: Sequence[bytes] | None = None
) -> AsyncIterator[Sequence[bytes]]:
    """All entries of a queue, some at a time; `first` is what `first_slices` found. Raises Moved."""
    if first is None:
        [first] = await first_slices(store, key, [queue])
    found, size, start, new = first, _FIRST_SLICE, 0, first
    while True:
        yield new
        if len(found) < size:
            return
        anchor = max((at for at, entry in enumerate(found) if entry[:1] == b"R"), default=0)
        beginning, known = found[anchor][:HEAD_BYTES], len(found) - anchor
        start += anchor
        size = _SLICE
        found = await store.link.ask("LRANGE", names(key).list(queue), start, start + size - 1)
        if not found or found[0][:HEAD_BYTES] != beginning:
            raise Moved
        new = found[known:]


def read(entry: bytes) -> Header | Run:
    """An entry that was found. Raises BufferUnavailable where it is none."""
    try:
        return read_entry(entry)
    except Damaged as error:
        raise damaged(error) from error


def texts_of(run: Run) -> list[bytes]:
    """A run's texts. Raises BufferUnavailable where it is damaged."""
    try:
        return run.texts()
    except Damaged as error:
        raise damaged(error) from error


def damaged_gate(why: bytes) -> BufferUnavailable:
    """What to say where a key's gate is none."""
    said = why.decode("utf-8", "replace")
    return damaged(Damaged(f"the gate of a public key is not as it was written ({said})"))


def damaged(error: Exception) -> BufferUnavailable:
    """What to say of something stored that nobody of ours wrote."""
    return BufferUnavailable(f"{error}: somebody else writes to this Redis, or it is damaged")
