"""What is known without asking: which keys are valid, and what their plans have used up."""

from typing import Final

import structlog

from proxy.clock import wall_ms
from proxy.gateway.client import Got
from proxy.gateway.figures import Refused
from proxy.gateway.headers import content_type
from proxy.gateway.plan import VALIDITY, CallKind, KeyMark, PlanMemory
from proxy.gateway.validity import Verdicts
from proxy.ledger import PlatformOutcome, PlatformRoute
from proxy.wire.platform import Kept

_SHOWN: Final = 20


class Knowledge:
    """Learns from answers, and knows what some calls would be answered."""

    def __init__(self) -> None:
        self._verdicts = Verdicts()
        self._plans = PlanMemory()
        self._own: KeyMark | None = None
        self.key_refused_at_ms: int | None = None
        """When Outlit refused the own key, Unix milliseconds; None if it has taken it since."""
        self._log = structlog.get_logger("gateway")

    def go_by(self, own: KeyMark | None) -> None:
        """The mark of `gateway.api_key` from now on; None: there is none."""
        if own != self._own:
            self.key_refused_at_ms = None
        if own != self._own and self._own is not None:
            self._plans.forget_key(self._own)  # whoever gives it as a key of their own hears of it anew
        self._own = own

    def is_own(self, key: KeyMark) -> bool:
        """Whether that is the mark of `gateway.api_key`."""
        return key == self._own

    def covers(self, key: KeyMark, kind: CallKind) -> bool:
        """Whether a call can be answered without asking."""
        if kind == VALIDITY and self._verdicts.of(key) is not None:
            return True
        return self._plans.refuses(key, kind, wall_ms())

    def recall(self, key: KeyMark, kind: CallKind) -> tuple[Kept, int, PlatformOutcome] | None:
        """The answer to a call that need not be asked, for how many seconds yet, and what it counts as."""
        if kind == VALIDITY and (verdict := self._verdicts.of(key)) is not None:
            return (*verdict, PlatformOutcome.CACHED)
        refusal = self._plans.recall(key, kind, wall_ms())
        return refusal and (*refusal, PlatformOutcome.REMEMBERED)

    def learn(self, key: KeyMark, kind: CallKind, got: Got) -> bool:
        """Take in what an answer says of the key and its plan. Says whether it refuses such calls."""
        answer = Kept(got.status, content_type(got.response.headers), got.start)
        if kind == VALIDITY and got.is_decoded:
            self._verdicts.keep(key, answer)
        else:
            self._verdicts.hear(key, got.status)
        # Of paths that are not known it is not known either what a 401 of theirs is about.
        if key == self._own and kind.route is not PlatformRoute.OTHER:
            self._note_own(got.status)
        refusal = got.problem.refusal
        if refusal is None:
            return False
        if self._plans.remember(key, kind, refusal, answer, wall_ms()):
            self._log.warning(
                "Outlit's plan does not allow such calls for now; they are answered here",
                key="gateway.api_key" if key == self._own else "a caller's own",
                code=refusal.code,
                feature=refusal.feature,
                plan=refusal.plan,
                reset_at_ms=refusal.reset_at_ms,
            )
        return self._plans.refuses(key, kind, wall_ms())

    def forget(self) -> None:
        """Forget all of it: another upstream has its own keys and plans."""
        self.forget_refusals()
        self._verdicts.forget()
        self.key_refused_at_ms = None

    def forget_refusals(self) -> int:
        """Forget what plans have used up. Returns how much that was."""
        return self._plans.forget(wall_ms())

    def count_refusals(self, *, is_own: bool) -> int:
        """How many refusals of plans are in force: those of the own key, or all others."""
        return sum(each.is_own is is_own for each in self._plans.figures(self._own, wall_ms()))

    def own_reset_s(self) -> float:
        """When the last of them, of the own key, ends: Unix seconds, 0 where there is none."""
        until_ms = [each.until_ms for each in self._plans.figures(self._own, wall_ms()) if each.is_own]
        return max(until_ms, default=0) / 1000

    def refused(self) -> tuple[Refused, ...]:
        """The first few of them, those of the own key before the others."""
        return tuple(self._plans.figures(self._own, wall_ms()))[:_SHOWN]

    def _note_own(self, status: int) -> None:
        if status == 401 and self.key_refused_at_ms is None:
            self.key_refused_at_ms = wall_ms()
            self._log.error("Outlit refuses gateway.api_key: see whether it was revoked, or cut off")
        elif status < 500 and status != 401:  # whoever is refused for something else has been let in
            self.key_refused_at_ms = None
