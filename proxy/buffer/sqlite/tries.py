"""What a queue remembers of the tries of its head, and what becomes of it: pure."""

from dataclasses import replace
from typing import NamedTuple

from proxy.buffer.contract import FULL_BATCH, HALVING_EXPIRIES, STALLED_EXPIRIES
from proxy.buffer.packing import pack_trouble, unpack_trouble
from proxy.buffer.values import Outlook, Settlement

COLUMNS = "attempts, expired, unsettled, max_events, trouble"
"""The fields of `Tries` in a queue's row."""

ASSIGNED = "attempts = ?, expired = ?, unsettled = ?, max_events = ?, trouble = ?"


class Tries(NamedTuple):
    """The columns, which `Lease` explains; `trouble` as it is stored."""

    attempts: int
    expired: int
    unsettled: int
    max_events: int
    trouble: bytes

    def outlook(self) -> Outlook:
        """What the next delivery should know. Raises Damaged."""
        return Outlook(self.max_events, unpack_trouble(self.trouble))

    def after_expiry(self) -> "Tries":
        """Once a lease has ended by itself: a try that failed, and all of its batch may have arrived."""
        expired = self.expired + 1
        return self._replace(
            attempts=self.attempts + 1,
            expired=expired,
            unsettled=max(self.unsettled, self.max_events),
            max_events=max(1, self.max_events // 2) if expired >= HALVING_EXPIRIES else self.max_events,
        )

    def stalls(self) -> bool:
        """Whether one more lease that ends by itself puts the queue off: the batch has been one event."""
        return self.expired + 1 >= STALLED_EXPIRIES

    def after_settlement(self, settlement: Settlement, left: int) -> "Tries":
        """Once a lease is settled and `left` events remain."""
        if not left:
            return UNTRIED
        outlook = settlement.outlook
        progressed = len(settlement.again) < settlement.taken
        return Tries(
            attempts=0 if progressed else self.attempts + settlement.failed,
            expired=0,
            unsettled=self._still_unsettled(settlement),
            max_events=self.max_events if outlook is None else outlook.max_events,
            trouble=self.trouble if outlook is None else pack_trouble(outlook.trouble),
        )

    def _still_unsettled(self, settlement: Settlement) -> int:
        """How many events of the head may have arrived with leases that ended by themselves."""
        if not settlement.taken:
            return self.unsettled
        if settlement.taken < self.max_events:
            return 0  # the end of a lane, or of the bytes that fit: the batches before ended there, too
        behind = max(0, self.unsettled - settlement.taken)
        return behind + len(settlement.again) if behind else 0

    def after_erasure(self, left: int) -> "Tries":
        """Once events were taken out of the queue, any of them, and `left` remain.

        Whether the one that upstream refuses is among those that are left is no longer known: as if there had
        been no refusal.
        """
        if not left:
            return UNTRIED
        trouble = unpack_trouble(self.trouble)
        if trouble is None:
            return self
        return self._replace(trouble=pack_trouble(replace(trouble, suspects=0, refused_ms=0)))


UNTRIED = Tries(0, 0, 0, FULL_BATCH, b"")
"""Of a queue that is new, or begins anew because it was emptied."""
