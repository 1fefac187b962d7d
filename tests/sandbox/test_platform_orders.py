"""What can be ordered of the Platform API: what its caller sees, and whether the call took effect."""

import asyncio
import json
import math

import pytest

from proxy.sandbox import Happens, Incident, Link, OrderError, Route, script_of
from proxy.sandbox.orders import platform_of
from proxy.sandbox.platform.keys import digest
from tests.sandbox.bodies import KEY

NOTICE = {"tool": "outlit_send_notification", "input": {"customer": "acme.example", "title": "Hello"}}


@pytest.fixture
def order(sandbox, clock):
    """Order something, of as many calls as come unless told otherwise."""

    def ordered(what, **details):
        sandbox.platform.incidents.add(Incident(what=Happens(what), **details), now=clock())

    return ordered


@pytest.fixture
def notices(sandbox):
    """Count the notifications that were sent."""
    return lambda: len(sandbox.platform.workspace.notices)


async def wire(sandbox, method="POST", path="/api/tools/call", body=NOTICE):
    """Call over a bare connection, so that what ends it can be told."""
    reader, writer = await asyncio.open_connection(*sandbox.url.removeprefix("http://").split(":"))
    raw = json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw)
    return reader, writer


# -- plan ----------------------------------------------------------------------------------------------


async def test_an_exhausted_plan_refuses_every_tool_and_nothing_else(tool, call, order, notices, sandbox):
    order("plan")
    for name in ("outlit_schema", "outlit_send_notification", "no_such_tool"):
        reply = await tool(name, customer="acme.example", title="Hello")
        text = reply.body.pop("error")
        assert "exhausted" in text
        assert (reply.status, reply.body) == (
            429,
            {"code": "api_limit_exceeded", "plan": "free", "feature": "api_calls", "resetAt": None},
        )
    assert notices() == 0
    assert (await call("POST", "/api/validate-api-key")).status == 200
    assert (await call("GET", "/api/integrations")).status == 200
    executed = [(each.incident, each.executed) for each in sandbox.platform.calls.entries]
    assert executed == [("plan", False)] * 3 + [(None, True)] * 2


async def test_a_plan_says_what_it_is_told_to_say(tool, order):
    order("plan", status=402, code="plan_api_limit_exceeded", plan="team", feature="search", error="No more")
    reply = await tool("outlit_schema")
    assert (reply.status, reply.body) == (
        402,
        {
            "error": "No more",
            "code": "plan_api_limit_exceeded",
            "plan": "team",
            "feature": "search",
            "resetAt": None,
        },
    )


@pytest.mark.parametrize("reset_at", [None, 0, -1, 1.5, 2**70, "soon", [1], True])
async def test_a_plan_sends_any_reset_as_it_stands_and_lasts(tool, order, clock, reset_at):
    order("plan", reset_at=reset_at)
    for _ in range(2):
        assert (await tool("outlit_schema")).body["resetAt"] == reset_at
        clock.now += 10_000


async def test_a_plan_is_renewed_at_the_moment_that_it_names(tool, order, clock):
    order("plan", after_s=1, reset_in_s=60)
    assert (await tool("outlit_schema")).status == 200
    began = clock.now + 1
    for clock.now in (began, began + 59.9):
        reply = await tool("outlit_schema")
        assert (reply.status, reply.body["resetAt"]) == (429, math.ceil((began + 60) * 1000))
    clock.now = reply.body["resetAt"] / 1000
    assert (await tool("outlit_schema")).status == 200


async def test_a_plan_that_is_told_how_long_it_lasts_lasts_so_long(tool, order, clock):
    order("plan", reset_in_s=60, seconds=90)
    clock.now += 80
    reply = await tool("outlit_schema")
    assert reply.status == 429
    assert reply.body["resetAt"] / 1000 < clock.now
    clock.now += 10
    assert (await tool("outlit_schema")).status == 200


async def test_an_allowance_is_used_up_by_calls_that_succeed(tool, call, order, sandbox):
    order("plan", allowance=2)
    statuses = [
        (await tool("outlit_schema")).status,
        (await tool("outlit_get_customer", customer="nobody")).status,  # fails: costs nothing
        (await tool("outlit_schema")).status,
        (await tool("outlit_get_customer", customer="nobody")).status,
        (await tool("outlit_schema")).status,
    ]
    assert statuses == [200, 404, 200, 429, 429]
    assert (await call("POST", "/api/tools/call", {})).status == 400
    assert sandbox.platform.calls.stats.executed == {"outlit_schema": 2}


async def test_an_allowance_is_not_used_up_by_a_call_that_another_order_keeps_from_running(tool, order):
    order("plan", allowance=1)
    order("answer", status=503, requests=1)
    assert [(await tool("outlit_schema")).status for _ in range(3)] == [503, 200, 429]


async def test_a_call_that_is_not_admitted_is_no_question_of_the_plan(call, order):
    order("plan")
    assert (await call("POST", "/api/tools/call", NOTICE, key="ok_revoked")).status == 401
    assert (await call("POST", "/api/tools/call", {"tool": ""})).status == 400


async def test_a_plan_for_one_tool_leaves_the_others(tool, order):
    order("plan", tool="outlit_query", feature="sql")
    assert (await tool("outlit_query", sql="SELECT 1")).body["feature"] == "sql"
    assert (await tool("outlit_schema")).status == 200


async def test_a_plan_may_be_that_of_one_key(call, control):
    orders = [{"what": "plan", "key": KEY}, {"what": "plan", "key": digest("ok_other"), "requests": 1}]
    status, shown = await control("POST", "platform", orders)
    assert (status, [each["key"] for each in json.loads(shown)]) == (200, [digest(KEY), digest("ok_other")])
    for key, expected in ((KEY, 429), ("ok_other", 429), ("ok_other", 200), ("ok_third", 200)):
        assert (await call("POST", "/api/tools/call", NOTICE, key=key)).status == expected


async def test_the_connection_limit_strikes_what_connects(tool, call, order, sandbox):
    order("plan", code="plan_connection_limit_exceeded")
    reply = await call("POST", "/api/integrations/connect", {"provider": "stripe"})
    assert "connections" in reply.body.pop("error")
    assert (reply.status, reply.body) == (
        403,
        {
            "code": "plan_connection_limit_exceeded",
            "plan": "free",
            "feature": "connections",
            "resetAt": None,
        },
    )
    assert sandbox.platform.workspace.sessions == {}
    assert (await call("GET", "/api/integrations")).status == 200
    assert (await call("POST", "/api/integrations/disconnect", {"provider": "slack"})).status == 200
    assert (await tool("outlit_schema")).status == 200


async def test_after_an_upgrade_calls_succeed_again(tool, order, control):
    order("plan")
    assert (await tool("outlit_schema")).status == 429
    assert await control("DELETE", "platform") == (200, '{"cleared": 1}')
    assert (await tool("outlit_schema")).status == 200


# -- answers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, {"valid": "perhaps"}),
        (302, ""),
        (401, {"error": "Invalid credentials"}),
        (418, "<html>"),
        (500, None),
        (502, []),
        (503, {"code": "upstream_busy", "message": "Busy", "retryable": True, "requestId": "req_1"}),
        (599, {}),
    ],
)
async def test_an_answer_is_given_in_place_of_the_effect(call, order, notices, sandbox, status, body):
    order("answer", status=status, body=body, headers={"Location": "/api/elsewhere", "Date": None})
    reply = await call("POST", "/api/tools/call", NOTICE)
    assert (reply.status, reply.body) == (status, body)
    assert reply.headers["Location"] == "/api/elsewhere"
    assert "Date" not in reply.headers
    (entry,) = sandbox.platform.calls.entries
    assert (entry.status, entry.incident, entry.executed, notices()) == (status, "answer", False, 0)


async def test_an_answer_that_is_told_nothing_is_a_500(call, order):
    order("answer")
    reply = await call("POST", "/api/tools/call", NOTICE)
    assert (reply.status, set(reply.body)) == (500, {"error"})


async def test_a_text_goes_out_as_it_stands(call, order):
    order("answer", status=502, body="<html>", headers={"content-type": "text/html"})
    reply = await call("POST", "/api/tools/call", NOTICE)
    assert (reply.body, reply.headers.getall("Content-Type")) == ("<html>", ["text/html"])


# -- broken answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("what", "executed"), [("reset", True), ("reset_before", False)])
async def test_a_reset_ends_the_connection_before_the_effect_or_behind_it(
    sandbox, order, notices, what, executed
):
    order(what)
    reader, writer = await wire(sandbox)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    (entry,) = sandbox.platform.calls.entries
    assert (entry.status, entry.incident, entry.executed) == (None, what, executed)
    assert notices() == int(executed)


@pytest.mark.parametrize(("what", "executed"), [("hang", True), ("hang_before", False)])
async def test_a_hang_never_answers_until_the_sandbox_stops(sandbox, order, notices, what, executed):
    order(what)
    reader, writer = await wire(sandbox)
    await sandbox.platform.calls.until(lambda calls: bool(calls.entries))
    (entry,) = sandbox.platform.calls.entries
    assert (entry.status, entry.executed, notices()) == (None, executed, int(executed))
    await sandbox.stop()
    assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize(
    ("what", "ends_in", "status"), [("half_answer", b'{"sent"', 200), ("half_head", b"HTTP/1.1 200 OK", None)]
)
async def test_an_answer_breaks_off(sandbox, order, notices, what, ends_in, status):
    order(what)
    reader, writer = await wire(sandbox)
    came = await reader.read()
    writer.close()
    assert ends_in in came
    assert not came.endswith(b"}")
    assert (b"\r\n\r\n" in came) is (what == "half_answer")
    assert (sandbox.platform.calls.entries[0].status, notices()) == (status, 1)


async def test_an_answer_is_reset_behind_its_headers(sandbox, order, notices):
    order("reset_answer")
    reader, writer = await wire(sandbox)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    assert notices() == 1


async def test_an_answer_drips(sandbox, order, notices):
    order("drip", bytes_per_s=100_000)
    reader, writer = await wire(sandbox)
    assert json.loads((await reader.read()).split(b"\r\n\r\n")[1])["sent"] is True
    writer.close()
    assert notices() == 1


async def test_an_answer_goes_on_behind_its_end(call, order, http, sandbox):
    order("endless", answer_bytes=300_000)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with http.post(f"{sandbox.url}/api/tools/call", json=NOTICE, headers=headers) as response:
        body = await response.read()
    assert len(body) - len(body.rstrip()) == 300_000
    assert json.loads(body)["sent"] is True


async def test_an_answer_comes_late_and_the_effect_does_not(sandbox, order, notices):
    order("latency", latency_ms=60_000)
    reader, writer = await wire(sandbox)
    await sandbox.platform.calls.until(lambda calls: bool(calls.entries))
    assert (notices(), sandbox.platform.calls.entries[0].status) == (1, 200)
    await sandbox.stop()
    assert await reader.read() == b""
    writer.close()


async def test_what_hangs_hangs_again_after_a_new_start(sandbox, order):
    await sandbox.stop()
    await sandbox.start()
    order("hang")
    reader, writer = await wire(sandbox)
    await sandbox.platform.calls.until(lambda calls: bool(calls.entries))
    await sandbox.stop()
    assert await reader.read() == b""
    writer.close()


async def test_half_of_a_links_way_lies_before_a_call_counts(call, sandbox, clock):
    sandbox.links.add(Link(latency_ms=40), now=clock())
    loop = asyncio.get_running_loop()
    began = loop.time()
    calling = asyncio.create_task(call("GET", "/api/integrations"))
    await sandbox.platform.calls.until(lambda calls: bool(calls.entries))
    assert loop.time() - began >= 0.02
    assert not calling.done()
    assert (await calling).status == 200
    assert loop.time() - began >= 0.04


# -- whom and when -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "struck"),
    [
        ({"route": Route.VALIDATE}, ["validate"]),
        ({"route": Route.TOOLS}, ["schema", "query"]),
        ({"route": Route.INTEGRATIONS}, ["list", "connect"]),
        ({"route": Route.OTHER}, ["settings"]),
        ({"tool": "outlit_query"}, ["query"]),
        ({"method": "GET"}, ["list", "settings"]),
        ({"path": "/api/integrations"}, ["list"]),
        ({"route": Route.INTEGRATIONS, "method": "POST"}, ["connect"]),
        ({"route": Route.VALIDATE, "tool": "outlit_query"}, []),
        ({}, ["validate", "schema", "query", "list", "connect", "settings"]),
    ],
    ids=str,
)
async def test_an_order_strikes_whom_it_names(call, order, asked, struck):
    order("answer", status=599, **asked)
    calls = {
        "validate": ("POST", "/api/validate-api-key", None),
        "schema": ("POST", "/api/tools/call", {"tool": "outlit_schema"}),
        "query": ("POST", "/api/tools/call", {"tool": "outlit_query", "input": {"sql": "SELECT 1"}}),
        "list": ("GET", "/api/integrations?connectedOnly=true", None),
        "connect": ("POST", "/api/integrations/connect", {"provider": "stripe"}),
        "settings": ("GET", "/api/settings", None),
    }
    assert [name for name, each in calls.items() if (await call(*each)).status == 599] == struck


async def test_an_order_strikes_when_it_says(tool, order, clock):
    order("answer", status=501, after_s=1, seconds=1)
    order("answer", status=502, every=3, requests=1)
    seen = []
    for _ in range(7):
        seen.append((await tool("outlit_schema")).status)
        clock.now += 0.5
    # The second and third of those that the first leaves over: 502 falls on the third.
    assert seen == [200, 200, 502, 501, 200, 200, 200]


# -- how they are ordered ------------------------------------------------------------------------------


async def test_orders_are_posted_listed_and_cleared(tool, control, clock):
    orders: list[dict[str, object]] = [
        {"what": "plan", "allowance": 1, "reset_in_s": 60, "tool": "outlit_query"},
        {
            "what": "answer",
            "status": 503,
            "body": {},
            "route": "validate",
            "requests": 1,
            "headers": {"A": "b"},
        },
        {"what": "answer", "body": None, "method": "GET", "path": "/api/x", "every": 2, "seconds": 5},
    ]
    shown = [
        {**orders[0], "since": clock.now, "until": clock.now + 60, "left": None},
        {**orders[1], "since": clock.now, "until": None, "left": 1},
        {**orders[2], "since": clock.now, "until": clock.now + 5, "left": None},
    ]
    for method, body in (("POST", orders), ("GET", None)):
        status, text = await control(method, "platform", body)
        assert (status, json.loads(text)) == (200, shown)
    assert await control("DELETE", "platform") == (200, '{"cleared": 3}')
    assert await control("GET", "platform") == (200, "[]")
    assert (await control("POST", "platform", {"what": "plan"}))[0] == 200
    assert (await tool("outlit_schema")).status == 429


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({}, "Each of platform needs what: one of plan, answer"),
        ({"what": "plans"}, "Unknown order 'plans'. Did you mean plan?"),
        ({"what": "status"}, "Known: plan, answer"),
        ({"what": "hang", "rout": "tools"}, "Unknown name 'rout'. Did you mean route?"),
        ({"what": "hang", "route": "tool"}, "Unknown route 'tool'. Did you mean tools?"),
        ({"what": "plan", "reset_in_s": 1, "reset_at": 2}, "reset_at or reset_in_s, not both"),
        ({"what": "plan", "reset_in_s": 0}, "reset_in_s must be 0.001 to"),
        ({"what": "plan", "status": 503}, "status must be 400 to 499"),
        ({"what": "plan", "allowance": -1}, "allowance must be 0 to"),
        ({"what": "plan", "plan": None}, "plan must be a string"),
        ({"what": "plan", "body": {}}, "plan takes no body"),
        ({"what": "answer", "status": 199}, "status must be 200 to 599"),
        ({"what": "answer", "allowance": 1}, "answer takes no allowance"),
        ({"what": "answer", "headers": {"Content-Length": "1"}}, "belongs to the connection"),
        ({"what": "hang", "reset_at": 0}, "hang takes no reset_at"),
        ({"what": "latency"}, "latency needs latency_ms"),
        ({"what": "drip"}, "drip needs bytes_per_s"),
        ({"what": "hang", "key": "an-operators-token"}, "key must be a key, or what"),
        ({"what": "hang", "every": 0}, "every must be 1 to"),
        ([{"what": "hang"}, {"what": "hang", "requests": 0}], "platform[1]: requests must be 1 to"),
    ],
    ids=str,
)
async def test_a_wrong_order_is_refused_with_its_reason(control, order, message):
    status, text = await control("POST", "platform", order)
    assert status == 400
    assert message in json.loads(text)["error"]
    assert await control("GET", "platform") == (200, "[]")


async def test_a_script_has_platform_orders_too(start, http):
    script = script_of(b'{"platform": [{"what": "answer", "status": 503, "route": "validate"}]}')
    sandbox = await start(script=script)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with http.post(f"{sandbox.url}/api/validate-api-key", headers=headers) as response:
        assert response.status == 503


def test_an_order_is_a_value_that_can_be_told_wrong_in_python_too():
    with pytest.raises(OrderError, match="plan takes no bytes_per_s"):
        Incident(what=Happens.PLAN, bytes_per_s=1)
    assert platform_of(b'{"what": "plan"}') == (Incident(what=Happens.PLAN),)


async def test_a_caller_that_gives_up_has_still_been_served(call, sandbox, order, notices):
    order("hang")
    calling = asyncio.create_task(call("POST", "/api/tools/call", NOTICE))
    await sandbox.platform.calls.until(lambda calls: bool(calls.entries))
    calling.cancel()
    await asyncio.wait([calling])
    assert calling.cancelled()
    assert (notices(), sandbox.platform.calls.entries[0].executed) == (1, True)
