"""The answers of the Ingest API: status and body, in the two forms its reference gives for a refusal."""

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
    body: Mapping[str, object]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Give the body as JSON in ASCII: a message may quote a field name that is no valid Unicode."""
        return json.dumps(self.body)


def taken(count: int, refused: Mapping[int, str]) -> Answer:
    """Answer for `count` events taken: 200, or 207 that names the `refused` by index."""
    if not refused:
        return Answer(200, {"success": True, "processed": count})
    errors = [{"index": index, "message": message} for index, message in refused.items()]
    return Answer(207, {"success": False, "processed": count, "errors": errors})


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
    by_index = [{"index": _index(problem), "message": problem.message} for problem in problems]
    return Answer(
        status,
        {"success": False, "processed": 0, "errors": by_index or [{"index": -1, "message": message}]},
    )


def _index(problem: Problem) -> int:
    match problem.path:
        case ("events", int(index), *_):
            return index
        case _:
            return -1
