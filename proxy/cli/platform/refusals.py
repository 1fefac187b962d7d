"""What an answer other than 2xx says, as one line for people: whose answer it is, why, and what to do. Pure.

Three may have written it: Outlit, whose answers the gateway passes on as they are and some of which it
remembers; the gateway itself, which says so by `Proxy-Status` (RFC 9209); or something that is no gateway.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import Message
from typing import Final

from proxy.cli.operations import IS_OFF, NOT_A_HOST, WITHOUT_A_PATH, object_of
from proxy.wire.platform import PlanRefusal, read_problem

_PROXY = "outlit-proxy"
"""How the gateway signs in `Proxy-Status` and `Cache-Status`."""

_SHOWN_CHARACTERS = 500

FARTHEST: Final = timedelta(days=400)
"""What of a plan is used up for longer, the gateway does not believe: it asks once an hour."""

MAY_BE_DONE = "it may have been done all the same: try again where that does no harm"
ANOTHER_KEY = "make a key at Outlit and set it as gateway.api_key of the proxy"

EXPLAINED: Final[Mapping[str, str]] = {
    "unauthorized": "it does not take this ops.token: give the one that the proxy runs with",
    "gateway_off": IS_OFF,
    "no_api_key": f"it has no key of Outlit's: {ANOTHER_KEY}, in its settings file or environment",
    "tool_not_allowed": "gateway.tools there does not name this tool: add it, and reload the proxy",
    "host_not_allowed": NOT_A_HOST,
    "overloaded": "as many calls are under way as it takes, or others went first; nothing was sent",
    "stopping": "it is being stopped",
    "not_found": f"nothing is there: {WITHOUT_A_PATH}",
    "body_too_large": "the input is larger than it takes: 1 MB at most",
    "answer_too_large": "Outlit has done it, and its answer is larger than is passed on: ask for less",
    "upstream_unreachable": "it does not reach Outlit, and has sent nothing",
    "upstream_broken": "no whole answer came from Outlit",
    "upstream_timeout": "Outlit did not answer within gateway.timeout",
}
"""Answers of the gateway's own, by their codes: what is wrong, and what to do about it."""

_HALFWAY = ("upstream_broken", "upstream_timeout", "stopping")
"""Those of them which leave it open whether Outlit has done what was asked."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """One such answer. `code`, `message`, `request_id`: others' words, cut; None: not said.

    `plan`: what of a plan does not allow it, if that is why. `is_own`: of the gateway. `is_remembered`: of
    Outlit, to an earlier call. `is_json`: whether it is a JSON object at all.
    """

    status: int
    code: str | None
    message: str | None
    request_id: str | None
    plan: PlanRefusal | None
    is_retryable: bool
    is_own: bool
    is_remembered: bool
    is_json: bool


def read(status: int, headers: Message, body: bytes) -> Refusal:
    """Read any of Outlit's shapes, or whatever else there is."""
    problem = read_problem(status, body)
    said = object_of(body)
    of = said or {}
    if isinstance(inner := of.get("error"), dict):
        of = {"message": json.dumps(inner), **inner}
    message = _text(of.get("message")) or _text(of.get("error"))
    return Refusal(
        status=status,
        code=_text(of.get("code")),
        message=message if said is not None else _text(body.decode(errors="replace").strip()),
        request_id=_text(of.get("requestId")) or _text(of.get("correlationId")),
        plan=problem.refusal,
        is_retryable=problem.is_retryable,
        is_own=_signed(headers.get_all("Proxy-Status")) is not None,
        is_remembered="hit" in (_signed(headers.get_all("Cache-Status")) or ()),
        is_json=said is not None,
    )


def in_words(refusal: Refusal, url: str, now: datetime, *, changes_nothing: bool) -> str:
    """The line. `url`: of the operations that were asked. `changes_nothing`: it is but a question."""
    notes = [*_of_the_plan(refusal.plan, now), *_of_another_try(refusal, changes_nothing=changes_nothing)]
    if refusal.request_id:
        notes.append(f"request {refusal.request_id}")
    return "; ".join([_what(refusal, url), *notes])


def _what(refusal: Refusal, url: str) -> str:
    said = " ".join(filter(None, (str(refusal.status), refusal.code)))
    if refusal.is_own:
        return f"{url}: {EXPLAINED.get(refusal.code or '') or f'{said}: {refusal.message}'}"
    said = f"Outlit answered {said}"
    if refusal.is_remembered:
        said += " to an earlier call, and was not asked again"
    return f"{said}: {refusal.message.rstrip('.')}" if refusal.message else said


def _of_the_plan(plan: PlanRefusal | None, now: datetime) -> list[str]:
    if plan is None:
        return []
    named = {"plan": plan.plan, "feature": plan.feature}
    notes = [", ".join(f"{name} {value}" for name, value in named.items() if value)]
    until = plan.reset_at_ms and datetime.fromtimestamp(plan.reset_at_ms / 1000, UTC)
    if until and until > now:
        hourly = ", which is asked about again within an hour" if until > now + FARTHEST else ""
        notes.append(
            f"used up until {until:%Y-%m-%d %H:%M:%S} UTC{hourly};"
            " after an upgrade of the plan: outlit-proxy platform retry"
        )
    return [note for note in notes if note]


def _of_another_try(refusal: Refusal, *, changes_nothing: bool) -> Iterator[str]:
    """Whether it is worth while, and does no harm."""
    is_halfway = refusal.code in _HALFWAY if refusal.is_own else refusal.status >= 500
    if refusal.is_retryable or (is_halfway and changes_nothing):
        yield "try again"
    elif is_halfway:
        yield MAY_BE_DONE
    elif refusal.is_own:
        return
    elif refusal.status == 401:
        yield ANOTHER_KEY
    elif refusal.status == 429 and refusal.plan is None:
        yield "try again later"
    elif 300 <= refusal.status < 400:
        yield "a redirect is not followed: see upstream.url of the proxy"


def _signed(values: list[str] | None) -> list[str] | None:
    """The parameters of the first member of a list header that the gateway signed."""
    for member in ",".join(values or ()).split(","):
        name, *parameters = (part.strip() for part in member.split(";"))
        if name == _PROXY:
            return parameters
    return None


def _text(value: object) -> str | None:
    """Others' word, cut; what is no text is shown as JSON."""
    if value is None or value == "":
        return None
    return (value if isinstance(value, str) else json.dumps(value))[:_SHOWN_CHARACTERS]
