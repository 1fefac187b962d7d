"""An exhausted plan costs one upstream call until it is renewed, whatever callers do.

The sandbox refuses as Outlit does, and its record says how often it was asked.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from tests.gateway.callers import BASES, Callers, fresh_key
from tests.gateway.orders import HOUR_S, exhausted, no_connection
from tests.outlit import Outlit, after, answer, says
from tests.stack import OPS_TOKEN, PATIENCE_S, Reply

pytestmark = pytest.mark.asyncio(loop_scope="module")

HERD = 50


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def assert_remembered(reply: Reply, first: Reply, within_s: float = HOUR_S) -> None:
    """The same answer as the first, said to be from memory, and when to come again."""
    assert (reply.status, reply.body) == (first.status, first.body)
    assert reply.headers["Content-Type"] == first.headers["Content-Type"]
    assert within_s - 60 < int(reply.headers["Retry-After"]) <= within_s + 1
    assert reply.headers["Cache-Status"].startswith("outlit-proxy; hit; ttl=")


def assert_asked(calls: Sequence[Any], number: int) -> None:
    assert len(calls) == number, [(call["path"], call["tool"], call["status"]) for call in calls]


# -- one call until it is renewed --------------------------------------------------------------------------


@pytest.mark.parametrize("status", [402, 403, 429])
async def test_one_after_the_other(callers: Callers, status: int) -> None:
    await callers.order(exhausted(status=status))
    first = await callers.tool()
    assert (first.status, first.json["code"]) == (status, "api_limit_exceeded")
    for _ in range(5):
        assert_remembered(await callers.tool(), first)
    assert_asked(await callers.calls(), 1)


async def test_the_first_answer_is_upstreams_own(callers: Callers) -> None:
    await callers.order(exhausted())
    first = await callers.tool()
    assert "Cache-Status" not in first.headers
    assert first.json["resetAt"] > now_ms()


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["Content-Type: application/problem+json; charset=utf-8"],
        ["Content-Type: application/json; x=\x01"],  # as it came it could not be sent
    ],
)
async def test_its_type_is_said_as_the_first_time(outlit: Outlit, callers: Callers, lines: list[str]) -> None:
    body = {**exhausted(), "error": "e", "resetAt": now_ms() + HOUR_S * 1_000}
    outlit.begin(says(answer(json.dumps(body).encode(), "402 Payment Required", *lines)))
    first = await callers.tool()
    assert_remembered(await callers.tool(), first)
    assert len(outlit.requests) == 1


async def test_a_herd_from_a_cold_start(callers: Callers) -> None:
    await callers.order(exhausted())
    replies = await asyncio.gather(*(callers.tool() for _ in range(HERD)))
    assert {(reply.status, reply.body) for reply in replies} == {(402, replies[0].body)}
    assert_asked(await callers.calls(), 1)


async def test_a_herd_from_a_cold_start_while_upstream_is_slow(callers: Callers) -> None:
    await callers.order(exhausted(), {"what": "latency", "latency_ms": 150})
    replies = await asyncio.gather(*(callers.tool() for _ in range(HERD)))
    assert {reply.status for reply in replies} == {402}
    assert_asked(await callers.calls(), 1)


async def test_a_herd_right_after_calls_that_succeeded(callers: Callers) -> None:
    await callers.order(exhausted(allowance=3))
    for _ in range(3):
        assert (await callers.tool()).status == 200
    replies = await asyncio.gather(*(callers.tool() for _ in range(HERD)))
    assert {reply.status for reply in replies} == {402}
    assert_asked(await callers.calls(), 3 + 1)


async def test_the_allowance_ends_in_the_midst_of_a_herd(callers: Callers) -> None:
    """What goes out at once may be refused at once; but nobody asks any more when the first refusal is in."""
    await callers.order(exhausted(allowance=3))
    replies = await asyncio.gather(*(callers.tool() for _ in range(HERD)))
    assert sorted(reply.status for reply in replies) == [200] * 3 + [402] * (HERD - 3)
    asked = len(await callers.calls())
    await asyncio.gather(*(callers.tool() for _ in range(HERD)))
    assert_asked(await callers.calls(), asked)


async def test_a_herd_of_readers(callers: Callers) -> None:
    """A GET may be made twice, but not fifty times where the first is refused."""
    await callers.order(exhausted(route="integrations", feature="integrations", status=403))
    replies = await asyncio.gather(*(callers.ask("GET", "/integrations") for _ in range(HERD)))
    assert {reply.status for reply in replies} == {403}
    assert_asked(await callers.calls(), 1)


async def test_other_tools_are_refused_by_the_same_plan(callers: Callers) -> None:
    await callers.order(exhausted())
    first = await callers.tool("outlit_list_customers")
    for tool in ("outlit_search", "outlit_query", "nothing_of_the_kind"):
        assert_remembered(await callers.tool(tool), first)
    assert_asked(await callers.calls(), 1)


async def test_other_spellings_of_a_call_are_the_same_call(callers: Callers) -> None:
    await callers.order(exhausted())
    first = await callers.tool()
    body = json.dumps({"input": {"other": 1}, "tool": "outlit_list_customers"}, indent=4).encode()
    for base, path in itertools.product(BASES, ("/tools/call", "/tools/call?x=1", "/tools/call?")):
        reply = await callers.ask("POST", path, body, base=base, headers={"X-Request-Id": "r"})
        assert_remembered(reply, first)
    for path in ("/tools/call/", "/Tools/Call", "/tools/%63all", "//tools/call", "/./tools/call"):
        assert (await callers.ask("POST", path, body)).status in {400, 402}
    assert_asked(await callers.calls(), 1)


async def test_the_operators_key_in_a_callers_hand_is_the_same_key(callers: Callers) -> None:
    await callers.order(exhausted())
    first = await callers.tool(caller="operator")
    assert_remembered(await callers.tool(caller=callers.api_key), first)
    assert_asked(await callers.calls(), 1)


async def test_another_key_has_a_plan_of_its_own(callers: Callers) -> None:
    await callers.order(exhausted(requests=1))
    assert (await callers.tool(caller="own")).status == 402
    assert (await callers.tool(caller="operator")).status == 200
    assert (await callers.tool(caller=fresh_key())).status == 200
    assert (await callers.tool(caller="own")).status == 402
    assert_asked(await callers.calls(), 3)


async def test_what_does_not_count_towards_the_plan_goes_on(callers: Callers) -> None:
    await callers.order(exhausted(route="tools"))
    assert (await callers.tool()).status == 402
    assert (await callers.ask("GET", "/integrations")).status == 200
    assert (await callers.ask("POST", "/validate-api-key")).status == 200


async def test_a_connection_limit_stops_connecting_and_nothing_else(callers: Callers) -> None:
    await callers.order(no_connection(requests=1))
    connect = "/integrations/connect"
    first = await callers.ask("POST", connect, {"provider": "slack"})
    assert (first.status, first.json["feature"]) == (403, "connections")
    assert_remembered(await callers.ask("POST", connect, {"provider": "slack"}), first)
    assert_remembered(await callers.ask("POST", f"{connect}/", {"provider": "notion"}), first)
    assert_asked(await callers.calls(), 1)
    assert (await callers.ask("GET", "/integrations")).status == 200
    others = [
        ("GET", f"{connect}/status?sessionId=s", None),
        ("POST", "/integrations/disconnect", {"provider": "slack"}),
        ("DELETE", "/integrations/slack", None),
    ]
    for number, (method, path, body) in enumerate(others, start=3):
        assert "Cache-Status" not in (await callers.ask(method, path, body)).headers
        assert_asked(await callers.calls(), number)
    assert (await callers.tool()).status == 200


async def test_a_feature_of_one_tool_stops_that_tool_alone(callers: Callers) -> None:
    await callers.order(exhausted(feature="semantic_search", tool="outlit_search", status=403))
    first = await callers.tool("outlit_search")
    assert_remembered(await callers.tool("outlit_search"), first)
    assert (await callers.tool("outlit_list_customers")).status == 200
    assert_asked(await callers.calls(), 2)


# -- when it ends ------------------------------------------------------------------------------------------

NEVER_REMEMBERED = {
    "past": now_ms() - 1,
    "long past": 0,
    "negative": -(2**63),
    "null": None,
    "text": str(now_ms() + 3_600_000),
    "a date": "2099-01-01T00:00:00Z",
    "true": True,
    "a list": [now_ms() + 3_600_000],
    "seconds": now_ms() // 1_000 + 3_600,
    "a huge float": 1e300,
}
BY_HAND = {
    "missing": b'{"error":"e","code":"api_limit_exceeded","plan":"free","feature":"api_calls"}',
    "NaN": b'{"error":"e","code":"api_limit_exceeded","feature":"api_calls","resetAt":NaN}',
    "Infinity": b'{"error":"e","code":"api_limit_exceeded","feature":"api_calls","resetAt":Infinity}',
    "beyond floats": b'{"error":"e","code":"api_limit_exceeded","feature":"api_calls","resetAt":1e999}',
    "no code": b'{"error":"e","feature":"api_calls","resetAt":9999999999999}',
    "code is no text": b'{"error":"e","code":7,"feature":"api_calls","resetAt":9999999999999}',
    "no object": b"[402]",
    "no JSON": b"<p>Payment required</p>",
    "nested without end": b"[" * 5_000,
    "nothing": b"",
}


async def assert_passes_each_time(callers: Callers) -> None:
    first, second = await callers.tool(), await callers.tool()
    assert (first.status, first.body) == (second.status, second.body)
    assert first.status == 402
    assert "Cache-Status" not in second.headers
    assert_asked(await callers.calls(), 2)
    await callers.clear_orders()
    assert (await callers.tool()).status == 200


@pytest.mark.parametrize("reset_at", NEVER_REMEMBERED.values(), ids=NEVER_REMEMBERED.keys())
async def test_a_reset_that_is_no_moment_to_come_is_not_remembered(callers: Callers, reset_at: Any) -> None:
    order = exhausted(reset_at=reset_at)
    del order["reset_in_s"]
    await callers.order(order)
    await assert_passes_each_time(callers)


@pytest.mark.parametrize("body", BY_HAND.values(), ids=BY_HAND.keys())
async def test_a_refusal_that_cannot_be_read_passes_and_is_not_remembered(
    callers: Callers, body: bytes
) -> None:
    await callers.order({"what": "answer", "status": 402, "body": body.decode()})
    await assert_passes_each_time(callers)


@pytest.mark.parametrize("status", [200, 400, 401, 404, 500])
async def test_only_statuses_of_plans_are_remembered(callers: Callers, status: int) -> None:
    body = {"error": "e", "code": "api_limit_exceeded", "feature": "api_calls", "resetAt": now_ms() + 9**8}
    await callers.order({"what": "answer", "status": status, "body": body})
    for _ in range(2):
        reply = await callers.tool()
        assert (reply.status, reply.json) == (status, body)
    assert_asked(await callers.calls(), 2)


@pytest.mark.parametrize(
    "reset_at",
    [10**30, 2**63, now_ms() + 500 * 86_400_000, 9_007_199_254_740_991],
    ids=["no time", "64 bits", "500 days", "2**53"],
)
async def test_a_reset_far_away_is_asked_about_again_within_the_hour(callers: Callers, reset_at: int) -> None:
    """Absurd or not: what is said of next century must not close the key until then."""
    order = exhausted(reset_at=reset_at)
    del order["reset_in_s"]
    await callers.order(order)
    await callers.tool()
    reply = await callers.tool()
    assert reply.status == 402
    assert int(reply.headers.get("Retry-After", 0)) <= HOUR_S
    for refused in (await callers.status())["refused"]:
        datetime.fromisoformat(refused["until"])
    assert (await callers.stack.get("/metrics")).status == 200
    await callers.retry()
    await callers.clear_orders()
    assert (await callers.tool()).status == 200


async def until_renewed(callers: Callers, order: dict[str, Any], **of_each: Any) -> list[Reply]:
    """A herd that asks on and on until each of it was told something new. What each was told at last."""
    await callers.order(order)
    first = await callers.tool()
    assert first.status == 402
    await callers.clear_orders()
    await callers.order(*of_each.get("then", ()))

    async def ask_on() -> Reply:
        while (reply := await callers.tool()).body == first.body:
            pass
        return reply

    async with asyncio.timeout(PATIENCE_S):
        replies = await asyncio.gather(*(ask_on() for _ in range(10)))
    calls = await callers.calls()
    # Not a moment too early. The sandbox's record and resetAt go by the same clock.
    assert calls[1]["received_at"] * 1000 >= first.json["resetAt"]
    return replies


async def test_after_the_reset_calls_pass_again(callers: Callers) -> None:
    replies = await until_renewed(callers, exhausted(reset_in_s=0.2))
    assert {reply.status for reply in replies} == {200}


async def test_after_the_reset_one_call_goes_first_also_of_a_herd(callers: Callers) -> None:
    """The plan is exhausted again at once: of all that waited, one has to find out."""
    replies = await until_renewed(
        callers, exhausted(reset_in_s=0.2), then=[exhausted(error="Again", reset_in_s=HOUR_S)]
    )
    assert {(reply.status, reply.json["error"]) for reply in replies} == {(402, "Again")}
    assert_asked(await callers.calls(), 2)


# -- the operator ------------------------------------------------------------------------------------------


async def test_the_operator_can_have_it_forgotten(callers: Callers) -> None:
    await callers.retry()
    await callers.order(exhausted())
    for caller in ("own", "operator"):
        assert (await callers.tool(caller=caller)).status == 402
    await callers.clear_orders()
    assert (await callers.tool()).status == 402
    forgotten = await callers.retry()
    assert (forgotten.status, forgotten.json) == (200, {"forgotten": 2})
    assert (await callers.retry()).json == {"forgotten": 0}
    for caller in ("own", "operator"):
        assert (await callers.tool(caller=caller)).status == 200


async def test_nobody_else_can(callers: Callers) -> None:
    await callers.order(exhausted())
    assert (await callers.tool(caller="own")).status == 402
    for headers in ({}, callers.authorized("own"), {"Authorization": OPS_TOKEN}):
        async with callers.stack.http.post(
            f"{callers.stack.ops_url}/gateway/retry", headers=headers
        ) as response:
            assert response.status == 401
    assert (await callers.tool(caller="own")).status == 402
    assert_asked(await callers.calls(), 1)


async def test_status_and_metrics_show_it(callers: Callers) -> None:
    await callers.retry()
    await callers.order(exhausted())
    begun = now_ms()
    for caller, times in (("operator", 3), ("own", 2)):
        for _ in range(times):
            first = await callers.tool(caller=caller)
    shown = await callers.status()
    assert (shown["on"], shown["api_key"], shown["tools"]) == (True, True, "all")
    found = {refused["key"]: refused for refused in shown["refused"]}
    assert set(found) == {"gateway.api_key", "a caller's own"}
    for refused in found.values():
        assert (refused["code"], refused["feature"]) == ("api_limit_exceeded", "api_calls")
        assert (refused["plan"], refused["status"]) == ("free", 402)
        since, until = (datetime.fromisoformat(refused[name]).timestamp() for name in ("since", "until"))
        assert begun / 1000 - 1 <= since <= now_ms() / 1000 + 1
        assert abs(until - first.json["resetAt"] / 1000) <= 1
    assert {name: refused["answered"] for name, refused in found.items()} == {
        "gateway.api_key": 2,
        "a caller's own": 1,
    }
    samples = await callers.stack.metrics()
    assert [samples("gateway_plan_refusals", key=key) for key in ("own", "callers")] == [1, 1]
    own_until = datetime.fromisoformat(found["gateway.api_key"]["until"]).timestamp()
    assert abs(samples("gateway_plan_reset_timestamp_seconds") - own_until) <= 1
    await callers.retry()
    samples = await callers.stack.metrics()
    assert samples.sum("gateway_plan_refusals") == samples("gateway_plan_reset_timestamp_seconds") == 0
    assert (await callers.status())["refused"] == []


async def test_each_answer_from_memory_is_counted_as_such(callers: Callers) -> None:
    await callers.order(exhausted())

    async def ask() -> None:
        for _ in range(4):
            await callers.tool()

    grown = await callers.counted(ask)
    assert grown("gateway_requests_total", route="tools", outcome="refused") == 1
    assert grown("gateway_requests_total", route="tools", outcome="remembered") == 3
    assert grown("gateway_tool_calls_total", tool="other", outcome="remembered") == 3
    assert grown("gateway_upstream_requests_total") == 1


async def test_another_upstream_has_said_nothing_yet(callers: Callers, raw_outlit: Outlit) -> None:
    """A change of upstream.url forgets: another Outlit, another plan. Also what is still under way there."""
    await callers.order(exhausted())
    assert (await callers.tool(caller="own")).status == 402
    go = asyncio.Event()
    refusal = json.dumps({**exhausted(), "error": "e", "resetAt": now_ms() + 9**8}).encode()
    raw_outlit.begin(after(go, says(answer(refusal, "402 Payment Required"))))
    await callers.reload(url=raw_outlit.url, api_key=callers.secret)
    under_way = asyncio.create_task(callers.tool(caller="own"))
    await raw_outlit.until_requests(1)
    await callers.clear_orders()
    await callers.reload(api_key=callers.secret)
    go.set()
    assert (await under_way).status == 402
    assert (await callers.tool(caller="own")).status == 200


async def test_a_key_that_is_replaced_leaves_nothing_behind(callers: Callers) -> None:
    """What its plan has used up is no caller's, and was shown as one's until its reset."""
    await callers.order(exhausted())
    assert (await callers.tool(caller="operator")).status == 402
    assert (await callers.status())["refused"]
    callers.api_key = fresh_key()
    await callers.reload(api_key=callers.secret, timeout_s=5.0)
    assert (await callers.status())["refused"] == []
