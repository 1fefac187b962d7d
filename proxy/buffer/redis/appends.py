"""Append: requests that come while one is under way go together in the next script call, key by key.

Each is stored whole or not at all, and is answered after its own part only. A request of which events were
seen before is asked again without them: the scripts never take a run apart.
"""

import asyncio
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy.buffer.contract import BufferFull, NeverFits, QuotaExceeded
from proxy.buffer.packing import cuts
from proxy.buffer.redis.entries import QUEUE_OVERHEAD, header_bytes, unstamped_run
from proxy.buffer.redis.keys import KeyNames, names
from proxy.buffer.redis.link import Argument, OutOfMemory
from proxy.buffer.redis.roster import Roster
from proxy.buffer.redis.scripts import load
from proxy.buffer.redis.store import Store
from proxy.buffer.values import Appended, Portion
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey

APPEND = load("append")

_GROUP_REQUESTS, _GROUP_EVENTS = 64, 400
"""Requests in one script call, and events after which it takes no further one: one or two milliseconds of
Redis's time, 20 µs a request and 2.3 µs an event, in which nobody else is served."""

_GROUP_BYTES = 1_000_000
"""Bytes after which a script call takes no further request."""


@dataclass(slots=True)
class _Request:
    """A request that waits for its answer. `duplicate`: events that were found seen already."""

    portions: Sequence[Portion]
    answer: "asyncio.Future[tuple[Appended, float | None]]"
    duplicate: int
    most_bytes: int = 0
    packed: list[tuple[QueueId, list[Argument]]] = field(default_factory=list)

    def pack(self) -> None:
        """Put the portions into the form that the script takes; the number of a queue is the caller's."""
        self.packed.clear()
        self.most_bytes = 0
        for portion in self.portions:
            counted = header_bytes(portion.header)
            self.most_bytes += QUEUE_OVERHEAD + counted
            arguments: list[Argument] = [portion.queue, portion.lane, portion.header, counted, 0]
            for start, end in cuts(portion.texts):
                uuids = portion.uuids[16 * start : 16 * end]
                run, bytes_ = unstamped_run(portion.lane, uuids, portion.texts[start:end])
                self.most_bytes += bytes_
                arguments += (end - start, bytes_, run, portion.dedup_ids[start:end].tobytes())
            arguments[4] = (len(arguments) - 5) // 4
            self.packed.append((portion.queue, arguments))


class Appends:
    """The verb `append`."""

    def __init__(self, store: Store, roster: Roster) -> None:
        self._store = store
        self._roster = roster
        self._waiting: dict[PublicKey, deque[_Request]] = {}
        self._senders: set[asyncio.Task[None]] = set()

    async def append(self, key: PublicKey, portions: Sequence[Portion]) -> tuple[Appended, float | None]:
        """Beside the answer: in how many seconds a queue became due by this append, None if none did."""
        self._store.check_room()
        fresh, duplicate = _first_ones(portions)
        request = _Request(fresh, asyncio.get_running_loop().create_future(), duplicate)
        request.pack()
        terms = self._store.terms
        if request.most_bytes > min(terms.max_bytes, terms.max_bytes_per_key):
            raise NeverFits("larger than buffer.max_bytes or buffer.max_bytes_per_key")
        waiting = self._waiting.get(key)
        if waiting is None:
            self._waiting[key] = deque((request,))
            sender = asyncio.create_task(self._send(key), name="append")
            self._senders.add(sender)
            sender.add_done_callback(self._senders.discard)
        else:
            waiting.append(request)
        return await request.answer

    async def finish(self) -> None:
        """Return when all that was asked is answered."""
        if self._senders:
            await asyncio.wait(self._senders)

    async def _send(self, key: PublicKey) -> None:
        waiting = self._waiting[key]
        while group := _next_group(waiting):
            try:
                for request, said in zip(group, await self._ask(key, group), strict=True):
                    if not self._settle(request, said):
                        waiting.appendleft(request)
            except Exception as error:  # noqa: BLE001  # theirs who wait: raised in each of them
                for request in group:
                    if not request.answer.done():
                        request.answer.set_exception(error)
        del self._waiting[key]

    async def _ask(self, key: PublicKey, group: Sequence[_Request]) -> list[Any]:
        store, of = self._store, names(key)
        terms, quota = store.terms, store.terms.quota
        numbers: dict[QueueId, int] = {}
        before = store.facts.of(key)
        requests: list[Argument] = []
        for request in group:
            requests += (request.most_bytes, len(request.packed))
            for queue, arguments in request.packed:
                requests.append(numbers.setdefault(queue, len(numbers) + 1))
                requests += arguments
        try:
            await self._roster.announce(key)
            learnt, *said = await store.link.run(
                APPEND,
                [of.books, of.due, of.queues, of.heads, *_of_queues(of, numbers)],
                [
                    store.clock.argument(),
                    terms.linger_ms,
                    terms.dedup_window_ms,
                    terms.max_bytes,
                    terms.max_bytes_per_key,
                    store.facts.others_bytes(key),
                    -1 if quota is None else quota.queues,
                    int(quota is None or store.facts.other_strangers(key) < quota.keys),
                    len(group),
                    *requests,
                ],
                kept=True,
            )
        except OutOfMemory as error:
            raise BufferFull(str(error)) from error
        wrote = any(word in (b"stored", b"seen") for word, *_ in said)
        store.learn(key, learnt, before, wrote=wrote)
        if not store.facts.of(key).turn:
            await self._roster.disown(key)
        return list(said)

    @staticmethod
    def _settle(request: _Request, said: Sequence[Any]) -> bool:
        """Answer a request; False where it must be asked again, without what was seen before."""
        word, *rest = said
        if request.answer.done():  # whoever asked was cancelled
            return True
        if word == b"stored":
            stored, due_ms = rest
            due_s = None if due_ms < 0 else due_ms / 1000
            request.answer.set_result((Appended(stored, request.duplicate), due_s))
        elif word == b"seen":
            (positions,) = rest
            request.portions = _without(request.portions, set(positions))
            request.duplicate += len(positions)
            if request.portions:
                request.pack()
                return False
            request.answer.set_result((Appended(0, request.duplicate), None))
        else:
            request.answer.set_exception(_refusal(word))
        return True


def _next_group(waiting: "deque[_Request]") -> list[_Request]:
    """The requests that go together next; those whose caller was cancelled meanwhile go nowhere."""
    group: list[_Request] = []
    events = bytes_ = 0
    while waiting and len(group) < _GROUP_REQUESTS and events < _GROUP_EVENTS and bytes_ < _GROUP_BYTES:
        request = waiting.popleft()
        if not request.answer.done():
            group.append(request)
            bytes_ += request.most_bytes
            events += sum(len(portion.texts) for portion in request.portions)
    return group


def _of_queues(of: KeyNames, queues: Iterable[QueueId]) -> Iterable[bytes]:
    for queue in queues:
        yield from of.of_queue(queue)


def _refusal(word: bytes) -> Exception:
    match word:
        case b"full":
            return BufferFull("the buffer holds buffer.max_bytes")
        case b"key_full":
            return BufferFull("this public key holds buffer.max_bytes_per_key")
        case b"many_keys":
            return QuotaExceeded("too many public keys that Outlit never confirmed hold events")
        case _:
            return QuotaExceeded("this public key was never confirmed by Outlit and holds too many queues")


def _first_ones(portions: Sequence[Portion]) -> tuple[Sequence[Portion], int]:
    """The portions without what stands in them twice, and how many events that is."""
    if len(portions) == 1 and len(set(portions[0].dedup_ids)) == len(portions[0].dedup_ids):
        return portions, 0
    seen: set[tuple[QueueId, int]] = set()
    again: set[int] = set()
    at = 0
    for portion in portions:
        for dedup_id in portion.dedup_ids:
            before = len(seen)
            seen.add((portion.queue, dedup_id))
            if len(seen) == before:
                again.add(at)
            at += 1
    return _without(portions, again), len(again)


def _without(portions: Sequence[Portion], positions: set[int]) -> Sequence[Portion]:
    """The portions without the events at these positions of the request."""
    left: list[Portion] = []
    first = 0
    for portion in portions:
        events = len(portion.texts)
        kept = [at for at in range(events) if first + at not in positions]
        first += events
        if len(kept) == events:
            left.append(portion)
        elif kept:
            left.append(
                Portion(
                    portion.queue,
                    portion.lane,
                    portion.header,
                    b"".join([portion.uuids[16 * at : 16 * at + 16] for at in kept]),
                    array("q", [portion.dedup_ids[at] for at in kept]),
                    [portion.texts[at] for at in kept],
                )
            )
    return left
