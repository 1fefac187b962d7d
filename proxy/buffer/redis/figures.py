"""What Redis says of each key: the books as they were written, and a recount of the data itself."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from proxy import gate
from proxy.buffer.contract import BufferUnavailable
from proxy.buffer.redis.entries import Run, read_entry
from proxy.buffer.redis.keys import names
from proxy.buffer.redis.lists import damaged_gate, queues_of
from proxy.buffer.redis.scripts import load
from proxy.buffer.redis.store import Store
from proxy.buffer.values import KeyFigures
from proxy.gate import Gate
from proxy.lanes import QueueId
from proxy.ledger import Books
from proxy.wire.limits import PublicKey

RECOUNT, BALANCE, NOTE_DIFFERENCES = map(load, ("recount", "balance", "note_differences"))

_KEYS = 500
"""Keys of which one round trip asks."""

_QUEUES, _ENTRIES = 50, 200
"""Queues, and entries of each, that one script call counts: in most cases well below a millisecond."""

_MOST_RECORDS = 20_000
"""Records of queues that one script call adds up: some 8 ms."""

_TRIES = 3
"""How often what changed while it was counted is counted again."""


class _Unsettled(Exception):
    """It changed while it was counted, each time."""


async def read_figures(store: Store, *, recount: bool) -> dict[PublicKey, KeyFigures]:
    """The figures of every key. Without `recount` the difference is the one that was found last."""
    keys = await store.keys()
    found = {key: await _recount(store, key) for key in keys} if recount else {}
    figures: dict[PublicKey, KeyFigures] = {}
    for start in range(0, len(keys), _KEYS):
        figures |= await _figures_of(store, keys[start : start + _KEYS], found)
    return figures


async def _figures_of(
    store: Store, keys: Sequence[PublicKey], recounted: Mapping[PublicKey, "_Differences | None"]
) -> dict[PublicKey, KeyFigures]:
    link, of_keys = store.link, [names(key) for key in keys]
    answers = await link.ask_each(
        [
            command
            for of in of_keys
            for command in (
                ("HGETALL", of.books),
                ("GET", of.gate),
                ("ZCARD", of.due),
                ("ZRANGE", of.heads, 0, 0),
            )
        ]
    )
    found = [answers[at : at + 4] for at in range(0, len(answers), 4)]
    holding = [(of, heads[0]) for of, (*_, heads) in zip(of_keys, found, strict=True) if heads]
    beginnings = await link.ask_each([("LRANGE", of.list(QueueId(queue)), 0, 1) for of, queue in holding])
    oldest_ms = {of.key: _accepted_ms(entries) for (of, _), entries in zip(holding, beginnings, strict=True)}
    return {
        key: _figures(
            store, _fields(books), _gate(store, state), queues, oldest_ms.get(key), recounted.get(key)
        )
        for key, (books, state, queues, _) in zip(keys, found, strict=True)
        if books
    }


def _figures(
    store: Store,
    books: Mapping[str, str],
    its_gate: Gate,
    queues: int,
    oldest_held_ms: int | None,
    recounted: "_Differences | None",
) -> KeyFigures:
    accepted, delivered, dead, dropped = (
        int(books.get(name, 0)) for name in ("accepted", "delivered", "dead", "dropped")
    )
    held_more, dead_more = recounted or (
        int(books.get("held_difference", 0)),
        int(books.get("dead_difference", 0)),
    )
    return KeyFigures(
        Books(
            accepted,
            accepted - delivered - dead - dropped - held_more,
            delivered,
            dead - dead_more,
            dropped,
            max(held_more, dead_more, key=abs),  # a sum could hide two
        ),
        queues,
        int(books.get("stored_bytes", 0)),
        oldest_held_ms if queues else None,
        gate.view(its_gate, store.now_ms()),
        books.get("succeeded") == "1",
        int(books.get("ambiguous", 0)),
    )


def _gate(store: Store, text: bytes | None) -> Gate:
    """A key's gate as it is stored, a new one where it never sent anything. Raises BufferUnavailable."""
    limit_per_s, share = store.terms.limit_per_s, store.terms.rate_share
    if text is None:
        return gate.opened(limit_per_s, share)
    try:
        return gate.load(text, limit_per_s, share)
    except msgspec.MsgspecError as error:
        raise damaged_gate(str(error).encode()) from error


def _accepted_ms(entries: Sequence[bytes]) -> int | None:
    """When the oldest event of a list was accepted; None where it was delivered meanwhile."""
    for entry in map(read_entry, entries):
        if isinstance(entry, Run):
            return entry.accepted_ms
    return None


def _fields(answer: Sequence[bytes]) -> dict[str, str]:
    texts = [text.decode() for text in answer]
    return dict(zip(texts[::2], texts[1::2], strict=True))


# -- recount -------------------------------------------------------------------------------------------


class _Differences(NamedTuple):
    """By how many events the books say more than there is."""

    held: int
    dead: int


async def _recount(store: Store, key: PublicKey) -> _Differences | None:
    """Count a key's data, and write the differences down for those who do not count.

    None for what changes all the time while it is counted: the differences that were found last stay.
    """
    of = names(key)
    try:
        held_books, held_records, due, *noted, dead_books, letters, ids, places = await _balance(store, key)
        held = held_books - held_records
        queues = [queue async for some in queues_of(store, key) for queue in some] if due else []
        for start in range(0, len(queues), _QUEUES):
            held += await _recount_queues(store, key, queues[start : start + _QUEUES])
    except _Unsettled:
        return None
    found = _Differences(held, max((dead_books - there for there in (letters, ids, places)), key=abs))
    if found != tuple(noted):
        with suppress(BufferUnavailable):  # where Redis takes no writes, whoever counted knows all the same
            await store.link.run(NOTE_DIFFERENCES, (of.books,), found)
    return found


async def _balance(store: Store, key: PublicKey) -> list[int]:
    """What the books say that is held, what the records of the queues do; and the same of dead letters."""
    of, link = names(key), store.link
    for _ in range(_TRIES):
        answer: list[int] = await link.run(
            BALANCE,
            (of.books, of.due, of.queues, of.dead, of.dead_ids, of.dead_order),
            (_MOST_RECORDS,),
        )
        if answer[1] >= 0:
            return answer
        held = 0
        cursor: bytes | int = 0
        while True:
            cursor, found = await link.ask("HSCAN", of.queues, cursor, "COUNT", _MOST_RECORDS // 10)
            held += sum(int.from_bytes(record[:4], "big") for record in found[1::2])
            if int(cursor) == 0:
                break
        if held == answer[0]:  # by chance it may be equal, but not wrong
            return [answer[0], held, *answer[2:]]
    raise _Unsettled


async def _recount_queues(store: Store, key: PublicKey, queues: Sequence[QueueId]) -> int:
    """By how many events the records of these queues say more than their lists hold."""
    difference = 0
    counted = await _count(store, key, queues, 0)
    for queue, (held, entries, events, *_) in zip(queues, counted[:-1], strict=True):
        if entries <= _ENTRIES:
            difference += held - events
        else:
            difference += await _recount_long(store, key, queue)
    return difference


async def _recount_long(store: Store, key: PublicKey, queue: QueueId) -> int:
    """The same of a queue whose list is too long for one script call."""
    for _ in range(_TRIES):
        (held, entries, events, _, end), dropped = await _count(store, key, (queue,), 0)
        for first in range(_ENTRIES, entries, _ENTRIES):
            (_, _, more, before, end_now), still_dropped = await _count(
                store, key, (queue,), first, min(_ENTRIES, entries - first)
            )
            if (before, still_dropped) != (end, dropped):
                break
            events, end = events + more, end_now
        else:
            return int(held - events)
    raise _Unsettled


async def _count(
    store: Store, key: PublicKey, queues: Sequence[QueueId], first: int, entries: int = _ENTRIES
) -> list[Any]:
    of = names(key)
    answers: list[Any] = await store.link.run(
        RECOUNT, (of.books, of.queues, *map(of.list, queues)), (first, entries, *queues)
    )
    return answers
