"""Erase: take somebody's events out of queues and dead letters.

Their bytes go with them: the database overwrites whatever is deleted (`secure_delete`).
"""

from array import array
from collections.abc import Callable, Sequence

import apsw

from proxy.buffer.sqlite.dead_letters import DeadLetters
from proxy.buffer.sqlite.runs import Runs, read_runs
from proxy.buffer.sqlite.store import Store
from proxy.buffer.sqlite.tries import ASSIGNED, COLUMNS, Tries
from proxy.buffer.values import Erased

RUNS_AT_ONCE = 200
"""Runs that one transaction rewrites: some milliseconds."""


class Erasure:
    """The part of `erase` that writes."""

    def __init__(self, store: Store, letters: DeadLetters) -> None:
        self._store = store
        self._runs = Runs(store)
        self._letters = letters

    def from_queue(
        self, queue_id: int, run_ids: Sequence[int], is_theirs: Callable[[bytes, bytes], bool]
    ) -> Erased:
        """Take their events out of these runs of a queue, unless a worker has it.

        A lease that ended by itself is taken over, so its late worker settles nothing of what moved.
        """
        row = self._store.execute(
            f"SELECT k.public_key, token, due_ms, held, {COLUMNS}"
            " FROM queue q JOIN key k ON k.id = q.key_id WHERE q.id = ?",
            (queue_id,),
        ).fetchone()
        if row is None:
            return Erased()
        name, token, due_ms, held, *columns = row
        if token is not None and due_ms > self._store.now_ms():
            return Erased(leased=1)
        key = self._store.key(name)
        assert key is not None  # noqa: S101  # it has a queue
        erased = freed_bytes = 0
        where = "queue_id = ? AND id IN (SELECT value FROM carray(?))"
        for run in list(read_runs(self._store.execute, where, (queue_id, apsw.carray(array("q", run_ids))))):
            header = self._store.header(queue_id, run.lane)
            kept = [at for at, text in enumerate(run.texts()) if not is_theirs(header, text)]
            erased += run.events - len(kept)
            freed_bytes += self._runs.keep(run, kept)
        left = held - erased
        tries = Tries(*columns)
        if token is not None:
            tries = tries.after_expiry()
        self._store.execute(
            f"UPDATE queue SET held = ?, token = NULL, backing_off = backing_off AND ?, {ASSIGNED}"
            " WHERE id = ?",
            (left, left > 0, *tries.after_erasure(left), queue_id),
        )
        self._store.execute("UPDATE key SET dropped = dropped + ? WHERE id = ?", (erased, key.id))
        self._store.stored(key, -freed_bytes)
        return Erased(held=erased)

    def from_letters(self, ids: Sequence[int]) -> Erased:
        """Take these dead letters out."""
        return Erased(dead=self._letters.drop(ids))
