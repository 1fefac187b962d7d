"""Dead letters: events that were given up, kept within a bound of their own until somebody looks.

They lie in their keys' slots. Which of them are meant is found by reading them here, slice by slice; what is
to become of these is told to a script by their ids, of which none was ever given twice. Who comes second
finds them gone.
"""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import msgspec

from proxy.buffer.contract import MAX_LETTERS, BufferFull
from proxy.buffer.packing import Damaged, cuts
from proxy.buffer.redis.entries import QUEUE_OVERHEAD, header_bytes, read_letter, unstamped_run
from proxy.buffer.redis.keys import names
from proxy.buffer.redis.link import Argument, OutOfMemory
from proxy.buffer.redis.lists import damaged
from proxy.buffer.redis.roster import Roster
from proxy.buffer.redis.scripts import load
from proxy.buffer.redis.store import Store
from proxy.buffer.values import DeadLetter, Which
from proxy.lanes import QueueId, lane_id
from proxy.wire.limits import PublicKey

REPLAY, DROP_LETTERS = map(load, ("replay", "drop_letters"))

_AT_ONCE = 64
"""Letters that are read at once: one has as a rule 1 kB, and at most a megabyte."""

_REPLAY_BYTES = 1_000_000
"""Bytes of texts after which a script call replays no further letter."""


class Found(NamedTuple):
    """A letter that was read: the number of its event among the key's, and what was counted for it."""

    letter: DeadLetter
    number: int
    counted_bytes: int


class DeadLetters:
    """The verbs about dead letters. `evict` is for `settle`, `drop` for `erase`."""

    def __init__(self, store: Store, roster: Roster) -> None:
        self._store = store
        self._roster = roster
        self._evicting = asyncio.Lock()

    # -- looking ---------------------------------------------------------------------------------------

    async def newest(self, which: Which, before_id: int | None, limit: int) -> list[DeadLetter]:
        return await list_letters(self._store, which, before_id, limit)

    async def count(self, which: Which) -> int:
        store = self._store
        keys = await keys_with_letters(store, which)
        if which == Which(key=which.key, up_to_id=which.up_to_id):  # no letter need be read
            most = "+inf" if which.up_to_id is None else which.up_to_id
            return sum(await store.link.ask_each([("ZCOUNT", names(k).dead_ids, "-inf", most) for k in keys]))
        found = 0
        for key in keys:
            async for letters in by_id(store, key, which):
                found += len(letters)
        return found

    # -- replay ----------------------------------------------------------------------------------------

    async def replay(self, which: Which) -> tuple[int, Sequence[tuple[PublicKey, float]]]:
        """Beside the number: which keys' queues became due by it, and in how many seconds."""
        replayed = 0
        due: list[tuple[PublicKey, float]] = []
        refusal: BufferFull | None = None
        for key in await keys_with_letters(self._store, which):
            if replayed == MAX_LETTERS:
                break
            done = await self._replay_of(key, which, MAX_LETTERS - replayed)
            replayed += done.letters
            refusal = refusal or done.refusal
            if done.due_s is not None:
                due.append((key, done.due_s))
                await self._roster.hint(key, done.due_s)
        if refusal is not None and not replayed:
            raise refusal
        return replayed, due

    async def _replay_of(self, key: PublicKey, which: Which, most: int) -> "_Replayed":
        """As many of one key's as fit, in order. What does not fit is overtaken by none of the same key."""
        replayed, due_s, refusal = 0, None, None
        letters, at_once = await self._first_accepted(key, which, most), most
        while letters and at_once:
            some = _cut(letters[:at_once])
            word, *rest = await self._ask_replay(key, some)
            match word:
                case b"replayed":
                    replayed += len(some)
                    letters = letters[len(some) :]
                    if rest[0] >= 0:
                        due_s = min(rest[0] / 1000, due_s if due_s is not None else rest[0] / 1000)
                case b"changed":  # somebody else took letters out: this ends, as they are fewer each time
                    letters = await self._first_accepted(key, which, most - replayed)
                case _:
                    refusal = _refusal(word)
                    at_once = len(some) // 2
        return _Replayed(replayed, due_s, refusal)

    async def _first_accepted(self, key: PublicKey, which: Which, most: int) -> Sequence[Found]:
        """The first ones in the order in which the events were accepted."""
        found: list[Found] = []
        async for letters in _slices(self._store, key, which, names(key).dead_order):
            found += letters
            if len(found) >= most:
                break
        return found[:most]

    async def _ask_replay(self, key: PublicKey, letters: Sequence[Found]) -> Sequence[Any]:
        store, of = self._store, names(key)
        if (why := store.full()) is not None:
            return (why,)
        portions, queues, most_bytes = _packed(letters)
        before = store.facts.of(key)
        try:
            said: Sequence[Any] = await store.link.run(
                REPLAY,
                (
                    of.books,
                    of.due,
                    of.queues,
                    of.heads,
                    of.dead,
                    of.dead_ids,
                    of.dead_order,
                    *map(of.list, queues),
                ),
                (
                    store.clock.argument(),
                    store.terms.linger_ms,
                    store.terms.max_bytes,
                    store.terms.max_bytes_per_key,
                    store.facts.others_bytes(key),
                    most_bytes,
                    sum(found.counted_bytes for found in letters),
                    len(letters),
                    *(found.letter.id for found in letters),
                    *portions,
                ),
                kept=True,
            )
        except OutOfMemory as error:
            return (str(error),)
        if said[0] == b"replayed":
            store.learn(key, said[-1], before)
        return said

    # -- giving up -------------------------------------------------------------------------------------

    async def purge(self, which: Which) -> int:
        while doomed := await _select(self._store, which, MAX_LETTERS, newest=False):
            if dropped := await self._drop_each(doomed):
                return dropped
            # Somebody else gave just these up: there may be others.
        return 0

    async def evict(self) -> int:
        """Give up the oldest letters of all keys, as long as they are beyond the bound. Returns how many."""
        dropped = 0
        async with self._evicting:
            while self._excess_bytes() > 0 and (doomed := await self._oldest_in_excess()):
                dropped += await self._drop_each(doomed)
        return dropped

    async def drop(self, key: PublicKey, letters: Iterable[Found]) -> int:
        """Give up these letters of a key, as far as they are still there; at most `MAX_LETTERS`. How many."""
        of, store = names(key), self._store
        arguments: list[Argument] = []
        for found in letters:
            arguments += (found.letter.id, found.counted_bytes)
        before = store.facts.of(key)
        _, dropped, learnt = await store.link.run(
            DROP_LETTERS, (of.books, of.due, of.dead, of.dead_ids, of.dead_order), arguments, kept=True
        )
        store.learn(key, learnt, before, wrote=dropped > 0)
        return int(dropped)

    async def _drop_each(self, letters: Sequence[Found]) -> int:
        of_key: dict[PublicKey, list[Found]] = {}
        for found in letters:
            of_key.setdefault(found.letter.key, []).append(found)
        return sum([await self.drop(key, some) for key, some in of_key.items()])

    def _excess_bytes(self) -> int:
        return self._store.facts.dead_bytes() - self._store.terms.dead_max_bytes

    async def _oldest_in_excess(self) -> Sequence[Found]:
        """The oldest letters whose bytes are beyond the bound, or some of them.

        What is known of the keys is brought up to date by the way: what others have given up meanwhile need
        not be given up again.
        """
        store = self._store
        keys = [key for key in store.facts.known() if store.facts.of(key).dead_bytes]
        before = {key: store.facts.of(key) for key in keys}
        answers = await store.link.ask_each(
            [
                command
                for of in map(names, keys)
                for command in (
                    ("ZCARD", of.due),
                    ("HMGET", of.books, *_OF_FACT),
                    ("ZRANGE", of.dead_ids, 0, _AT_ONCE - 1),
                )
            ]
        )
        ids: list[tuple[int, PublicKey]] = []
        for key, queues, books, oldest in zip(keys, answers[::3], answers[1::3], answers[2::3], strict=True):
            store.learn(key, [queues, *(int(number or 0) for number in books)], before[key], wrote=False)
            ids += [(int(id_), key) for id_ in oldest]
        excess_bytes, doomed = self._excess_bytes(), list[Found]()
        for found in await _read_each(store, sorted(ids)[:_AT_ONCE]):
            if excess_bytes <= 0:
                break
            doomed.append(found)
            excess_bytes -= found.counted_bytes
        return doomed


_OF_FACT = ("stored_bytes", "dead_bytes", "succeeded", "accepted", "born_ms", "turn")
"""The fields of the books of which a fact is made, behind the number of queues: see `facts` in shared.lua."""


class _Replayed(NamedTuple):
    """How many letters of a key were replayed, and why not the rest."""

    letters: int
    due_s: float | None
    refusal: BufferFull | None


def _cut(letters: Sequence[Found]) -> Sequence[Found]:
    """The first of these, as many as go into one script call."""
    bytes_ = 0
    for at, found in enumerate(letters):
        bytes_ += len(found.letter.text)
        if at and bytes_ > _REPLAY_BYTES:
            return letters[:at]
    return letters


def _packed(letters: Sequence[Found]) -> tuple[list[Argument], Sequence[QueueId], int]:
    """Letters in their order as the script takes them; beside it their queues, and the most they come to.

    Neighbours in one queue and lane make runs. Others are not brought together: their numbers would no longer
    be in the order of acceptance.
    """
    numbers: dict[QueueId, int] = {}
    portions = most_bytes = 0
    arguments: list[Argument] = []
    for (queue, header), group in groupby(letters, key=lambda of: (of.letter.queue, of.letter.lane_header)):
        alike = [found.letter for found in group]
        uuids, texts = b"".join([letter.uuid for letter in alike]), [letter.text for letter in alike]
        lane, counted = lane_id(header), header_bytes(header)
        runs = list(cuts(texts))
        arguments += (numbers.setdefault(queue, len(numbers) + 1), queue, lane, header, counted, len(runs))
        most_bytes += counted
        for start, end in runs:
            run, bytes_ = unstamped_run(lane, uuids[16 * start : 16 * end], texts[start:end])
            arguments += (end - start, bytes_, run)
            most_bytes += bytes_
        portions += 1
    return [portions, *arguments], list(numbers), most_bytes + QUEUE_OVERHEAD * len(numbers)


def _refusal(word: bytes | str) -> BufferFull:
    match word:
        case b"full":
            return BufferFull("the buffer holds buffer.max_bytes")
        case b"key_full":
            return BufferFull("this public key holds buffer.max_bytes_per_key")
        case _:
            return BufferFull(str(word))


# -- looking -------------------------------------------------------------------------------------------


async def list_letters(store: Store, which: Which, before_id: int | None, limit: int) -> list[DeadLetter]:
    """The newest ones that are older than `before_id`; at most `MAX_LETTERS`."""
    found = await _select(store, which, min(limit, MAX_LETTERS), newest=True, before_id=before_id)
    return [each.letter for each in found]


async def keys_with_letters(store: Store, which: Which) -> Sequence[PublicKey]:
    """The keys that have any, among those that are asked for."""
    keys = await store.keys() if which.key is None else [which.key]
    counts = await store.link.ask_each([("ZCARD", names(key).dead_ids) for key in keys])
    return [key for key, letters in zip(keys, counts, strict=True) if letters]


def by_id(store: Store, key: PublicKey, which: Which) -> AsyncIterator[Sequence[Found]]:
    """A key's letters that fit, the oldest first, some at a time."""
    return _slices(store, key, which, names(key).dead_ids)


async def _select(
    store: Store, which: Which, limit: int, *, newest: bool, before_id: int | None = None
) -> Sequence[Found]:
    """So many of all keys' letters that fit: the newest ones, or the oldest, in that order."""
    chosen: list[Found] = []
    for key in await keys_with_letters(store, which) if limit > 0 else ():
        lowest, highest = b"-inf", b"+inf" if before_id is None else b"(%d" % before_id
        if len(chosen) == limit:  # of the other keys none is chosen that is worse than these
            edge = b"(%d" % chosen[-1].letter.id
            lowest, highest = (edge, highest) if newest else (lowest, edge)
        own: list[Found] = []
        ids = names(key).dead_ids
        async for letters in _slices(store, key, which, ids, lowest, highest, downwards=newest):
            own += letters
            if len(own) >= limit:
                break
        chosen = sorted([*chosen, *own], key=lambda found: found.letter.id, reverse=newest)[:limit]
    return chosen


async def _slices(
    store: Store,
    key: PublicKey,
    which: Which,
    order: bytes,
    lowest: bytes = b"-inf",
    highest: bytes = b"+inf",
    *,
    downwards: bool = False,
) -> AsyncIterator[Sequence[Found]]:
    """A key's letters that fit, some at a time, as a sorted set has them in order between these scores."""
    ask, command = store.link.ask, "ZREVRANGEBYSCORE" if downwards else "ZRANGEBYSCORE"
    while True:
        edges = (highest, lowest) if downwards else (lowest, highest)
        told = await ask(command, order, *edges, "WITHSCORES", "LIMIT", 0, _AT_ONCE)
        if not told:
            return
        ids = [int(id_) for id_ in told[::2] if which.id in (None, int(id_))]
        found = await _read(store, key, ids)
        yield [each for each in found if _fits(each.letter, which)]
        if downwards:
            highest = b"(" + told[-1]
        else:
            lowest = b"(" + told[-1]


async def _read_each(store: Store, ids: Sequence[tuple[int, PublicKey]]) -> Sequence[Found]:
    """These letters in order, as far as they are still there."""
    of_key: dict[PublicKey, list[int]] = {}
    for id_, key in ids:
        of_key.setdefault(key, []).append(id_)
    found = [each for key, some in of_key.items() for each in await _read(store, key, some)]
    return sorted(found, key=lambda each: each.letter.id)


async def _read(store: Store, key: PublicKey, ids: Sequence[int]) -> Sequence[Found]:
    """These letters of a key in order, as far as they are still there."""
    if not ids:
        return []
    values = await store.link.ask("HMGET", names(key).dead, *ids)
    try:
        return [
            Found(*read_letter(id_, key, value), _counted_bytes(value))
            for id_, value in zip(ids, values, strict=True)
            if value is not None
        ]
    except (struct.error, msgspec.MsgspecError, ValueError) as error:
        raise damaged(Damaged(f"a dead letter is not as it was written ({error})")) from error


def _counted_bytes(value: bytes) -> int:
    """What was counted for a letter when it was written (see `entries`)."""
    return int.from_bytes(value[8:12], "big")


def _fits(letter: DeadLetter, which: Which) -> bool:
    wanted = (
        (which.id, letter.id),
        (which.uuid, letter.uuid),
        (which.queue, letter.queue),
        (which.reason, letter.reason),
    )
    return (
        all(asked in (None, own) for asked, own in wanted)
        and (which.died_from_ms is None or letter.died_at_ms >= which.died_from_ms)
        and (which.died_before_ms is None or letter.died_at_ms < which.died_before_ms)
        and (which.up_to_id is None or letter.id <= which.up_to_id)
    )
