"""What the sandbox is told to say of a plan that is used up."""

from typing import Any

HOUR_S = 3_600


def exhausted(**more: Any) -> dict[str, Any]:
    """The plan's calls are used up."""
    return {
        "what": "plan",
        "code": "api_limit_exceeded",
        "feature": "api_calls",
        "plan": "free",
        "status": 402,
        "reset_in_s": HOUR_S,
        **more,
    }


def no_connection(**more: Any) -> dict[str, Any]:
    """The plan allows no further connection."""
    return exhausted(
        code="plan_connection_limit_exceeded",
        feature="connections",
        status=403,
        method="POST",
        route="integrations",
        **more,
    )
