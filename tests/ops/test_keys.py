"""Keys over HTTP: how each fares, paused, resumed and retried, under what upstream answers."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proxy.sandbox import Fault, What
from tests.ops.operator import ask, books, die, done, fresh, nothing_under_way, outage, recovery, told
from tests.sandbox.bodies import OTHER_VISITOR, client
from tests.stack import KEY, PATIENCE_S, Stack, StartStack, running_stack

WELL: dict[str, Any] = {"paused": None, "paused_for_s": 0.0, "by_operator": False, "forbidden_origins": []}
SOON_S = 2.0
"""Less than the shortest back-off or pause that an operator ends: 48 s after a 403, 15 s after a 401."""


async def key_of(stack: Stack, key: str = KEY) -> Any:
    return await told(stack, f"/keys/{key}")


async def becomes(stack: Stack, fact: Callable[[Any], object], key: str = KEY) -> Any:
    """Wait until this is true of the key, and give it."""
    shown: Any = {}
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not fact(shown := await key_of(stack, key)):
                pass
    except TimeoutError:
        raise AssertionError(f"the key stays {shown}") from None
    return shown


async def settled(stack: Stack, requests: int) -> None:
    """Wait until upstream was asked so often, and none of it is under way any more."""
    await stack.until(lambda record: len(record.entries) >= requests)
    await nothing_under_way(stack)
    assert len(stack.entries) == requests


async def within(seconds: float, stack: Stack, events: int) -> None:
    async with asyncio.timeout(seconds):
        await stack.arrived(events)


# -- looking -----------------------------------------------------------------------------------------------


async def test_where_nothing_was_accepted_there_is_no_key(stack: Stack) -> None:
    assert await told(stack, "/keys") == {"keys": []}


async def test_a_key_tells_what_it_holds_and_how_it_fares(stack: Stack) -> None:
    await die(stack, fresh(), key="pk_two")
    await stack.post(client(fresh()), "pk_two")
    await books(stack, delivered=1)
    outage(stack)
    before = datetime.now(UTC)
    await stack.post(client(fresh(), fresh()), "pk_two")
    await stack.post(client(fresh(), visitorId=OTHER_VISITOR), "pk_two")
    await stack.post(client(fresh()), "pk_one")
    await settled(stack, 5)
    one, two = (await told(stack, "/keys"))["keys"]
    assert two == await key_of(stack, "pk_two")
    assert one["key"] == "pk_one"
    assert one["confirmed"] is False
    held_since = datetime.fromisoformat(two.pop("oldest_held_at"))
    assert abs(held_since - before) < timedelta(seconds=PATIENCE_S)
    assert two.pop("stored_bytes") > 500
    rate_per_s = two.pop("rate_per_s")
    assert 0 < rate_per_s <= two.pop("limit_per_s") <= 10_000
    assert two.pop("time_to_drain_s") == pytest.approx(2 / rate_per_s, abs=0.001)
    assert two == {
        **WELL,
        "key": "pk_two",
        "confirmed": True,
        "queues": 2,
        "queue_waits": False,
        "ambiguous": 0,
        "books": {"accepted": 5, "held": 3, "delivered": 1, "dead": 1, "dropped": 0, "difference": 0},
    }


@pytest.mark.parametrize("share", [1.0, 0.25])
async def test_a_share_of_the_limit_is_what_the_rate_is_made_of(
    start_stack: StartStack, share: float
) -> None:
    stack = await start_stack(delivery={"limit_per_s": 200, "rate_share": share})
    await stack.sandbox.stop()  # no answer teaches anything else
    await stack.post(client(fresh()))
    key = await key_of(stack)
    assert (key["limit_per_s"], key["rate_per_s"]) == (200, pytest.approx(0.9 * 200 * share))


async def test_what_may_have_arrived_unseen_is_counted_of_its_key(stack: Stack) -> None:
    stack.fault(Fault(what=What.RESET, requests=1))
    await stack.post(client(fresh()))
    await becomes(stack, lambda key: key["ambiguous"] == 1)


async def test_a_key_with_nothing_held_has_nothing_to_drain(stack: Stack) -> None:
    await stack.post(client(fresh()))
    await books(stack, delivered=1)
    key = await key_of(stack)
    assert (key["oldest_held_at"], key["time_to_drain_s"], key["queues"], key["confirmed"]) == (
        None,
        0.0,
        0,
        True,
    )


# -- pause and resume --------------------------------------------------------------------------------------


async def test_a_paused_key_sends_nothing_and_accepts_all_the_same_until_it_is_resumed(stack: Stack) -> None:
    await stack.post(client(fresh()))
    await books(stack, delivered=1)
    paused = await done(stack, f"/keys/{KEY}/pause")
    assert (paused["did"], paused["paused"], paused["by_operator"]) == ("paused", "operator", True)
    assert (await stack.post(client(fresh()))).status == 200
    assert (await stack.post(client(fresh()), "pk_other")).status == 200
    await books(stack, delivered=2)
    await asyncio.sleep(0.3)  # many lingers: that nothing happens can only be waited for
    key = await key_of(stack)
    assert (key["paused"], key["by_operator"], key["books"]["held"]) == ("operator", True, 1)
    assert (await stack.metrics())("gate_paused", key=KEY, reason="operator") == 1
    resumed = await done(stack, f"/keys/{KEY}/resume")
    assert {name: resumed[name] for name in WELL} == WELL
    assert resumed["did"] == "resumed"
    await within(1.5, stack, 3)
    await books(stack, delivered=3)
    assert (await stack.metrics())("gate_paused", key=KEY, reason="operator") == 0


async def test_pausing_and_resuming_twice_is_as_once(stack: Stack) -> None:
    await stack.post(client(fresh()))
    await books(stack, delivered=1)
    assert await done(stack, f"/keys/{KEY}/pause") == await done(stack, f"/keys/{KEY}/pause")
    await stack.post(client(fresh()))
    assert (await done(stack, f"/keys/{KEY}/resume"))["did"] == "resumed"
    await books(stack, delivered=2)
    assert (await done(stack, f"/keys/{KEY}/resume"))["paused"] is None


async def test_a_pause_outlives_the_process(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack:
        outage(stack)
        await stack.post(client(fresh()))
        await settled(stack, 1)
        await done(stack, f"/keys/{KEY}/pause")
    async with running_stack(tmp_path) as stack:
        assert (await key_of(stack))["by_operator"] is True
        assert (await done(stack, f"/keys/{KEY}/retry"))["waited"] <= 1
        await asyncio.sleep(0.3)
        assert not stack.entries
        await done(stack, f"/keys/{KEY}/resume")
        await within(SOON_S, stack, 1)


# -- retry -------------------------------------------------------------------------------------------------


async def test_a_retry_ends_the_wait_of_an_origin_that_was_forbidden(stack: Stack) -> None:
    shop = {"Origin": "https://shop.example.com"}
    stack.fault(Fault(what=What.STATUS, status=403, requests=1))
    await stack.post(client(fresh()), headers=shop)
    shown = await becomes(stack, lambda key: key["forbidden_origins"])
    assert shown["forbidden_origins"] == ["https://shop.example.com"]
    assert shown["paused"] is None, "another Origin of the same key must not wait for this one"
    other = fresh()
    await stack.post(client(other, visitorId=OTHER_VISITOR), headers={"Origin": "https://acme.example"})
    assert [arrival.event["uuid"] for arrival in await stack.arrived(1)] == [other["uuid"]]
    retried = await done(stack, f"/keys/{KEY}/retry")
    assert (retried["did"], retried["waited"]) == ("retried", 1)
    await within(SOON_S, stack, 2)
    assert not (await becomes(stack, lambda key: not key["books"]["held"]))["forbidden_origins"]
    assert (await done(stack, f"/keys/{KEY}/retry"))["waited"] == 0


async def test_clients_without_an_origin_are_named_by_an_empty_one(stack: Stack) -> None:
    stack.fault(Fault(what=What.STATUS, status=403, requests=1))
    await stack.post(client(fresh()))
    assert (await becomes(stack, lambda key: key["forbidden_origins"]))["forbidden_origins"] == [""]


@pytest.mark.parametrize("status", [401, 402, 404, 302])
async def test_a_retry_ends_the_pause_of_a_key_that_was_refused(stack: Stack, status: int) -> None:
    stack.fault(Fault(what=What.STATUS, status=status, requests=1))
    await stack.post(client(fresh()))
    paused = await becomes(stack, lambda key: key["paused"])
    assert paused["paused"] == "key_refused"
    assert 10 < paused["paused_for_s"] < 15.5
    assert (await stack.post(client(fresh(), visitorId=OTHER_VISITOR))).status == 200
    retried = await done(stack, f"/keys/{KEY}/retry")
    assert retried["waited"] == 0, "no queue of a refused key backs off: the key itself had waited"
    await within(SOON_S, stack, 2)
    assert (await becomes(stack, lambda key: not key["books"]["held"]))["paused"] is None


async def test_a_retry_of_a_key_that_is_still_refused_costs_one_request(stack: Stack) -> None:
    stack.fault(Fault(what=What.STATUS, status=401))
    await stack.post(client(fresh()))
    await becomes(stack, lambda key: key["paused"])
    for number in range(3):
        await stack.post(client(fresh(), visitorId=f"0190a1b2-0000-7000-8000-00000000000{number}"))
    await done(stack, f"/keys/{KEY}/retry")
    await settled(stack, 2)
    await becomes(stack, lambda key: key["paused_for_s"] > 10)
    recovery(stack)


async def test_a_retry_ends_the_back_off_of_each_queue(stack: Stack) -> None:
    stack.fault(Fault(what=What.STATUS, status=503, retry_after_s=60, requests=2))
    await stack.post(client(fresh()))
    await stack.post(client(fresh(), visitorId=OTHER_VISITOR))
    await settled(stack, 2)
    assert (await done(stack, f"/keys/{KEY}/retry"))["waited"] == 2
    await within(SOON_S, stack, 2)


async def test_a_retry_leaves_the_operators_pause_alone(stack: Stack) -> None:
    stack.fault(Fault(what=What.STATUS, status=403, requests=1))
    await stack.post(client(fresh()))
    await settled(stack, 1)
    await done(stack, f"/keys/{KEY}/pause")
    retried = await done(stack, f"/keys/{KEY}/retry")
    assert (retried["waited"], retried["paused"], retried["by_operator"]) == (1, "operator", True)
    await asyncio.sleep(0.3)
    assert len(stack.entries) == 1
    await done(stack, f"/keys/{KEY}/resume")
    await within(SOON_S, stack, 1)


# -- what cannot be ----------------------------------------------------------------------------------------

LEVERS = ("pause", "resume", "retry")


async def test_a_key_that_was_never_seen_is_404_and_no_key_comes_of_it(stack: Stack) -> None:
    for method, path in [("GET", "/keys/pk_new"), *(("POST", f"/keys/pk_new/{lever}") for lever in LEVERS)]:
        reply = await ask(stack, method, path)
        assert reply.status == 404, path
        assert reply.json["error"].startswith("pk_new is not known: "), path
    assert await told(stack, "/keys") == {"keys": []}


async def test_what_is_no_key_or_no_parameter_is_named(stack: Stack) -> None:
    await stack.post(client(fresh()))
    for method, path, parameter in [
        ("GET", "/keys/test", "key"),
        ("GET", "/keys?key=pk_test", "key"),
        ("GET", "/keys/pk_test?full=true", "full"),
        *(("POST", f"/keys/pk_te.st/{lever}", "key") for lever in LEVERS),
        *(("POST", f"/keys/pk_test/{lever}?dry_run=true", "dry_run") for lever in LEVERS),
    ]:
        reply = await ask(stack, method, path)
        assert (reply.status, reply.json.get("parameter")) == (400, parameter), path
    assert (await key_of(stack))["by_operator"] is False
