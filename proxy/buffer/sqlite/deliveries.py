"""Claim, read and settle: what a flusher does with a queue."""

from typing import Any, Literal

from proxy import gate
from proxy.buffer.contract import (
    FULL_BATCH,
    MAX_IDLE_S,
    MAX_WAIT_S,
)
from proxy.buffer.packing import fitting, unpack
from proxy.buffer.sqlite.dead_letters import DeadLetters
from proxy.buffer.sqlite.records import Records
from proxy.buffer.sqlite.runs import Run, Runs, read_runs
from proxy.buffer.sqlite.store import Store
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


class Deliveries:
    """The verbs `claim`, `read` and `settle`."""

    def __init__(self, store: Store, letters: DeadLetters, records: Records) -> None:
        self._store = store
        self._runs = Runs(store)
        self._letters = letters
        self._records = records
        self._linger_ms = int(store.terms.linger_s * 1000)
        self._lease_ms = int(store.terms.lease_s * 1000)

    def claim(self, key: PublicKey, token: bytes) -> Lease | Idle:
        now_ms = self._store.now_ms()
        row = self._store.key(key)
        if row is None or (first := self._first_due(row.id)) is None:
            return Idle(MAX_IDLE_S, empty=True)
        queue_id, name, due_ms, expired, unsettled, attempts, max_events = first
        if due_ms > now_ms:
            return Idle(min(MAX_IDLE_S, (due_ms - now_ms) / 1000))
        after = gate.claim(self._store.gate(row.id), now_ms)
        if isinstance(after, int):
            return Idle(min(MAX_IDLE_S, after / 1000))
        # A lease that ended by itself was a try that failed.
        attempts += expired
        unsettled |= expired
        self._store.execute(
            "UPDATE queue SET token = ?, due_ms = ?, unsettled = ?, attempts = ? WHERE id = ?",
            (token, now_ms + self._lease_ms, unsettled, attempts, queue_id),
        )
        self._store.execute("UPDATE key SET gate = ? WHERE id = ?", (gate.dump(after), row.id))
        return Lease(key, QueueId(name), token, attempts, max_events, bool(unsettled))

    def _first_due(self, key_id: int) -> Any:
        return self._store.execute(
            "SELECT id, name, due_ms, token IS NOT NULL, unsettled, attempts, max_events FROM queue"
            " WHERE key_id = ? AND held > 0 ORDER BY due_ms LIMIT 1",
            (key_id,),
        ).fetchone()

    def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        found = self._leased(lease)
        if found is None:
            return Spent()
        queue_id = found[0]
        uuids: list[bytes] = []
        texts: list[bytes] = []
        lanes: list[LaneId] = []
        used_bytes = 0
        more: Literal["none", "lane", "events", "bytes"] = "none"
        for lane, run_uuids, *columns in self._store.execute(
            "SELECT lane, uuids, lengths, packed, body, checksum FROM run WHERE queue_id = ? ORDER BY id",
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
            if more != "none":
                break
        return Head(self._store.header(queue_id, lanes[0]), lanes, b"".join(uuids), texts, more)

    def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        found = self._leased(lease)
        key = self._store.key(lease.key)
        if found is None or key is None:
            return Spent()
        queue_id, held = found
        now_ms = self._store.now_ms()
        freed_bytes = self._take(queue_id, key.id, lease, settlement, now_ms)
        dropped = self._letters.bound()
        left = held - settlement.taken + len(settlement.again)
        due_ms = self._end_lease(queue_id, left, settlement, now_ms)
        delivered, dead = settlement.delivered, len(settlement.dead)
        self._store.execute(
            "UPDATE key SET delivered = delivered + ?, dead = dead + ?, succeeded = succeeded OR ?, gate = ?"
            " WHERE id = ?",
            (
                delivered,
                dead,
                delivered > 0,
                gate.dump(gate.settle(self._store.gate(key.id), settlement.feedback, now_ms)),
                key.id,
            ),
        )
        self._store.stored(key, -freed_bytes)
        key.succeeded = key.succeeded or delivered > 0
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

    def _end_lease(self, queue_id: int, left: int, settlement: Settlement, now_ms: int) -> int:
        """Returns when the queue is due again; nothing of that counts where nothing is left."""
        due_ms = 0
        backs_off = False
        if left and settlement.wait_s is not None:
            due_ms, backs_off = now_ms + min(int(settlement.wait_s * 1000), _MAX_WAIT_MS), True
        elif left >= FULL_BATCH:
            due_ms = now_ms
        elif left:
            accepted_ms = self._store.number(
                "SELECT accepted_ms FROM run WHERE queue_id = ? ORDER BY id LIMIT 1", queue_id
            )
            due_ms = min(accepted_ms, now_ms) + self._linger_ms  # the clock may have jumped back since
        progressed = len(settlement.again) < settlement.taken
        self._store.execute(
            "UPDATE queue SET token = NULL, held = ?, due_ms = ?, backing_off = ?,"
            " unsettled = unsettled AND ?, attempts = CASE WHEN ? THEN 0 ELSE attempts + ? END WHERE id = ?",
            (left, due_ms, backs_off, not settlement.taken, progressed, settlement.failed, queue_id),
        )
        return due_ms

    def _leased(self, lease: Lease) -> Any:
        """Id of the queue that `lease` still holds, and how many events that holds."""
        row = self._store.key(lease.key)
        if row is None:
            return None
        return self._store.execute(
            "SELECT id, held FROM queue WHERE key_id = ? AND name = ? AND token = ?",
            (row.id, lease.queue, lease.token),
        ).fetchone()
