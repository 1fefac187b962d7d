"""The answers: status and body; those of the Ingest API in both forms its reference gives for a refusal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from proxy.sandbox.schema import Problem

ErrorForm: TypeAlias = Literal["overview", "endpoint"]
"""The reference's overview page names errors by path, the endpoint's own page by index (-1: the request)."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is sent back: a status, a JSON body, and headers beyond those of the limit."""

    status: int
    body: object
    """JSON, or a text to be sent as it stands."""
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Give the body, JSON in ASCII: a message may quote a field name that is no valid Unicode."""
        return self.body if isinstance(self.body, str) else json.dumps(self.body)


def taken(count: int, refused: Sequence[tuple[object, str]]) -> Answer:
    """Answer for `count` events taken: 200, or 207 that names the `refused` by index, each with a message."""
    if not refused:
        return Answer(200, {"success": True, "processed": count})
    return Answer(207, {"success": False, "processed": count, "errors": _by_index(refused)})


def refused(
    status: int,
    message: str,
    problems: Sequence[Problem] = (),
    form: ErrorForm = "overview",
) -> Answer:
    """Answer for a request of which nothing was taken."""
    if form == "overview":
        errors = [{"path": list(problem.path), "message": problem.message} for problem in problems]
        return Answer(status, {"success": False, "message": message, "errors": errors})
    return refused_by_index(
        status, [(_index(problem), problem.message) for problem in problems] or [(-1, message)]
    )


def refused_by_index(status: int, refused: Sequence[tuple[object, str]]) -> Answer:
    """Answer for a request of which nothing was taken, because of the `refused`, in the endpoint's form."""
    return Answer(status, {"success": False, "processed": 0, "errors": _by_index(refused)})


def _by_index(refused: Sequence[tuple[object, str]]) -> list[dict[str, object]]:
    return [{"index": index, "message": message} for index, message in refused]


def _index(problem: Problem) -> int:
    match problem.path:
        case ("events", int(index), *_):
            return index
        case _:
            return -1
