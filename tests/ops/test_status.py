"""`GET /status`: what stands in it, who sees what of it, and what it says while the buffer is away."""

import asyncio
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from pydantic import SecretStr

from proxy import __version__
from proxy.buffer import BufferUnavailable, Terms
from proxy.buffer.sqlite import SqliteBuffer
from proxy.gateway import Figures, Refused
from proxy.ledger import Dead
from proxy.metrics import Metrics
from proxy.ops import Bookkeeper, Health, Status, make_app
from proxy.ops.answers import moment
from proxy.ops.reloads import Reloads
from proxy.ops.status import MAX_KEYS
from proxy.sandbox import Fault, What
from proxy.settings import Settings
from tests.ops.listener import TOKEN, Listener, Stand, listening
from tests.ops.operator import books, die, done, fresh, outage, recovery, told
from tests.sandbox.bodies import client
from tests.stack import KEY, OPS_TOKEN, PATIENCE_S, Stack, StartStack

LONG_KEY = "pk_a_key_of_a_customer_with_a_name"


async def opened(stack: Stack) -> Any:
    """What whoever has no token is told."""
    reply = await stack.get("/status")
    assert reply.status == 200, reply.body
    return reply.json


def named(status: Any) -> list[str]:
    return [trouble["name"] for trouble in status["troubles"]]


async def until_told(stack: Stack, name: str, *, gone: bool = False) -> Any:
    """The first snapshot that has (or no longer has) this trouble."""
    async with asyncio.timeout(PATIENCE_S):
        while (name in named(status := await opened(stack))) is gone:  # noqa: ASYNC110  # there is no event: it is asked for
            await asyncio.sleep(0.1)
    return status


async def test_a_proxy_that_is_well_says_what_it_is_and_that_nothing_is_wrong(stack: Stack) -> None:
    await stack.post(client(fresh(), fresh()))
    await books(stack, delivered=2)
    status = await opened(stack)
    assert status["version"] == __version__
    assert status["at"] >= status["started_at"]
    assert status["ready"] is True
    assert status["checks"] == {"started": "ok", "running": "ok", "buffer": "ok"}
    assert status["ledger"] == {
        "accepted": 2,
        "held": 0,
        "delivered": 2,
        "dead": 0,
        "dropped": 0,
        "difference": 0,
    }
    assert status["buffer"] == {
        "engine": "SQLite",
        "durability": "normal",
        "stored_bytes": 0,
        "max_bytes": 4_000_000_000,
        "queues": 0,
    }
    assert status["upstream"] == {
        "url": stack.sandbox.url,
        "limit_per_s": 10_000,
        "rate_share": 1.0,
        "in_flight": 0,
    }
    assert (status["oldest_held_at"], status["time_to_drain_s"]) == (None, 0.0)
    assert status["dead"] == {"count": 0, "by_reason": dict.fromkeys(Dead, 0)}
    assert status["config"] == {"reloaded_at": None, "successful": True, "error": None, "needs_restart": []}
    assert [key["key"] for key in status["keys"]] == [KEY]
    assert status["keys_left_out"] == 0
    assert status["troubles"] == []


async def test_the_rates_are_those_of_now(start_stack: StartStack) -> None:
    stack = await start_stack(delivery={"limit_per_s": 100})
    await stack.post(client(*(fresh() for _ in range(20))))
    await books(stack, delivered=20)
    rates = (await opened(stack))["rates"]
    assert 1 <= rates["window_s"] <= 11
    assert rates["accepted_per_s"] == rates["delivered_per_s"] > 0
    assert rates["events_per_request"] == 20.0
    assert 0 < rates["budget_used"] <= 1


async def test_a_key_is_shown_whole_to_the_operator_alone(stack: Stack) -> None:
    await stack.post(client(fresh()), LONG_KEY)
    await done(stack, f"/keys/{LONG_KEY}/pause")
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {OPS_TOKEN}"}):
        reply = await stack.get("/status", **headers)
        assert LONG_KEY.encode() not in reply.body
        assert OPS_TOKEN.encode() not in reply.body
        assert reply.json["keys"][0]["key"] == reply.json["troubles"][0]["key"] == "pk_a_key_of…name"
        assert "forbidden_origins" not in reply.json["keys"][0]
        assert (reply.json["administration"], reply.json["as_operator"]) == (True, False)
    status = await told(stack, "/status")
    assert status["keys"][0]["key"] == status["troubles"][0]["key"] == LONG_KEY
    assert status["keys"] == (await told(stack, "/keys"))["keys"]
    assert status["as_operator"] is True


async def test_what_is_wrong_with_new_settings_is_told_to_the_operator_alone(tmp_path: Path) -> None:
    """It may quote them."""
    reloads = Reloads(at_ms=1_000, successful=False, error="front.listen: quoted is no address")
    buffer = await SqliteBuffer.opened(tmp_path / "buffer.db", Terms(), sync_every_commit=False)
    metrics, health = Metrics(), Health(started=True)
    books = Bookkeeper(buffer, metrics, retention_s=60.0)
    status = Status(buffer, books, metrics, health, reloads, Settings(), started_at_ms=0)
    app = make_app(buffer, books, metrics, health, OPS_TOKEN, status=status)
    async with TestClient(TestServer(app)) as http:
        for headers, is_told in (({}, False), ({"Authorization": f"Bearer {OPS_TOKEN}"}, True)):
            async with http.get("/status", headers=headers) as response:
                text = await response.text()
            assert json.loads(text)["config"]["successful"] is False
            assert json.loads(text)["config"]["reloaded_at"] == "1970-01-01T00:00:01.000Z"
            assert named(json.loads(text)) == ["reload_failed"]
            assert ("quoted" in text) is is_told
    await buffer.close()


async def test_without_a_token_it_is_said_that_administration_is_off(start_stack: StartStack) -> None:
    stack = await start_stack(ops={"token": None})
    status = (await stack.get("/status", Authorization="Bearer None")).json
    assert (status["administration"], status["as_operator"]) == (False, False)


async def test_it_is_never_stored_on_the_way(stack: Stack) -> None:
    reply = await stack.get("/status")
    assert reply.headers["Cache-Control"] == "no-store"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_parameter_is_refused(stack: Stack) -> None:
    assert (await stack.get("/status?full=true")).status == 400


async def test_an_outage_with_one_request_shows_and_is_over_with_the_first_answer(stack: Stack) -> None:
    outage(stack)
    await stack.post(client(fresh()))
    status = await until_told(stack, "upstream_not_answering")
    (trouble,) = (one for one in status["troubles"] if one["name"] == "upstream_not_answering")
    assert trouble["severity"] == "error"
    assert trouble["section"] == "#when-outlit-is-the-trouble"
    assert "server error" in trouble["what"]
    assert status["oldest_held_at"] is not None
    assert status["ready"] is True, "an outage of Outlit's makes nothing unready"
    recovery(stack)
    await done(stack, f"/keys/{KEY}/retry")
    assert named(await until_told(stack, "upstream_not_answering", gone=True)) == []


async def test_upstream_that_hangs_shows_before_its_time_out(stack: Stack) -> None:
    await stack.post(client(fresh()))
    await books(stack, delivered=1)
    stack.fault(Fault(what=What.HANG_BEFORE, requests=1))
    await stack.post(client(fresh()))
    status = await until_told(stack, "upstream_not_answering")
    assert status["upstream"]["in_flight"] == 1
    assert "a request waits" in status["troubles"][0]["what"]
    await until_told(stack, "ambiguous")


async def test_keys_in_trouble_come_first_then_those_that_hold_most(stack: Stack) -> None:
    keys = (("pk_b", 3), ("pk_a", 1), ("pk_c", 2))
    for key, _ in keys:
        await stack.post(client(fresh()), key)
    await books(stack, delivered=3)
    for key, events in keys:
        await done(stack, f"/keys/{key}/pause")
        await stack.post(client(*(fresh() for _ in range(events))), key)
    status = await told(stack, "/status")
    assert [key["key"] for key in status["keys"]] == ["pk_b", "pk_c", "pk_a"]
    await done(stack, "/keys/pk_b/resume")
    await books(stack, held=3)
    status = await told(stack, "/status")
    assert [key["key"] for key in status["keys"]] == ["pk_c", "pk_a", "pk_b"]


async def test_of_many_keys_the_rest_is_counted(stack: Stack) -> None:
    for number in range(MAX_KEYS + 3):
        await stack.post(client(fresh()), f"pk_{number}")
    status = await told(stack, "/status")
    assert (len(status["keys"]), status["keys_left_out"]) == (MAX_KEYS, 3)


async def test_dead_letters_show_by_reason_and_what_to_do(stack: Stack) -> None:
    await die(stack, fresh(), fresh())
    status = await until_told(stack, "dead_letters_growing")
    assert status["dead"]["count"] == status["dead"]["by_reason"]["refused"] == 2
    assert "refused 2" in status["troubles"][0]["what"]


async def test_while_the_buffer_is_away_it_says_why_and_makes_nothing_up(
    monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    async def away(_self: SqliteBuffer, **_: object) -> None:
        raise BufferUnavailable("the disk is gone")

    await stack.post(client(fresh()))
    with monkeypatch.context() as patched:
        patched.setattr(SqliteBuffer, "figures", away)
        patched.setattr(SqliteBuffer, "check", away)
        status = await opened(stack)
    assert status["ready"] is False
    assert status["ledger"] is status["oldest_held_at"] is status["time_to_drain_s"] is None
    assert status["buffer"]["stored_bytes"] is status["dead"]["count"] is None
    assert status["keys"] == []
    assert named(status) == ["unready"]
    assert "the disk is gone" in status["troubles"][0]["what"]


async def test_a_buffer_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, stack: Stack) -> None:
    answers = asyncio.Event()

    async def hanging(_self: SqliteBuffer, **_: object) -> None:
        await answers.wait()
        raise BufferUnavailable("too late")

    monkeypatch.setattr("proxy.ops.status._PATIENCE_S", 0.05)
    with monkeypatch.context() as patched:
        patched.setattr(SqliteBuffer, "figures", hanging)
        assert (await opened(stack))["ledger"] is None
        answers.set()


# -- the gateway --------------------------------------------------------------------------------------------


async def gateway_of(listener: Listener, **headers: str) -> Any:
    reply = await listener.ask("GET", "/status", **headers)
    assert reply.status == 200
    return reply.json["gateway"]


def used_up(**changed: Any) -> Refused:
    """What a plan has used up for an hour."""
    now_ms = int(time.time() * 1000)
    refused = Refused(
        code="plan_api_limit_exceeded",
        feature="api_calls",
        plan="growth",
        status=402,
        is_own=True,
        since_ms=1_000,
        until_ms=now_ms + 3_600_000,
        answered=7,
    )
    return replace(refused, **changed)


async def test_the_gateway_is_shown_to_everybody_and_nothing_of_a_key(tmp_path: Path) -> None:
    plan = used_up()
    figures = Figures(
        api_key=True, tools=("*",), in_flight=2, refused=(plan,), key_refused_at_ms=1_783_080_000_000
    )
    async with listening(tmp_path, gateway=Stand(figures)) as listener:
        told = await gateway_of(listener)
        assert await gateway_of(listener, **TOKEN) == told
    assert told == {
        "on": True,
        "api_key": True,
        "tools": "all",
        "in_flight": 2,
        "key_refused_at": "2026-07-03T12:00:00.000Z",
        "refused": [
            {
                "code": "plan_api_limit_exceeded",
                "feature": "api_calls",
                "plan": "growth",
                "status": 402,
                "key": "gateway.api_key",
                "since": "1970-01-01T00:00:01.000Z",
                "until": moment(plan.until_ms),
                "answered": 7,
            }
        ],
    }


async def test_without_a_token_the_gateway_is_off_and_nothing_is_wrong_with_it(tmp_path: Path) -> None:
    figures = Figures(
        api_key=False, tools=("a", "b"), in_flight=0, refused=(used_up(),), key_refused_at_ms=None
    )
    async with listening(tmp_path, gateway=Stand(figures), token=None) as listener:
        reply = await listener.ask("GET", "/status")
    assert (reply.json["gateway"]["on"], reply.json["gateway"]["tools"]) == (False, ["a", "b"])
    assert named(reply.json) == []


async def test_a_plan_that_outlit_says_is_used_up_shows_until_it_is_forgotten(
    start_stack: StartStack,
) -> None:
    key = "ok_" + "k" * 40
    stack = await start_stack(gateway={"api_key": SecretStr(key)})
    order = {"what": "plan", "code": "plan_api_limit_exceeded", "feature": "api_calls", "plan": "growth"}
    await ordered(stack, {**order, "status": 402, "reset_in_s": 3_600})
    for _ in range(3):
        assert await call_a_tool(stack) == 402
    status = await opened(stack)
    assert named(status) == ["plan_exhausted"]
    assert "growth of gateway.api_key has used up api_calls (402 " in status["troubles"][0]["what"]
    (refused,) = status["gateway"]["refused"]
    assert (refused["key"], refused["answered"]) == ("gateway.api_key", 2)
    assert refused["since"] <= status["at"] < refused["until"]
    assert key[3:] not in json.dumps(status)
    assert await done(stack, "/gateway/retry") == {"forgotten": 1}
    status = await opened(stack)
    assert (named(status), status["gateway"]["refused"]) == ([], [])


async def test_what_outlit_writes_of_a_plan_is_short_and_printable(start_stack: StartStack) -> None:
    odd = "<b>\x1b[2J\u202e\n" + "x" * 10_000
    stack = await start_stack(gateway={"api_key": SecretStr("ok_" + "k" * 40)})
    order = {"what": "plan", "code": odd, "feature": odd, "plan": odd, "status": 429, "reset_in_s": 3_600}
    await ordered(stack, order)
    assert await call_a_tool(stack) == 429
    status = await opened(stack)
    (refused,) = status["gateway"]["refused"]
    (trouble,) = status["troubles"]
    for word in (refused["code"], refused["feature"], refused["plan"], trouble["what"]):
        assert word.isprintable()
        assert "<b> [2J  xxx" in word
        assert len(word) < 400


async def test_a_key_that_outlit_refuses_and_calls_that_fail_show(start_stack: StartStack) -> None:
    stack = await start_stack(gateway={"api_key": SecretStr("ok_" + "k" * 40)})
    await ordered(stack, {"what": "answer", "status": 500, "body": {"error": "no"}, "requests": 1})
    assert await call_a_tool(stack) == 500
    assert named(await opened(stack)) == ["gateway_failing"]
    body = {"error": "Invalid credentials"}
    await ordered(stack, {"what": "answer", "status": 401, "body": body, "requests": 1})
    assert await call_a_tool(stack) == 401
    status = await opened(stack)
    assert named(status) == ["api_key_refused"]
    assert status["gateway"]["key_refused_at"] <= status["at"]
    assert await call_a_tool(stack) == 200
    status = await opened(stack)
    assert (named(status), status["gateway"]["key_refused_at"]) == ([], None)


async def call_a_tool(stack: Stack) -> int:
    """As whoever has ops.token; the status."""
    async with stack.http.post(
        f"{stack.ops_url}/platform/api/tools/call",
        json={"tool": "outlit_list_customers", "input": {}},
        headers=TOKEN,
    ) as response:
        return response.status


async def ordered(stack: Stack, order: dict[str, Any]) -> None:
    """Have the sandbox answer calls of the Platform API like this."""
    async with stack.http.post(f"{stack.sandbox.url}/_sandbox/platform", json=order) as response:
        assert response.status in {200, 201, 204}, await response.text()


# -- the page -----------------------------------------------------------------------------------------------

FILES = {"/": "text/html", "/page/status.css": "text/css", "/page/status.js": "text/javascript"}


@pytest.mark.parametrize("path", FILES)
async def test_the_page_runs_nothing_that_is_not_its_own(stack: Stack, path: str) -> None:
    reply = await stack.get(path)
    assert reply.status == 200
    assert reply.headers["Content-Type"] == f"{FILES[path]}; charset=utf-8"
    assert reply.headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    # The one address that may stand in it names SVG's vocabulary, and is never fetched.
    text = reply.body.replace(b"http://www.w3.org/2000/svg", b"")
    assert b"http://" not in text
    assert b"https://" not in text
    assert b"innerHTML" not in text


@pytest.mark.parametrize("path", FILES)
async def test_what_the_browser_has_of_the_page_is_not_sent_again(stack: Stack, path: str) -> None:
    reply = await stack.get(path)
    assert reply.headers["Cache-Control"] == "no-cache"
    again = await stack.get(path, **{"If-None-Match": reply.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["ETag"] == reply.headers["ETag"]
    assert (await stack.get(path, **{"If-None-Match": '"another"'})).body == reply.body


async def test_a_snapshot_fits_many_keys_and_is_cheap(stack: Stack) -> None:
    """It is asked for every second by every page that is open."""
    for number in range(100):
        await stack.post(client(fresh()), f"pk_{number}")
    await books(stack, held=0)
    loop = asyncio.get_running_loop()
    times: list[float] = []
    for _ in range(10):
        began = loop.time()
        reply = await stack.get("/status")
        times.append(loop.time() - began)
    assert len(json.loads(reply.body)["keys"]) == MAX_KEYS
    assert len(reply.body) < 50_000
    assert min(times) < 0.05
