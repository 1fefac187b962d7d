"""Dedup: which events a queue has seen within the window.

Two generations of ids take turns, so that forgetting is a truncation and the window is exact all the same:
each id has its time.
"""

from array import array
from collections.abc import Sequence

import apsw

from proxy.buffer.contract import Event
from proxy.buffer.sqlite.store import Store


class Seen:
    """The dedup ids of the last window. Which generation is written mirrors the database, as in `Store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._window_ms = int(store.terms.dedup_window_s * 1000)
        self._turn = 0
        self._turned_ms = 0
        self.remember()

    def remember(self) -> None:
        """Read again what is kept in memory beside the database."""
        self._turn, self._turned_ms = self._store.one("SELECT current, since_ms FROM seen_turn")
        # The clock may have jumped back over a restart; nothing may be kept for longer than two windows.
        self._turned_ms = min(self._turned_ms, self._store.now_ms())

    def unseen(self, queue_id: int, events: Sequence[Event], now_ms: int) -> list[int]:
        """The positions of the events that were not seen in this queue within the window; they now are."""
        ids = [event.dedup_id for event in events]
        wanted = apsw.carray(array("q", ids))
        since_ms = now_ms - self._window_ms
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
        fresh: list[int] = []
        for position, dedup_id in enumerate(ids):
            if dedup_id not in seen:
                seen.add(dedup_id)
                fresh.append(position)
        if fresh:
            self._store.execute(
                f"INSERT OR REPLACE INTO seen_{self._turn} SELECT ?, value, ? FROM carray(?)",  # noqa: S608  # 0 or 1
                (queue_id, now_ms, apsw.carray(array("q", [ids[position] for position in fresh]))),
            )
        return fresh

    def turn(self, now_ms: int) -> None:
        """Forget the older generation of dedup ids once all of it is outside the window."""
        if now_ms - self._turned_ms < self._window_ms:
            return
        self._turn = 1 - self._turn
        self._turned_ms = now_ms
        self._store.execute(f"DELETE FROM seen_{self._turn}")  # noqa: S608  # 0 or 1
        self._store.execute("UPDATE seen_turn SET current = ?, since_ms = ?", (self._turn, now_ms))
        self._store.execute(
            "DELETE FROM queue WHERE held = 0 AND touched_ms < ?", (now_ms - self._window_ms,)
        )
