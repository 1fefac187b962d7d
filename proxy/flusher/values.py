"""What a verdict is made of, and the verdict itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.buffer import ALL_IS_WELL, Death, Outlook
from proxy.gate import NO_EVIDENCE, Evidence, Outcome
from proxy.ledger import Answered


@dataclass(frozen=True, slots=True)
class Case:
    """A batch as a verdict must know it, besides its answer.

    Of its `events` the first `aged` were accepted longer ago than the maximum age. `attempts`: the failed
    tries of its head before this one. `claimed_ms` and `answered_ms`: when its lease was claimed and when its
    answer came (or did not), both on the store's clock. All else is the lease's.
    """

    events: int
    attempts: int = 0
    aged: int = 0
    claimed_ms: int = 0
    answered_ms: int = 0
    outlook: Outlook = ALL_IS_WELL
    evidence: Evidence = NO_EVIDENCE
    confirmed: bool = False
    others: bool = False

    @property
    def tries(self) -> int:
        """The failed tries of the head, should this have been one."""
        return self.attempts + 1

    @property
    def everything(self) -> frozenset[int]:
        """All positions of the batch."""
        return frozenset(range(self.events))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a batch. Positions count from the batch's first event; the others are delivered.

    `wait_s` holds the queue back (None: it is due as usual); `failed` counts a try against its head.
    `outlook` is for the queue's next delivery, None where this answer says nothing of it. `ambiguous`:
    upstream may have taken the batch all the same; `inconsistent`: the answer contradicted itself. `outcome`
    is for the gate, `message` (upstream's own) for people.
    """

    answered: Answered
    outcome: Outcome
    dead: Mapping[int, Death] = field(default_factory=dict)
    again: frozenset[int] = frozenset()
    wait_s: float | None = None
    failed: bool = False
    outlook: Outlook | None = None
    ambiguous: bool = False
    inconsistent: bool = False
    message: str = ""
