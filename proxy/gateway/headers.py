"""Which headers go through the gateway, in each direction.

Towards Outlit: only those that may matter to an answer, so that no cookie, no address of a caller's, no token
of ours and no switch of somebody's router gets there. Back: all but those that speak of a connection, or
would tell a browser something about this host.
"""

import re

from multidict import CIMultiDict, CIMultiDictProxy
from pydantic import SecretStr

from proxy.gateway.answers import SAFE_HEADERS

_TOWARDS = frozenset(
    {
        *("accept", "accept-language", "content-type", "content-language", "user-agent"),
        *(
            "if-match",
            "if-none-match",
            "if-modified-since",
            "if-unmodified-since",
            "if-range",
            "range",
            "idempotency-key",
        ),
        *("last-event-id", "traceparent", "tracestate", "x-request-id", "x-correlation-id", "prefer"),
    }
)
_TOWARDS_BEGINNING = ("x-outlit-", "outlit-", "mcp-")

_NOT_BACK = frozenset(
    {
        # of the connection
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("proxy-authenticate", "content-length", "via"),
        # of the host, to a browser
        *("set-cookie", "set-cookie2", "strict-transport-security", "public-key-pins", "alt-svc"),
        *("clear-site-data", "report-to", "reporting-endpoints", "nel", "expect-ct", "timing-allow-origin"),
        *("service-worker-allowed", "sourcemap", "refresh"),
        # to another proxy
        *("proxy-status", "cache-status", "x-sendfile"),
    }
)
_NOT_BACK_BEGINNING = ("access-control-", "x-accel-")

_GZIP = re.compile(r"gzip(\s*;\s*q=(1(\.0*)?|0\.0*[1-9]\d*))?")
_SENDABLE = re.compile(r"[\t\x20-\x7e\x80-\ud7ff\ue000-\U0010ffff]*")
"""What our server writes: no control characters, and nothing that was no UTF-8."""


_UNTYPED = "application/octet-stream"
"""The Content-Type of what came without one, as our server says it."""


class Unprintable(str):
    """A header's value that no traceback and no `repr` shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'**********'"


def towards(headers: CIMultiDictProxy[str], key: SecretStr, *, is_tool_call: bool) -> CIMultiDict[str]:
    """Those of a caller's that go upstream, and the key. A tool's call was read as JSON, and is sent so."""
    passed = CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() in _TOWARDS or name.lower().startswith(_TOWARDS_BEGINNING)
    )
    if is_tool_call:
        passed["Content-Type"] = "application/json"
    # One that our readers know, if the caller knows it too; what comes is passed as it comes.
    passed["Accept-Encoding"] = "gzip" if _accepts_gzip(headers) else "identity"
    passed["Authorization"] = Unprintable(f"Bearer {key.get_secret_value()}")
    return passed


def _accepts_gzip(headers: CIMultiDictProxy[str]) -> bool:
    accepted = ",".join(headers.getall("Accept-Encoding", []))
    return any(_GZIP.fullmatch(coding.strip().lower()) for coding in accepted.split(","))


def content_type(headers: CIMultiDictProxy[str]) -> str:
    """That of an upstream answer, as its caller gets it."""
    given = headers.get("Content-Type", _UNTYPED)
    return given if _SENDABLE.fullmatch(given) else _UNTYPED


def back(
    headers: CIMultiDictProxy[str], upstream_url: str, prefix: str, *, is_decoded: bool
) -> CIMultiDict[str]:
    """Those of an upstream answer's that its caller gets. `is_decoded`: its body is not as it came.

    A redirect within the API, which is below `upstream_url`, leads to the gateway, where the API stands
    behind `prefix`.
    """
    named = {name.strip().lower() for value in headers.getall("Connection", []) for name in value.split(",")}
    left_out = _NOT_BACK | named | ({"content-encoding"} if is_decoded else set())
    passed = CIMultiDict(
        (name, value)
        for name, value in headers.items()
        if name.lower() not in left_out
        and not name.lower().startswith(_NOT_BACK_BEGINNING)
        and _SENDABLE.fullmatch(value)
    )
    if (where := passed.get("Location")) is not None:
        within = where.removeprefix(upstream_url)
        if within.startswith("/api/"):
            passed["Location"] = prefix + within
    passed.update(SAFE_HEADERS)  # whatever Outlit allows: it does not know of the key that was put in
    return passed
