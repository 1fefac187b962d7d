"""What `GET /status` answers, for tests that need more of it than a proxy can be brought to at once."""

from typing import Any


def snapshot(**changed: Any) -> dict[str, Any]:
    """Of a proxy that is well and has little to do. A table that is given is changed, not replaced."""
    whole: dict[str, Any] = {
        "administration": True,
        "as_operator": True,
        "at": "2026-07-01T12:00:10.000Z",
        "version": "0.1.0",
        "started_at": "2026-07-01T09:00:10.000Z",
        "ready": True,
        "checks": {"started": "ok", "running": "ok", "buffer": "ok"},
        "ledger": {
            "accepted": 4812,
            "held": 96,
            "delivered": 4713,
            "dead": 2,
            "dropped": 1,
            "difference": 0,
        },
        "buffer": {
            "engine": "SQLite",
            "durability": "always",
            "stored_bytes": 1_234_567,
            "max_bytes": 4_000_000_000,
            "queues": 38,
        },
        "upstream": {
            "url": "https://app.outlit.ai",
            "limit_per_s": 100.0,
            "rate_share": 1.0,
            "in_flight": 12,
        },
        "oldest_held_at": "2026-07-01T12:00:08.100Z",
        "time_to_drain_s": 0.4,
        "rates": {
            "window_s": 10.0,
            "accepted_per_s": 48.1,
            "rejected_per_s": 0.0,
            "delivered_per_s": 47.9,
            "requests_per_s": 20.1,
            "failed_per_s": 0.0,
            "events_per_request": 2.4,
            "budget_used": 0.2,
        },
        "dead": {"count": 2, "by_reason": {"refused": 2, "poison": 0}},
        "config": {"reloaded_at": None, "successful": True, "error": None, "needs_restart": []},
        "keys": [key("pk_abc")],
        "keys_left_out": 0,
        "troubles": [],
        "gateway": {
            "on": True,
            "api_key": True,
            "tools": "all",
            "in_flight": 0,
            "key_refused_at": None,
            "refused": [],
        },
    }
    for name, value in changed.items():
        whole[name] = {**whole[name], **value} if isinstance(value, dict) else value
    return whole


def key(name: str, **changed: Any) -> dict[str, Any]:
    """One of its keys."""
    return {
        "key": name,
        "confirmed": True,
        "paused": None,
        "paused_for_s": 0.0,
        "by_operator": False,
        "forbidden_origins": [],
        "rate_per_s": 96.0,
        "limit_per_s": 100.0,
        "queues": 38,
        "stored_bytes": 1_234_567,
        "oldest_held_at": "2026-07-01T12:00:08.100Z",
        "time_to_drain_s": 0.4,
        "queue_waits": False,
        "ambiguous": 0,
        "books": {"accepted": 4812, "held": 96, "delivered": 4713, "dead": 2, "dropped": 1, "difference": 0},
        **changed,
    }


def used_up(feature: str | None = "api_calls", **changed: Any) -> dict[str, Any]:
    """Something that a plan has used up."""
    return {
        "code": "plan_api_limit_exceeded",
        "feature": feature,
        "plan": "growth",
        "status": 402,
        "key": "gateway.api_key",
        "since": "2026-07-01T11:00:10.000Z",
        "until": "2026-07-01T15:00:10.000Z",
        "answered": 1_234,
        **changed,
    }


def trouble(name: str, severity: str = "error", key: str | None = None, **changed: Any) -> dict[str, Any]:
    """Something that is wrong."""
    return {
        "name": name,
        "severity": severity,
        "key": key,
        "what": "Something is wrong.",
        "what_to_do": "Mend it.",
        "section": "#when-outlit-is-the-trouble",
        **changed,
    }
