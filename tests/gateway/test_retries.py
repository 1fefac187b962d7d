"""What is asked again, and what never: a call that may have run is not sent a second time by us.

`executed` in the sandbox's record says what really ran; a raw server behaves worse than the sandbox can.
"""

import asyncio

import pytest
from tenacity import RetryCallState

from proxy.gateway import client
from tests.gateway.callers import Callers, fresh_key
from tests.gateway.test_refusals import assert_refused
from tests.outlit import Outlit, answer, resets, says
from tests.programs import free_port
from tests.stack import Reply

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("at_once")]

SEND = "outlit_send_notification"
AGAIN = '{"code":"busy","message":"Try again","retryable":true,"requestId":"r"}'
NEVER = '{"code":"bad","message":"Do not","retryable":false,"requestId":"r"}'
SERVED = answer(b'{"ok":true}')


as_it_is = client._wait_s
"""Where no test replaces it."""


async def get(callers: Callers) -> Reply:
    return await callers.ask("GET", "/integrations", caller="own")


async def send(callers: Callers) -> Reply:
    return await callers.tool(SEND, "own", {"customer": "acme.example", "title": "Renewal"})


# -- nothing was sent --------------------------------------------------------------------------------------


async def test_where_nothing_can_be_sent_any_call_may_be_made_again(callers: Callers) -> None:
    await callers.reload(url=f"http://127.0.0.1:{free_port()}", api_key=callers.secret)

    async def ask() -> None:
        for reply in (await get(callers), await send(callers)):
            assert_refused(reply, 502, "upstream_unreachable", retryable=True)

    grown = await callers.counted(ask)
    assert grown("gateway_upstream_requests_total") == 6
    assert grown("gateway_requests_total", route="tools", outcome="unreachable") == 1
    assert grown("gateway_requests_total", route="integrations", outcome="unreachable") == 1


async def test_an_upstream_that_comes_up_meanwhile_gets_the_call_once(
    callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, late = free_port(), Outlit(says(SERVED))
    await callers.reload(url=f"http://127.0.0.1:{port}", api_key=callers.secret)
    started: list[asyncio.Task[None]] = []

    def start(_state: object) -> float:
        started.append(asyncio.create_task(late.start(port)))
        return 0.05

    monkeypatch.setattr(client, "_wait_s", start)
    try:
        assert (await send(callers)).body == b'{"ok":true}'
        assert len(late.requests) == 1
        assert len(started) == 1
    finally:
        await late.stop()


# -- it was sent, and may have run -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "executed"),
    [("reset", 1), ("reset_before", 0), ("half_answer", 1), ("hang", 1), ("hang_before", 0)],
)
async def test_a_post_that_may_have_run_is_never_sent_twice(
    callers: Callers, what: str, executed: int
) -> None:
    await callers.reload(api_key=callers.secret, timeout_s=0.5 if what.startswith("hang") else 5.0)
    await callers.order({"what": what})
    reply = await send(callers)
    if what.startswith("hang"):
        assert_refused(reply, 504, "upstream_timeout")
    else:
        assert_refused(reply, 502, "upstream_broken")
    assert "may have been executed" in reply.json["error"]
    assert len(await callers.calls()) == 1
    assert len(await callers.executed()) == executed


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nor_is_any_other_call_that_changes_something(
    outlit: Outlit, callers: Callers, method: str
) -> None:
    """Also over a connection that was kept: the HTTP client must not repeat it by itself either."""
    assert (await get(callers)).status == 200
    outlit.begin(resets)
    assert_refused(await callers.ask(method, "/integrations/slack", {}, caller="own"), 502, "upstream_broken")
    assert [request.line.split()[0] for request in outlit.requests] == [method]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_post_that_failed_is_not_sent_again(callers: Callers, status: int) -> None:
    await callers.order({"what": "answer", "status": status, "body": {"error": "Oops"}})
    assert (await send(callers)).status == status
    assert (await callers.ask("DELETE", "/integrations/slack", caller="own")).status == status
    assert len(await callers.calls()) == 2


@pytest.mark.parametrize("what", ["reset", "reset_before"])
async def test_a_get_is_asked_again_where_no_answer_came(callers: Callers, what: str) -> None:
    await callers.order({"what": what, "requests": 2})
    assert (await get(callers)).status == 200
    assert len(await callers.calls()) == 3
    await callers.order({"what": what})
    assert_refused(await get(callers), 502, "upstream_broken", retryable=True)
    assert len(await callers.calls()) == 6


async def test_a_get_that_fails_is_asked_again_and_then_passes_as_it_came(callers: Callers) -> None:
    await callers.order({"what": "answer", "status": 502, "body": {"error": "Oops"}, "requests": 2})
    assert (await get(callers)).status == 200
    assert len(await callers.calls()) == 3


async def test_a_time_out_is_the_whole_calls_and_not_each_attempts(callers: Callers) -> None:
    await callers.reload(api_key=callers.secret, timeout_s=0.4)
    await callers.order({"what": "hang_before"})
    assert_refused(await get(callers), 504, "upstream_timeout", retryable=True)
    assert len(await callers.calls()) == 1


# -- upstream says so --------------------------------------------------------------------------------------


async def test_what_upstream_calls_retryable_is_sent_again_whatever_it_is(callers: Callers) -> None:
    await callers.order({"what": "answer", "status": 503, "body": AGAIN, "requests": 2, "route": "tools"})
    assert (await send(callers)).status == 200
    assert (len(await callers.calls()), len(await callers.executed())) == (3, 1)


@pytest.mark.parametrize(
    "body",
    [
        NEVER,
        '{"code":"busy","message":"m","retryable":"true"}',
        '{"code":"busy","message":"m","retryable":1}',
        '{"code":"busy","message":"m"}',
        '{"data":{"retryable":true}}',
        '[{"retryable":true}]',
        '{"retryable":true',
        "true",
        "",
    ],
)
async def test_nothing_less_than_true_is_retryable(callers: Callers, body: str) -> None:
    await callers.order({"what": "answer", "status": 503, "body": body})
    reply = await send(callers)
    assert (reply.status, reply.body) == (503, body.encode())
    assert len(await callers.calls()) == 1


async def test_a_success_that_calls_itself_retryable_is_one(callers: Callers) -> None:
    await callers.order({"what": "answer", "status": 200, "body": '{"retryable":true}'})
    assert (await send(callers)).status == 200
    assert len(await callers.calls()) == 1


NOW = "Date: Sun, 19 Jul 2026 12:00:00 GMT"
IN_3_S = "Sun, 19 Jul 2026 12:00:03 GMT"
IN_A_MINUTE = "Sun, 19 Jul 2026 12:01:00 GMT"


@pytest.mark.parametrize("told", ["60", "6", IN_A_MINUTE, "1.5", "soon"])
async def test_a_limit_that_is_retryable_is_waited_for_only_shortly(
    outlit: Outlit, callers: Callers, told: str
) -> None:
    """Whoever is told to come in a minute, or when we cannot read, is told so, and not kept waiting."""
    outlit.begin(says(answer(AGAIN.encode(), "429 Too Many Requests", NOW, f"Retry-After: {told}")))
    reply = await send(callers)
    assert (reply.status, reply.headers["Retry-After"]) == (429, told)
    assert len(outlit.requests) == 1


@pytest.mark.parametrize(("told", "wait_s"), [("2", 2.0), ("5", 5.0), (IN_3_S, 3.0)])
async def test_before_another_attempt_is_waited_as_long_as_is_asked_for(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch, told: str, wait_s: float
) -> None:
    waits_s: list[float] = []

    def noted(state: RetryCallState) -> float:
        waits_s.append(as_it_is(state))
        return 0.0

    monkeypatch.setattr(client, "_wait_s", noted)
    busy = answer(AGAIN.encode(), "503 Service Unavailable", NOW, f"Retry-After: {told}")
    outlit.begin(says(busy, SERVED))
    assert (await send(callers)).status == 200
    assert waits_s == [wait_s]


async def test_attempts_of_which_nobody_says_when_are_ever_farther_apart(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds_s: list[float] = []

    def noted(state: RetryCallState) -> float:
        bounds_s.append(max(as_it_is(state) for _ in range(200)))
        return 0.0

    monkeypatch.setattr(client, "_wait_s", noted)
    outlit.begin(says(answer(AGAIN.encode(), "503 Service Unavailable")))
    assert (await send(callers)).status == 503
    first_s, second_s, *_ = bounds_s
    assert 0.0 < first_s <= 0.1 < second_s <= 0.2


async def test_a_reset_of_a_kept_connection_does_not_double_a_post(outlit: Outlit, callers: Callers) -> None:
    assert (await send(callers)).status == 200
    outlit.behave = resets
    assert_refused(await send(callers), 502, "upstream_broken")
    assert len(outlit.requests) == 2


async def test_an_answer_nobody_asked_for_is_nobodys(outlit: Outlit, callers: Callers) -> None:
    """Load balancers send one into a connection that they give up: the next call must not get it."""
    extra = answer(b'{"of":"another"}')
    outlit.begin(says(answer(b'{"n":1}') + extra, answer(b'{"n":2}')))
    assert (await send(callers)).body == b'{"n":1}'
    reply = await callers.tool(SEND, fresh_key())
    assert reply.body == b'{"n":2}' or reply.status == 502
