"""Calls that come together: one goes first, and what it hears decides how many may follow."""

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from proxy.gateway import turns
from tests.gateway.callers import Callers, fresh_key
from tests.outlit import USED_UP, Outlit, Request, after, answer, hangs, says
from tests.stack import PATIENCE_S, Reply

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("missed_at_once")]

SERVED = answer(b'{"ok":true}')
REFUSED = answer(
    b'{"error":"e","code":"api_limit_exceeded","feature":"api_calls","resetAt":null}', "402 Payment Required"
)
"""It names no moment, so it is not remembered."""


async def send(callers: Callers) -> Reply:
    return await callers.tool("outlit_schema", "own")


async def assert_gone(outlit: Outlit, callers: Callers, number: int) -> None:
    """So many have gone, and no more: whoever would go, too, has had the time for it."""
    await outlit.until_requests(number)
    for _ in range(3):
        await callers.status()
    assert len(outlit.requests) == number


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody goes because he has waited long enough."""
    for patience in ("TRUSTING_S", "DOUBTING_S"):
        monkeypatch.setattr(turns, patience, 60.0)


async def herd(
    outlit: Outlit, callers: Callers, number: int, *answers: bytes
) -> tuple[list[asyncio.Task[Reply]], list[asyncio.Event]]:
    """So many calls that come together; and the events by which Outlit gives its answers, in turn."""
    events = [asyncio.Event() for _ in answers]
    places = iter(zip(events, answers, strict=True))

    async def one_by_one(request: Request, writer: asyncio.StreamWriter) -> None:
        event, said = next(places)
        await after(event, says(said))(request, writer)

    outlit.begin(one_by_one)
    return [asyncio.create_task(send(callers)) for _ in range(number)], events


@pytest.mark.usefixtures("patient")
async def test_calls_that_succeed_are_joined_by_ever_more(outlit: Outlit, callers: Callers) -> None:
    """A plan that ends in the midst of a herd refuses few; one that does not end holds nobody up for long."""
    calls, answered = await herd(outlit, callers, 16, *[SERVED] * 16)
    for gone in (1, 2, 4, 8, 16):
        await assert_gone(outlit, callers, gone)
        for event in answered[:gone]:
            event.set()
    assert {reply.status for reply in await asyncio.gather(*calls)} == {200}


@pytest.mark.usefixtures("patient")
async def test_the_first_of_a_herd_goes_alone(outlit: Outlit, callers: Callers) -> None:
    go = asyncio.Event()
    outlit.begin(after(go, says(SERVED)))
    calls = [asyncio.create_task(send(callers)) for _ in range(8)]
    await assert_gone(outlit, callers, 1)
    go.set()
    await asyncio.gather(*calls)


async def test_one_slow_call_does_not_keep_others_of_the_key_waiting(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls succeed lately: a slow one is no reason to hold the rest back for longer than a moment."""
    monkeypatch.setattr(turns, "TRUSTING_S", 0.05)
    monkeypatch.setattr(turns, "DOUBTING_S", 60.0)
    assert (await send(callers)).status == 200
    go = asyncio.Event()
    outlit.begin(after(go, says(SERVED)))
    slow = asyncio.create_task(callers.tool("outlit_query", "own"))
    await outlit.until_requests(1)
    outlit.behave = says(SERVED)
    async with asyncio.timeout(PATIENCE_S):
        assert (await send(callers)).status == 200
    go.set()
    assert (await slow).status == 200


async def test_where_nothing_is_heard_twice_as_many_go_each_time(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outlit may take long for all of them: nobody waits for ever, and they do not go all at once."""
    patience_s = 0.05
    monkeypatch.setattr(turns, "DOUBTING_S", patience_s)
    clock = asyncio.get_running_loop().time
    gone_s: list[float] = []
    go = asyncio.Event()

    async def noted(request: Request, writer: asyncio.StreamWriter) -> None:
        gone_s.append(clock())
        await after(go, says(SERVED))(request, writer)

    outlit.begin(noted)
    begun_s = clock()
    calls = [asyncio.create_task(send(callers)) for _ in range(8)]
    await outlit.until_requests(8)
    go.set()
    assert {reply.status for reply in await asyncio.gather(*calls)} == {200}
    silences = [int((each_s - begun_s) / patience_s) for each_s in gone_s]
    assert all(number <= 2**passed for number, passed in enumerate(silences, start=1))


async def test_who_has_waited_asks_again_only_in_what_is_left_of_the_time(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what Outlit has said would be given up for an attempt that has no time."""
    monkeypatch.setattr(turns, "DOUBTING_S", 0.3)
    await callers.reload(url=outlit.url, api_key=callers.secret, timeout_s=1.2)
    outlit.begin(hangs)
    first = asyncio.create_task(callers.tool("outlit_query", "own"))
    await outlit.until_requests(1)
    busy = b'{"code":"busy","message":"m","retryable":true}'
    outlit.behave = says(answer(busy, "503 Service Unavailable", "Retry-After: 1"))
    reply = await send(callers)
    assert (reply.status, reply.body) == (503, busy)
    assert len(outlit.requests) == 2
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


async def test_a_refusal_puts_an_end_to_the_trust_in_a_plan(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After it one goes alone again, however many had succeeded before."""
    monkeypatch.setattr(turns, "TRUSTING_S", 0.001)
    monkeypatch.setattr(turns, "DOUBTING_S", 60.0)
    outlit.begin(says(SERVED, USED_UP))
    assert [(await send(callers)).status for _ in range(2)] == [200, 402]
    await callers.retry()
    go = asyncio.Event()
    outlit.begin(after(go, says(SERVED)))
    calls = [asyncio.create_task(send(callers)) for _ in range(4)]
    await assert_gone(outlit, callers, 1)
    go.set()
    await asyncio.gather(*calls)


@pytest.mark.usefixtures("patient")
async def test_a_refusal_that_names_no_end_holds_nobody_up(outlit: Outlit, callers: Callers) -> None:
    calls, answered = await herd(outlit, callers, 6, SERVED, SERVED, REFUSED, SERVED, SERVED, SERVED)
    for ended, gone in enumerate([1, 2, 4, 5, 6, 6]):
        await assert_gone(outlit, callers, gone)
        answered[ended].set()
    statuses = [reply.status for reply in await asyncio.gather(*calls)]
    assert sorted(statuses) == [200] * 5 + [402]


@pytest.mark.usefixtures("patient")
async def test_nobody_waits_for_others_when_the_answer_is_known(outlit: Outlit, callers: Callers) -> None:
    calls, answered = await herd(outlit, callers, 10, SERVED, SERVED, USED_UP, SERVED)
    for ended, gone in enumerate([1, 2, 4]):
        await assert_gone(outlit, callers, gone)
        answered[ended].set()
    async with asyncio.timeout(PATIENCE_S):
        while sum(call.done() for call in calls) < 9:
            await callers.status()
    assert len(outlit.requests) == 4
    answered[3].set()
    statuses = [reply.status for reply in await asyncio.gather(*calls)]
    assert sorted(statuses) == [200] * 3 + [402] * 7


@pytest.mark.usefixtures("patient")
async def test_a_turn_that_does_not_come_in_time_is_not_waited_for(outlit: Outlit, callers: Callers) -> None:
    await callers.reload(url=outlit.url, api_key=callers.secret, timeout_s=60.0)
    outlit.begin(hangs)
    first = asyncio.create_task(send(callers))
    await outlit.until_requests(1)
    await callers.reload(url=outlit.url, api_key=callers.secret, timeout_s=0.1)
    async with asyncio.timeout(PATIENCE_S):
        reply = await send(callers)
    assert (reply.status, reply.json["code"], reply.json["retryable"]) == (503, "overloaded", True)
    assert len(outlit.requests) == 1, "it was sent when nobody could have its answer in time"
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"gateway": {"tools": ("outlit_query",)}}, 503),
        ({"gateway": {"api_key": SecretStr(fresh_key())}}, 503),
        ({"ops": {"token": SecretStr("another-token")}}, 503),
        ({"delivery": {"max_age_s": 3_600.0}}, 200),
    ],
    ids=["tools", "key", "token", "something else"],
)
async def test_who_waits_while_it_is_forbidden_is_not_sent(
    outlit: Outlit, callers: Callers, changed: dict[str, dict[str, Any]], status: int
) -> None:
    go = asyncio.Event()
    outlit.begin(after(go, says(SERVED)))
    first = asyncio.create_task(callers.tool("outlit_schema"))
    await outlit.until_requests(1)
    second = asyncio.create_task(callers.tool("outlit_schema"))
    await callers.status()
    tables = {**changed}
    gateway = {"api_key": callers.secret, "timeout_s": 5.0, **tables.pop("gateway", {})}
    await callers.reload(url=outlit.url, **tables, **gateway)
    go.set()
    assert (await first).status == 200, "it was on its way"
    reply = await second
    assert reply.status == status
    assert len(outlit.requests) == (2 if status == 200 else 1)
    if status == 503:
        assert (reply.json["code"], reply.json["retryable"]) == ("overloaded", True)
        assert "nothing was sent" in reply.json["error"]


async def test_what_is_in_line_for_callers_who_have_left_is_never_sent(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever repeats what he has given up would have it done twice."""
    monkeypatch.setattr(turns, "DOUBTING_S", 60.0)
    outlit.begin(hangs)
    first = asyncio.create_task(send(callers))
    await outlit.until_requests(1)
    others = [asyncio.create_task(send(callers)) for _ in range(3)]
    await callers.status()
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    async with asyncio.timeout(PATIENCE_S):
        while (await callers.stack.metrics())("gateway_in_flight") > 1:
            pass
    outlit.behave = says(SERVED)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    assert len(outlit.requests) == 1


async def test_answers_that_say_nothing_of_a_plan_hold_nobody_up(
    outlit: Outlit, callers: Callers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One agent with bad input must not slow all others down."""
    monkeypatch.setattr(turns, "DOUBTING_S", 60.0)
    monkeypatch.setattr(turns, "TRUSTING_S", 60.0)
    bad = answer(b'{"error":"Invalid input"}', "400 Bad Request")
    calls, answered = await herd(outlit, callers, 8, *[bad] * 8)
    for ended, gone in enumerate([1, 2, 4, 5]):
        await assert_gone(outlit, callers, gone if ended < 3 else 6)
        answered[ended].set()
    for each in answered:
        each.set()
    assert {reply.status for reply in await asyncio.gather(*calls)} == {400}
