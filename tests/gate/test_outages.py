"""The whole gate while upstream is out for sixty hours of virtual time, and when it is back.

There is always work, and nothing but the gate holds it back: no queue waits for itself, as it would.
"""

from collections.abc import Callable
from functools import partial

import pytest

from proxy import gate
from proxy.gate import Feedback, Gate, Outcome
from proxy.gate.standing import LONGEST_PAUSE_MS
from proxy.ledger import Pause
from tests.gate.virtual import KINDS, LEASE_MS, Sender, Setting, World

BEGINS_S = 45
HOURS = 60
ENDS_S = BEGINS_S + HOURS * 3_600
AFTER_S = 400
QUEUES = 8
BACK_S = 8
"""From the first request that is taken to the whole rate."""
LOOK_S = 30
"""So long the whole rate is looked at."""

OUTAGES = [
    # Up to 30 s of failures until they are 70 % of the requests; then a probe every five minutes.
    pytest.param(Outcome.FAILED, Pause.UPSTREAM_FAILING, 30 * 100 + HOURS * 12 + 10, id="5xx"),
    # What was in flight at the first 401; then the same.
    pytest.param(Outcome.KEY_REFUSED, Pause.KEY_REFUSED, 64 + HOURS * 12 + 10, id="401"),
    # 20 refusals, and what was in flight at the last; then a probe a minute.
    pytest.param(Outcome.REFUSED, Pause.REFUSAL_STORM, 20 + 64 + HOURS * 60 + 10, id="400"),
]


class Unwell(World):
    """Replicas that share one gate, and an upstream that counts whole seconds and is out for a while."""

    def __init__(self, outcome: Outcome, seed: int = 1, replicas: int = 1) -> None:
        limit = KINDS["fixed"]
        super().__init__(Setting(limit, from_s=float(ENDS_S), to_s=float(ENDS_S + AFTER_S)), seed)
        self.outcome: Outcome | None = None
        self.in_vain = 0
        """Requests while upstream was out."""
        self.gate = gate.opened(100.0, 1.0)
        self.senders = [Replica(self, self.gate) for _ in range(replicas)]
        self.later(BEGINS_S, partial(self.turn, outcome))
        self.later(ENDS_S, partial(self.turn, None))

    def has_work(self) -> bool:
        """Until it has been seen that all is well again: a simulated second of the whole rate costs most."""
        return self.now_s < ENDS_S or self.now_s < self.resumed_s + BACK_S + LOOK_S

    def turn(self, outcome: Outcome | None) -> None:
        """Upstream answers everything so; None: it is well."""
        self.outcome = outcome

    @property
    def resumed_s(self) -> int:
        """The second in which the first request was taken after the outage; the last one where none was."""
        after = range(ENDS_S, ENDS_S + AFTER_S)
        return next((second for second in after if self.tally.grants[second]), after[-1])

    def check_return(self, most_s: float) -> None:
        """Requests were taken soon after the end, at the whole rate soon after that, and none was a 429."""
        assert self.resumed_s - ENDS_S <= most_s
        back_s = self.resumed_s + BACK_S
        assert sum(self.tally.grants[back_s : back_s + LOOK_S]) >= 93 * LOOK_S
        assert sum(self.tally.refusals[ENDS_S:]) == 0
        assert gate.view(self.gate, self.store_ms()).paused is None


class Replica(Sender):
    """A sender that meets other answers than its upstream's window gives."""

    def __init__(self, world: Unwell, of: Gate) -> None:
        super().__init__(world, of)
        self.world = world
        self.claims = 0
        self.dies: Callable[[], bool] = lambda: False
        """Whether the worker that has just claimed never settles."""

    def _arrive(self, sent_ms: int) -> None:
        if self.world.outcome is None:
            super()._arrive(sent_ms)
            return
        self.world.in_vain += 1
        if self.dies():
            self.world.later(LEASE_MS / 1000, self._free_slot)
            return
        feedback = Feedback(self.world.outcome, sent_ms=float(sent_ms))
        self.world.later(self.world.setting.latency(self.world.chance), partial(self._answer, feedback))

    def _answer(self, feedback: Feedback) -> None:
        self.claims += 1
        queue = bytes((self.claims % QUEUES,)) * 16
        gate.settle(self.gate, feedback, queue, int(feedback.sent_ms), self.world.store_ms())
        self._free_slot()

    def _free_slot(self) -> None:
        self._free += 1
        if not self._sleeps:
            self._sleeps = True
            self.world.later(0.0, self.drive)


def longest_s(reason: Pause) -> float:
    return LONGEST_PAUSE_MS[reason] / 1000


@pytest.mark.parametrize(("outcome", "reason", "most"), OUTAGES)
@pytest.mark.parametrize(("seed", "replicas"), [(1, 1), (2, 1), (3, 3)])
def test_sixty_hours_cost_few_requests_and_end_in_the_whole_rate_without_a_429(
    outcome: Outcome, reason: Pause, most: int, seed: int, replicas: int
) -> None:
    world = Unwell(outcome, seed, replicas)
    world.run()
    assert world.in_vain <= most
    world.check_return(longest_s(reason) + 2)


@pytest.mark.parametrize(("outcome", "reason", "most"), OUTAGES)
def test_after_an_outage_retry_has_it_back_at_once(outcome: Outcome, reason: Pause, most: int) -> None:
    world = Unwell(outcome)
    world.later(ENDS_S - 1, partial(_note_reason, world, reason))
    world.later(ENDS_S + 1, partial(_retry, world))
    world.run()
    assert world.in_vain <= most
    world.check_return(4)


@pytest.mark.parametrize(("outcome", "reason", "most"), OUTAGES)
@pytest.mark.parametrize("jump_s", [3_600.0, -3_600.0])
def test_jumps_of_the_clock_open_and_stop_nothing(
    outcome: Outcome, reason: Pause, most: int, jump_s: float
) -> None:
    world = Unwell(outcome)
    jumps = range(BEGINS_S + 3_000, ENDS_S, 5 * 3_600)
    for at_s in jumps:
        world.later(at_s, partial(_jump, world, jump_s))
    world.run()
    assert world.in_vain <= most + len(jumps)
    world.check_return(longest_s(reason) + 2)


@pytest.mark.parametrize(("outcome", "reason", "most"), OUTAGES)
def test_workers_that_die_with_their_probes_keep_nothing_from_coming_back(
    outcome: Outcome, reason: Pause, most: int
) -> None:
    world = Unwell(outcome)
    [sender] = world.senders
    assert isinstance(sender, Replica)
    sender.dies = lambda: world.now_s > BEGINS_S + 600 and world.chance.random() < 0.5
    world.run()
    assert world.in_vain <= 2 * most
    world.check_return(longest_s(reason) + LEASE_MS / 1000 + 2)


def _note_reason(world: Unwell, reason: Pause) -> None:
    assert gate.view(world.gate, world.store_ms()).paused is reason


def _retry(world: Unwell) -> None:
    gate.retry(world.gate)
    for sender in world.senders:
        sender.drive()


def _jump(world: Unwell, by_s: float) -> None:
    world.store_ahead_s += by_s
