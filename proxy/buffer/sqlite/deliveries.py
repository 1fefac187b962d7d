"""Claim, read and settle: what a flusher does with a queue."""

from typing import Any, Literal

from proxy import gate
from proxy.buffer.contract import (
    FULL_BATCH,
    MAX_IDLE_S,
    MAX_WAIT_S,
    Head,
    Held,
    Idle,
    Lease,
    Settled,
    Settlement,
    Spent,
)
from proxy.buffer.sqlite.dead_letters import DeadLetters
from proxy.buffer.sqlite.store import LANE_OVERHEAD, RUN_OVERHEAD, Store, decode_run, encode_run
from proxy.lanes import LaneId, QueueId
from proxy.wire.limits import PublicKey

_MAX_WAIT_MS = int(MAX_WAIT_S * 1000)

_REACH_MS = "CASE WHEN token IS NOT NULL THEN ?2 WHEN backing_off THEN ?3 ELSE ?4 END"


class Deliveries:
    """The verbs `claim`, `read` and `settle`."""

    def __init__(self, store: Store, letters: DeadLetters) -> None:
        self._store = store
        self._letters = letters
        self._linger_ms = int(store.terms.linger_s * 1000)
        self._lease_ms = int(store.terms.lease_s * 1000)

    def pull_back(self) -> None:
        """No due time lies further ahead than what set it can reach: the clock may have jumped back."""
        now_ms = self._store.now_ms()
        self._store.execute(
            f"UPDATE queue SET due_ms = ?1 + {_REACH_MS} WHERE held > 0 AND due_ms > ?1 + {_REACH_MS}",  # noqa: S608  # ours
            (now_ms, self._lease_ms, _MAX_WAIT_MS, self._linger_ms),
        )

    def claim(self, key: PublicKey, token: bytes) -> Lease | Idle:
        row = self._store.key(key)
        if row is None or (first := self._first_due(row.id)) is None:
            return Idle(MAX_IDLE_S, empty=True)
        now_ms = self._store.now_ms()
        queue_id, name, due_ms, expired, attempts, max_events = first
        if due_ms > now_ms + max(self._linger_ms, self._lease_ms):
            # All of the key's queues back off, or the clock jumped back.
            self.pull_back()
            queue_id, name, due_ms, expired, attempts, max_events = self._first_due(row.id)
        if due_ms > now_ms:
            return Idle(min(MAX_IDLE_S, (due_ms - now_ms) / 1000))
        after = gate.claim(self._store.gate(row.id), now_ms)
        if isinstance(after, int):
            return Idle(min(MAX_IDLE_S, after / 1000))
        # A lease that ended by itself was a try that failed.
        attempts += expired
        self._store.execute(
            "UPDATE queue SET token = ?, due_ms = ?, attempts = ? WHERE id = ?",
            (token, now_ms + self._lease_ms, attempts, queue_id),
        )
        self._store.execute("UPDATE key SET gate = ? WHERE id = ?", (gate.dump(after), row.id))
        return Lease(key, QueueId(name), token, attempts, max_events, bool(expired))

    def _first_due(self, key_id: int) -> Any:
        return self._store.execute(
            "SELECT id, name, due_ms, token IS NOT NULL, attempts, max_events FROM queue"
            " WHERE key_id = ? AND held > 0 ORDER BY due_ms LIMIT 1",
            (key_id,),
        ).fetchone()

    def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        found = self._leased(lease)
        if found is None:
            return Spent()
        queue_id = found[0]
        events: list[Held] = []
        lane: LaneId | None = None
        used_bytes = 0
        more: Literal["none", "lane", "events", "bytes"] = "none"
        for run_lane, body in self._store.execute(
            "SELECT lane, body FROM run WHERE queue_id = ? ORDER BY id", (queue_id,)
        ):
            if lane is not None and run_lane != lane:
                more = "lane"
                break
            lane = LaneId(run_lane)
            for uuid, text in decode_run(body):
                if len(events) == max_events:
                    more = "events"
                    break
                used_bytes += len(text) + 1  # the comma between two
                if events and used_bytes > max_bytes:
                    more = "bytes"
                    break
                events.append(Held(lane, uuid, text))
            if more != "none":
                break
        (header,) = self._store.one(
            "SELECT header FROM lane WHERE queue_id = ? AND lane = ?", (queue_id, lane)
        )
        return Head(header, events, more)

    def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        found = self._leased(lease)
        if found is None:
            return Spent()
        queue_id, key_id, held = found
        now_ms = self._store.now_ms()
        freed_bytes = self._take(queue_id, key_id, lease, settlement, now_ms)
        dropped = self._letters.bound()
        left = held - settlement.taken + len(settlement.again)
        due_ms = self._end_lease(queue_id, left, settlement, now_ms)
        delivered, dead = settlement.delivered, len(settlement.dead)
        self._store.stored_bytes -= freed_bytes
        self._store.execute(
            "UPDATE key SET delivered = delivered + ?, dead = dead + ?, stored_bytes = stored_bytes - ?,"
            " succeeded = succeeded OR ?, gate = ? WHERE id = ?",
            (
                delivered,
                dead,
                freed_bytes,
                delivered > 0,
                gate.dump(gate.settle(self._store.gate(key_id), settlement.feedback, now_ms)),
                key_id,
            ),
        )
        if delivered and (row := self._store.key(lease.key)) is not None:
            row.succeeded = True
        return Settled(left, max(0, due_ms - now_ms) / 1000 if left else None, dropped)

    def _take(self, queue_id: int, key_id: int, lease: Lease, settlement: Settlement, now_ms: int) -> int:
        """Take what is done off the queue's head. Returns the bytes that are no longer counted."""
        freed_bytes = 0
        position = 0
        emptied: dict[bytes, int] = {}
        for run_id, lane, events, body in self._store.execute(
            "SELECT id, lane, events, body FROM run WHERE queue_id = ? ORDER BY id LIMIT ?",
            (queue_id, settlement.taken),
        ).fetchall():
            if position >= settlement.taken:
                break
            batch = range(position, min(position + events, settlement.taken))
            position += events
            kept: list[tuple[bytes, bytes]] = []
            if len(batch) < events or any(at in settlement.again or at in settlement.dead for at in batch):
                run = list(enumerate(decode_run(body), batch.start))
                kept = [event for at, event in run if at >= batch.stop or at in settlement.again]
                died = [(settlement.dead[at], event) for at, event in run if at in settlement.dead]
                if died:
                    (header,) = self._store.one(
                        "SELECT header FROM lane WHERE queue_id = ? AND lane = ?", (queue_id, lane)
                    )
                    self._letters.bury(key_id, lease, header, died, now_ms)
            if not kept:
                self._store.execute("DELETE FROM run WHERE id = ?", (run_id,))
                freed_bytes += RUN_OVERHEAD + len(body)
                emptied[lane] = emptied.get(lane, 0) + 1
            elif len(kept) < events:
                rest = encode_run(kept)
                self._store.execute(
                    "UPDATE run SET events = ?, body = ? WHERE id = ?", (len(kept), rest, run_id)
                )
                freed_bytes += len(body) - len(rest)
        return freed_bytes + sum(self._leave_lane(queue_id, lane, runs) for lane, runs in emptied.items())

    def _leave_lane(self, queue_id: int, lane: bytes, runs: int) -> int:
        left, header_bytes = self._store.one(
            "UPDATE lane SET runs = runs - ? WHERE queue_id = ? AND lane = ? RETURNING runs, length(header)",
            (runs, queue_id, lane),
        )
        if left > 0:
            return 0
        self._store.execute("DELETE FROM lane WHERE queue_id = ? AND lane = ?", (queue_id, lane))
        return LANE_OVERHEAD + int(header_bytes)

    def _end_lease(self, queue_id: int, left: int, settlement: Settlement, now_ms: int) -> int:
        """Returns when the queue is due again; nothing of that counts where nothing is left."""
        due_ms = 0
        backs_off = False
        if left and settlement.wait_s is not None:
            due_ms, backs_off = now_ms + min(int(settlement.wait_s * 1000), _MAX_WAIT_MS), True
        elif left >= FULL_BATCH:
            due_ms = now_ms
        elif left:
            due_ms = self._linger_ms + self._store.number(
                "SELECT accepted_ms FROM run WHERE queue_id = ? ORDER BY id LIMIT 1", queue_id
            )
        progressed = len(settlement.again) < settlement.taken
        self._store.execute(
            "UPDATE queue SET token = NULL, held = ?, due_ms = ?, backing_off = ?,"
            " attempts = CASE WHEN ? THEN 0 ELSE attempts + ? END WHERE id = ?",
            (left, due_ms, backs_off, progressed, settlement.failed, queue_id),
        )
        return due_ms

    def _leased(self, lease: Lease) -> Any:
        """Id, key id and events held of the queue that `lease` still holds."""
        row = self._store.key(lease.key)
        if row is None:
            return None
        return self._store.execute(
            "SELECT id, key_id, held FROM queue WHERE key_id = ? AND name = ? AND token = ?",
            (row.id, lease.queue, lease.token),
        ).fetchone()
