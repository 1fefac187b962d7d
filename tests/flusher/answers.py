"""Upstream's answers, and the cases they meet."""

import json
from dataclasses import replace
from typing import Any

from proxy.buffer import Outlook, Trouble
from proxy.flusher.values import Case, Verdict
from proxy.flusher.verdict import judge
from proxy.gate import Evidence
from proxy.wire.answers import Answer, NoAnswer
from proxy.wire.rate_headers import RateHeaders

NOW = 1_700_000_000_000
HOUR = 3_600_000
FIVE = Case(5, claimed_ms=NOW, answered_ms=NOW + 100)
"""Five events, and nothing else is known."""

WELL = Evidence(requests=1_000, successes=1_000, proven_ms=NOW - 50, judged=20, taken=20)
"""Of a key whose requests are taken, the latest just before this one was claimed."""

LOST = NoAnswer(may_have_arrived=True, error="reset")
UNREACHED = NoAnswer(may_have_arrived=False, error="refused")


def answer(status: int, body: Any = b"", **rate: Any) -> Answer:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, RateHeaders(**rate), text)


def named(*indices: Any) -> dict[str, Any]:
    return {"processed": 0, "errors": [{"index": index, "message": f"bad {index}"} for index in indices]}


def pathed(*paths: Any) -> dict[str, Any]:
    return {"message": "Invalid body", "errors": [{"path": path, "message": "Invalid"} for path in paths]}


def judged(of: Answer | NoAnswer, case: Case = FIVE, *, jitter: float = 0.0, **changes: Any) -> Verdict:
    """The verdict on `case` with `changes`; `trouble` is a mapping of what is not usual about it."""
    trouble, outlook = changes.pop("trouble", None), changes.pop("outlook", case.outlook)
    max_events = changes.pop("max_events", outlook.max_events)
    outlook = Outlook(max_events, outlook.trouble if trouble is None else troubled(**trouble))
    return judge(of, replace(case, outlook=outlook, **changes), jitter)


def troubled(**changes: Any) -> Trouble:
    """A head that was first tried ten seconds ago."""
    return replace(Trouble(NOW - 10_000, 500, 500), **changes)


def lasting(verdict: Verdict) -> Trouble:
    """The trouble that is left to the next delivery."""
    assert verdict.outlook is not None
    assert verdict.outlook.trouble is not None
    return verdict.outlook.trouble
