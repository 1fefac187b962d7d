"""Claim, read and settle: what a flusher does with a queue.

What was read of a head is remembered under its lease's token: settle then says how many entries go and what
is put back, and the script has only to see that the token is still the queue's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from proxy.buffer.contract import MAX_IDLE_S, MAX_WAIT_S
from proxy.buffer.packing import Damaged, fitting, pack_trouble, unpack_trouble
from proxy.buffer.redis.dead_letters import DeadLetters
from proxy.buffer.redis.entries import (
    Header,
    Letter,
    Run,
    letter_bytes,
    read_entry,
    read_record,
    unstamped_batch,
    unstamped_letter,
)
from proxy.buffer.redis.keys import LETTERS, names
from proxy.buffer.redis.link import Argument
from proxy.buffer.redis.lists import damaged, damaged_gate
from proxy.buffer.redis.scripts import load
from proxy.buffer.redis.store import Store
from proxy.buffer.values import Head, Idle, Lease, Outlook, Settled, Settlement, Spent
from proxy.gate import Evidence
from proxy.lanes import LaneId, QueueId
from proxy.wire.limits import PublicKey

CLAIM, SETTLE, PULL_BACK, RESERVE_LETTERS = map(load, ("claim", "settle", "pull_back", "reserve_letters"))

_REMEMBERED = 5_000
"""Batches on each of a key's two records: ordinary ones push no ambiguous one off. Some 50 seconds."""

_FIRST_SLICE, _SLICE = 8, 32
"""Entries of a list that are read at once: a run has at most 250 kB, and most queues hold a few."""

_QUEUES_AT_ONCE = 500
"""Queues whose due times one script call pulls back: about a millisecond."""

_PULLS, _UNSTEADY_S = 3, 1.0
"""How often due times are pulled back for one claim, and how long it then waits: for a clock that strobes."""

_MOST_HEADS = 4_000
"""Heads that are remembered: more than can be in flight. Of leases that nobody settled the oldest go."""


_encode = msgspec.msgpack.Encoder().encode


class _Changed(Exception):
    """The lease is not, or no longer, the queue's."""


class Deliveries:
    """The verbs `claim`, `read` and `settle`."""

    def __init__(self, store: Store, letters: DeadLetters) -> None:
        self._store = store
        self._letters = letters
        self._heads: dict[bytes, list[Header | Run]] = {}  # by token; from each list's first entry on

    # -- claim -----------------------------------------------------------------------------------------

    async def claim(self, key: PublicKey, token: bytes, *, early: bool) -> Lease | Idle:
        """Beside what the contract says: raises BufferUnavailable where what is stored is damaged."""
        of, store = names(key), self._store
        for _ in range(_PULLS):
            word, *rest = await store.link.run(
                CLAIM,
                (of.books, of.due, of.queues, of.gate, of.superseded),
                (store.clock.argument(), token, store.terms.lease_ms, *store.of_gates(), int(early)),
                kept=True,
            )
            match word:
                case b"lease":
                    return _lease(key, token, rest)
                case b"wait":
                    return Idle(min(MAX_IDLE_S, rest[0] / 1000))
                case b"empty":
                    return Idle(MAX_IDLE_S, empty=True)
                case b"stalled":
                    return Idle(0.0, stalled=True)
                case b"damaged":
                    raise damaged_gate(rest[0])
                case _:
                    await self._pull_back(key)
        return Idle(_UNSTEADY_S)

    async def _pull_back(self, key: PublicKey) -> None:
        """The clock went back: no due time may lie further ahead than what set it can reach."""
        of, store = names(key), self._store
        cursor: bytes | int = 0
        while True:
            cursor, found = await store.link.ask("ZSCAN", of.due, cursor, "COUNT", _QUEUES_AT_ONCE)
            queues = found[::2]
            is_last = int(cursor) == 0
            for start in range(0, max(1, len(queues)), _QUEUES_AT_ONCE):
                some = queues[start : start + _QUEUES_AT_ONCE]
                ends = is_last and start + _QUEUES_AT_ONCE >= len(queues)
                back_off_ms = int(MAX_WAIT_S * 1000)
                await store.link.run(
                    PULL_BACK,
                    (of.books, of.due, of.queues),
                    (
                        store.clock.argument(),
                        store.terms.lease_ms,
                        store.terms.linger_ms,
                        back_off_ms,
                        int(ends),
                        *some,
                    ),
                )
            if is_last:
                return

    # -- read ------------------------------------------------------------------------------------------

    async def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        """Beside what the contract says: raises BufferUnavailable where what is stored is damaged."""
        entries: list[Header | Run] = []
        try:
            while True:
                ended = await self._read_on(lease, entries)
                head = _head(entries, max_events, max_bytes, ended=ended)
                if head is not None:
                    break
        except _Changed:
            return Spent()
        self._remember(lease.token, entries)
        return head

    async def _read_on(self, lease: Lease, entries: list[Header | Run]) -> bool:
        """Read the next entries of a leased queue's list; whether these were the last. Raises _Changed."""
        of, start = names(lease.key), len(entries)
        size = _SLICE if start else _FIRST_SLICE
        found, record = await self._store.link.ask_each(
            (
                ("LRANGE", of.list(lease.queue), start, start + size - 1),
                # After the range: if the token is still ours, so was the head when it was read.
                ("HGET", of.queues, lease.queue),
            )
        )
        if record is None or read_record(record).token != lease.token:
            raise _Changed
        try:
            entries += map(read_entry, found)
        except Damaged as error:
            raise damaged(error) from error
        return len(found) < size

    def _remember(self, token: bytes, entries: list[Header | Run]) -> None:
        self._heads[token] = entries
        while len(self._heads) > _MOST_HEADS:
            del self._heads[next(iter(self._heads))]

    # -- settle ----------------------------------------------------------------------------------------

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        try:
            change = await self._change(lease, settlement)
        except _Changed:
            # Spent, unless this settlement was made before and its answer was lost: the script knows.
            settlement, change = Settlement(0), _Change()
        of, store = names(lease.key), self._store
        record, record_list = b"", of.batches
        if settlement.taken > len(settlement.again) or settlement.ambiguous:
            record = unstamped_batch(settlement.answered, b"".join(change.uuids), _fates(settlement))
        if settlement.ambiguous:
            record_list = of.ambiguous
        letters = await self._with_ids(change.letters)
        wait_s = settlement.wait_s
        before = store.facts.of(lease.key)
        outlook = settlement.outlook
        word, *rest = await store.link.run(
            SETTLE,
            (
                of.books,
                of.due,
                of.queues,
                of.heads,
                of.gate,
                of.list(lease.queue),
                of.settled(lease.token),
                record_list,
                of.dead,
                of.dead_ids,
                of.dead_order,
                of.ambiguous,
                of.superseded,
            ),
            (
                store.clock.argument(),
                lease.queue,
                lease.token,
                store.terms.linger_ms,
                *store.of_gates(),
                change.taken_entries,
                change.freed_bytes,
                settlement.taken,
                len(settlement.again),
                settlement.delivered,
                int(settlement.failed),
                -1 if wait_s is None else int(min(wait_s, MAX_WAIT_S) * 1000),
                0 if outlook is None else outlook.max_events,
                b"" if outlook is None else pack_trouble(outlook.trouble),
                _encode(settlement.feedback),
                lease.claimed_ms,
                record,
                _REMEMBERED,
                int(settlement.ambiguous),
                change.header.entry,
                change.header.stored_bytes,
                len(change.put_back),
                *[run.entry for run in change.put_back],
                len(change.letters),
                *letters,
            ),
            kept=True,
        )
        if word == b"damaged":
            raise damaged_gate(rest[0])
        self._heads.pop(lease.token, None)
        if word == b"spent":
            return Spent(ambiguous=bool(rest[0]))
        left, due_ms, learnt = rest
        store.learn(lease.key, learnt, before)
        dropped = await self._letters.evict() if settlement.dead else 0
        return Settled(left, due_ms / 1000 if left else None, dropped)

    async def _change(self, lease: Lease, settlement: Settlement) -> "_Change":
        """What a settlement does to the head of its queue's list. Raises _Changed."""
        change = _Change()
        if not settlement.taken:
            return change
        entries = self._heads.get(lease.token, [])
        ended = False
        while not change.take(entries, lease, settlement):
            if ended:
                raise ValueError("more events are settled than the queue holds")
            ended = await self._read_on(lease, entries)
            change = _Change()
        self._remember(lease.token, entries)
        return change

    async def _with_ids(self, letters: Sequence[Letter]) -> list[Argument]:
        """Letters as the script takes them, each under an id that was never given before."""
        if not letters:
            return []
        store = self._store
        last = int(await store.link.run(RESERVE_LETTERS, (LETTERS,), (store.clock.argument(), len(letters))))
        arguments: list[Argument] = []
        for id_, letter in enumerate(letters, last - len(letters) + 1):
            arguments += (id_, letter.number, letter_bytes(letter), unstamped_letter(letter))
        return arguments


@dataclass(slots=True)
class _Change:
    """What a settlement does to the head of its queue's list.

    `taken_entries` are taken off, then the runs of `put_back` are put there again, what is left of them.
    """

    header: Header
    taken_entries: int
    freed_bytes: int
    uuids: list[bytes]
    put_back: list[Run]
    letters: list[Letter]

    def __init__(self) -> None:
        self.header = Header(LaneId(b""), b"")
        self.taken_entries = self.freed_bytes = 0
        self.uuids, self.put_back, self.letters = [], [], []

    def take(self, entries: Sequence[Header | Run], lease: Lease, settlement: Settlement) -> bool:
        """Work it out from a list's first entries; False where these are too few."""
        position = 0
        for entry in entries:
            if position >= settlement.taken:
                break
            self.taken_entries += 1
            self.freed_bytes += entry.stored_bytes
            if isinstance(entry, Header):
                self.header = entry
            else:
                self._take_run(entry, position, lease, settlement)
                position += entry.events
        return position >= settlement.taken

    def _take_run(self, run: Run, position: int, lease: Lease, settlement: Settlement) -> None:
        batch = range(position, min(position + run.events, settlement.taken))
        self.uuids.append(run.uuids[: 16 * len(batch)])
        died = [at for at in batch if at in settlement.dead]
        if died:
            texts = run.texts()
            trouble = lease.outlook.trouble
            for at in died:
                death, own = settlement.dead[at], at - position
                self.letters.append(
                    Letter(
                        run.number(own),
                        lease.queue,
                        self.header.header,
                        run.uuids[16 * own : 16 * own + 16],
                        texts[own],
                        death.reason,
                        death.message,
                        lease.attempts + 1,
                        lease.claimed_ms if trouble is None else trouble.since_ms,
                    )
                )
        kept = [at - position for at in batch if at in settlement.again]
        kept += range(len(batch), run.events)
        if kept:
            rest = run if len(kept) == run.events else run.kept(kept)
            self.put_back.append(rest)
            self.freed_bytes -= rest.stored_bytes


def _lease(key: PublicKey, token: bytes, told: Sequence[Any]) -> Lease:
    """The lease that claim.lua tells of. Raises BufferUnavailable where what is stored is damaged."""
    queue, claimed_ms, attempts, expired, unsettled, max_events, trouble, confirmed, others, *evidence = told
    requests, successes, proven_ms, judged, taken, refused_elsewhere, refused_since_ms = evidence
    try:
        outlook = Outlook(max_events, unpack_trouble(trouble))
    except Damaged as error:
        raise damaged(error) from error
    return Lease(
        key,
        QueueId(queue),
        token,
        claimed_ms,
        attempts,
        expired,
        unsettled,
        outlook,
        Evidence(requests, successes, proven_ms, judged, taken, bool(refused_elsewhere), refused_since_ms),
        bool(confirmed),
        bool(others),
    )


def _head(entries: Sequence[Header | Run], max_events: int, max_bytes: int, *, ended: bool) -> Head | None:
    """The head that a list's first entries make; None where it may go on behind them."""
    header = Header(LaneId(b""), b"")
    first_header: Header | None = None
    uuids: list[bytes] = []
    texts: list[bytes] = []
    lanes: list[LaneId] = []
    accepted_ms: list[int] = []
    used_bytes = 0
    more: Literal["none", "lane", "events", "bytes"] = "none"
    for entry in entries:
        if isinstance(entry, Header):
            header = entry
            if first_header is not None and entry != first_header:
                more = "lane"
                break
            continue
        first_header = first_header or header
        run = entry.texts()
        fit, more = fitting(run, max_events - len(texts), max_bytes - used_bytes, alone=not texts)
        used_bytes += sum(map(len, run[:fit])) + fit  # a comma behind each
        texts += run[:fit]
        uuids.append(entry.uuids[: 16 * fit])
        lanes += [entry.lane] * fit
        accepted_ms += [entry.accepted_ms] * fit
        if more != "none":
            break
    if first_header is None or (more == "none" and not ended):
        return None
    return Head(first_header.header, lanes, accepted_ms, b"".join(uuids), texts, more)


def _fates(settlement: Settlement) -> bytes:
    """A letter for each event of a batch (values.Batch)."""
    fates = bytearray(b"d" * settlement.taken)
    for at in settlement.dead:
        fates[at] = ord("x")
    for at in settlement.again:
        fates[at] = ord("a")
    return bytes(fates)
