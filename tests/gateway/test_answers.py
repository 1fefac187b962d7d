"""Every route of the Platform API, and every answer that is known of it: passed as it came.

The answers are bytes of the test's choice, spaced as no writer of ours would: what arrives must be the same.
"""

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.gateway.callers import BASES, Callers, mark
from tests.stack import Reply

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("at_once")]

AUTHORIZED = (
    '{ "valid":true, "organizationId":"org_1","createdById":"user_1","authorization":{"grants":["api:read"]}}'
)
BAD_KEY = '{"valid": false,  "error": "Invalid credentials"}'
TRY_AGAIN = '{"valid": false,  "error": "Temporarily unavailable"}'
LISTED = (
    '{"items":[{"id":"slack","name":"Slack","category":"chat","status":"connected","connectionId":"c_1",'
    '"lastDataReceivedAt":null,"syncStatus":"idle","errorMessage":null}]}'
)
CUSTOMERS = (
    '{"items": [{"id": "c1", "name": "Zo\\u00eb \\ud83d", "mrr": 1e400, "n": 123456789012345678901234}]}'
)


def plan(code: str, feature: str, reset_at: Any = None, **more: Any) -> str:
    words = "Your plan has exhausted its included API calls for the current billing cycle."
    return json.dumps(
        {"error": words, "code": code, "plan": "free", "feature": feature, "resetAt": reset_at, **more}
    )


def gateway_error(code: str, *, retryable: bool) -> str:
    return json.dumps(
        {"code": code, "message": "Something went wrong", "retryable": retryable, "requestId": "req_1"}
    )


@dataclass(frozen=True)
class Row:
    """One call and what Outlit says to it. `calls`: how many of it that costs."""

    method: str
    path: str
    status: int
    said: str
    sent: Any = None
    calls: int = 1
    outcome: str = "answered"
    headers: dict[str, str] = field(default_factory=lambda: {"Content-Type": "application/json"})

    @property
    def route(self) -> str:
        start = self.path.split("?")[0].split("/")[1]
        return {"validate-api-key": "validate", "tools": "tools", "integrations": "integrations"}.get(
            start, "other"
        )

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.status} {self.said[:40]}"


CALL = {"tool": "outlit_list_customers", "input": {"limit": 10, "name": "Zoë \U0001f600"}}
SESSION = "?sessionId=s%201&x=%2F"
SLACK = {"provider": "slack"}
TOOL = ("POST", "/tools/call")
LIST = ("GET", "/integrations")


def refused(*call: str, status: int, said: str, sent: Any = None, calls: int = 1) -> Row:
    return Row(call[0], call[1], status, said, sent, calls, "refused")


def failed(*call: str, status: int, said: str, sent: Any = None, calls: int = 1) -> Row:
    return Row(call[0], call[1], status, said, sent, calls, "failed")


OBJECT_ERROR = (
    '{"ok":false,"commandId":"settings.update","commandVersion":1,'
    '"error":{"code":"failed","message":"No","correlationId":"c","retryable":false}}'
)
INVALID = '{"error":"Invalid credentials"}'
ROWS = [
    Row("POST", "/validate-api-key", 200, AUTHORIZED),
    Row("POST", "/validate-api-key", 200, AUTHORIZED, {}),
    refused("POST", "/validate-api-key", status=401, said=BAD_KEY),
    failed("POST", "/validate-api-key", status=503, said=TRY_AGAIN, calls=3),
    failed("POST", "/validate-api-key", status=500, said='{"error":"Internal server error"}'),
    Row(*TOOL, 200, CUSTOMERS, CALL),
    Row(*TOOL, 200, "null", CALL),
    Row(*TOOL, 200, "", CALL),
    Row(*TOOL, 204, "", CALL),
    Row(*TOOL, 200, "no JSON \r\n at all", CALL, headers={"Content-Type": "text/plain"}),
    refused(*TOOL, status=400, said='{"error":"Invalid request body","details":[1]}', sent=CALL),
    refused(*TOOL, status=401, said=INVALID, sent=CALL),
    refused(*TOOL, status=402, said=plan("plan_api_limit_exceeded", "api_calls"), sent=CALL),
    refused(*TOOL, status=403, said=plan("api_limit_exceeded", "api_calls"), sent=CALL),
    refused(*TOOL, status=403, said='{"error":"Missing grant"}', sent=CALL),
    refused(*TOOL, status=404, said='{"error":"Unknown tool"}', sent=CALL),
    refused(*TOOL, status=429, said=plan("api_limit_exceeded", "api_calls"), sent=CALL),
    refused(*TOOL, status=429, said='{"error":"Rate limit exceeded"}', sent=CALL),
    refused(*TOOL, status=429, said=gateway_error("rate_limited", retryable=True), sent=CALL, calls=3),
    failed(*TOOL, status=502, said=gateway_error("warehouse_down", retryable=True), sent=CALL, calls=3),
    failed(*TOOL, status=502, said=gateway_error("query_failed", retryable=False), sent=CALL),
    failed(*TOOL, status=500, said='{"error":"Internal server error"}', sent=CALL),
    failed(*TOOL, status=503, said='{"error":"Service unavailable"}', sent=CALL),
    Row(*LIST, 200, LISTED),
    Row("GET", "/integrations?connectedOnly=true", 200, '{"items":[]}'),
    Row("POST", "/integrations/connect", 201, '{"sessionId":"s 1","url":"https://x.example/"}', SLACK),
    refused(
        "POST",
        "/integrations/connect",
        status=403,
        said=plan("plan_connection_limit_exceeded", "connections"),
        sent=SLACK,
    ),
    Row("GET", f"/integrations/connect/status{SESSION}", 200, '{"status":"pending"}'),
    refused("GET", f"/integrations/connect/status{SESSION}", status=404, said='{"error":"Not found"}'),
    Row("POST", "/integrations/disconnect", 200, '{"success":true}', SLACK),
    Row("DELETE", "/integrations/slack", 200, '{"success":true}'),
    Row("GET", "/integrations/sync-status?provider=slack", 200, '{"syncStatus":"syncing"}'),
    Row("GET", "/integrations/capabilities?provider=slack", 200, '{"capabilities":[]}'),
    Row("POST", "/integrations/setup-step", 200, '{"done":true}', {"provider": "slack", "step": "x"}),
    Row("PATCH", "/integrations/slack/setup-steps/channels", 200, '{"done":false}', {"channels": []}),
    refused("GET", "/integrations/nobody/sync-status", status=404, said='{"error":"Not found"}'),
    refused(*LIST, status=401, said=INVALID),
    failed(*LIST, status=500, said='{"error":"Internal server error"}', calls=3),
    failed("DELETE", "/integrations/slack", status=500, said='{"error":"Internal server error"}'),
    Row("GET", "/customers?limit=1&limit=2", 200, '{"items":[]}'),
    Row("POST", "/mcp/v2/things", 202, '{"id":"t"}', {"any": ["thing"]}),
    Row("PUT", "/v2/things/1", 200, '{"id":"1"}', {"a": None}),
    Row("PATCH", "/v2/things/1", 200, '{"id":"1"}', {"a": 1}),
    Row("DELETE", "/v2/things/1", 204, ""),
    refused("PATCH", "/settings", status=429, said=OBJECT_ERROR, sent={"a": 1}),
    failed("PATCH", "/settings", status=500, said=OBJECT_ERROR, sent={"a": 1}),
    refused("GET", "/no/such/route", status=404, said="<!doctype html><p>Not Found</p>"),
]


def of_ours(reply: Reply) -> set[str]:
    """The headers by which the gateway says that an answer is its own."""
    return {name for name in map(str.lower, reply.headers) if name in {"proxy-status", "cache-status"}}


@pytest.mark.parametrize(
    ("row", "bases"), list(zip(ROWS, itertools.cycle((BASES, BASES[::-1])), strict=False)), ids=str
)
async def test_every_answer_passes_as_it_came(callers: Callers, row: Row, bases: tuple[str, str]) -> None:
    """Of both kinds of callers, below both bases; and it costs one call where none may be repeated."""
    order = {"what": "answer", "status": row.status, "body": row.said, "headers": row.headers}
    path, _, query = row.path.partition("?")
    seen: list[dict[str, Any]] = []
    keys: list[str] = []
    await callers.order(order)

    async def ask() -> None:
        for caller, base in zip(("own", "operator"), bases, strict=True):
            reply = await callers.ask(row.method, row.path, row.sent, caller=caller, base=base)
            assert (reply.status, reply.body) == (row.status, row.said.encode())
            assert not row.said or reply.headers["Content-Type"].startswith(row.headers["Content-Type"])
            assert not of_ours(reply)
            keys.extend([callers.own_key if caller == "own" else callers.api_key] * row.calls)
            if row.route == "validate":  # what is known of a key is not asked again: see test_validate.py
                seen.extend(await callers.calls())
                await callers.begin()
                await callers.order(order)
        seen.extend(await callers.calls())

    grown = await callers.counted(ask)
    assert grown("gateway_requests_total", route=row.route, outcome=row.outcome) == 2
    assert grown("gateway_upstream_requests_total") == 2 * row.calls
    assert grown("gateway_request_seconds_count") == 2
    assert [call["key"] for call in seen] == [mark(key) for key in keys]
    for call in seen:
        assert (call["method"], call["path"], call["query"]) == (row.method, f"/api{path}", query)
        assert call["body"] == row.sent
