"""What the Platform API makes of a call by itself, and the three shapes in which it refuses one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from proxy.sandbox.answers import Answer

_REFUSED_FROM: Final = 400


@dataclass(frozen=True, slots=True)
class Verdict:
    """An answer, and what the call does if nothing comes between."""

    answer: Answer
    effect: Callable[[], object] | None = None
    """What it changes, if anything."""
    admitted: bool = True
    """Whether its key and its form are good."""

    @property
    def succeeds(self) -> bool:
        """Say whether what it asks for can be done."""
        return self.answer.status < _REFUSED_FROM


def done(body: object, effect: Callable[[], object] | None = None) -> Verdict:
    """Do what was asked for, and answer 200 with `body`."""
    return Verdict(Answer(200, body), effect)


def turned_away(
    status: int,
    error: str,
    *,
    said: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Verdict:
    """Refuse a call for its key or its form. `said` stands before the error."""
    return Verdict(Answer(status, {**(said or {}), "error": error}, headers or {}), admitted=False)


def refused(status: int, error: str) -> Verdict:
    """Refuse what a call asks for, in the older shape."""
    return Verdict(Answer(status, {"error": error}))


def refused_by_code(status: int, code: str, message: str, request_id: str) -> Verdict:
    """Refuse what a call asks for, in the tool gateway's newer shape."""
    return Verdict(
        Answer(status, {"code": code, "message": message, "retryable": False, "requestId": request_id})
    )
