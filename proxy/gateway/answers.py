"""What the gateway answers by itself: an answer of Outlit's again, or one of its own.

Its own have both of Outlit's shapes at once, so that every caller can read them. ``Proxy-Status`` (RFC 9209)
tells them from Outlit's, which pass unchanged.
"""

from collections.abc import Mapping
from typing import Final

import orjson
from aiohttp import web

from proxy.gateway.codes import KINDS
from proxy.ledger import OwnCode
from proxy.wire.platform import Kept

NAME: Final = "outlit-proxy"
"""What the gateway calls itself in ``Proxy-Status`` and ``Cache-Status``."""

SAFE_HEADERS: Final[Mapping[str, str]] = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
"""With every answer: what it holds is for its caller alone."""


def kept_answer(kept: Kept, lasts_s: int, *, is_of_plan: bool) -> web.Response:
    """Give one again; `lasts_s`: for how long it still would be. Of a plan it says so: ask again then."""
    headers = {
        **SAFE_HEADERS,
        "Content-Type": kept.content_type,
        "Cache-Status": f"{NAME}; hit; ttl={lasts_s}",  # RFC 9211
    }
    if is_of_plan:
        headers["Retry-After"] = str(lasts_s)
    return web.Response(status=kept.status, body=kept.body, headers=headers)


def own_answer(
    code: OwnCode,
    text: str | None = None,
    *,
    is_retryable: bool | None = None,
    is_of_validity: bool = False,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """An answer of the gateway's own.

    `text`, `is_retryable`: in place of what the code has. `is_of_validity`: to the question whether a key is
    valid, where a 401 says no in so many words.
    """
    kind = KINDS[code]
    message = text or kind.text
    body: dict[str, object] = {
        "error": message,
        "code": str(code),
        "message": message,
        "retryable": kind.is_retryable if is_retryable is None else is_retryable,
    }
    if is_of_validity and kind.status == 401:
        body = {"valid": False, **body}
    return web.Response(
        status=kind.status,
        body=orjson.dumps(body) + b"\n",
        content_type="application/json",
        headers={
            **SAFE_HEADERS,
            "Proxy-Status": f"{NAME}; error={kind.error}",
            **({"WWW-Authenticate": "Bearer"} if kind.status == 401 else {}),
            **(headers or {}),
        },
    )
