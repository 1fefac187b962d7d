"""What each upstream answer means: one pure function and one table.

| answer | its batch | the queue |
|---|---|---|
| 2xx but 207 | delivered, whatever the body says | |
| 207 | the events named are dead letters, the others delivered; never sent again | |
| 400, 413, 422 and other 4xx that name events | these are dead letters, the others go again | at once |
| the same, naming a field of the envelope | dead letters | |
| the same, naming nothing | goes again | backs off |
| 429 | goes again; no failed try | the gate pauses its key |
| 401, 402, 403, 404, 408, 425, 3xx, 5xx | goes again | backs off |
| none, nothing was sent | goes again | backs off |
| none, it may have arrived | goes again, counted ambiguous | backs off |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.buffer import Death
from proxy.gate import NO_FEEDBACK, Feedback
from proxy.ledger import Answered, Dead
from proxy.wire.answers import Answer, NoAnswer, Said, read_answer
from proxy.wire.rate_headers import MAX_WAIT_S

BACK_OFF_S = 2.0
"""The first wait of a queue after a failed try; it doubles with each further one …"""

MAX_BACK_OFF_S = MAX_WAIT_S
"""… up to this."""

JITTER = 0.2
"""Waits are spread by this share either way, so that queues that failed together do not return together."""

_SAYS_NOTHING_OF_EVENTS = frozenset({401, 402, 403, 404, 408, 425})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a batch. Positions count from the batch's first event; the others are delivered.

    `wait_s` holds the queue back; `failed` counts a try against its head; `ambiguous`: upstream may have
    taken the batch all the same; `inconsistent`: the answer contradicted itself.
    """

    answered: Answered
    dead: Mapping[int, Death] = field(default_factory=dict)
    again: frozenset[int] = frozenset()
    wait_s: float | None = None
    failed: bool = False
    ambiguous: bool = False
    inconsistent: bool = False
    feedback: Feedback = NO_FEEDBACK


def judge(answer: Answer | NoAnswer, events: int, attempts: int, jitter: float) -> Verdict:
    """The verdict on a batch of `events` whose head failed `attempts` times before.

    `jitter` is a number from −1 to 1, drawn by the caller.
    """
    everything = frozenset(range(events))
    back_off_s = min(BACK_OFF_S * 2.0 ** min(attempts, 30), MAX_BACK_OFF_S) * (1 + JITTER * jitter)
    if isinstance(answer, NoAnswer):
        sent = answer.may_have_arrived
        name = Answered.UNANSWERED if sent else Answered.UNREACHED
        return Verdict(name, again=everything, wait_s=back_off_s, failed=True, ambiguous=sent)
    feedback = Feedback(rate_limited=answer.status == 429, headers=answer.rate)
    if answer.status == 207:
        return _partly(read_answer(answer.body), events, feedback)
    if 200 <= answer.status < 300:
        said = read_answer(answer.body)
        consistent = said.success and said.processed in (None, events)
        return Verdict(Answered.DELIVERED, inconsistent=not consistent, feedback=feedback)
    if answer.status == 429:
        return Verdict(Answered.RATE_LIMITED, again=everything, feedback=feedback)
    if 400 <= answer.status < 500 and answer.status not in _SAYS_NOTHING_OF_EVENTS:
        dead = _named(read_answer(answer.body), events)
        if dead:
            return Verdict(Answered.REFUSED, dead, everything - dead.keys(), feedback=feedback)
        return Verdict(Answered.REFUSED, again=everything, wait_s=back_off_s, failed=True, feedback=feedback)
    wait_s = max(back_off_s, answer.rate.retry_after_s or 0.0)
    return Verdict(Answered.FAILED, again=everything, wait_s=wait_s, failed=True, feedback=feedback)


def _partly(said: Said, events: int, feedback: Feedback) -> Verdict:
    """A 207: upstream has taken the request, so nothing of it may ever be sent again."""
    dead = {
        complaint.index: Death(Dead.REFUSED, complaint.message)
        for complaint in said.complaints
        if complaint.index is not None and complaint.index < events
    }
    consistent = bool(dead) and len(dead) == len(said.complaints)
    consistent = consistent and said.processed in (None, events - len(dead))
    return Verdict(Answered.PARTLY_DELIVERED, dead, inconsistent=not consistent, feedback=feedback)


def _named(said: Said, events: int) -> dict[int, Death]:
    """The events that a refusal is about: those it names, or all where it names the envelope."""
    for complaint in said.complaints:
        if complaint.envelope:
            death = Death(Dead.ENVELOPE_REFUSED, complaint.message or said.message)
            return dict.fromkeys(range(events), death)
    return {
        complaint.index: Death(Dead.REFUSED, complaint.message or said.message)
        for complaint in said.complaints
        if complaint.index is not None and complaint.index < events
    }
