"""Dead letters over HTTP: found by each filter, shown whole, replayed and purged no further than meant."""

import itertools
import json
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from proxy.buffer import BufferUnavailable, Which
from proxy.buffer.sqlite import SqliteBuffer
from proxy.flusher import Flusher
from proxy.ledger import Dead
from proxy.ops import Bookkeeper
from proxy.sandbox import Fault, What
from tests.ops.operator import ask, books, die, done, fresh, nothing_under_way, outage, recovery, told
from tests.sandbox.bodies import OTHER_VISITOR, SESSION, VISITOR, client
from tests.stack import KEY, Stack, StartStack


def ids(page: Any) -> list[int]:
    return [letter["id"] for letter in page["dead"]]


# -- looking -----------------------------------------------------------------------------------------------


async def test_dead_letters_are_listed_newest_first_without_what_clients_sent(stack: Stack) -> None:
    uuids = await die(stack, *(fresh("custom", properties={"note": "of the client"}) for _ in range(3)))
    reply = await ask(stack, "GET", "/dead")
    assert b"of the client" not in reply.body
    page = reply.json
    assert (page["count"], page["before"]) == (3, None)
    assert [letter["uuid"] for letter in page["dead"]] == uuids[::-1]
    letter = page["dead"][0]
    died_at = datetime.fromisoformat(letter.pop("died_at"))
    first_tried_at = datetime.fromisoformat(letter.pop("first_tried_at"))
    assert datetime.now(UTC) - timedelta(minutes=1) < first_tried_at <= died_at <= datetime.now(UTC)
    assert letter == {
        "id": 3,
        "key": KEY,
        "uuid": uuids[2],
        "reason": "refused",
        "message": "Fault: refused",
        "attempts": 1,
    }


async def test_where_nothing_is_dead_the_list_is_empty(stack: Stack) -> None:
    assert await told(stack, "/dead") == {"count": 0, "dead": [], "before": None}


async def test_pages_hold_every_dead_letter_once(stack: Stack) -> None:
    await die(stack, *(fresh() for _ in range(7)))
    page = await told(stack, "/dead", limit=3)
    assert page["count"] == 7
    seen = ids(page)
    while page["before"] is not None:
        page = await told(stack, "/dead", limit=3, before=page["before"])
        assert "count" not in page, "counted once is enough: it takes a look at all of them"
        seen += ids(page)
    assert seen == [7, 6, 5, 4, 3, 2, 1]


async def test_a_last_page_that_is_full_is_followed_by_an_empty_one(stack: Stack) -> None:
    await die(stack, fresh(), fresh())
    page = await told(stack, "/dead", limit=2)
    assert page["before"] == 1
    assert await told(stack, "/dead", limit=2, before=1) == {"dead": [], "before": None}


async def three_kinds(stack: Stack) -> str:
    """Letters 1 and 2 of one key and visitor, 3 of another visitor, 4 of another key. The uuid of 2."""
    _, uuid = await die(stack, fresh(), fresh())
    await die(stack, fresh(), visitorId=OTHER_VISITOR)
    await die(stack, fresh(), key="pk_other")
    return uuid


async def test_every_filter_finds_what_fits_and_nothing_else(stack: Stack) -> None:
    uuid = await three_kinds(stack)
    second = (await told(stack, "/dead/2"))["died_at"]
    fourth = (await told(stack, "/dead/4"))["died_at"]
    found: list[tuple[dict[str, object], list[int]]] = [
        ({"key": KEY}, [3, 2, 1]),
        ({"key": "pk_none"}, []),
        ({"id": 2}, [2]),
        ({"uuid": uuid.upper()}, [2]),
        ({"visitor": VISITOR}, [4, 2, 1]),
        ({"visitor": OTHER_VISITOR.upper()}, [3]),
        ({"visitor": VISITOR, "key": KEY}, [2, 1]),
        ({"reason": "refused"}, [4, 3, 2, 1]),
        ({"reason": "envelope_refused"}, []),
        ({"until": fourth}, [3, 2, 1]),
        ({"since": fourth}, [4]),
        ({"since": second, "until": fourth, "key": KEY, "reason": "refused"}, [3, 2, 1]),
        ({"since": "2020-01-01", "until": "2021-01-01"}, []),
    ]
    for query, expected in found:
        page = await told(stack, "/dead", **query)
        assert (page["count"], ids(page)) == (len(expected), expected), query


async def test_times_are_read_in_any_zone_and_as_utc_where_none_is_named(stack: Stack) -> None:
    await die(stack, fresh())
    died_at = datetime.fromisoformat((await told(stack, "/dead/1"))["died_at"])
    for since in (
        died_at.isoformat(),
        died_at.astimezone(UTC).replace(tzinfo=None).isoformat(),
        (died_at + timedelta(hours=5)).replace(tzinfo=None).isoformat() + "+05:00",
    ):
        assert (await told(stack, "/dead", since=since))["count"] == 1, since
        assert (await told(stack, "/dead", until=since))["count"] == 0, since


async def test_a_dead_letter_is_shown_with_everything_it_would_be_sent_with(stack: Stack) -> None:
    sent = fresh("custom", properties={"emoji": "\ud83d", "large": 2**70, "nested": [{"a": None}]})
    stack.fault(Fault(what=What.REFUSE_INDICES, indices=(0,), requests=1))
    headers = {"User-Agent": "Mozilla/5.0 \u2026", "Origin": "https://acme.example", "Cookie": "secret=1"}
    await stack.post(client(sent, sessionId=SESSION), headers=headers)
    await books(stack, dead=1)
    letter = await told(stack, "/dead/1")
    assert letter["event"] == sent
    assert letter["envelope"] == {"source": "client", "visitorId": VISITOR, "sessionId": SESSION}
    assert letter["client_ip"] == "127.0.0.1"
    assert letter["user_agent"] == headers["User-Agent"]
    assert letter["origin"] == headers["Origin"]
    assert (letter["id"], letter["uuid"], letter["reason"]) == (1, sent["uuid"], "refused")
    assert "secret" not in json.dumps(letter)
    page = await told(stack, "/dead", full="true")
    assert page["dead"] == [letter]


async def test_a_dead_letter_counts_its_tries_and_tells_when_the_first_was(stack: Stack) -> None:
    stack.fault(Fault(what=What.STATUS, status=503, requests=1))
    stack.fault(Fault(what=What.REFUSE_INDICES, indices=(0,), requests=1))
    await stack.post(client(fresh(), fresh()))
    await stack.until(lambda record: len(record.entries) == 1)
    first_answered_at = datetime.now(UTC)
    while not (await done(stack, f"/keys/{KEY}/retry"))["waited"]:
        pass
    await books(stack, dead=1, delivered=1)
    for letter in (await told(stack, "/dead/1"), (await told(stack, "/dead"))["dead"][0]):
        assert letter["attempts"] == 2
        first_tried_at = datetime.fromisoformat(letter["first_tried_at"])
        assert first_tried_at < first_answered_at < datetime.fromisoformat(letter["died_at"])


@pytest.mark.parametrize("reason", Dead)
async def test_every_reason_can_be_asked_for(stack: Stack, reason: Dead) -> None:
    await die(stack, fresh())
    assert (await told(stack, "/dead", reason=reason))["count"] == (reason is Dead.REFUSED)


async def test_beyond_their_bound_the_oldest_are_given_up_and_counted(start_stack: StartStack) -> None:
    stack = await start_stack(dead={"max_bytes": 1_000_000})
    stack.fault(Fault(what=What.REFUSE_INDICES, indices=(0,)))
    noise = Random(1)
    for number in (1, 2, 3):
        # What compresses well would fit.
        large = fresh("custom", properties={"noise": b64encode(noise.randbytes(300_000)).decode()})
        await stack.post(client(large))
        await books(stack, accepted=number, held=0, dead=min(number, 2), dropped=max(0, number - 2))
    page = await told(stack, "/dead")
    assert (page["count"], ids(page)) == (2, [3, 2])
    await nothing_under_way(stack)
    assert (await stack.metrics())("events_dropped_total", reason="dead_evicted") == 1


async def test_what_is_secret_was_redacted_before_it_was_kept(stack: Stack) -> None:
    secret = fresh("form", url="https://acme.example/?token=hunter2", formFields={"password": "hunter2"})
    await die(stack, secret)
    assert b"hunter2" not in (await ask(stack, "GET", "/dead/1")).body


async def test_a_dead_letter_that_is_not_there_is_404(stack: Stack) -> None:
    reply = await ask(stack, "GET", "/dead/7")
    assert reply.status == 404
    assert reply.json["error"].startswith("no dead letter 7: ")


async def test_the_ages_that_the_operator_set_reach_those_who_act_on_them(
    monkeypatch: pytest.MonkeyPatch, start_stack: StartStack
) -> None:
    """Both are a minute at least, too long to be waited for here: what they do is tested where they do it."""
    told: dict[str, float] = {}

    def noting(room: Callable[..., Any], name: str) -> Callable[..., Any]:
        def built(*rooms: Any, **given: Any) -> Any:
            told[name] = given[name]
            return room(*rooms, **given)

        return built

    monkeypatch.setattr("proxy.service.rooms.Flusher", noting(Flusher, "max_age_s"))
    monkeypatch.setattr("proxy.service.rooms.Bookkeeper", noting(Bookkeeper, "retention_s"))
    await start_stack(delivery={"max_age_s": 61.0}, dead={"retention_s": 62.0})
    assert told == {"max_age_s": 61.0, "retention_s": 62.0}


# -- replay ------------------------------------------------------------------------------------------------


async def test_a_dry_run_counts_and_changes_nothing(stack: Stack) -> None:
    await die(stack, fresh(), fresh())
    for verb, word in (("replay", "replayed"), ("purge", "purged")):
        answer = await done(stack, f"/dead/{verb}", all="true", dry_run="true")
        assert answer == {"count": 2, "up_to_id": 2, word: 0}
    assert (await stack.ledger())["dead"] == 2


async def test_replayed_events_are_delivered_in_the_order_in_which_they_were_accepted(stack: Stack) -> None:
    uuids = await die(stack, *(fresh() for _ in range(5)))
    assert await done(stack, "/dead/replay", all="true") == {"count": 5, "up_to_id": 5, "replayed": 5}
    assert [arrival.event["uuid"] for arrival in await stack.arrived(5)] == uuids
    await books(stack, accepted=5, delivered=5, dead=0)
    seen = await stack.metrics()
    assert seen("dead_replayed_total") == 5
    assert seen("events_accepted_total") == 5, "a replay is no second acceptance"


async def test_in_portions_the_order_is_the_same_and_what_dies_of_it_is_not_met(
    monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    """A portion is what the buffer does at once; of five it is two here."""
    monkeypatch.setattr("proxy.buffer.sqlite.dead_letters.MAX_LETTERS", 2)
    uuids = await die(stack, *(fresh() for _ in range(5)))
    counted = await done(stack, "/dead/replay", all="true", dry_run="true", portion="true")
    assert counted == {"count": 5, "up_to_id": 5, "replayed": 0}
    replayed: list[dict[str, int]] = []
    while not replayed or replayed[-1]["replayed"]:
        replayed.append(await done(stack, "/dead/replay", all="true", up_to_id="5", portion="true"))
    assert replayed == [{"up_to_id": 5, "replayed": number} for number in (2, 2, 1)] + [
        {"up_to_id": 0, "replayed": 0}
    ]
    assert [arrival.event["uuid"] for arrival in await stack.arrived(5)] == uuids
    assert (await stack.metrics())("dead_replayed_total") == 5


async def test_only_what_fits_is_replayed(stack: Stack) -> None:
    uuid = await three_kinds(stack)
    assert (await done(stack, "/dead/replay", uuid=uuid))["replayed"] == 1
    assert (await done(stack, "/dead/replay", key="pk_other"))["replayed"] == 1
    assert (await done(stack, "/dead/replay", visitor=OTHER_VISITOR, reason="envelope_refused")) == {
        "count": 0,
        "up_to_id": 0,
        "replayed": 0,
    }
    assert ids(await told(stack, "/dead")) == [3, 1]
    await books(stack, delivered=2, dead=2)


async def test_a_replay_up_to_an_id_leaves_alone_what_died_since(stack: Stack) -> None:
    await die(stack, fresh())
    counted = await done(stack, "/dead/replay", all="true", dry_run="true")
    await die(stack, fresh())
    again = await done(stack, "/dead/replay", all="true", up_to_id=counted["up_to_id"])
    assert again == {"count": 1, "up_to_id": 1, "replayed": 1}
    assert ids(await told(stack, "/dead")) == [2]


async def test_a_replay_never_meets_what_dies_of_it(monkeypatch: pytest.MonkeyPatch, stack: Stack) -> None:
    """Between two of the buffer's thousands what was replayed first can have died again."""
    await die(stack, fresh(), fresh())
    stack.fault(Fault(what=What.REFUSE_INDICES, indices=(0, 1)))
    replay = SqliteBuffer.replay

    async def then_die(self: SqliteBuffer, which: Which) -> int:
        replayed = await replay(self, which)
        await books(stack, dead=2, held=0)
        return replayed

    monkeypatch.setattr(SqliteBuffer, "replay", then_die)
    assert (await done(stack, "/dead/replay", all="true"))["replayed"] == 2
    assert ids(await told(stack, "/dead")) == [4, 3]


async def test_a_replay_that_meets_a_full_buffer_says_how_far_it_came(start_stack: StartStack) -> None:
    stack = await start_stack(buffer={"max_bytes": 1_000_000})
    noise = Random(1)
    for visitor in (VISITOR, OTHER_VISITOR, SESSION):
        # What compresses well would fit.
        large = fresh("custom", properties={"noise": b64encode(noise.randbytes(370_000)).decode()})
        await die(stack, large, visitorId=visitor)
    outage(stack)
    reply = await ask(stack, "POST", "/dead/replay", all="true")
    assert reply.status == 503
    answer = reply.json
    assert (answer["count"], answer["replayed"]) == (3, 2)
    assert "buffer.max_bytes; replayed 2 of 3: ask again for the rest" in answer["error"]
    await books(stack, held=2, dead=1)
    assert (await stack.metrics())("dead_replayed_total") == 2
    recovery(stack)


# -- purge -------------------------------------------------------------------------------------------------


async def test_what_is_purged_is_dropped_and_counted(stack: Stack) -> None:
    await three_kinds(stack)
    assert await done(stack, "/dead/purge", visitor=OTHER_VISITOR) == {
        "count": 1,
        "up_to_id": 3,
        "purged": 1,
    }
    assert ids(await told(stack, "/dead")) == [4, 2, 1]
    assert (await done(stack, "/dead/purge", all="true"))["purged"] == 3
    await books(stack, accepted=4, dead=0, dropped=4)
    assert (await stack.metrics())("events_dropped_total", reason="dead_purged") == 4


async def test_more_than_the_buffer_does_at_once_is_purged_whole(stack: Stack) -> None:
    """The buffer gives up a thousand in a transaction."""
    for _ in range(11):
        await die(stack, *(fresh() for _ in range(100)))
    assert (await done(stack, "/dead/purge", key=KEY, portion="true")) == {"up_to_id": 1_100, "purged": 1_000}
    await die(stack, *(fresh() for _ in range(100)))
    assert (await done(stack, "/dead/purge", key=KEY))["purged"] == 200
    assert (await stack.ledger())["dead"] == 0


async def test_a_purge_that_the_buffer_stops_says_how_far_it_came(
    monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    await die(stack, fresh(), fresh())
    purge, times = SqliteBuffer.purge, itertools.count()

    async def away_the_second_time(self: SqliteBuffer, which: Which) -> int:
        if next(times):
            raise BufferUnavailable("the file is away")
        return await purge(self, which)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteBuffer, "purge", away_the_second_time)
        reply = await ask(stack, "POST", "/dead/purge", all="true")
    assert reply.status == 503
    assert reply.json == {
        "error": "the file is away; purged 2 of 2: ask again for the rest",
        "count": 2,
        "up_to_id": 2,
        "purged": 2,
    }
    assert (await stack.metrics())("events_dropped_total", reason="dead_purged") == 2


UNCLEAR: list[tuple[dict[str, str], str]] = [
    ({}, "all"),
    ({"dry_run": "true"}, "all"),
    ({"up_to_id": "9"}, "all"),
    ({"all": "false"}, "all"),
    ({"all": "yes"}, "all"),
    ({"all": "true", "key": KEY}, "all"),
    ({"all": "true", "dry_run": ""}, "dry_run"),
    ({"Key": KEY}, "Key"),
    ({"reason": "Refused"}, "reason"),
    ({"id": "0"}, "id"),
    ({"id": "1.0"}, "id"),
    ({"id": str(2**63)}, "id"),
    ({"since": "yesterday"}, "since"),
    ({"since": ""}, "since"),
    ({"until": "1700000000"}, "until"),
    ({"until": "2026-07-01T10:00:00 02:00"}, "until"),
    ({"uuid": "a"}, "uuid"),
    ({"visitor": "a"}, "visitor"),
    ({"key": "a"}, "key"),
    ({"key": KEY, "limit": "5"}, "limit"),
]


@pytest.mark.parametrize("verb", ["replay", "purge"])
async def test_nothing_happens_where_it_is_not_clear_what_is_meant(stack: Stack, verb: str) -> None:
    await die(stack, fresh())
    for query, parameter in UNCLEAR:
        reply = await ask(stack, "POST", f"/dead/{verb}", **query)
        assert (reply.status, reply.json.get("parameter")) == (400, parameter), query
        assert reply.json["error"].startswith(f"{parameter}: "), query
    assert (await stack.ledger())["dead"] == 1


async def test_a_bad_parameter_of_a_look_is_named(stack: Stack) -> None:
    for path, parameter in [
        ("/dead?limit=1001", "limit"),
        ("/dead?before=last", "before"),
        ("/dead?full=1", "full"),
        ("/dead?all=true", "all"),
        ("/dead?key=pk_a&key=pk_b", "key"),
        ("/dead/one", "id"),
        ("/dead/1?key=pk_test", "key"),
    ]:
        reply = await ask(stack, "GET", path)
        assert (reply.status, reply.json.get("parameter")) == (400, parameter), path
