"""What each upstream answer means: one pure function and one table.

| Outlit's answer | the events of the request | their queue |
|---|---|---|
| 2xx but 207 | delivered, whatever the body says | goes on |
| 207 | those it names by index are dead (`refused`), the others delivered; none is sent again | goes on |
| 400, 413, 422, other 4xx: names events | these are dead (`refused`), the others go again | goes on |
| … names a field of the envelope | dead (`envelope_refused`) | goes on |
| … names nothing, to several events | go again | goes on with half of them, to find the bad one |
| … names nothing, to one event | dead (`refused`) | goes on |
| … while it may be that Outlit refuses all that the key sends | go again | waits 2 s, doubling to 5 min |
| 401, 402, 404, 3xx | go again | with its whole key, 15 s, doubling to 5 min; then one probe |
| 401 to a key that was never confirmed, for an hour | dead (`key_refused`) | goes on |
| 403 | go again; dead (`forbidden`) at `delivery.max_age` | waits 60 s, doubling to 1 h |
| 429 | go again | waits with its whole key, as long as Outlit says |
| 408, 425, 5xx, anything else | go again | waits 2 s, doubling to 5 min, or for `Retry-After` |
| none: nothing was sent | go again | waits 2 s, doubling to 5 min |
| none: it may have arrived | go again, counted and listed as ambiguous | waits 2 s, doubling to 5 min |
| the 4th failure in a row while the key's other requests succeed | go again | waits, then half of them |
| the 10th, of one event alone, while they do | dead (`poison`) | goes on |
| the 10th of a head older than `delivery.max_age` | dead (`expired`) | goes on |

Waits are spread by a fifth either way. What is about the key, the Origin or the rate is no failed try.
Refusals have a module of their own: `refusals`.
"""

from dataclasses import replace

from proxy.buffer import Death, Outlook
from proxy.flusher.outlooks import (
    after_success,
    back_off_s,
    bereft,
    doubling_s,
    grown,
    halved,
    suspecting,
    trouble_of,
)
from proxy.flusher.refusals import LEAST_TRIES, expired, judge_refusal
from proxy.flusher.values import Case, Verdict
from proxy.gate import Outcome
from proxy.ledger import Answered, Dead
from proxy.wire.answers import Answer, NoAnswer, Said, read_answer

_ABOUT_THE_KEY = frozenset({401, 402, 404})
_AS_A_SERVER_ERROR = frozenset({408, 425})

FORBIDDEN_S = 60.0
"""The first wait of a queue whose request was forbidden; it doubles with each further one …"""

MAX_FORBIDDEN_S = 3_600.0
"""… up to this: somebody may put the Origin right at any time."""

KEY_GIVEN_UP_MS = 3_600_000
"""So long a key that upstream never took anything of is refused before its events die."""

SUSPECT_TRIES = 4
"""From so many failed tries on it is looked for one event that makes upstream fail."""

OTHERS_AT_LEAST = 10
"""Requests of the key's other queues since a head's first failure, from which on …"""

OTHERS_SUCCEED = 0.95
"""… this share of successes says that it is the head's fault."""


def judge(answer: Answer | NoAnswer, case: Case, jitter: float) -> Verdict:
    """The verdict on a batch. `jitter` is a number from −1 to 1, drawn by the caller."""
    if isinstance(answer, NoAnswer):
        sent = answer.may_have_arrived
        name = Answered.UNANSWERED if sent else Answered.UNREACHED
        return replace(_failed(name, case, 0.0, jitter, answer.error), ambiguous=sent, message=answer.error)
    said = read_answer(answer.body)
    return replace(_read(answer, said, case, jitter), message=said.word)


def _read(answer: Answer, said: Said, case: Case, jitter: float) -> Verdict:
    match answer.status:
        case 207:
            return _partly_delivered(said, case)
        case status if 200 <= status < 300:
            return _delivered(said, case)
        case status if 300 <= status < 400 or status in _ABOUT_THE_KEY:
            return _key_refused(status, said, case)
        case 403:
            return _forbidden(said, case, jitter)
        case 429:
            return Verdict(Answered.RATE_LIMITED, Outcome.RATE_LIMITED, again=case.everything)
        case status if 400 <= status < 500 and status not in _AS_A_SERVER_ERROR:
            return judge_refusal(status, said, case, jitter)
        case status:
            least_s = answer.rate.retry_after_s or 0.0
            return _failed(Answered.FAILED, case, least_s, jitter, said.message or f"status {status}")


def _delivered(said: Said, case: Case) -> Verdict:
    consistent = said.success and said.processed in (None, case.events)
    return Verdict(
        Answered.DELIVERED, Outcome.TAKEN, outlook=after_success(case), inconsistent=not consistent
    )


def _partly_delivered(said: Said, case: Case) -> Verdict:
    """Upstream has taken the request, so nothing of it may ever be sent again."""
    dead = {
        complaint.index: Death(Dead.REFUSED, complaint.message or said.message)
        for complaint in said.complaints
        if complaint.index is not None and complaint.index < case.events
    }
    consistent = bool(dead) and len(dead) == len(said.complaints)
    consistent = consistent and said.processed in (None, case.events - len(dead))
    return Verdict(
        Answered.PARTLY_DELIVERED,
        Outcome.TAKEN if len(dead) < case.events else Outcome.REFUSED,
        dead,
        outlook=after_success(case),
        inconsistent=not consistent,
    )


def _key_refused(status: int, said: Said, case: Case) -> Verdict:
    """It is the key, not the events; but a key that was never confirmed must not keep its place for ever."""
    since_ms = case.evidence.refused_since_ms
    over = 0 < since_ms <= case.claimed_ms - KEY_GIVEN_UP_MS
    if status == 401 and over and not case.confirmed:
        dead = dict.fromkeys(case.everything, Death(Dead.KEY_REFUSED, said.message or "status 401"))
        return Verdict(Answered.KEY_REFUSED, Outcome.KEY_REFUSED, dead)
    return Verdict(Answered.KEY_REFUSED, Outcome.KEY_REFUSED, again=case.everything)


def _forbidden(said: Said, case: Case, jitter: float) -> Verdict:
    """Perhaps about the Origin alone, so the queue waits, and its key does not."""
    trouble = trouble_of(case)
    wait_s = doubling_s(FORBIDDEN_S, MAX_FORBIDDEN_S, trouble.forbidden, jitter)
    dead = dict.fromkeys(range(case.aged), Death(Dead.FORBIDDEN, said.message or "status 403"))
    again = case.everything - dead.keys()
    if not again:
        return Verdict(Answered.FORBIDDEN, Outcome.FORBIDDEN, dead, outlook=grown(case))
    left = bereft(replace(trouble, forbidden=trouble.forbidden + 1), len(dead))
    outlook = replace(case.outlook, trouble=left)
    return Verdict(Answered.FORBIDDEN, Outcome.FORBIDDEN, dead, again, wait_s, outlook=outlook)


def _failed(name: Answered, case: Case, least_s: float, jitter: float, message: str) -> Verdict:
    """Nothing is known of the events, unless the key's other requests succeed all the while."""
    trouble = trouble_of(case)
    dead = expired(case, message)
    outlook = Outlook(case.outlook.max_events, bereft(trouble, len(dead)))
    if _others_succeed(case):
        if case.events == 1 and case.tries >= LEAST_TRIES:
            dead = {0: Death(Dead.POISON, message)}
        elif case.tries >= SUSPECT_TRIES or trouble.suspects:
            # Suspects of another kind: if they are refused one day, that is for the first time.
            outlook = halved(case, suspecting(trouble, case.events - len(dead)))
    again = case.everything - dead.keys()
    if not again:
        return Verdict(name, Outcome.FAILED, dead, outlook=grown(case))
    wait_s = max(back_off_s(case, jitter), least_s)
    return Verdict(name, Outcome.FAILED, dead, again, wait_s, failed=True, outlook=outlook)


def _others_succeed(case: Case) -> bool:
    """Whether the key fared well, this head's own tries aside, since the first of them."""
    trouble = case.outlook.trouble
    if trouble is None:
        return False
    others = case.evidence.requests - trouble.requests - case.attempts
    succeeded = case.evidence.successes - trouble.successes
    return others >= OTHERS_AT_LEAST and succeeded >= OTHERS_SUCCEED * others
