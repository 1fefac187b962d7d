"""Dedup: which events a queue has seen within the window.

Two generations of ids take turns, so that forgetting needs no index by time; the window is exact all the
same, for each id has its time.
"""

from array import array
from collections.abc import Sequence

import apsw

from proxy.buffer.sqlite.store import Store

_AT_ONCE = 400
"""Ids that one append forgets, while there are any to be forgotten: some 0.2 ms."""


class Seen:
    """The dedup ids of the last window. Which generation is written mirrors the database, as in `Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = 0
        self._turned_ms = 0
        self.remember()

    def remember(self) -> None:
        """Read again what is kept in memory beside the database."""
        self._turn, self._turned_ms = self._store.one("SELECT current, since_ms FROM seen_turn")
        # The clock may have jumped back over a restart, and nothing would be forgotten until it catches up.
        self._turned_ms = min(self._turned_ms, self._store.now_ms())

    def unseen(self, queue_id: int, ids: "array[int]", now_ms: int) -> Sequence[int]:
        """The positions of the events that were not seen in this queue within the window; they now are."""
        wanted = apsw.carray(ids)
        since_ms = now_ms - self._store.terms.dedup_window_ms
        seen = {
            dedup_id
            for (dedup_id,) in self._store.execute(
                "SELECT dedup_id FROM seen_0 WHERE queue_id = ?1 AND at_ms > ?2"
                " AND dedup_id IN (SELECT value FROM carray(?3))"
                " UNION ALL SELECT dedup_id FROM seen_1 WHERE queue_id = ?1 AND at_ms > ?2"
                " AND dedup_id IN (SELECT value FROM carray(?3))",
                (queue_id, since_ms, wanted),
            )
        }
        fresh: Sequence[int] = range(len(ids))
        if seen or len(set(ids)) < len(ids):
            fresh = []
            for position, dedup_id in enumerate(ids):
                if dedup_id not in seen:
                    seen.add(dedup_id)
                    fresh.append(position)
            if not fresh:
                return fresh
            wanted = apsw.carray(array("q", [ids[position] for position in fresh]))
        self._store.execute(
            f"INSERT OR REPLACE INTO seen_{self._turn} SELECT ?, value, ? FROM carray(?)",
            (queue_id, now_ms, wanted),
        )
        return fresh

    def forget(self, now_ms: int) -> None:
        """Forget a few ids of the older generation, all of which is outside the window by now.

        When none is left, the generations change. A few at a time, for a million at once hold up the loop for
        a second.
        """
        if now_ms - self._turned_ms < self._store.terms.dedup_window_ms:
            return
        older = 1 - self._turn
        self._store.execute(
            f"DELETE FROM seen_{older} WHERE (queue_id, dedup_id) IN"
            f" (SELECT queue_id, dedup_id FROM seen_{older} LIMIT {_AT_ONCE})"
        )
        if self._store.number("SELECT changes()") < _AT_ONCE:
            self._turn, self._turned_ms = older, now_ms
            self._store.execute("UPDATE seen_turn SET current = ?, since_ms = ?", (older, now_ms))
