"""What is sent: the smallest valid body of each kind, changes to it, and the key of a call."""

from typing import Any

VISITOR = "0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b"
OTHER_VISITOR = "0190a1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5c"
SESSION = "0190a1b2-0000-7000-8000-000000000001"
KEY = "ok_a_callers_key"


def event(kind: str = "pageview", number: int = 0, **fields: Any) -> dict[str, Any]:
    """A valid event; a field given as `...` is left out."""
    needed: dict[str, dict[str, Any]] = {
        "custom": {"eventName": "used"},
        "identify": {"email": "ann@acme.example"},
        "engagement": {"activeTimeMs": 10, "totalTimeMs": 20.5, "sessionId": SESSION},
        "calendar": {"provider": "cal.com"},
        "stage": {"stage": "activated"},
        "billing": {"status": "paid", "customerId": "cus_1"},
    }
    made = {
        "type": kind,
        "timestamp": 1_795_556_346_564,
        "url": "https://acme.example/pricing",
        "path": "/pricing",
        "uuid": f"0190a1b2-0000-7000-8000-{number:012d}",
        **needed.get(kind, {}),
        **fields,
    }
    return {name: value for name, value in made.items() if value is not ...}


def client(*events: Any, **envelope: Any) -> dict[str, Any]:
    """An envelope of a browser, of one page view unless told otherwise."""
    made = {"source": "client", "visitorId": VISITOR, "events": list(events) or [event()], **envelope}
    return {name: value for name, value in made.items() if value is not ...}


def server(*events: Any, **envelope: Any) -> dict[str, Any]:
    return client(*events, **{"source": "server", "visitorId": ..., **envelope})
