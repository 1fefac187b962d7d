"""What is known of a key: a word that holds for a while, and a 503 that says nothing of it."""

import asyncio
from typing import Any

import pytest
from pydantic import SecretStr

from tests.gateway.callers import BASES, Callers, fresh_key
from tests.gateway.test_answers import AUTHORIZED, BAD_KEY, TRY_AGAIN
from tests.stack import Reply

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("at_once")]


INVALID = {"what": "answer", "status": 401, "body": {"error": "Invalid credentials"}}


async def validate(callers: Callers, caller: str = "own", **more: Any) -> Reply:
    return await callers.ask("POST", "/validate-api-key", caller=caller, **more)


def says(status: int, body: str, **more: Any) -> dict[str, Any]:
    json_body = {"Content-Type": "application/json", "X-Organization": "org_1"}
    return {"what": "answer", "status": status, "body": body, "headers": json_body, **more}


@pytest.mark.parametrize(
    ("status", "body"), [(200, AUTHORIZED), (200, AUTHORIZED.ljust(16_384)), (401, BAD_KEY)]
)
async def test_the_same_question_is_asked_once(callers: Callers, status: int, body: str) -> None:
    await callers.order(says(status, body))
    first = await validate(callers)
    for base in BASES:
        again = await validate(callers, base=base)
        assert (again.status, again.body) == (status, body.encode()) == (first.status, first.body)
        assert again.headers["Content-Type"] == first.headers["Content-Type"]
        assert again.headers["Cache-Status"].startswith("outlit-proxy; hit")
    assert "Cache-Status" not in first.headers
    assert len(await callers.calls()) == 1


async def test_each_key_has_its_own_answer(callers: Callers) -> None:
    await callers.order(says(401, BAD_KEY, requests=1))
    assert (await validate(callers, "own")).status == 401
    assert (await validate(callers, "operator")).status == 200
    assert (await validate(callers, "own")).status == 401
    # A key in a caller's hand is the same key.
    assert (await validate(callers, callers.api_key)).status == 200
    assert len(await callers.calls()) == 2


async def test_a_503_is_not_taken_for_an_answer(callers: Callers) -> None:
    """Not for "invalid", and not for longer than it is said."""
    await callers.order(says(503, TRY_AGAIN))
    reply = await validate(callers)
    assert (reply.status, reply.body) == (503, TRY_AGAIN.encode())
    asked = len(await callers.calls())
    assert asked == 3
    await validate(callers)
    assert len(await callers.calls()) == 2 * asked
    await callers.clear_orders()
    assert (await validate(callers)).status == 200
    assert (await callers.status())["key_refused_at"] is None


async def test_a_503_that_passes_is_never_seen(callers: Callers) -> None:
    await callers.order(says(503, TRY_AGAIN, requests=2))
    assert (await validate(callers)).status == 200
    assert len(await callers.calls()) == 3


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500])
async def test_nothing_else_is_kept(callers: Callers, status: int) -> None:
    await callers.order(says(status, '{"error":"e"}'))
    for number in (1, 2):
        assert (await validate(callers)).status == status
        assert len(await callers.calls()) == number


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, '{"valid":false}'),
        (200, '{"valid":1}'),
        (200, "{}"),
        (200, "<p>Welcome to the airport</p>"),
        (401, '{"valid":true}'),
        (401, '{"error":"Invalid credentials"}'),
        (401, "<p>Log in to the company's proxy first</p>"),
        (200, AUTHORIZED.ljust(16_385)),
    ],
)
async def test_an_answer_that_does_not_speak_of_the_key_or_is_long_passes_and_is_not_kept(
    callers: Callers, status: int, body: str
) -> None:
    await callers.order(says(status, body))
    for number in (1, 2):
        reply = await validate(callers)
        assert (reply.status, reply.body) == (status, body.encode())
        assert len(await callers.calls()) == number


async def test_a_question_that_says_more_is_asked_each_time(callers: Callers) -> None:
    """Nobody knows what its answer goes by: it is neither kept nor given in another's place."""
    more = [("/validate-api-key?scope=x", None), ("/validate-api-key", {"scope": "x"})]
    for number, (path, body) in enumerate(more * 2, start=1):
        assert (await callers.ask("POST", path, body, caller="own")).status == 200
        assert len(await callers.calls()) == number
    assert "Cache-Status" not in (await validate(callers)).headers
    assert "Cache-Status" in (await validate(callers)).headers


async def test_a_key_that_another_call_finds_revoked_is_asked_about_again(callers: Callers) -> None:
    assert (await validate(callers)).status == 200
    await callers.order({"what": "answer", "status": 401, "body": BAD_KEY})
    assert (await callers.tool(caller="own")).status == 401
    assert (await validate(callers)).status == 401


async def test_the_operator_sees_that_the_key_of_the_gateway_is_refused(callers: Callers) -> None:
    assert (await callers.status())["key_refused_at"] is None
    await callers.order(INVALID)
    assert (await callers.tool(caller="own")).status == 401
    assert (await callers.status())["key_refused_at"] is None, "a caller's own key is not the operator's"
    assert (await callers.ask("GET", "/else")).status == 401
    assert (await callers.status())["key_refused_at"] is None, "of what is not known no 401 is about the key"
    assert (await callers.tool()).status == 401
    assert (await callers.status())["key_refused_at"] is not None
    assert (await callers.stack.metrics())("gateway_api_key_refused") == 1


@pytest.mark.parametrize(
    ("then", "is_refused"),
    [
        ({"status": 200, "body": "{}"}, False),
        ({"status": 403, "body": {"error": "Missing grant"}}, False),
        ({"status": 500, "body": {"error": "Oops"}}, True),
    ],
    ids=["taken", "let in", "no word of it"],
)
async def test_the_operator_sees_when_the_key_is_taken_again(
    callers: Callers, then: dict[str, Any], is_refused: bool
) -> None:
    await callers.order(INVALID)
    await callers.tool()
    await callers.clear_orders()
    await callers.order({"what": "answer", **then})
    assert (await callers.tool()).status == then["status"]
    assert ((await callers.status())["key_refused_at"] is not None) is is_refused
    assert (await callers.stack.metrics())("gateway_api_key_refused") == is_refused


async def test_another_key_of_the_gateway_has_not_been_refused(callers: Callers) -> None:
    await callers.order(INVALID)
    assert (await callers.tool()).status == 401
    await callers.reload(api_key=callers.secret)
    assert (await callers.status())["key_refused_at"] is not None
    await callers.reload(api_key=SecretStr(fresh_key()))
    assert (await callers.status())["key_refused_at"] is None


async def test_many_who_ask_at_once_get_each_their_answer(callers: Callers) -> None:
    await callers.order(says(200, AUTHORIZED))
    replies = await asyncio.gather(*(validate(callers) for _ in range(20)))
    assert {(reply.status, reply.body) for reply in replies} == {(200, AUTHORIZED.encode())}
    assert len(await callers.calls()) == 1
