"""Every fault, switched from Python and over HTTP, as its victim sees it and as the record tells it."""

import asyncio
import json

import aiohttp
import pytest

from proxy.sandbox import Fault, FaultError, Programme, What
from proxy.sandbox.faults import FAULTS_MAX
from tests.sandbox.bodies import OTHER_VISITOR, VISITOR, client, event, server

THREE = client(event(number=0), event(number=1), event(number=2))


@pytest.fixture
def strike(sandbox, clock):
    """Switch a fault on, for one request unless told otherwise."""

    def struck(what, **details):
        sandbox.programme.add(Fault(what=What(what), **{"requests": 1, **details}), now=clock())

    return struck


async def dialogue(sandbox, body, key="pk_test"):
    """Post over a bare connection, so that what ends it can be told: the reader and the writer."""
    reader, writer = await asyncio.open_connection(*sandbox.url.removeprefix("http://").split(":"))
    raw = json.dumps(body).encode()
    head = f"POST /api/i/v1/{key}/events HTTP/1.1\r\nHost: sandbox\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(raw)}\r\n\r\n".encode() + raw)
    return reader, writer


@pytest.mark.parametrize("status", [301, 401, 402, 403, 404, 408, 413, 422, 429, 500, 503])
async def test_status_takes_nothing_and_records_what_came(post, sandbox, strike, status):
    strike("status", status=status)
    reply = await post(THREE)
    assert (reply.status, reply.body["success"]) == (status, False)
    assert "Retry-After" not in reply.headers
    assert reply.headers["X-RateLimit-Remaining"] == "99"
    entry = sandbox.record.entries[0]
    assert (entry.status, entry.fault, entry.taken) == (status, "status", ())
    assert list(entry.events) == THREE["events"]
    assert sandbox.record.stats.limited == 0
    assert (await post(THREE)).status == 200


async def test_status_sends_retry_after_when_it_is_given(post, strike):
    strike("status", status=503, retry_after_s=7)
    assert (await post(THREE)).headers["Retry-After"] == "7"


async def test_refuse_indices_takes_all_but_the_named(post, sandbox, strike):
    strike("refuse_indices", indices=(0, 2))
    reply = await post(THREE)
    assert (reply.status, reply.body["processed"]) == (207, 1)
    assert [error["index"] for error in reply.body["errors"]] == [0, 2]
    assert sandbox.record.entries[0].taken == (1,)


async def test_refuse_indices_may_name_what_is_not_there(post, sandbox, strike):
    strike("refuse_indices", indices=(-1, 99))
    reply = await post(THREE)
    assert [error["index"] for error in reply.body["errors"]] == [-1, 99]
    assert sandbox.record.entries[0].taken == (0, 1, 2)


async def test_refuse_400_with_paths_answers_in_the_overview_form(post, sandbox, strike):
    strike("refuse_400", paths=(("events", 1, "type"), ("visitorId",)))
    reply = await post(THREE)
    assert reply.status == 400
    assert [error["path"] for error in reply.body["errors"]] == [["events", 1, "type"], ["visitorId"]]
    assert sandbox.record.entries[0].taken == ()


async def test_refuse_400_with_indices_answers_in_the_endpoint_form(post, sandbox, strike):
    strike("refuse_400", indices=(2,))
    reply = await post(THREE)
    assert reply.status == 400
    assert reply.body == {
        "success": False,
        "processed": 0,
        "errors": [{"index": 2, "message": "Fault: refused"}],
    }
    assert sandbox.record.entries[0].taken == ()


async def test_refuse_400_with_neither_names_nothing(post, strike):
    strike("refuse_400")
    assert (await post(THREE)).body == {"success": False, "message": "Fault: refused", "errors": []}


async def test_latency_delays_the_answer_but_not_the_taking(post, sandbox, strike):
    strike("latency", latency_ms=80)
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = asyncio.create_task(post(THREE))
    await sandbox.record.until(lambda record: record.stats.events_taken == 3)
    assert not answer.done()
    assert (await answer).status == 200
    assert loop.time() - began >= 0.08


@pytest.mark.parametrize(("what", "taken"), [("reset", (0, 1, 2)), ("reset_before", ())])
async def test_reset_breaks_the_connection_without_an_answer(sandbox, strike, what, taken):
    strike(what)
    reader, writer = await dialogue(sandbox, THREE)
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    writer.close()
    entry = sandbox.record.entries[0]
    assert (entry.status, entry.fault, entry.taken) == (None, what, taken)
    assert sandbox.record.stats.requests == {"none": 1}
    assert sandbox.record.stats.events_taken == len(taken)


@pytest.mark.parametrize(("what", "taken"), [("hang", (0, 1, 2)), ("hang_before", ())])
async def test_hang_says_nothing_until_the_sandbox_stops(sandbox, strike, what, taken):
    strike(what)
    reader, writer = await dialogue(sandbox, THREE)
    await sandbox.record.until(lambda record: record.last_seq == 1)
    answer = asyncio.create_task(reader.read())
    # Another request goes through while this one hangs.
    _, other = await dialogue(sandbox, THREE)
    await sandbox.record.until(lambda record: record.last_seq == 2)
    other.close()
    assert not answer.done()
    assert [(entry.status, entry.taken) for entry in sandbox.record.entries] == [
        (None, taken),
        (200, (0, 1, 2)),
    ]
    async with asyncio.timeout(0.5):
        await sandbox.stop()
        assert await answer == b""
    writer.close()


async def test_stopping_does_not_wait_for_a_late_answer(sandbox, strike):
    strike("latency", latency_ms=600_000)
    reader, writer = await dialogue(sandbox, THREE)
    await sandbox.record.until(lambda record: record.last_seq == 1)
    async with asyncio.timeout(0.5):
        await sandbox.stop()
        assert await reader.read() == b""
    writer.close()


async def test_a_sender_that_gives_up_ends_its_hanging_request(sandbox, strike):
    before = asyncio.all_tasks()
    strike("hang")
    _, writer = await dialogue(sandbox, THREE)
    await sandbox.record.until(lambda record: record.last_seq == 1)
    hanging = asyncio.all_tasks() - before
    writer.close()
    await asyncio.wait_for(asyncio.wait(hanging), 2)
    assert all(task.done() for task in hanging)


async def test_half_answer_takes_the_events_and_breaks_off(sandbox, strike, http):
    strike("half_answer")
    reader, writer = await dialogue(sandbox, THREE)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 200")
    assert b"X-RateLimit-Remaining: 99" in head
    whole = b'{"success": true, "processed": 3}'
    assert f"Content-Length: {len(whole)}".encode() in head
    assert body == whole[: len(whole) // 2]
    entry = sandbox.record.entries[0]
    assert (entry.status, entry.taken) == (200, (0, 1, 2))

    strike("half_answer")
    with pytest.raises(aiohttp.ClientPayloadError):
        async with http.post(f"{sandbox.url}/api/i/v1/pk_test/events", json=THREE) as response:
            await response.read()


async def test_drop_answers_truly_and_leaves_an_event_out(post, sandbox, strike):
    strike("drop")
    reply = await post(client(event(path=...), event(number=1), event(number=2)))
    assert (reply.status, reply.body["processed"]) == (207, 2)
    entry = sandbox.record.entries[0]
    assert entry.taken_events == (event(number=2),)
    assert len(entry.events) == 2
    assert sandbox.record.stats.events_taken == 2


async def test_double_records_an_event_twice(post, sandbox, strike):
    strike("double")
    reply = await post(client(event(path=...), event(number=1), event(number=2)))
    assert reply.body["processed"] == 2
    assert sandbox.record.entries[0].taken_events == (event(number=1), event(number=1), event(number=2))


async def test_swap_records_an_event_under_another_requests_visitor(post, sandbox, strike):
    await post(client(event(number=8), visitorId=OTHER_VISITOR))
    await post(client(event(number=9)))
    strike("swap")
    reply = await post(THREE)
    assert reply.body == {"success": True, "processed": 3}
    told = [(entry.envelope["visitorId"], entry.taken_events) for entry in sandbox.record.entries[2:]]
    assert told == [
        (VISITOR, (event(number=1), event(number=2))),
        (OTHER_VISITOR, (event(number=0),)),
    ]
    assert [entry.seq for entry in sandbox.record.entries] == [1, 2, 3, 4]
    assert sandbox.record.stats.requests == {"200": 3}


@pytest.mark.parametrize("body", [THREE, server(event("identify"))])
async def test_swap_makes_a_visitor_up_where_there_is_no_other(post, sandbox, strike, body):
    strike("swap")
    await post(body)
    mine, other = sandbox.record.entries
    assert other.taken_events == (body["events"][0],)
    assert other.envelope["visitorId"] != mine.envelope.get("visitorId")


@pytest.mark.parametrize("what", ["drop", "double", "swap"])
async def test_sabotage_waits_for_a_request_that_takes_something(post, sandbox, strike, what):
    strike(what)
    await post(client(event(path=...)))
    assert sandbox.record.entries[0].fault is None
    await post(THREE)
    assert sandbox.record.entries[1].fault == what


async def test_a_limited_request_meets_no_fault(post, start, clock):
    sandbox = await start(limit=1)
    await post(THREE, to=sandbox)
    sandbox.programme.add(Fault(what=What.STATUS, requests=1), now=clock())
    assert (await post(THREE, to=sandbox)).status == 429
    assert len(sandbox.programme.running(clock())) == 1


A, B = Fault(what=What.STATUS, status=500), Fault(what=What.STATUS, status=503)


def test_a_programme_gives_the_oldest_fault_until_its_requests_are_used_up():
    programme = Programme()
    programme.add(Fault(what=What.HANG, requests=2), B, now=0)
    assert [programme.next("pk_a", 1) for _ in range(4)] == [Fault(what=What.HANG, requests=2)] * 2 + [B, B]


def test_a_fault_ends_with_its_seconds():
    programme = Programme()
    fault = Fault(what=What.HANG, seconds=10)
    programme.add(fault, now=100)
    assert programme.next("pk_a", 109.9) is fault
    assert programme.next("pk_a", 110) is None
    assert programme.running(110) == ()


def test_a_fault_for_one_key_passes_over_the_others():
    programme = Programme()
    fault = Fault(what=What.HANG, public_key="pk_a", requests=1)
    programme.add(fault, now=0)
    assert programme.next("pk_b", 0) is None
    assert programme.next("pk_a", 0) is fault
    assert programme.next("pk_a", 0) is None


def test_clearing_switches_everything_off():
    programme = Programme()
    programme.add(A, B, now=0)
    assert programme.clear() == 2
    assert programme.next("pk_a", 0) is None


def test_too_many_faults_are_refused_all_at_once():
    programme = Programme()
    programme.add(*[A] * (FAULTS_MAX - 1), now=0)
    with pytest.raises(FaultError, match="At most"):
        programme.add(A, A, now=0)
    assert len(programme.running(0)) == FAULTS_MAX - 1


@pytest.mark.parametrize(
    ("details", "message"),
    [
        ({"what": What.STATUS, "status": 200}, "status must be 300 to 599"),
        ({"what": What.STATUS, "status": 600}, "status must be 300 to 599"),
        ({"what": What.STATUS, "indices": (1,)}, "status takes no indices"),
        ({"what": What.HANG, "status": 503}, "hang takes no status"),
        ({"what": What.LATENCY}, "latency needs latency_ms"),
        ({"what": What.LATENCY, "latency_ms": -1}, "latency_ms must be"),
        ({"what": What.LATENCY, "latency_ms": 600_001}, "latency_ms must be"),
        ({"what": What.REFUSE_INDICES}, "needs indices"),
        ({"what": What.REFUSE_400, "indices": (1,), "paths": (("events",),)}, "not both"),
        ({"what": What.HANG, "seconds": -1.0}, "seconds must be"),
        ({"what": What.HANG, "seconds": float("nan")}, "seconds must be"),
        ({"what": What.HANG, "requests": 0}, "requests must be"),
        ({"what": What.STATUS, "retry_after_s": -1}, "retry_after_s must be"),
    ],
)
def test_a_fault_that_could_not_be_carried_out_is_refused(details, message):
    with pytest.raises(FaultError, match=message):
        Fault(**details)
