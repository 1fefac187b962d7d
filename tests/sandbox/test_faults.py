"""Every fault, switched from Python and over HTTP, as its victim sees it and as the record tells it."""

import asyncio
import json
import tracemalloc

import aiohttp
import pytest

from proxy.sandbox import Fault, Link, Names, OrderError, Programme, Seen, What
from proxy.sandbox.schedule import AT_ONCE_MAX
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


async def test_refuse_with_paths_answers_in_the_overview_form(post, sandbox, strike):
    strike("refuse", paths=(("events", 1, "type"), ("visitorId",)))
    reply = await post(THREE)
    assert reply.status == 400
    assert [error["path"] for error in reply.body["errors"]] == [["events", 1, "type"], ["visitorId"]]
    assert sandbox.record.entries[0].taken == ()


async def test_refuse_with_indices_answers_in_the_endpoint_form(post, sandbox, strike):
    strike("refuse", indices=(2,))
    reply = await post(THREE)
    assert reply.status == 400
    assert reply.body == {
        "success": False,
        "processed": 0,
        "errors": [{"index": 2, "message": "Fault: refused"}],
    }
    assert sandbox.record.entries[0].taken == ()


async def test_refuse_with_neither_names_nothing(post, strike):
    strike("refuse")
    assert (await post(THREE)).body == {"success": False, "message": "Fault: refused", "errors": []}


async def test_refuse_indices_says_what_it_is_told_even_nonsense(post, sandbox, strike):
    named = (1, 1, True, "0", None, 2.0)
    strike("refuse_indices", indices=named)
    reply = await post(THREE)
    assert [error["index"] for error in reply.body["errors"]] == list(named)
    assert reply.body["errors"][2]["index"] is True
    assert sandbox.record.entries[0].taken == (0, 2), "only a whole number is an index"


@pytest.mark.parametrize("status", [400, 413, 422])
@pytest.mark.parametrize(
    ("names", "errors"),
    [
        (None, []),
        (Names.PATHS, [{"path": ["events", 1], "message": "Fault: refused"}]),
        (Names.INDICES, [{"index": 1, "message": "Fault: refused"}]),
    ],
)
async def test_a_planted_event_has_its_request_refused_and_is_named_or_not(
    post, sandbox, strike, status, names, errors
):
    bad = event("custom", 1, eventName="poison")
    strike("refuse", event="poison", status=status, names=names, requests=None)
    reply = await post(client(event(number=0), bad, event(number=2)))
    assert (reply.status, reply.body["errors"]) == (status, errors)
    assert sandbox.record.entries[0].taken == ()
    assert (await post(THREE)).status == 200
    assert (await post(client(bad))).status == status


async def test_a_planted_event_alone_is_refused_by_a_207(post, sandbox, strike):
    strike("refuse_indices", uuid=event(number=1)["uuid"])
    reply = await post(THREE)
    assert (reply.status, [error["index"] for error in reply.body["errors"]]) == (207, [1])
    assert sandbox.record.entries[0].taken == (0, 2)


async def test_whoever_holds_a_planted_event_is_failed_or_broken_off(post, sandbox, strike):
    strike("status", status=500, uuid=event(number=1)["uuid"], requests=None)
    strike("reset_before", event="poison", requests=None)
    assert (await post(THREE)).status == 500
    assert (await post(client(event(number=5)))).status == 200
    reader, writer = await dialogue(sandbox, client(event("custom", 6, eventName="poison")))
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    writer.close()
    assert [entry.status for entry in sandbox.record.entries] == [500, 200, None]


async def test_one_origin_is_forbidden_and_others_are_not(post, strike):
    strike("status", status=403, origin="https://bad.example", requests=None)
    for origin, status in (("https://bad.example", 403), ("https://good.example", 200)):
        assert (await post(client(), headers={"Origin": origin})).status == status
    assert (await post(server(event("identify")))).status == 200


async def test_too_large_shrinks_its_bound_with_every_refusal(post, sandbox, strike):
    strike("too_large", max_events=2, shrink=0.5, requests=None)
    assert (await post(THREE)).status == 413
    two = client(event(number=0), event(number=1))
    reply = await post(two)
    assert (reply.status, reply.body["errors"]) == (413, [])
    assert [(await post(client(event(number=number)))).status for number in range(3)] == [200, 200, 200]
    assert sandbox.record.stats.events_taken == 3


async def test_too_large_may_be_of_bytes(post, strike):
    strike("too_large", max_bytes=len(json.dumps(client()).encode()), requests=None)
    assert (await post(client())).status == 200
    assert (await post(client(whatever=1))).status == 413


async def test_status_may_alternate_and_say_something_else_than_json(sandbox, strike, http):
    strike("status", statuses=(502, 429), body="<html>Bad gateway</html>", requests=3)
    answers = []
    for _ in range(4):
        async with http.post(f"{sandbox.url}/api/i/v1/pk_test/events", json=THREE) as response:
            answers.append((response.status, (await response.text())[:6]))
    assert answers[:3] == [(502, "<html>"), (429, "<html>"), (502, "<html>")]
    assert answers[3][0] == 200


async def test_body_lies_about_events_that_were_taken(post, sandbox, strike):
    strike("body", body='{"success": false, "processed": "all", "errors": 5}')
    reply = await post(THREE)
    assert (reply.status, reply.body["success"], reply.body["errors"]) == (200, False, 5)
    assert sandbox.record.entries[0].taken == (0, 1, 2)


async def test_latency_by_chance_lies_in_its_range(post, sandbox, strike):
    strike("latency", latency_ms=20, latency_to_ms=120, requests=8)
    loop = asyncio.get_running_loop()
    taken_s = []
    for _ in range(8):
        began = loop.time()
        await post(client())
        taken_s.append(loop.time() - began)
    assert min(taken_s) >= 0.02
    assert max(taken_s) - min(taken_s) > 0.02, "eight draws from 100 ms lie apart"


async def test_half_of_a_links_way_lies_before_the_request_counts(post, sandbox, clock):
    sandbox.links.add(Link(latency_ms=200), now=clock())
    loop = asyncio.get_running_loop()
    began = loop.time()
    answer = asyncio.create_task(post(client()))
    await sandbox.record.until(lambda record: record.last_seq == 1)
    assert loop.time() - began >= 0.1
    assert not answer.done()
    assert (await answer).status == 200
    assert loop.time() - began >= 0.2


async def test_stopping_does_not_wait_for_a_request_on_its_way(sandbox, clock):
    sandbox.links.add(Link(latency_ms=600_000), now=clock())
    reader, writer = await dialogue(sandbox, THREE)
    await asyncio.sleep(0)
    async with asyncio.timeout(0.5):
        await sandbox.stop()
        assert await reader.read() == b""
    writer.close()


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


async def test_reset_early_comes_before_the_body(sandbox, strike):
    strike("reset_early")
    reader, writer = await asyncio.open_connection(*sandbox.url.removeprefix("http://").split(":"))
    writer.write(b"POST /api/i/v1/pk_a/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    writer.close()
    (entry,) = sandbox.record.entries
    assert (entry.status, entry.fault, entry.events, entry.body_bytes) == (None, "reset_early", (), 0)


async def test_reset_midway_comes_when_half_of_the_body_is_there(sandbox, strike):
    strike("reset_midway")
    reader, writer = await asyncio.open_connection(*sandbox.url.removeprefix("http://").split(":"))
    writer.write(b"POST /api/i/v1/pk_a/events HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
    writer.write(b"x" * 499)
    answer = asyncio.create_task(reader.read(1))
    assert not (await asyncio.wait([answer], timeout=0.05))[0]
    writer.write(b"x")
    with pytest.raises(ConnectionResetError):
        await answer
    writer.close()
    (entry,) = sandbox.record.entries
    assert (entry.status, entry.taken, entry.body_bytes) == (None, (), 500)


async def test_early_faults_take_from_the_budget_and_spare_the_limited(start, clock):
    sandbox = await start(limit=1)
    sandbox.programme.add(Fault(what=What.RESET_EARLY), now=clock())
    first, writer = await dialogue(sandbox, THREE)
    with pytest.raises(ConnectionResetError):
        await first.read(1)
    writer.close()
    second, writer = await dialogue(sandbox, THREE)
    assert (await second.readline()).startswith(b"HTTP/1.1 429")
    writer.close()


async def test_reset_answer_sends_the_headers_and_no_more(sandbox, strike, http):
    strike("reset_answer", requests=2)
    reader, writer = await dialogue(sandbox, THREE)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert b"X-RateLimit-Remaining: 99" in head
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    writer.close()
    async with http.post(f"{sandbox.url}/api/i/v1/pk_test/events", json=THREE) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await response.read()
    assert [(entry.status, entry.taken) for entry in sandbox.record.entries] == [(200, (0, 1, 2))] * 2


async def test_half_head_is_no_answer(sandbox, strike, http):
    strike("half_head", requests=2)
    reader, writer = await dialogue(sandbox, THREE)
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\n\r\n" not in answer
    with pytest.raises(aiohttp.ClientError):
        await http.post(f"{sandbox.url}/api/i/v1/pk_test/events", json=THREE)
    assert [(entry.status, entry.taken) for entry in sandbox.record.entries] == [(None, (0, 1, 2))] * 2


async def test_drip_sends_the_whole_answer_slowly(sandbox, strike):
    strike("drip", bytes_per_s=2_000)
    loop = asyncio.get_running_loop()
    reader, writer = await dialogue(sandbox, THREE)
    began = loop.time()
    answer = await reader.read()
    writer.close()
    assert answer.endswith(b'{"success": true, "processed": 3}')
    assert loop.time() - began >= 0.9 * len(answer) / 2_000


async def test_stopping_does_not_wait_for_a_drip(sandbox, strike):
    strike("drip", bytes_per_s=1)
    reader, writer = await dialogue(sandbox, THREE)
    assert await reader.read(1) == b"H"
    async with asyncio.timeout(0.5):
        await sandbox.stop()
        await reader.read()
    writer.close()


async def test_endless_streams_more_than_anybody_reads_without_holding_it(sandbox, strike, http):
    strike("endless")
    tracemalloc.start()
    try:
        async with http.post(f"{sandbox.url}/api/i/v1/pk_test/events", json=THREE) as response:
            assert "Content-Length" not in response.headers
            read = 0
            while read < 20_000_000:
                read += len(await response.content.readany())
            _, most = tracemalloc.get_traced_memory()
            response.close()
    finally:
        tracemalloc.stop()
    assert most < 10_000_000
    # The sender that hung up leaves nothing behind that another would notice.
    async with http.post(f"{sandbox.url}/api/i/v1/pk_test/events", json=THREE) as response:
        assert response.status == 200


async def test_endless_ends_where_it_is_told_and_is_still_json(post, strike):
    strike("endless", answer_bytes=100_000)
    assert (await post(THREE)).body == {"success": True, "processed": 3}


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
    found = [programme.next(Seen(public_key="pk_a"), 1) for _ in range(4)]
    assert found == [Fault(what=What.HANG, requests=2)] * 2 + [B, B]


def test_a_fault_ends_with_its_seconds():
    programme = Programme()
    fault = Fault(what=What.HANG, seconds=10)
    programme.add(fault, now=100)
    assert programme.next(Seen(public_key="pk_a"), 109.9) is fault
    assert programme.next(Seen(public_key="pk_a"), 110) is None
    assert programme.running(110) == ()


def test_a_fault_for_one_key_passes_over_the_others():
    programme = Programme()
    fault = Fault(what=What.HANG, public_key="pk_a", requests=1)
    programme.add(fault, now=0)
    assert programme.next(Seen(public_key="pk_b"), 0) is None
    assert programme.next(Seen(public_key="pk_a"), 0) is fault
    assert programme.next(Seen(public_key="pk_a"), 0) is None


def test_clearing_switches_everything_off():
    programme = Programme()
    programme.add(A, B, now=0)
    assert programme.clear() == 2
    assert programme.next(Seen(public_key="pk_a"), 0) is None


def test_too_many_faults_are_refused_all_at_once():
    programme = Programme()
    programme.add(*[A] * (AT_ONCE_MAX - 1), now=0)
    with pytest.raises(OrderError, match="At most"):
        programme.add(A, A, now=0)
    assert len(programme.running(0)) == AT_ONCE_MAX - 1


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
        ({"what": What.REFUSE, "indices": (1,), "paths": (("events",),)}, "one of indices, paths and names"),
        ({"what": What.HANG, "seconds": -1.0}, "seconds must be"),
        ({"what": What.HANG, "seconds": float("nan")}, "seconds must be"),
        ({"what": What.HANG, "requests": 0}, "requests must be"),
        ({"what": What.STATUS, "retry_after_s": -1}, "retry_after_s must be"),
    ],
)
def test_a_fault_that_could_not_be_carried_out_is_refused(details, message):
    with pytest.raises(OrderError, match=message):
        Fault(**details)
