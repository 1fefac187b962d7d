"""What an operator is told of one event, and of the batches that upstream may have taken unseen."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from proxy.buffer import Batch, Traces
from proxy.ops.fates import fate_of
from proxy.sandbox import Fault, What
from proxy.wire.limits import PublicKey
from tests.ops.operator import ask, books, die, done, fresh, nothing_under_way, outage, told
from tests.sandbox.bodies import OTHER_VISITOR, VISITOR, client
from tests.stack import KEY, PATIENCE_S, Stack

NEVER_SEEN = "0190ffff-ffff-7fff-8fff-ffffffffffff"


async def settles(stack: Stack, uuid: str, **facts: Any) -> Any:
    """Wait until this is told of an event."""
    known: Any = {}
    async with asyncio.timeout(PATIENCE_S):
        while any(known.get(name) != value for name, value in facts.items()):
            known = (await ask(stack, "GET", f"/events/{uuid}")).json
    return known


def is_now(text: str) -> bool:
    assert text.endswith("Z")
    return abs(datetime.now(UTC) - datetime.fromisoformat(text)) < timedelta(seconds=PATIENCE_S)


async def test_a_delivered_event_tells_the_batch_it_left_in(stack: Stack) -> None:
    sent = fresh()
    await stack.post(client(sent))
    known = await settles(stack, sent["uuid"], fate="delivered")
    [batch] = known["batches"]
    assert is_now(batch.pop("settled_at"))
    assert batch == {"key": KEY, "answered": "delivered", "ambiguous": False, "fate": "delivered"}
    assert known == {
        "uuid": sent["uuid"],
        "fate": "delivered",
        "ambiguous": False,
        "held": [],
        "dead": [],
        "batches": known["batches"],
    }


async def test_a_held_event_tells_where_and_for_how_long_it_waits(stack: Stack) -> None:
    outage(stack)
    sent = fresh()
    await stack.post(client(sent))
    await stack.until(lambda record: len(record.entries) >= 1)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            [held] = (await told(stack, f"/events/{sent['uuid']}"))["held"]
            if held["attempts"]:
                break
    assert is_now(held.pop("accepted_at"))
    assert 0 < held.pop("due_in_s") < 3
    assert held == {"key": KEY, "attempts": 1, "leased": False}
    known = await told(stack, f"/events/{sent['uuid']}")
    assert (known["fate"], known["batches"]) == ("held", [])


async def test_an_event_on_its_way_is_held_and_leased(stack: Stack) -> None:
    stack.fault(Fault(what=What.HANG_BEFORE))
    sent = fresh()
    await stack.post(client(sent))
    async with asyncio.timeout(PATIENCE_S):
        while not (await stack.metrics())("upstream_in_flight"):
            pass
    known = await told(stack, f"/events/{sent['uuid']}")
    assert known["fate"] == "held"
    assert known["held"][0]["leased"] is True


async def test_a_dead_event_tells_why(stack: Stack) -> None:
    [uuid] = await die(stack, fresh())
    known = await told(stack, f"/events/{uuid}")
    [letter], [batch] = known["dead"], known["batches"]
    assert known["fate"] == batch["fate"] == "dead"
    assert is_now(letter.pop("died_at"))
    assert letter == {"id": 1, "key": KEY, "reason": "refused", "message": "Fault: refused"}


async def test_of_an_event_that_was_never_seen_nothing_is_known_and_the_answer_says_what_that_means(
    stack: Stack,
) -> None:
    reply = await ask(stack, "GET", f"/events/{NEVER_SEEN}")
    assert reply.status == 404
    known = reply.json
    assert "never came here, or was delivered too long ago" in known.pop("error")
    assert known == {
        "uuid": NEVER_SEEN,
        "fate": "unknown",
        "ambiguous": False,
        "held": [],
        "dead": [],
        "batches": [],
    }


async def test_the_case_of_a_uuid_says_nothing(stack: Stack) -> None:
    sent = fresh(uuid="0190ABCD-0000-7000-8000-ABCDEF000000")
    await stack.post(client(sent))
    known = await settles(stack, sent["uuid"], fate="delivered")
    assert known["uuid"] == sent["uuid"].lower()


async def test_a_purged_event_was_dropped(stack: Stack) -> None:
    [uuid] = await die(stack, fresh())
    await done(stack, "/dead/purge", uuid=uuid)
    assert (await told(stack, f"/events/{uuid}"))["fate"] == "dropped"


async def test_a_replayed_event_tells_its_whole_way(stack: Stack) -> None:
    [uuid] = await die(stack, fresh())
    await done(stack, "/dead/replay", uuid=uuid)
    known = await settles(stack, uuid, fate="delivered")
    assert [batch["fate"] for batch in known["batches"]] == ["delivered", "dead"], "newest first"


async def test_an_event_is_looked_for_under_one_key_or_of_one_visitor_if_asked(stack: Stack) -> None:
    outage(stack)
    sent = fresh()
    await stack.post(client(sent), "pk_one")
    await stack.post(client(sent), "pk_two")
    path = f"/events/{sent['uuid']}"
    assert {held["key"] for held in (await told(stack, path))["held"]} == {"pk_one", "pk_two"}
    assert {held["key"] for held in (await told(stack, path, key="pk_two"))["held"]} == {"pk_two"}
    assert len((await told(stack, path, visitor=VISITOR.upper()))["held"]) == 2
    assert len((await told(stack, path, visitor=VISITOR, key="pk_one"))["held"]) == 1
    assert (await ask(stack, "GET", path, visitor=OTHER_VISITOR)).status == 404
    assert (await ask(stack, "GET", path, key="pk_three")).status == 404


async def test_a_delivery_whose_answer_was_lost_is_listed_and_its_event_says_so(stack: Stack) -> None:
    stack.fault(Fault(what=What.RESET, requests=1))
    lost, other = fresh(), fresh()
    await stack.post(client(lost))
    known = await settles(stack, lost["uuid"], fate="delivered")
    await stack.post(client(other))
    assert (await settles(stack, other["uuid"], fate="delivered"))["ambiguous"] is False
    assert known["ambiguous"] is True
    assert [(batch["answered"], batch["fate"]) for batch in known["batches"]][-1] == ("unanswered", "again")
    listed = await told(stack, "/ambiguous")
    await nothing_under_way(stack)
    assert listed["total"] == len(listed["batches"]) == (await stack.metrics())("deliveries_ambiguous_total")
    assert listed["batches"][-1]["answered"] == "unanswered"
    for batch in listed["batches"]:
        assert is_now(batch["settled_at"])
        assert (batch["key"], batch["events"]) == (KEY, [lost["uuid"]])


async def test_ambiguous_batches_are_listed_newest_first_of_one_key_and_so_many(stack: Stack) -> None:
    sent = {key: fresh() for key in ("pk_one", "pk_two", "pk_three")}
    for key, each in sent.items():
        stack.fault(Fault(what=What.RESET, requests=1))
        await stack.post(client(each), key)
        await settles(stack, each["uuid"], fate="delivered")
    everything = await told(stack, "/ambiguous")
    newest_first = [batch["settled_at"] for batch in everything["batches"]]
    assert newest_first == sorted(newest_first, reverse=True)
    assert {batch["key"] for batch in everything["batches"]} == set(sent)
    of_two = await told(stack, "/ambiguous", key="pk_two")
    assert {batch["key"] for batch in of_two["batches"]} == {"pk_two"}
    assert of_two["total"] == len(of_two["batches"])
    newest = await told(stack, "/ambiguous", limit=1)
    assert newest == {"total": everything["total"], "batches": everything["batches"][:1]}
    assert await told(stack, "/ambiguous", key="pk_none") == {"total": 0, "batches": []}


async def test_where_nothing_is_ambiguous_nothing_is_listed(stack: Stack) -> None:
    await stack.post(client(fresh()))
    await books(stack, delivered=1)
    assert await told(stack, "/ambiguous") == {"total": 0, "batches": []}


async def test_a_bad_parameter_is_named(stack: Stack) -> None:
    for path, parameter in [
        ("/events/nonsense", "uuid"),
        (f"/events/{NEVER_SEEN}x", "uuid"),
        (f"/events/{NEVER_SEEN.replace('-', '')}", "uuid"),
        ("/events/00000000-0000-0000-0000-000000000000x", "uuid"),
        (f"/events/{NEVER_SEEN}?key=test", "key"),
        (f"/events/{NEVER_SEEN}?key=", "key"),
        (f"/events/{NEVER_SEEN}?visitor=me", "visitor"),
        (f"/events/{NEVER_SEEN}?Key=pk_test", "Key"),
        (f"/events/{NEVER_SEEN}?key=pk_a&key=pk_b", "key"),
        ("/ambiguous?limit=0", "limit"),
        ("/ambiguous?limit=1001", "limit"),
        ("/ambiguous?limit=-1", "limit"),
        ("/ambiguous?limit=ten", "limit"),
        ("/ambiguous?limit=%D9%A1", "limit"),
        ("/ambiguous?key=ok_secret", "key"),
        ("/ambiguous?reason=refused", "reason"),
    ]:
        reply = await ask(stack, "GET", path)
        assert (reply.status, reply.json.get("parameter")) == (400, parameter), path
        assert reply.json["error"].startswith(f"{parameter}: "), path


def batch(*fates: str) -> Batch:
    return Batch(PublicKey("pk_a"), 0, None, False, b"u" * 16 * len(fates), "".join(fates).encode())


@pytest.mark.parametrize(
    ("batches", "fate"),
    [
        ([], "unknown"),
        ([batch("d")], "delivered"),
        ([batch("x")], "dropped"),
        ([batch("a")], "dropped"),
        ([batch("x"), batch("a")], "dropped"),
        ([batch("a"), batch("d")], "delivered"),
        ([batch("d"), batch("x")], "delivered"),
    ],
)
def test_what_is_nowhere_any_more_was_delivered_or_dropped_or_is_unknown(
    batches: list[Batch], fate: str
) -> None:
    assert fate_of(b"u" * 16, Traces(batches=batches)) == fate
