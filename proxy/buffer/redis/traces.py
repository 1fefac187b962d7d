"""Looking for events in the data itself, by uuid: where they are held, and the batches that they were in."""

from collections.abc import AsyncIterator, Sequence
from heapq import merge

from proxy.buffer.contract import MAX_BATCHES
from proxy.buffer.redis.dead_letters import list_letters
from proxy.buffer.redis.entries import Run, read_batch, read_record
from proxy.buffer.redis.keys import names
from proxy.buffer.redis.lists import TRIES, Moved, first_slices, queues_of, read, slices
from proxy.buffer.redis.store import Store
from proxy.buffer.values import Batch, HeldEvent, Traces, Which
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

_BATCHES_AT_ONCE = 500
"""Records that are read at once: at most a megabyte."""

_KEYS_AT_ONCE = 100


async def trace(store: Store, uuid: bytes, key: PublicKey | None, queue: QueueId | None) -> Traces:
    """All that is known of a uuid."""
    keys = await store.keys() if key is None else [key]
    held = [await _held(store, each, queue, uuid) for each in keys]
    batches = [batch for each in keys for batch in await _batches_with(store, each, uuid)]
    return Traces(
        # Of one key in the order of acceptance, whatever the clock did; between keys only the clock can tell.
        held=list(merge(*held, key=lambda event: -event.accepted_at_ms)),
        dead=await list_letters(store, Which(key=key, queue=queue, uuid=uuid), None, 100),
        batches=sorted(batches, key=lambda batch: batch.settled_at_ms, reverse=True),
    )


async def _held(store: Store, key: PublicKey, queue: QueueId | None, uuid: bytes) -> Sequence[HeldEvent]:
    """A key's events with that uuid, the one that was accepted last first."""
    found: list[tuple[int, HeldEvent]] = []
    async for queues in queues_of(store, key, queue):
        for name, first in zip(queues, await first_slices(store, key, queues), strict=True):
            found += await _held_in(store, key, name, first, uuid)
    return [event for _, event in sorted(found, key=lambda numbered: numbered[0], reverse=True)]


async def _held_in(
    store: Store, key: PublicKey, queue: QueueId, first: Sequence[bytes], uuid: bytes
) -> Sequence[tuple[int, HeldEvent]]:
    """Of one queue, each with its number."""
    given: Sequence[bytes] | None = first
    runs: list[Run] = []
    for _ in range(TRIES):
        runs = []
        try:
            async for entries in slices(store, key, queue, given):
                runs += [
                    entry
                    for value in entries
                    if uuid in value and isinstance(entry := read(value), Run) and uuid in entry.uuids
                ]
        except Moved:
            given = None
        else:
            break
    if not runs:
        return []
    of, now_ms = names(key), store.now_ms()
    value, due = await store.link.ask_each((("HGET", of.queues, queue), ("ZSCORE", of.due, queue)))
    if value is None or due is None:  # it was delivered meanwhile
        return []
    record, due_ms = read_record(value), int(float(due))
    return [
        (
            run.number(at),
            HeldEvent(
                key,
                queue,
                run.accepted_ms,
                record.attempts,
                bool(record.token) and due_ms > now_ms,
                (due_ms - now_ms) / 1000,
            ),
        )
        for run in runs
        for at in range(run.events)
        if run.uuids[16 * at : 16 * at + 16] == uuid
    ]


async def ambiguous(store: Store, key: PublicKey | None, limit: int) -> list[Batch]:
    """The newest ambiguous batches, of one key or of all."""
    keys = await store.keys() if key is None else [key]
    most = min(limit, MAX_BATCHES)
    found: list[Batch] = []
    for start in range(0, len(keys), _KEYS_AT_ONCE):
        some = keys[start : start + _KEYS_AT_ONCE]
        told = await store.link.ask_each([("LRANGE", names(each).ambiguous, 0, most - 1) for each in some])
        found += [
            read_batch(each, value, ambiguous=True)
            for each, values in zip(some, told, strict=True)
            for value in values
        ]
        found = sorted(found, key=lambda batch: batch.settled_at_ms, reverse=True)[:most]
    return found


async def _batches_with(store: Store, key: PublicKey, uuid: bytes) -> Sequence[Batch]:
    """A key's remembered batches that an event was in."""
    of = names(key)
    found = [
        read_batch(key, value, ambiguous=is_ambiguous)
        for name, is_ambiguous in ((of.batches, False), (of.ambiguous, True))
        async for values in _records(store, name)
        for value in values
        if uuid in value
    ]
    return [batch for batch in found if batch.fate(uuid) is not None]


async def _records(store: Store, name: bytes) -> AsyncIterator[Sequence[bytes]]:
    """A list of records, newest first, some at a time, while others are put before them."""
    start, last = 0, None
    while True:
        found: list[bytes] = await store.link.ask("LRANGE", name, start, start + _BATCHES_AT_ONCE - 1)
        yield found[found.index(last) + 1 if last in found else 0 :]
        if len(found) < _BATCHES_AT_ONCE:
            return
        start, last = start + len(found) - 1, found[-1]
