"""What became of each batch: two rings a key, so that a flood of ordinary batches evicts no ambiguous one."""

from collections.abc import Callable
from typing import Any

from proxy.buffer.contract import MAX_BATCHES
from proxy.buffer.sqlite.store import Store
from proxy.buffer.values import (
    Batch,
    Settlement,
)
from proxy.ledger import Answered
from proxy.wire.limits import PublicKey

ORDINARY = 20_000
"""Batches that are remembered of a key: at full rate four minutes, as a rule hours; 4 MB of small ones."""

AMBIGUOUS = 5_000
"""Ambiguous batches that are remembered of a key."""

_RING = 1 << 32
"""Ids of one ring; a key has two, the ambiguous one second."""


class Records:
    """Writes the records."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, key_id: int, settlement: Settlement, uuids: bytes, now_ms: int) -> None:
        """Note the batch that is settled, if it is ambiguous or an event of it has left."""
        left = settlement.taken - len(settlement.again)
        if not left and not settlement.ambiguous:
            return
        fates = bytearray(b"d" * settlement.taken)
        for at in settlement.dead:
            fates[at] = ord("x")
        for at in settlement.again:
            fates[at] = ord("a")
        counter, size = ("ambiguous", AMBIGUOUS) if settlement.ambiguous else ("batches", ORDINARY)
        number = self._store.number(
            f"UPDATE key SET {counter} = {counter} + 1 WHERE id = ? RETURNING {counter} - 1",
            key_id,
        )
        self._store.execute(
            "INSERT OR REPLACE INTO batch VALUES (?, ?, ?, ?, ?, ?)",
            (
                _first_id(key_id, ambiguous=settlement.ambiguous) + number % size,
                number,
                now_ms,
                settlement.answered,
                uuids,
                bytes(fates),
            ),
        )


def ambiguous_batches(execute: Callable[..., Any], key: PublicKey | None, limit: int) -> list[Batch]:
    """The newest ambiguous ones, on any connection."""
    found: list[Batch] = []
    for key_id, name in execute("SELECT id, public_key FROM key WHERE ?1 IS NULL OR public_key = ?1", (key,)):
        first = _first_id(key_id, ambiguous=True)
        rows = execute(
            "SELECT settled_ms, answered, uuids, fates FROM batch WHERE id BETWEEN ? AND ?"
            " ORDER BY number DESC LIMIT ?",
            (first, first + _RING - 1, min(limit, MAX_BATCHES)),
        )
        found += [_batch(PublicKey(name), *row, ambiguous=True) for row in rows]
    return sorted(found, key=lambda batch: batch.settled_at_ms, reverse=True)[: min(limit, MAX_BATCHES)]


def batches_with(execute: Callable[..., Any], key_id: int, name: PublicKey, uuid: bytes) -> list[Batch]:
    """The remembered batches of a key that an event was in, newest first, on any connection."""
    first = _first_id(key_id, ambiguous=False)
    rows = execute(
        "SELECT id >= ?2, settled_ms, answered, uuids, fates FROM batch"
        " WHERE id BETWEEN ?1 AND ?3 AND instr(uuids, ?4) ORDER BY settled_ms DESC",
        (first, first + _RING, first + 2 * _RING - 1, uuid),
    )
    batches = [_batch(name, *row, ambiguous=bool(ambiguous)) for ambiguous, *row in rows]
    return [batch for batch in batches if batch.fate(uuid) is not None]


def _batch(
    key: PublicKey, settled_ms: int, answered: str | None, uuids: bytes, fates: bytes, *, ambiguous: bool
) -> Batch:
    return Batch(key, settled_ms, None if answered is None else Answered(answered), ambiguous, uuids, fates)


def _first_id(key_id: int, *, ambiguous: bool) -> int:
    return (2 * key_id + ambiguous) * _RING
