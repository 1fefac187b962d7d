"""Claim, read and settle: what a flusher does with a queue."""

from typing import Any, Literal, NamedTuple

from proxy import gate
from proxy.buffer.contract import (
    FULL_BATCH,
    LOOKED_THROUGH,
    MAX_IDLE_S,
    MAX_WAIT_S,
    STALLED_WAIT_S,
)
from proxy.buffer.packing import fitting, unpack
from proxy.buffer.sqlite.dead_letters import DeadLetters
from proxy.buffer.sqlite.records import Records
from proxy.buffer.sqlite.runs import Run, Runs, read_runs
from proxy.buffer.sqlite.store import Key, Store
from proxy.buffer.sqlite.tries import ASSIGNED, COLUMNS, Tries
from proxy.buffer.values import (
    Head,
    Idle,
    Lease,
    Settled,
    Settlement,
    Spent,
)
from proxy.lanes import LaneId, QueueId
from proxy.wire.limits import PublicKey

_MAX_WAIT_MS = int(MAX_WAIT_S * 1000)
_STALLED_WAIT_MS = int(STALLED_WAIT_S * 1000)

# The index is named: the other one, on (key_id, name), has the queues that are empty, too.
_OTHERS = (
    "EXISTS (SELECT 1 FROM queue other INDEXED BY queue_due"
    " WHERE other.key_id = ?1 AND other.held > 0 AND other.id != queue.id)"
)
_BY_DUE = "FROM queue INDEXED BY queue_due WHERE key_id = ?1 AND held > 0"
_QUEUE = f"SELECT id, name, due_ms, token IS NOT NULL, {_OTHERS}, {COLUMNS}"
_FIRST = f"{_QUEUE} {_BY_DUE} ORDER BY due_ms LIMIT 1"
_LOOKED_THROUGH = (
    f"{_QUEUE} FROM (SELECT * {_BY_DUE} ORDER BY due_ms LIMIT {LOOKED_THROUGH}) queue"
    " WHERE {} ORDER BY {}due_ms LIMIT 1"
)
_DUE, _LINGERING = "due_ms <= ?2", "due_ms > ?2 AND token IS NULL AND NOT backing_off"
_UNTROUBLED_FIRST = "trouble != x'' OR attempts > 0, "
_FIRST_UNTROUBLED = _LOOKED_THROUGH.format(_DUE, _UNTROUBLED_FIRST)
_FIRST_LINGERING = _LOOKED_THROUGH.format(_LINGERING, "")
_FIRST_UNTROUBLED_LINGERING = _LOOKED_THROUGH.format(_LINGERING, _UNTROUBLED_FIRST)


class _Queue(NamedTuple):
    """A queue that may be claimed. `leased`, where it is due: its lease ended by itself."""

    id: int
    name: bytes
    due_ms: int
    leased: bool
    others: bool
    tries: Tries


class Deliveries:
    """The verbs `claim`, `read` and `settle`."""

    def __init__(self, store: Store, letters: DeadLetters, records: Records) -> None:
        self._store = store
        self._runs = Runs(store)
        self._letters = letters
        self._records = records

    def claim(self, key: PublicKey, token: bytes, *, early: bool) -> Lease | Idle:
        now_ms, lease_ms = self._store.now_ms(), self._store.terms.lease_ms
        row = self._store.key(key)
        if row is None or (first := self._find(_FIRST, row.id)) is None:
            return Idle(MAX_IDLE_S, empty=True)
        queue = self._choose(row, first, now_ms, early=early)
        if queue is None:
            return Idle(min(MAX_IDLE_S, (first.due_ms - now_ms) / 1000))
        if queue.leased and queue.tries.stalls():
            self._put_off(queue, now_ms)
            return Idle(0.0, stalled=True)
        opened = self._store.gate(row)
        if wait_ms := gate.claim(opened, now_ms, lease_ms):
            return Idle(min(MAX_IDLE_S, wait_ms / 1000))
        self._store.gate_changed(row)
        tries = queue.tries.after_expiry() if queue.leased else queue.tries
        self._store.execute(
            f"UPDATE queue SET token = ?, due_ms = ?, backing_off = 0, {ASSIGNED} WHERE id = ?",
            (token, now_ms + lease_ms, *tries, queue.id),
        )
        return Lease(
            key,
            QueueId(queue.name),
            token,
            now_ms,
            tries.attempts,
            tries.expired,
            tries.unsettled,
            tries.outlook(),
            gate.evidence(opened, queue.name),
            row.succeeded,
            queue.others,
        )

    def _choose(self, row: Key, first: _Queue, now_ms: int, *, early: bool) -> _Queue | None:
        """The queue that a claim may take now, where `first` becomes due before all others."""
        is_due = first.due_ms <= now_ms
        if not is_due and not early:
            return None
        if gate.wants_untroubled(self._store.gate(row)):
            sql = _FIRST_UNTROUBLED if is_due else _FIRST_UNTROUBLED_LINGERING
            return self._find(sql, row.id, now_ms)
        return first if is_due else self._find(_FIRST_LINGERING, row.id, now_ms)

    def _find(self, sql: str, *values: int) -> _Queue | None:
        found = self._store.execute(sql, values).fetchone()
        if found is None:
            return None
        id_, name, due_ms, leased, others, *columns = found
        return _Queue(id_, name, due_ms, bool(leased), bool(others), Tries(*columns))

    def _put_off(self, queue: _Queue, now_ms: int) -> None:
        """End a lease that ended by itself, as all before it did, with one event too."""
        self._store.execute(
            f"UPDATE queue SET token = NULL, due_ms = ?, backing_off = 1, {ASSIGNED} WHERE id = ?",
            (now_ms + _STALLED_WAIT_MS, *queue.tries.after_expiry(), queue.id),
        )

    def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        found = self._leased(lease)
        if found is None:
            return Spent()
        queue_id = found[0]
        uuids: list[bytes] = []
        texts: list[bytes] = []
        lanes: list[LaneId] = []
        accepted_ms: list[int] = []
        used_bytes = 0
        more: Literal["none", "lane", "events", "bytes"] = "none"
        for lane, run_accepted_ms, run_uuids, *columns in self._store.execute(
            "SELECT lane, accepted_ms, uuids, lengths, packed, body, checksum FROM run"
            " WHERE queue_id = ? ORDER BY id",
            (queue_id,),
        ):
            if lanes and lane != lanes[0]:
                more = "lane"
                break
            run = unpack(run_uuids, *columns)
            fit, more = fitting(run, max_events - len(texts), max_bytes - used_bytes, alone=not texts)
            used_bytes += sum(map(len, run[:fit])) + fit  # a comma behind each
            texts += run[:fit]
            uuids.append(run_uuids[: 16 * fit])
            lanes += [LaneId(lane)] * fit
            accepted_ms += [run_accepted_ms] * fit
            if more != "none":
                break
        header = self._store.header(queue_id, lanes[0])
        return Head(header, lanes, accepted_ms, b"".join(uuids), texts, more)

    def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        found = self._leased(lease)
        key = self._store.key(lease.key)
        if found is None or key is None:
            return Spent()
        queue_id, held, *columns = found
        now_ms = self._store.now_ms()
        freed_bytes = self._take(queue_id, key.id, lease, settlement, now_ms)
        dropped = self._letters.bound()
        left = held - settlement.taken + len(settlement.again)
        tries = Tries(*columns).after_settlement(settlement, left)
        due_ms = self._end_lease(queue_id, left, tries, settlement.wait_s, now_ms)
        gate.settle(self._store.gate(key), settlement.feedback, lease.queue, lease.claimed_ms, now_ms)
        self._store.gate_changed(key)
        self._store.delivered(key, settlement.delivered, len(settlement.dead))
        self._store.stored(key, -freed_bytes)
        return Settled(left, max(0, due_ms - now_ms) / 1000 if left else None, dropped)

    def _take(self, queue_id: int, key_id: int, lease: Lease, settlement: Settlement, now_ms: int) -> int:
        """Take what is done off the queue's head. Returns the bytes that are no longer counted."""
        freed_bytes = 0
        uuids: list[bytes] = []
        position = 0
        for run in self._head_runs(queue_id, settlement.taken):
            batch = range(position, min(position + run.events, settlement.taken))
            uuids.append(run.uuids[: 16 * len(batch)])
            died = [at for at in batch if at in settlement.dead]
            if died:
                deaths = [(settlement.dead[at], at - position) for at in died]
                header = self._store.header(queue_id, run.lane)
                self._letters.bury(key_id, lease, header, run, deaths, now_ms)
            kept = [at - position for at in batch if at in settlement.again]
            kept += range(len(batch), run.events)
            freed_bytes += self._runs.keep(run, kept)
            position += run.events
        self._records.write(key_id, settlement, b"".join(uuids), now_ms)
        return freed_bytes

    def _head_runs(self, queue_id: int, events: int) -> list[Run]:
        """The runs in which the first events of a queue are."""
        runs: list[Run] = []
        for run in read_runs(self._store.execute, "queue_id = ? ORDER BY id LIMIT ?", (queue_id, events)):
            runs.append(run)
            events -= run.events
            if events <= 0:
                break
        return runs

    def _end_lease(self, queue_id: int, left: int, tries: Tries, wait_s: float | None, now_ms: int) -> int:
        """Returns when the queue is due again; nothing of that counts where nothing is left."""
        due_ms = 0
        backs_off = False
        if left and wait_s is not None:
            due_ms, backs_off = now_ms + min(int(wait_s * 1000), _MAX_WAIT_MS), True
        elif left >= FULL_BATCH:
            due_ms = now_ms
        elif left:
            accepted_ms = self._store.number(
                "SELECT accepted_ms FROM run WHERE queue_id = ? ORDER BY id LIMIT 1", queue_id
            )
            # The clock may have jumped back since.
            due_ms = min(accepted_ms, now_ms) + self._store.terms.linger_ms
        self._store.execute(
            f"UPDATE queue SET token = NULL, held = ?, due_ms = ?, backing_off = ?, {ASSIGNED} WHERE id = ?",
            (left, due_ms, backs_off, *tries, queue_id),
        )
        return due_ms

    def _leased(self, lease: Lease) -> Any:
        """Id of the queue that `lease` still holds, how many events that holds, and its `Tries`."""
        row = self._store.key(lease.key)
        if row is None:
            return None
        return self._store.execute(
            f"SELECT id, held, {COLUMNS} FROM queue WHERE key_id = ? AND name = ? AND token = ?",
            (row.id, lease.queue, lease.token),
        ).fetchone()
