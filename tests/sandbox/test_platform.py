"""The Platform API as its callers see it: every route with every answer of its own, and what it changes."""

import pytest
from yarl import URL

from tests.sandbox.bodies import KEY

ITEM = "id name category status connectionId lastDataReceivedAt syncStatus errorMessage"
"""The fields of an integration."""


async def test_a_key_is_told_whether_it_is_valid(call):
    reply = await call("POST", "/api/validate-api-key")
    assert (reply.status, reply.body["valid"]) == (200, True)
    assert set(reply.body) == {"valid", "organizationId", "createdById", "authorization"}
    assert reply.body["authorization"]["grants"]
    reply = await call("POST", "/api/validate-api-key", key="ok_revoked_yesterday")
    assert (reply.status, reply.body) == (401, {"valid": False, "error": "Invalid credentials"})


@pytest.mark.parametrize(
    "authorization",
    [
        [],
        ["Bearer an-operators-token"],
        [f"Basic {KEY}"],
        [f"bearer {KEY}"],
        [KEY],
        [f"Bearer {KEY} {KEY}"],
        ["Bearer ok_"],
        ["Bearer ok_revoked"],
        [f"Bearer {KEY}", f"Bearer {KEY}"],
    ],
    ids=lambda headers: " + ".join(headers) or "none",
)
@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/validate-api-key", {"valid": False, "error": "Invalid credentials"}),
        ("POST", "/api/tools/call", {"error": "Invalid credentials"}),
        ("GET", "/api/integrations", {"error": "Invalid credentials"}),
    ],
)
async def test_only_one_bearer_with_a_key_is_let_in(call, sandbox, authorization, method, path, body):
    headers = [("Authorization", value) for value in authorization]
    reply = await call(method, path, key=None, headers=headers)
    assert (reply.status, reply.body) == (401, body)
    (entry,) = sandbox.platform.calls.entries
    assert not entry.executed
    assert not [name for name, _ in entry.headers if name == "authorization"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/"),
        ("GET", "/api/settings"),
        ("DELETE", "/api/agents/1"),
        ("POST", "/api/tools"),
        ("POST", "/api/tools/call/"),
        ("POST", "/api/TOOLS/call"),
        ("POST", "/api/tools/../tools/call"),
        ("GET", "/api/integrations/nothing"),
        ("GET", "/api/ix"),
    ],
)
async def test_what_is_not_there_is_not_found_whoever_asks(call, method, path):
    for key in (KEY, None):
        reply = await call(method, URL(path, encoded=True), key=key)
        assert (reply.status, reply.body) == (404, {"error": "Not found"})


async def test_the_ingest_api_keeps_its_paths(http, sandbox):
    for path in (
        "/api/i",
        "/api/i/",
        "/api/i/v1/pk_test/event",
        "/api",
        "/apix/tools/call",
        "//api/tools/call",
    ):
        async with http.post(URL(f"{sandbox.url}{path}", encoded=True)) as response:
            assert response.status == 404
            assert (await response.json())["success"] is False
    assert sandbox.record.stats.elsewhere == 6
    assert not sandbox.platform.calls.entries


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/validate-api-key", "POST"),
        ("OPTIONS", "/api/tools/call", "POST"),
        ("POST", "/api/integrations", "GET"),
        ("GET", "/api/integrations/connect", "POST"),
    ],
)
async def test_another_method_is_refused_with_the_right_one(call, method, path, allowed):
    reply = await call(method, path)
    assert (reply.status, reply.headers["Allow"]) == (405, allowed)
    assert "error" in reply.body


@pytest.mark.parametrize(
    ("raw", "headers", "status", "said"),
    [
        (b"", (), 400, "tool is required"),
        (b"{", (), 400, "not JSON"),
        (b"[]", (), 400, "JSON object"),
        (b'{"tool": "outlit_schema", "tool": "outlit_query"}', (), 400, "stands twice"),
        (b'{"tool": 7}', (), 400, "tool is required"),
        (b'{"tool": "outlit_schema", "input": []}', (), 400, "input must be an object"),
        (b'{"tool": "outlit_schema"}', (("Content-Type", "text/plain"),), 400, "Content-Type"),
        (b'{"tool": "outlit_schema"}', (("Content-Encoding", "gzip"),), 400, "compressed"),
        (b" " * 1_000_001, (), 413, "1000000 bytes"),
    ],
    ids=lambda value: ascii(value)[:40],
)
async def test_a_malformed_call_is_refused(call, sandbox, raw, headers, status, said):
    reply = await call("POST", "/api/tools/call", raw, headers=headers)
    assert reply.status == status
    assert said in reply.body["error"]
    assert not sandbox.platform.calls.entries[0].executed


async def test_an_unknown_tool_is_refused_in_the_newer_shape(tool, sandbox):
    reply = await tool("outlit_delete_everything")
    request_id = reply.body.pop("requestId")
    assert (reply.status, reply.body) == (
        404,
        {"code": "tool_not_found", "message": "Unknown tool: outlit_delete_everything", "retryable": False},
    )
    assert (await tool("outlit_delete_everything")).body["requestId"] != request_id
    assert sandbox.platform.calls.stats.executed == {}


@pytest.mark.parametrize(
    ("name", "given", "status", "code"),
    [
        ("outlit_get_customer", {}, 400, "invalid_input"),
        ("outlit_get_customer", {"customer": 7}, 400, "invalid_input"),
        ("outlit_get_customer", {"customer": "nobody"}, 404, "not_found"),
        ("outlit_get_timeline", {"customer": "nobody"}, 404, "not_found"),
        ("outlit_list_facts", {"customer": "nobody"}, 404, "not_found"),
        ("outlit_list_customers", {"limit": 0}, 400, "invalid_input"),
        ("outlit_list_customers", {"limit": True}, 400, "invalid_input"),
        ("outlit_list_customers", {"cursor": "next"}, 400, "invalid_input"),
        ("outlit_get_source", {"sourceType": "CALL", "sourceId": "mail_1"}, 404, "not_found"),
        ("outlit_send_notification", {"customer": "acme.example"}, 400, "invalid_input"),
        ("outlit_send_notification", {"customer": "nobody", "title": "Hello"}, 404, "not_found"),
        ("outlit_query", {"sql": "SELEC 1"}, 400, "invalid_query"),
        ("outlit_query", {"sql": ""}, 400, "invalid_input"),
        ("outlit_query", {"sql": "SELECT 1; SELECT 2"}, 400, "invalid_query"),
        ("outlit_query", {"sql": "DELETE FROM customers"}, 400, "invalid_query"),
        ("outlit_query", {"sql": "ATTACH 'other.db' AS other"}, 400, "invalid_query"),
        ("outlit_query", {"sql": "PRAGMA query_only"}, 400, "invalid_query"),
        ("outlit_query", {"sql": "SELECT randomblob(1000000000)"}, 400, "invalid_query"),
        (
            "outlit_query",
            {"sql": "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT sum(x) FROM n"},
            400,
            "invalid_query",
        ),
    ],
    ids=lambda value: ascii(value)[:50],
)
async def test_a_tool_refuses_what_it_cannot_take(tool, sandbox, name, given, status, code):
    reply = await tool(name, **given)
    assert (reply.status, reply.body["code"], reply.body["retryable"]) == (status, code, False)
    assert not sandbox.platform.calls.entries[0].executed


async def test_customers_are_listed_in_pages_and_searched(tool):
    whole = (await tool("outlit_list_customers")).body
    assert whole["pagination"] == {"hasMore": False, "nextCursor": None, "total": 3}
    first = (await tool("outlit_list_customers", limit=2)).body
    second = (await tool("outlit_list_customers", limit=2, cursor=first["pagination"]["nextCursor"])).body
    assert first["items"] + second["items"] == whole["items"]
    found = (await tool("outlit_list_customers", search="GLOBEX", status="trialing")).body["items"]
    assert [each["domain"] for each in found] == ["globex.example"]


async def test_a_customer_is_found_by_id_domain_and_name_with_what_is_known_of_it(tool):
    found = [
        (await tool("outlit_get_customer", customer=named)).body
        for named in ("cus_acme", "acme.example", "Acme")
    ]
    assert found[0] == found[1] == found[2]
    assert found[0]["facts"] == (await tool("outlit_list_facts", customer="cus_acme")).body["items"]
    (fact,) = found[0]["facts"]
    source = await tool("outlit_get_source", sourceType=fact["sourceType"], sourceId=fact["sourceId"])
    assert source.body["source"]["customerId"] == "cus_acme"


async def test_search_ranks_by_what_is_shared_with_the_query(tool):
    found = (await tool("outlit_search_customer_context", query="single sign-on")).body["items"]
    assert {each["customerId"] for each in found} == {"cus_globex"}
    assert [each["score"] for each in found] == sorted((each["score"] for each in found), reverse=True)
    assert (await tool("outlit_search_customer_context", query="helicopter")).body["items"] == []


async def test_sql_reads_what_the_schema_names(tool):
    for table in (await tool("outlit_schema")).body["tables"]:
        answer = await tool("outlit_query", sql=f"SELECT * FROM {table['name']}")
        assert answer.body["columns"] == table["columns"]
        assert answer.body["rowCount"] == len(answer.body["rows"]) > 0
    odd = await tool("outlit_query", sql="SELECT x'00ff' AS bytes, 9e999 AS far, NULL AS none, 2 AS two")
    assert odd.body["rows"] == [{"bytes": "00ff", "far": None, "none": None, "two": 2}]


async def test_a_notification_is_sent_once_a_call_and_stands_in_the_timeline(tool, sandbox):
    async def timeline():
        return (await tool("outlit_get_timeline", customer="acme.example")).body["items"]

    before = await timeline()
    sent = await tool("outlit_send_notification", customer="acme.example", title="Renewal at risk")
    assert sent.body["sent"] is True
    added = [each for each in await timeline() if each not in before]
    assert [(each["id"], each["title"]) for each in added] == [
        (sent.body["notificationId"], "Renewal at risk")
    ]
    assert sandbox.platform.calls.stats.executed["outlit_send_notification"] == 1


async def test_integrations_are_listed_and_filtered(call):
    every = (await call("GET", "/api/integrations")).body["items"]
    assert all(set(each) == set(ITEM.split()) for each in every)
    connected = (await call("GET", "/api/integrations?connectedOnly=true")).body["items"]
    assert connected == [each for each in every if each["connectionId"] is not None]
    assert {each["status"] for each in every} == {"connected", "error", "not_connected"}
    assert (await call("GET", "/api/integrations?connectedOnly=false")).body["items"] == every
    reply = await call("GET", "/api/integrations?connectedOnly=yes")
    assert reply.status == 400
    assert "connectedOnly" in reply.body["error"]


async def test_an_integration_is_connected_through_a_session_and_disconnected(call):
    stripe = {"provider": "stripe"}

    async def status():
        items = (await call("GET", "/api/integrations")).body["items"]
        return next(each["status"] for each in items if each["id"] == "stripe")

    session = (await call("POST", "/api/integrations/connect", stripe)).body
    assert session["connectUrl"].endswith(session["sessionId"])
    assert await status() == "not_connected"
    poll = f"/api/integrations/connect/status?sessionId={session['sessionId']}"
    assert [(await call("GET", poll)).body["status"] for _ in range(3)] == [
        "pending",
        "connected",
        "connected",
    ]
    assert await status() == "connected"
    again = await call("POST", "/api/integrations/connect", stripe)
    assert (again.status, again.body) == (409, {"error": "Stripe is connected already"})
    synced = (await call("GET", "/api/integrations/sync-status?provider=stripe")).body
    assert (synced["syncStatus"], synced["errorMessage"]) == ("synced", None)
    assert (await call("POST", "/api/integrations/disconnect", stripe)).body["success"] is True
    assert await status() == "not_connected"
    assert (await call("POST", "/api/integrations/disconnect", stripe)).status == 409


async def test_a_broken_connection_can_be_connected_again(call):
    hubspot = {"provider": "hubspot"}
    assert (await call("GET", "/api/integrations/sync-status?provider=hubspot")).body[
        "syncStatus"
    ] == "failed"
    session = (await call("POST", "/api/integrations/connect", hubspot)).body["sessionId"]
    for _ in range(2):
        await call("GET", f"/api/integrations/connect/status?sessionId={session}")
    assert (await call("GET", "/api/integrations/sync-status?provider=hubspot")).body["errorMessage"] is None


async def test_what_can_be_set_up_is_told_step_by_step(call):
    every = (await call("GET", "/api/integrations/capabilities")).body["providers"]
    (pylon,) = (await call("GET", "/api/integrations/capabilities?provider=pylon")).body["providers"]
    assert pylon in every
    step = {"provider": "pylon", "step": pylon["setupSteps"][0]}
    assert (await call("POST", "/api/integrations/setup-step", step)).body[
        "status"
    ] == "manual_setup_required"
    assert (await call("POST", "/api/integrations/setup-step", {"provider": "pylon"})).status == 400


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/integrations/connect", {"provider": "fax"}),
        ("POST", "/api/integrations/connect", {"provider": ["slack"]}),
        ("POST", "/api/integrations/disconnect", None),
        ("GET", "/api/integrations/connect/status?sessionId=none", None),
        ("GET", "/api/integrations/connect/status", None),
        ("GET", "/api/integrations/sync-status?provider=fax", None),
        ("GET", "/api/integrations/capabilities?provider=fax", None),
        ("POST", "/api/integrations/setup-step", {"provider": "fax", "step": "dial"}),
    ],
)
async def test_an_unknown_integration_or_session_is_not_found(call, sandbox, method, path, body):
    reply = await call(method, path, body)
    assert (reply.status, set(reply.body)) == (404, {"error"})
    assert not sandbox.platform.calls.entries[0].executed


async def test_a_call_takes_nothing_from_a_public_keys_limit(call, start):
    small = await start(limit=1)
    for _ in range(3):
        reply = await call("GET", "/api/integrations", to=small)
        assert reply.status == 200
        assert "X-RateLimit-Limit" not in reply.headers
    assert small.record.stats.requests == {}
