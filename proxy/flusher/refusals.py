"""Whose fault a refusal is, and whether that is certain enough to give events up.

A 400 may mean that an event is bad, or that upstream has changed its mind about all events of that kind (a
schema slip). The answer is the same, names and all, so an event dies of a refusal only with *proof* that
upstream takes what this key sends: a request that was *claimed* after the answer that first refused this
event, and was taken. Requests in flight prove nothing: they may have overtaken this one on the way to the
slip. And nothing is proven of events that are refused now for the first time, in whatever company.

*Accused* are the events that upstream names, all of them where it names a field of the envelope, and the
one event of a batch of one. With none (several events, nothing usable named) they are searched for; with
some but without proof the batch is kept, and what stands before the first of them goes alone: where it is
taken, that is the proof. Who has nobody beside them that could prove anything (no other queue holds events,
or five tries brought none) is judged by the key's latest requests instead.
"""

from collections.abc import Mapping
from dataclasses import replace

from proxy.buffer import Death, Outlook, Trouble
from proxy.flusher.outlooks import back_off_s, bereft, grown, halved, progressed, suspecting, trouble_of
from proxy.flusher.values import Case, Verdict
from proxy.gate import Outcome
from proxy.ledger import Answered, Dead
from proxy.wire.answers import Said
from proxy.wire.limits import EVENTS_PER_REQUEST

TOO_LARGE = 413

PATIENT_TRIES = 5
"""So many failed tries (a minute of them) an unproven culprit beside other queues waits for the proof."""

HOPELESS_REQUESTS = 20
"""Where upstream took nothing of so many requests in a row, no event is to blame (the gate's memory)."""

LEAST_TRIES = 10
"""No event dies of its age before so many failed tries: the first hour of an outage kills nothing."""


def judge_refusal(status: int, said: Said, case: Case, jitter: float) -> Verdict:
    """The verdict on a batch that upstream refused for its events' sake."""
    named = _named(status, said, case.events)
    accused = named or ({0: _death(status, said)} if case.events == 1 else {})
    if not accused:
        return _searched(status, case)
    guilty = _proven(case, accused)
    if not guilty and _is_likely(case, named=bool(named)):
        guilty = accused
    if not guilty:
        return _kept(case, accused, jitter)
    return _buried(case, guilty, accused, named=bool(named))


def expired(case: Case, message: str) -> dict[int, Death]:
    """The events that have been tried often enough, for as long as any event is."""
    if case.tries < LEAST_TRIES:
        return {}
    return dict.fromkeys(range(case.aged), Death(Dead.EXPIRED, message))


def _named(status: int, said: Said, events: int) -> dict[int, Death]:
    """The events that a refusal is about: those it names, or all where it names a field of the envelope."""
    for complaint in said.complaints:
        if complaint.envelope:
            death = _death(status, said, complaint.message, Dead.ENVELOPE_REFUSED)
            return dict.fromkeys(range(events), death)
    return {
        complaint.index: _death(status, said, complaint.message)
        for complaint in said.complaints
        if complaint.index is not None and complaint.index < events
    }


def _proven(case: Case, accused: Mapping[int, Death]) -> dict[int, Death]:
    trouble = case.outlook.trouble
    if trouble is None or not 0 < trouble.refused_ms < case.evidence.proven_ms:
        return {}
    return {at: death for at, death in accused.items() if at < trouble.suspects}


def _is_likely(case: Case, *, named: bool) -> bool:
    evidence = case.evidence
    if case.others and case.attempts < PATIENT_TRIES:
        return False
    hopeless = evidence.judged >= HOPELESS_REQUESTS and evidence.taken == 0
    return not hopeless and not evidence.refused_elsewhere and (named or evidence.taken > 0)


def _searched(status: int, case: Case) -> Verdict:
    """One of several events is bad: half of them next time, at once.

    Of a body that is too large none is suspect: all of them are too much.
    """
    if status == TOO_LARGE:
        trouble = replace(trouble_of(case), suspects=0, refused_ms=0, too_large=True)
    else:
        trouble = _suspecting(case, case.events)
    return _refused(again=case.everything, outlook=halved(case, trouble))


def _buried(case: Case, guilty: Mapping[int, Death], accused: Mapping[int, Death], *, named: bool) -> Verdict:
    """The guilty die, the others go again at once: whole where upstream gives names, else by steps.

    Those who were suspects with them stay so: upstream may have named the first only. Those who are accused
    for the first time are from now on.
    """
    again = case.everything - guilty.keys()
    if not named:
        return _refused(guilty, again, outlook=grown(case))
    trouble = trouble_of(case)
    if newly := accused.keys() - guilty.keys():
        trouble = suspecting(trouble, max(newly) + 1, case.answered_ms)
    left = trouble.suspects - sum(at < trouble.suspects for at in guilty)
    remembered = progressed(case, trouble, left, taken=False) if left else None
    return _refused(guilty, again, outlook=Outlook(EVENTS_PER_REQUEST, remembered))


def _kept(case: Case, accused: Mapping[int, Death], jitter: float) -> Verdict:
    """Nothing is proven: what stands before the first accused goes alone, at once; else the queue waits."""
    first, last = min(accused), max(accused)
    before = case.outlook.trouble
    trouble = _suspecting(case, last + 1)
    if first > 0:
        # What is refused again should have been good: then names are not to be relied on.
        relied_on = before is None or not before.refused_ms
        size = first if relied_on else min(first, case.events // 2)
        return _refused(again=case.everything, outlook=Outlook(size, trouble))
    dead = expired(case, accused[first].message)
    again = case.everything - dead.keys()
    if not again:
        return _refused(dead, outlook=grown(case))
    outlook = Outlook(case.outlook.max_events, bereft(trouble, len(dead)))
    return _refused(dead, again, wait_s=back_off_s(case, jitter), outlook=outlook)


def _suspecting(case: Case, suspects: int) -> Trouble:
    """The head's trouble with so many suspects, refused since now where some of them are new."""
    trouble = trouble_of(case)
    some_are_new = not trouble.refused_ms or trouble.suspects < suspects
    refused_ms = case.answered_ms if some_are_new else trouble.refused_ms
    return suspecting(trouble, suspects, refused_ms)


def _refused(
    dead: Mapping[int, Death] | None = None,
    again: frozenset[int] = frozenset(),
    *,
    wait_s: float | None = None,
    outlook: Outlook,
) -> Verdict:
    return Verdict(
        Answered.REFUSED,
        Outcome.REFUSED,
        dead or {},
        again,
        wait_s,
        failed=wait_s is not None,
        outlook=outlook,
    )


def _death(status: int, said: Said, message: str = "", reason: Dead = Dead.REFUSED) -> Death:
    return Death(reason, message or said.message or f"status {status}")
