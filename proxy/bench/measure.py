"""What the buffer's verbs cost on one engine, and what an event takes that it holds.

Times are of the caller: from the call to its answer, with the way there and back, and waiting for the disk
where the durability asks for it. Beside them stands what the store itself says that it spent on the call,
where it is a process of its own: that is what all replicas share. Medians, for others work on the machine.
"""

import asyncio
import os
import statistics
import time
from array import array
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from math import ceil
from typing import TypeVar

import xxhash

from proxy.bench.visits import Post, Visits
from proxy.buffer import Lease, Portion, Settlement, Spent
from proxy.buffer.bench import BENCH_KEY, Bench, BenchRefused
from proxy.gate import Feedback, Outcome
from proxy.lanes import QueueId, lane_header, lane_id
from proxy.ledger import Answered
from proxy.wire.columns import Columns
from proxy.wire.envelope import Envelope, read_ordinary
from proxy.wire.limits import EVENTS_PER_REQUEST, REQUEST_BYTES
from proxy.wire.rate_headers import MAX_LIMIT, RateHeaders

T = TypeVar("T")

APPENDS = (1, 10, 100)
"""Events of a request."""

SHAPES = ((1, 1), (1, 5), (5, 1), (3, 10), (1, 30), (100, 1))
"""Events a post, posts a queue."""

MOST_QUEUES = 400_000
"""A benchmark numbers its queues below this, so that another can take out what one has left."""

_AT_ONCE = 64
"""Appends that are under way at once, where many are."""

_FILL_AT_ONCE = 512
_READY_POSTS = 2_000
_TOKEN_BYTES = 12
_ANSWERED_AFTER_MS = 60.0

_NOTHING_DUE = "nothing is due of what was stored a moment ago: did the store lose it?"
_LEASE_ENDED = "a lease ended while it was being measured: is the machine, or the store, hanging?"


@dataclass(frozen=True, slots=True)
class ClaimCost:
    """Medians with so many queues due, in µs; `…_store_us` is None where the store is in this process."""

    due_queues: int
    claim_us: float
    claim_store_us: float | None
    read_us: float
    settle_us: float
    settle_store_us: float | None


@dataclass(frozen=True, slots=True)
class AppendCost:
    """One request of so many events: alone, and the time an append takes on average with 64 under way."""

    events: int
    alone_us: float
    alone_store_us: float | None
    concurrent_us: float
    concurrent_store_us: float | None


@dataclass(frozen=True, slots=True)
class HeldSize:
    """Bytes that a held event takes, its dedup id and its share of the lane header and the queue included."""

    events_a_queue: int
    posts_a_queue: int
    events: int
    text_bytes: float
    stored_bytes: float


async def measure_claims(bench: Bench, due: int, samples: int) -> ClaimCost:
    """Claim, read and settle so many times, with `due` queues due all the while."""
    ready = cycle(list(islice(portions(Visits(_now_ms(), events=1).posts()), _READY_POSTS)))
    claims, reads, settles = _Calls(), _Calls(), _Calls()
    tokens: list[bytes] = []
    try:
        fill = (_append(bench, replace(next(ready), queue=_queue(number))) for number in range(due))
        await _all_of(fill, _FILL_AT_ONCE)
        for _ in range(samples):
            tokens.append(os.urandom(_TOKEN_BYTES))
            lease = await claims.measure(bench, bench.buffer.claim(BENCH_KEY, tokens[-1]))
            if not isinstance(lease, Lease):
                raise BenchRefused(_NOTHING_DUE)
            head = await reads.measure(bench, bench.buffer.read(lease, EVENTS_PER_REQUEST, REQUEST_BYTES))
            if isinstance(head, Spent):
                raise BenchRefused(_LEASE_ENDED)
            taken = Settlement(len(head.texts), feedback=_as_answered(), answered=Answered.DELIVERED)
            if isinstance(await settles.measure(bench, bench.buffer.settle(lease, taken)), Spent):
                raise BenchRefused(_LEASE_ENDED)
            await _append(bench, replace(next(ready), queue=lease.queue))
    finally:
        await bench.empty(map(_queue, range(due)), tokens)
    return ClaimCost(due, claims.us(), claims.store_us(), reads.us(), settles.us(), settles.store_us())


async def measure_appends(bench: Bench, events: int, samples: int) -> AppendCost:
    """Append so many requests of so many events one after another, and then as many 64 at a time."""
    posts = Visits(_now_ms(), events=events).posts()
    numbered = enumerate(islice(portions(posts), 2 * samples))
    ready = iter([replace(portion, queue=_queue(n // 3)) for n, portion in numbered])
    alone = _Calls()
    try:
        for portion in islice(ready, samples):
            await alone.measure(bench, _append(bench, portion))
        before, began_at = await bench.spent(), time.perf_counter()
        await _all_of((_append(bench, portion) for portion in ready), _AT_ONCE)
        concurrent_s, after = time.perf_counter() - began_at, await bench.spent()
        store_us = None if before is None or after is None else round((after.us - before.us) / samples, 1)
    finally:
        await bench.empty(map(_queue, range(samples)))
    concurrent_us = round(1e6 * concurrent_s / samples, 1)
    return AppendCost(events, alone.us(), alone.store_us(), concurrent_us, store_us)


async def measure_held(bench: Bench, events_a_post: int, posts_a_queue: int, events: int) -> HeldSize:
    """Append about so many events, queues interleaved, and see what the store takes for them."""
    queues = max(1, events // (events_a_post * posts_a_queue))
    visits = Visits(_now_ms(), events=events_a_post, posts=posts_a_queue)
    before = await bench.stored_bytes()
    text_bytes = stored = 0
    try:
        for number, portion in enumerate(portions(visits.of(queues))):
            await _append(bench, replace(portion, queue=_queue(number % queues)))
            text_bytes += sum(map(len, portion.texts))
            stored += len(portion.texts)
        taken = await bench.stored_bytes() - before
    finally:
        await bench.empty(map(_queue, range(queues)))
    sizes = (round(text_bytes / stored, 1), round(taken / stored, 1))
    return HeldSize(events_a_post * posts_a_queue, posts_a_queue, stored, *sizes)


def all_queues() -> Iterator[QueueId]:
    """Every queue that a benchmark may have filled."""
    return map(_queue, range(MOST_QUEUES))


def _as_answered() -> Feedback:
    """What an ordinary answer teaches the gate, but for the limit: settling is to cost what it will cost."""
    now_s = time.time()
    reset_at = ceil(now_s)
    headers = RateHeaders(MAX_LIMIT, MAX_LIMIT // 2, reset_at, reset_in_s=reset_at - int(now_s))
    return Feedback(Outcome.TAKEN, headers, sent_ms=1000 * now_s - _ANSWERED_AFTER_MS)


# -- calls ---------------------------------------------------------------------------------------------


class _Calls:
    """How long calls of one kind took, each, in µs: as their caller saw it, and as the store says."""

    def __init__(self) -> None:
        self._us: list[float] = []
        self._store_us: list[int] = []

    async def measure(self, bench: Bench, call: Awaitable[T]) -> T:
        """The call's answer."""
        before = await bench.spent()
        began_at = time.perf_counter()
        answer = await call
        self._us.append(1e6 * (time.perf_counter() - began_at))
        after = await bench.spent()
        # The store counts the calls of all its clients: what fell together with theirs is left out.
        if before and after and after.calls - before.calls == 1:
            self._store_us.append(after.us - before.us)
        return answer

    def us(self) -> float:
        return round(statistics.median(self._us), 1)

    def store_us(self) -> float | None:
        return statistics.median(self._store_us) if self._store_us else None


async def _append(bench: Bench, portion: Portion) -> None:
    await bench.buffer.append(BENCH_KEY, [portion])


async def _all_of(calls: Iterable[Awaitable[None]], at_once: int) -> None:
    """Await all of these, so many at once."""
    left = iter(calls)

    async def one_by_one() -> None:
        for call in left:
            await call

    try:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(one_by_one())
    except BaseExceptionGroup as group:  # of many that were refused alike
        raise group.exceptions[0] from None


# -- what is stored ------------------------------------------------------------------------------------


def portions(posts: Iterable[Post]) -> Iterator[Portion]:
    """The posts as the front hands them to the buffer."""
    for post in posts:
        envelope = read_ordinary(post.body)
        if not isinstance(envelope, Envelope) or not isinstance(envelope.events, Columns):
            raise TypeError("the visits of the benchmarks are ordinary")
        columns, headers = envelope.events, post.headers
        header = lane_header(
            envelope.fields, headers["X-Forwarded-For"], headers["User-Agent"], headers["Origin"]
        )
        ids = array("q", b"".join(map(xxhash.xxh3_64_digest, columns.canonical)))
        yield Portion(_queue(0), lane_id(header), header, columns.uuids, ids, columns.redacted)


def _queue(number: int) -> QueueId:
    return QueueId(number.to_bytes(16, "big"))


def _now_ms() -> float:
    return time.time() * 1000
