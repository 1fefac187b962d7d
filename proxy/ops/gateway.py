"""The Platform gateway, as `/status` shows it; and the operator's lever on what it remembers."""

from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from proxy.gateway import Figures, Gateway
from proxy.ops.answers import as_json, moment
from proxy.ops.parameters import Parameters
from proxy.settings import ALL


def of_the_gateway(figures: Figures | None, *, is_on: bool) -> dict[str, object] | None:
    """What is known of it, and nothing about a key but whether it is set and taken; None where there is none.

    `is_on`: there is an `ops.token`, without which nobody is let through.
    """
    if figures is None:
        return None
    at_ms = figures.key_refused_at_ms
    return {
        "on": is_on,
        "api_key": figures.api_key,
        "tools": "all" if ALL in figures.tools else list(figures.tools),
        "in_flight": figures.in_flight,
        "key_refused_at": None if at_ms is None else moment(at_ms),
        "refused": [
            {
                "code": each.code,
                "feature": each.feature,
                "plan": each.plan,
                "status": each.status,
                "key": "gateway.api_key" if each.is_own else "a caller's own",
                "since": moment(each.since_ms),
                "until": moment(each.until_ms),
                "answered": each.answered,
            }
            for each in figures.refused
        ],
    }


def retrying(gateway: Gateway) -> Callable[[web.Request], Awaitable[web.Response]]:
    """What answers `POST /gateway/retry`: nothing counts as used up any more, the next calls ask Outlit."""

    async def retry(request: web.Request) -> web.Response:
        Parameters.of_query(request).refuse_others()
        forgotten = gateway.retry()
        structlog.get_logger("ops").info("what plans have used up is forgotten", refusals=forgotten)
        return as_json({"forgotten": forgotten})

    return retry
