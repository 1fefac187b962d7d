"""What callers are told where the gateway answers by itself, for each reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.ledger import OwnCode


@dataclass(frozen=True, slots=True)
class Kind:
    """What all answers of a code have in common; `error`: RFC 9209's name for it."""

    status: int
    error: str
    text: str
    is_retryable: bool = False


KINDS: Final[Mapping[OwnCode, Kind]] = {
    OwnCode.GATEWAY_OFF: Kind(403, "proxy_configuration_error", "off: set ops.token to use this"),
    OwnCode.NO_API_KEY: Kind(
        403, "proxy_configuration_error", "gateway.api_key is not set: set it, or call with an ok_ key"
    ),
    OwnCode.UNAUTHORIZED: Kind(
        401, "http_request_denied", "give ops.token, or an API key: Authorization: Bearer <token>"
    ),
    OwnCode.HOST_NOT_ALLOWED: Kind(403, "http_request_denied", "this host is not one of ops.allowed_hosts"),
    OwnCode.PATH_REFUSED: Kind(400, "http_request_error", "the path could be read in two ways"),
    OwnCode.NOT_FOUND: Kind(404, "http_request_error", "nothing here"),
    OwnCode.METHOD_NOT_ALLOWED: Kind(405, "http_request_error", "this method is not for this path"),
    OwnCode.REQUEST_TIMEOUT: Kind(
        408, "http_request_error", "the body did not come in time", is_retryable=True
    ),
    OwnCode.BODY_TOO_LARGE: Kind(413, "http_request_error", "the body is larger than 1 MB"),
    OwnCode.MALFORMED_BODY: Kind(400, "http_request_error", "the body cannot be read"),
    OwnCode.UNSUPPORTED_ENCODING: Kind(415, "http_request_error", "send the body without Content-Encoding"),
    OwnCode.TOOL_NOT_ALLOWED: Kind(403, "http_request_denied", "this tool is not one of gateway.tools"),
    OwnCode.OVERLOADED: Kind(503, "connection_limit_reached", "too many calls at once", is_retryable=True),
    OwnCode.STOPPING: Kind(503, "destination_unavailable", "the proxy is being stopped", is_retryable=True),
    OwnCode.UPSTREAM_UNREACHABLE: Kind(
        502, "destination_unavailable", "Outlit cannot be reached; nothing was sent", is_retryable=True
    ),
    OwnCode.UPSTREAM_BROKEN: Kind(502, "http_response_incomplete", "no whole answer came from Outlit"),
    OwnCode.UPSTREAM_TIMEOUT: Kind(504, "http_response_timeout", "Outlit did not answer in time"),
    OwnCode.ANSWER_TOO_LARGE: Kind(
        502, "http_response_body_size", "the call was executed, and its answer is larger than 50 MB"
    ),
    OwnCode.INTERNAL: Kind(500, "proxy_internal_error", "internal error; see the log"),
}
