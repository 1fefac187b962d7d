"""The programme of faults: what is switched on, and which fault strikes a request."""

from dataclasses import replace

from proxy.sandbox.conditions import Seen, meets
from proxy.sandbox.faults import Fault, Stage
from proxy.sandbox.schedule import Strikes


class Programme(Strikes[Fault]):
    """The faults that are on or to come, switched while the sandbox runs. A request meets at most one."""

    def next(self, seen: Seen, now: float, stage: Stage = Stage.JUDGED) -> Fault | None:
        """Say which fault strikes a request at `now`, and count it: the first to have begun that may.

        Sabotage waits for a request of which something is taken.
        """
        for running in self.begun(now):
            fault = running.order
            if not fault.what.strikes_at(stage) or (fault.what.is_sabotage and not seen.takes):
                continue
            if not meets(seen, fault) or not fault.exceeds(seen.events, seen.body_bytes, running.struck):
                continue
            if not self._falls(running):
                continue
            if fault.statuses:
                return replace(fault, status=fault.status_of(running.struck - 1), statuses=())
            return fault
        return None
