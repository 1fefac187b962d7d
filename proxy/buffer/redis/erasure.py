"""Erase: take somebody's events out of queues and dead letters.

It takes no lease: a queue is looked through, and a script then takes out what was found, if the entries are
still as they were read and no worker has the queue. Where they are not, it is looked through again. Redis
frees their memory; its append-only file forgets them when it is next rewritten.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from proxy.buffer.redis.dead_letters import DeadLetters, by_id
from proxy.buffer.redis.entries import Header, Run
from proxy.buffer.redis.keys import names
from proxy.buffer.redis.link import Argument
from proxy.buffer.redis.lists import (
    HEAD_BYTES,
    TRIES,
    Moved,
    first_slices,
    queues_of,
    read,
    slices,
    texts_of,
)
from proxy.buffer.redis.scripts import load
from proxy.buffer.redis.store import Store
from proxy.buffer.values import Erased, Which
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

ERASE = load("erase")

_ENTRIES_AT_ONCE = 64
"""Entries that one script call takes out or rewrites: as a rule some 0.1 MB."""

IsTheirs = Callable[[bytes, bytes], bool]


@dataclass(frozen=True, slots=True)
class _Doomed:
    """An entry of a list in which something is theirs.

    `kept`: the positions of a run's events that are not. `beginning`: what tells it from every other.
    """

    index: int
    beginning: bytes
    events: int
    stored_bytes: int
    kept: Sequence[int] = ()


class Erasure:
    """The verb `erase`."""

    def __init__(self, store: Store, letters: DeadLetters) -> None:
        self._store = store
        self._letters = letters

    async def erase(self, is_theirs: IsTheirs, key: PublicKey | None, queue: QueueId | None) -> Erased:
        erased = Erased()
        for each in await self._store.keys() if key is None else [key]:
            async for queues in queues_of(self._store, each, queue):
                for name, first in zip(queues, await first_slices(self._store, each, queues), strict=True):
                    erased += await self._from_queue(each, name, first, is_theirs)
            erased += await self._from_letters(each, queue, is_theirs)
        return erased

    async def _from_letters(self, key: PublicKey, queue: QueueId | None, is_theirs: IsTheirs) -> Erased:
        dropped = 0
        async for letters in by_id(self._store, key, Which(key=key, queue=queue)):
            theirs = [found for found in letters if is_theirs(found.letter.lane_header, found.letter.text)]
            if theirs:
                dropped += await self._letters.drop(key, theirs)
        return Erased(dead=dropped)

    async def _from_queue(
        self, key: PublicKey, queue: QueueId, first: Sequence[bytes], is_theirs: IsTheirs
    ) -> Erased:
        """Take their events out of a queue, of which the first entries were read."""
        erased = Erased()
        found: Sequence[bytes] | None = first
        for _ in range(TRIES):
            search = _Search(is_theirs)
            try:
                async for entries in slices(self._store, key, queue, found):
                    search.look(entries)
                for some in search.doomed():
                    done = await self._take_out(key, queue, some)
                    erased += done
                    if done.leased:
                        return erased
            except Moved:
                found = None
            else:
                return erased
        return erased + Erased(leased=1)  # whoever changes it so often delivers it

    async def _take_out(self, key: PublicKey, queue: QueueId, doomed: Sequence[_Doomed]) -> Erased:
        """Take these out of a queue, if a worker has not got it. Raises Moved where it was changed."""
        of, store = names(key), self._store
        arguments: list[Argument] = []
        freed_bytes = 0
        for each, entry in zip(doomed, await self._rewritten(key, queue, doomed), strict=True):
            arguments += (each.index, each.beginning, b"" if entry is None else entry.entry)
            freed_bytes += each.stored_bytes - (0 if entry is None else entry.stored_bytes)
        events = sum(each.events for each in doomed)
        before = store.facts.of(key)
        word, *rest = await store.link.run(
            ERASE,
            (of.books, of.due, of.queues, of.heads, of.list(queue), of.superseded),
            (store.clock.argument(), queue, events, freed_bytes, *arguments),
            kept=True,
        )
        match word:
            case b"erased":
                store.learn(key, rest[0], before)
                return Erased(held=events)
            case b"leased":
                return Erased(leased=1)
            case _:
                raise Moved

    async def _rewritten(
        self, key: PublicKey, queue: QueueId, doomed: Sequence[_Doomed]
    ) -> Sequence[Run | None]:
        """What takes the place of each: a run without their events, or nothing. Raises Moved."""
        name = names(key).list(queue)
        asked = [each for each in doomed if each.kept]
        found = iter(await self._store.link.ask_each([("LINDEX", name, each.index) for each in asked]))
        runs: list[Run | None] = []
        for each in doomed:
            if not each.kept:
                runs.append(None)
                continue
            value: bytes | None = next(found)
            if value is None or value[:HEAD_BYTES] != each.beginning:
                raise Moved
            run = read(value)
            assert isinstance(run, Run)  # noqa: S101  # it begins as a run that was read
            runs.append(run.kept(each.kept))
        return runs


@dataclass(slots=True)
class _Search:
    """What is theirs in a list, as it is looked through from its head on."""

    is_theirs: IsTheirs
    _found: list[_Doomed] = field(default_factory=list)
    _index: int = 0
    _header: Header | None = None
    _header_index: int = 0
    _is_needed: bool = True
    """Whether a run stays behind the header that was met last."""

    def look(self, entries: Sequence[bytes]) -> None:
        """Look at the next entries. Raises BufferUnavailable where one is damaged."""
        for value in entries:
            entry = read(value)
            if isinstance(entry, Header):
                self._end_lane()
                self._header, self._header_index, self._is_needed = entry, self._index, False
            else:
                self._look_at(entry, value[:HEAD_BYTES])
            self._index += 1

    def doomed(self) -> Iterator[Sequence[_Doomed]]:
        """What was found, the last of the list first, some at a time."""
        self._end_lane()
        self._header = None
        found = sorted(self._found, key=lambda each: each.index, reverse=True)
        for start in range(0, len(found), _ENTRIES_AT_ONCE):
            yield found[start : start + _ENTRIES_AT_ONCE]

    def _look_at(self, run: Run, beginning: bytes) -> None:
        header = b"" if self._header is None else self._header.header
        kept = [at for at, text in enumerate(texts_of(run)) if not self.is_theirs(header, text)]
        if kept:
            self._is_needed = True
        if len(kept) < run.events:
            gone = run.events - len(kept)
            self._found.append(_Doomed(self._index, beginning, gone, run.stored_bytes, kept))

    def _end_lane(self) -> None:
        """A header behind which no run stays goes too: it names somebody."""
        if self._header is not None and not self._is_needed:
            beginning = self._header.entry[:17]
            self._found.append(_Doomed(self._header_index, beginning, 0, self._header.stored_bytes))
