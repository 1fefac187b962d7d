"""Dead letters: events that were given up, kept within a bound of their own until somebody looks."""

from collections.abc import Sequence

from proxy.buffer.contract import DeadLetter, Death, Lease
from proxy.buffer.sqlite.store import Store
from proxy.lanes import QueueId
from proxy.ledger import Dead
from proxy.wire.limits import PublicKey

DEAD_OVERHEAD = 120
"""Bytes counted for a dead letter beside its texts."""

_BYTES = f"{DEAD_OVERHEAD} + length(header) + length(text)"


class DeadLetters:
    """The dead letters. Their bytes mirror the database, as in `Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bytes = 0
        self.remember()

    def remember(self) -> None:
        """Read again what is kept in memory beside the database."""
        self._bytes = self._store.number("SELECT total(dead_bytes) FROM key")

    def bury(
        self,
        key_id: int,
        lease: Lease,
        header: bytes,
        died: Sequence[tuple[Death, tuple[bytes, bytes]]],
        now_ms: int,
    ) -> None:
        """Write down events of a batch, whose lane has this `header`, as (why, (uuid, text))."""
        for death, (uuid, text) in died:
            self._store.execute(
                "INSERT INTO dead_letter"
                " (key_id, queue, header, uuid, text, reason, message, attempts, died_ms)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    key_id,
                    lease.queue,
                    header,
                    uuid,
                    text,
                    death.reason,
                    death.message,
                    lease.attempts + 1,
                    now_ms,
                ),
            )
        bytes_ = sum(DEAD_OVERHEAD + len(header) + len(text) for _, (_, text) in died)
        self._bytes += bytes_
        self._store.execute("UPDATE key SET dead_bytes = dead_bytes + ? WHERE id = ?", (bytes_, key_id))

    def bound(self) -> int:
        """Give up the oldest dead letters beyond the bound. Returns how many."""
        dropped = 0
        while self._bytes > self._store.terms.dead_max_bytes:
            oldest = self._store.execute(
                "DELETE FROM dead_letter WHERE id = (SELECT min(id) FROM dead_letter)"  # noqa: S608  # ours
                f" RETURNING key_id, {_BYTES}"
            ).fetchone()
            if oldest is None:
                break
            key_id, bytes_ = oldest
            self._bytes -= bytes_
            self._store.execute(
                "UPDATE key SET dead = dead - 1, dropped = dropped + 1, dead_bytes = dead_bytes - ?"
                " WHERE id = ?",
                (bytes_, key_id),
            )
            dropped += 1
        return dropped

    def newest(self, key: PublicKey | None, limit: int) -> list[DeadLetter]:
        """The newest ones, of one key or of all."""
        rows = self._store.execute(
            "SELECT d.id, k.public_key, d.queue, d.header, d.uuid, d.text, d.reason, d.message, d.attempts,"
            " d.died_ms FROM dead_letter d JOIN key k ON k.id = d.key_id"
            " WHERE ?1 IS NULL OR k.public_key = ?1 ORDER BY d.id DESC LIMIT ?2",
            (key, limit),
        )
        return [
            DeadLetter(
                id_, PublicKey(name), QueueId(queue), header, uuid, text, Dead(reason), message, tries, at
            )
            for id_, name, queue, header, uuid, text, reason, message, tries, at in rows
        ]
