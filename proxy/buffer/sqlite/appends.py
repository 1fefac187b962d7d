"""Append: a client's request into its queues, whole or not at all."""

from collections.abc import Sequence

from proxy import gate
from proxy.buffer.contract import (
    NeverFits,
    QuotaExceeded,
)
from proxy.buffer.sqlite.queues import Queues, most_bytes
from proxy.buffer.sqlite.seen import Seen
from proxy.buffer.sqlite.store import Key, Store
from proxy.buffer.values import (
    Appended,
    Portion,
    Quota,
)
from proxy.wire.limits import PublicKey

_HOLDING_UNCONFIRMED = (
    "SELECT count(*) FROM key WHERE NOT succeeded"
    " AND EXISTS (SELECT 1 FROM queue WHERE key_id = key.id AND held > 0)"
)


class Appends:
    """The verb `append`."""

    def __init__(self, store: Store, queues: Queues, seen: Seen) -> None:
        self._store = store
        self._queues = queues
        self._seen = seen

    def append(self, key: PublicKey, portions: Sequence[Portion]) -> tuple[Appended, float | None]:
        """Beside the answer: in how many seconds a queue became due by this append, None if none did."""
        now_ms = self._store.now_ms()
        row = self._admit(key, portions)
        self._seen.forget(now_ms)
        self._queues.forget(now_ms)
        stored = offered = added_bytes = 0
        first_due_ms: int | None = None
        for portion in portions:
            offered += len(portion.texts)
            tail = self._queues.tail(row.id, portion.queue, now_ms)
            fresh = self._seen.unseen(tail.queue_id, portion.dedup_ids, now_ms)
            uuids, texts = portion.uuids, portion.texts
            if len(fresh) < len(texts):
                if not fresh:
                    continue
                uuids = b"".join([uuids[16 * at : 16 * at + 16] for at in fresh])
                texts = [texts[at] for at in fresh]
            added = self._queues.add(tail, portion.lane, portion.header, uuids, texts, now_ms)
            stored += len(texts)
            added_bytes += added.stored_bytes
            if added.due_ms is not None and (first_due_ms is None or added.due_ms < first_due_ms):
                first_due_ms = added.due_ms
        if stored:
            self._store.accepted(row, stored, added_bytes)
        due_s = None if first_due_ms is None else (first_due_ms - now_ms) / 1000
        return Appended(stored, offered - stored), due_s

    def _admit(self, key: PublicKey, portions: Sequence[Portion]) -> Key:
        """The key's row, made where it is new, if the bounds allow this request; else nothing is written."""
        terms = self._store.terms
        bytes_ = sum([most_bytes(portion.header, portion.texts) for portion in portions])
        if bytes_ > min(terms.max_bytes, terms.max_bytes_per_key):
            raise NeverFits("larger than buffer.max_bytes or buffer.max_bytes_per_key")
        row = self._store.key(key)
        self._store.check_bytes(row, bytes_)
        if terms.quota is not None and (row is None or not row.succeeded):
            self._admit_unconfirmed(row, portions, terms.quota)
        if row is None:
            fresh = gate.dump(gate.opened(terms.limit_per_s, terms.rate_share))
            self._store.execute("INSERT INTO key (public_key, gate) VALUES (?, ?)", (key, fresh))
            row = self._store.key(key)
            assert row is not None  # noqa: S101  # it was just inserted
        return row

    def _admit_unconfirmed(self, row: Key | None, portions: Sequence[Portion], quota: Quota) -> None:
        asked = {portion.queue for portion in portions}
        waiting: set[bytes] = set()
        if row is not None:
            found = self._store.execute("SELECT name FROM queue WHERE key_id = ? AND held > 0", (row.id,))
            waiting = {name for (name,) in found}
        if not waiting and self._store.number(_HOLDING_UNCONFIRMED) >= quota.keys:
            raise QuotaExceeded("too many public keys that Outlit never confirmed hold events")
        if not asked <= waiting and len(asked | waiting) > quota.queues:
            raise QuotaExceeded("this public key was never confirmed by Outlit and holds too many queues")
