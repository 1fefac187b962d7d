"""What becomes of one request: its answer, the events taken, and what its sender did wrong.

Pure: from a request's values to an `Outcome`, and from there to what a fault makes of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from proxy.sandbox import answers
from proxy.sandbox.answers import Answer, ErrorForm
from proxy.sandbox.body import MalformedBodyError, read
from proxy.sandbox.conditions import marked
from proxy.sandbox.faults import Fault, Names, What
from proxy.sandbox.schema import BODY_BYTES_MAX, Path, Problem, events_of, judge
from proxy.sandbox.sensitive import leaks
from proxy.sandbox.violations import Violation, ViolationKind


@dataclass(frozen=True, slots=True)
class Rules:
    """How the service is played where its reference leaves room."""

    strict: bool = False
    """Refuse unknown fields of events and identities, and unknown event types."""
    partial: bool = True
    """Take the good events beside bad ones (207); False: refuse the request for one bad event (400)."""
    error_form: ErrorForm = "overview"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one request."""

    answer: Answer
    envelope: Mapping[str, object]
    """The body without `events`; empty where none could be read."""
    events: tuple[object, ...]
    """As they arrived, refused ones too."""
    taken: tuple[int, ...]
    """Indices into `events`."""
    violations: tuple[Violation, ...]


_NOTHING: Final[Mapping[str, object]] = {}
_REFUSED: Final = "Fault: refused"


def refused(status: int, message: str, rules: Rules) -> Outcome:
    """Refuse a request, its events unread."""
    answer = answers.refused(status, message, (), rules.error_form)
    return Outcome(answer, _NOTHING, (), (), (Violation(ViolationKind.REQUEST, (), message),))


def unread() -> Outcome:
    """Give the outcome of a request whose connection breaks before it is read."""
    return Outcome(Answer(400, "Never sent"), _NOTHING, (), (), ())


def limited(rules: Rules) -> Outcome:
    """Refuse a request beyond the limit, unread. No violation: a sender may find the limit by trying."""
    answer = answers.refused(429, "Rate limit exceeded", (), rules.error_form)
    return Outcome(answer, _NOTHING, (), (), ())


def judged(raw: bytes, rules: Rules) -> Outcome:
    """Read a body of at most `BODY_BYTES_MAX` bytes and decide which of its events are taken."""
    if len(raw) > BODY_BYTES_MAX:
        return refused(413, f"The body is larger than {BODY_BYTES_MAX} bytes", rules)
    try:
        body = read(raw)
    except MalformedBodyError as error:
        return refused(400, str(error), rules)
    judgement = judge(body, strict=rules.strict)
    events = events_of(body)
    violations = (
        *(_violation(ViolationKind.ENVELOPE, problem) for problem in judgement.envelope),
        *(_violation(ViolationKind.EVENT, problem) for problem in judgement.events.values()),
        *(found for index, event in enumerate(events) for found in _noticed(event, ("events", index))),
    )
    envelope = {name: value for name, value in body.items() if name != "events"}
    problems = (*judgement.envelope, *judgement.events.values())
    if judgement.envelope or (judgement.events and not rules.partial):
        answer = answers.refused(400, "Invalid request body", problems, rules.error_form)
        return Outcome(answer, envelope, events, (), violations)
    taken = tuple(index for index in range(len(events)) if index not in judgement.events)
    messages = [(index, problem.message) for index, problem in judgement.events.items()]
    return Outcome(answers.taken(len(taken), messages), envelope, events, taken, violations)


def struck(outcome: Outcome, fault: Fault, rules: Rules) -> Outcome:
    """Say what `fault` makes of an outcome: another answer, or nothing taken. Sabotage changes neither."""
    match fault.what:
        case What.STATUS:
            return replace(outcome, answer=_failure(fault, rules), taken=())
        case What.REFUSE:
            return replace(outcome, answer=_refusal(fault, outcome.events, rules), taken=())
        case What.TOO_LARGE:
            answer = answers.refused(fault.status_of(0), "Fault: too large", (), rules.error_form)
            return replace(outcome, answer=answer, taken=())
        case What.REFUSE_INDICES:
            return _partly_refused(outcome, fault)
        case What.BODY:
            return replace(outcome, answer=replace(outcome.answer, body=fault.body or ""))
        case What.HANG_BEFORE | What.RESET_BEFORE:
            return replace(outcome, taken=())
        case _:
            return outcome


def _failure(fault: Fault, rules: Rules) -> Answer:
    status = fault.status_of(0)
    answer = answers.refused(status, f"Fault: status {status}", (), rules.error_form)
    after = {} if fault.retry_after_s is None else {"Retry-After": str(fault.retry_after_s)}
    return replace(answer, headers=after, body=answer.body if fault.body is None else fault.body)


def _refusal(fault: Fault, events: tuple[object, ...], rules: Rules) -> Answer:
    # The form follows what the fault names: only one of the two can say it.
    status = fault.status_of(0)
    culprits = marked(events, fault)
    if fault.indices or fault.names is Names.INDICES:
        return answers.refused_by_index(status, [(index, _REFUSED) for index in fault.indices or culprits])
    if fault.paths or fault.names is Names.PATHS:
        paths = fault.paths or [("events", index) for index in culprits]
        return answers.refused(status, _REFUSED, [Problem(path, _REFUSED) for path in paths], "overview")
    return answers.refused(status, _REFUSED, (), rules.error_form)


def _partly_refused(outcome: Outcome, fault: Fault) -> Outcome:
    named = fault.indices or marked(outcome.events, fault)
    # True is no index, though to Python it equals 1.
    indices = {index for index in named if type(index) is int}
    taken = tuple(index for index in outcome.taken if index not in indices)
    answer = answers.taken(len(taken), [(index, _REFUSED) for index in named])
    return replace(outcome, answer=answer, taken=taken)


def _noticed(event: object, at: Path) -> tuple[Violation, ...]:
    if not isinstance(event, dict):
        return ()
    found = tuple(_violation(ViolationKind.SENSITIVE, problem) for problem in leaks(event, at))
    return found if "uuid" in event else (*found, Violation(ViolationKind.NO_UUID, at, "No uuid"))


def _violation(kind: ViolationKind, problem: Problem) -> Violation:
    return Violation(kind, problem.path, problem.message)
