"""Pauses, as the operator orders and ends them."""

from proxy import gate
from proxy.buffer.sqlite.store import Store
from proxy.wire.limits import PublicKey

RETRIED_AT_ONCE = 2_000
"""Queues whose waits one transaction ends: some 2 ms."""


class Pauses:
    """The verbs `pause`, `resume` and `retry`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def pause(self, key: PublicKey) -> bool:
        row = self._store.key(key)
        if row is None:
            return False
        gate.pause(self._store.gate(row))
        self._store.gate_changed(row)
        return True

    def resume(self, key: PublicKey) -> bool:
        row = self._store.key(key)
        if row is None:
            return False
        gate.resume(self._store.gate(row))
        self._store.gate_changed(row)
        return True

    def retry(self, key: PublicKey) -> int | None:
        """End the pauses, and the waits of `RETRIED_AT_ONCE` queues. Returns of how many; None: no such key.

        To be called until that is fewer.
        """
        row = self._store.key(key)
        if row is None:
            return None
        gate.retry(self._store.gate(row))
        self._store.gate_changed(row)
        self._store.execute(
            "UPDATE queue SET due_ms = ?2, backing_off = 0 WHERE id IN ("
            " SELECT id FROM queue INDEXED BY queue_due WHERE key_id = ?1 AND held > 0 AND due_ms > ?2"
            f" AND backing_off ORDER BY due_ms LIMIT {RETRIED_AT_ONCE})",
            (row.id, self._store.now_ms()),
        )
        return self._store.number("SELECT changes()")
