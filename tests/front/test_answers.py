"""Every answer that a client may get, and what it holds: shown over HTTP on a running service."""

import asyncio
import gzip
import json
import threading
import time
from base64 import b64encode
from random import Random
from typing import Any

import pytest

from proxy.buffer import Appended, BufferUnavailable
from proxy.buffer.sqlite import SqliteBuffer
from proxy.front.admission import Body, NoRoom, Room
from proxy.front.ingest import LARGE_BYTES, ORDINARY_BYTES
from proxy.metrics import Metrics
from proxy.sandbox import Fault, What
from proxy.settings import UnknownKeyQuota
from proxy.wire.answers import STATUS, Code
from proxy.wire.envelope import Envelope, Unusable, read_tolerantly
from tests.sandbox.bodies import OTHER_VISITOR, VISITOR, client, event
from tests.stack import KEY, PATIENCE_S, Reply, Stack, StartStack, read_reply

PATH = f"/api/i/v1/{KEY}/events"
GOOD = json.dumps(client()).encode()


def assert_refused(reply: Reply, code: Code, path: list[str | int] | None = None) -> None:
    """A refusal in the one form, for the one reason."""
    assert reply.status == STATUS[code]
    assert reply.headers["Content-Type"].startswith("application/json")
    assert reply.headers["X-Request-Id"]
    assert ("Retry-After" in reply.headers) == (reply.status in (429, 503))
    body = reply.json
    assert body.keys() == {"success", "processed", "message", "code", "errors"}
    assert (body["success"], body["processed"], body["code"]) == (False, 0, code)
    (error,) = body["errors"]
    assert error == {"index": -1, "path": path or [], "message": body["message"]}
    assert body["message"]


async def refused_so_far(stack: Stack, code: Code) -> tuple[float, float]:
    seen = await stack.metrics()
    return seen("requests_refused_total", code=code), seen("http_requests_total", code=str(STATUS[code]))


# -- 2xx ---------------------------------------------------------------------------------------------------


async def test_a_request_taken_whole_is_answered_200_and_arrives(stack: Stack) -> None:
    reply = await stack.post(client(event(number=1), event(number=2)))
    assert (reply.status, reply.json) == (200, {"success": True, "processed": 2})
    assert reply.headers["Content-Type"].startswith("application/json")
    assert [arrival.event for arrival in await stack.arrived(2)] == [event(number=1), event(number=2)]


async def test_3_bad_of_10_are_named_in_a_207_and_7_arrive(stack: Stack) -> None:
    events: list[Any] = [event(number=n) for n in range(10)]
    events[2], events[5], events[9] = event(url="/no-uri"), "junk", event("custom", eventName=...)
    reply = await stack.post(client(*events))
    assert (reply.status, reply.json["success"], reply.json["processed"]) == (207, False, 7)
    assert [error["index"] for error in reply.json["errors"]] == [2, 5, 9]
    assert all(error.keys() == {"index", "message"} for error in reply.json["errors"])
    assert reply.json.keys() == {"success", "processed", "errors"}
    good = [event for index, event in enumerate(events) if index not in (2, 5, 9)]
    assert [arrival.event for arrival in await stack.arrived(7)] == good
    assert (await stack.metrics())("events_rejected_total", reason="invalid") == 3


async def test_a_request_whose_events_are_all_bad_is_a_207_too(stack: Stack) -> None:
    """A 4xx would end a Node client for good."""
    reply = await stack.post(client(event(path=...), 7))
    assert (reply.status, reply.json["processed"]) == (207, 0)
    assert [error["index"] for error in reply.json["errors"]] == [0, 1]


async def test_an_event_that_no_request_could_carry_is_named(stack: Stack) -> None:
    large = event("custom", number=1, properties={"a": "x" * 1_000_000})
    reply = await stack.post(client(large, event(number=2)))
    assert (reply.status, reply.json["processed"]) == (207, 1)
    assert [error["index"] for error in reply.json["errors"]] == [0]
    assert [arrival.event for arrival in await stack.arrived(1)] == [event(number=2)]
    assert (await stack.metrics())("events_rejected_total", reason="too_large") == 1


async def test_the_largest_event_that_a_request_can_carry_arrives(stack: Stack) -> None:
    def sent(padding: int) -> Any:
        return event("custom", number=padding, properties={"a": "x" * padding})

    room = 1_000_000 - len(json.dumps(client(sent(100_000)), separators=(",", ":")).encode()) + 100_000
    assert (await stack.post(client(sent(room)))).status == 200
    assert (await stack.post(client(sent(room + 1)))).status == 207
    assert (await stack.arrived(1))[0].event == sent(room)
    assert stack.entries[0].body_bytes == 1_000_000


@pytest.mark.parametrize("unknown", [event("brand_new_type"), event(unknownField=1)])
async def test_the_unknown_is_passed_on_or_refused_as_the_operator_chose(
    start_stack: StartStack, unknown: Any
) -> None:
    stack = await start_stack(front={"unknown": "refuse"})
    reply = await stack.post(client(unknown, event(number=1)))
    assert (reply.status, [error["index"] for error in reply.json["errors"]]) == (207, [0])
    assert [arrival.event for arrival in await stack.arrived(1)] == [event(number=1)]
    assert (await stack.metrics())("events_rejected_total", reason="unknown") == 1


async def test_the_unknown_that_is_passed_on_is_counted(stack: Stack) -> None:
    sent = [event("brand_new_type", number=1, a=1, b=2), event(number=2, c=3), event(number=3)]
    assert (await stack.post(client(*sent, whatever=1))).status == 200
    assert [arrival.event for arrival in await stack.arrived(3)] == sent
    seen = await stack.metrics()
    assert (seen("events_unknown_type_total"), seen("fields_unknown_total")) == (1, 4)


# -- 4xx ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"a=b", json.dumps(client()).encode("utf-16")])
async def test_a_body_that_is_no_json_object(stack: Stack, body: bytes) -> None:
    assert_refused(await stack.post(body), Code.MALFORMED_BODY)
    assert await refused_so_far(stack, Code.MALFORMED_BODY) == (1, 1)


@pytest.mark.parametrize("events", [..., [], None, {}])
async def test_a_body_without_events(stack: Stack, events: Any) -> None:
    assert_refused(await stack.post(client(events=events)), Code.INVALID_EVENTS, ["events"])
    assert await refused_so_far(stack, Code.INVALID_EVENTS) == (1, 1)


@pytest.mark.parametrize("visitor", [..., "", "me", None])
async def test_client_traffic_without_its_visitor(stack: Stack, visitor: Any) -> None:
    reply = await stack.post(client(event(), event(), visitorId=visitor))
    assert_refused(reply, Code.INVALID_VISITOR, ["visitorId"])
    assert (await stack.metrics())("events_rejected_total", reason="envelope") == 2


@pytest.mark.parametrize(
    "key", ["pk_", "PK_a", "ok_secret", "pk_a.b", "pk_" + "x" * 65, "pk_a%2Fb", "pk_%00"]
)
async def test_what_is_no_public_key_is_not_allowed(stack: Stack, key: str) -> None:
    assert_refused(await stack.post(client(), key), Code.KEY_NOT_ALLOWED)


async def test_a_key_that_is_not_listed_is_not_allowed(start_stack: StartStack) -> None:
    stack = await start_stack(front={"public_keys": ("pk_listed",)})
    assert_refused(await stack.post(client(), "pk_other"), Code.KEY_NOT_ALLOWED)
    assert (await stack.post(client(), "pk_listed")).status == 200
    assert [arrival.key for arrival in await stack.arrived(1)] == ["pk_listed"]


async def test_an_origin_that_is_not_listed_is_not_allowed(start_stack: StartStack) -> None:
    stack = await start_stack(front={"allowed_origins": ("https://www.example.com",)})
    assert_refused(
        await stack.post(client(), headers={"Origin": "https://evil.example"}), Code.ORIGIN_NOT_ALLOWED
    )
    assert (await stack.post(client(), headers={"Origin": "https://www.example.com"})).status == 200
    assert (await stack.post(client(event(number=2)))).status == 200
    await stack.arrived(2)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/metrics",
        "/api/i/v1",
        f"/api/i/v1/{KEY}",
        f"/api/i/v1/{KEY}/events/more",
        "/api/tools/call",
        "/o.js",
    ],
)
async def test_everything_else_is_not_found(stack: Stack, path: str) -> None:
    assert_refused(await stack.post(client(), path=path), Code.NOT_FOUND)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE"])
async def test_another_method_is_told_which_ones_there_are(stack: Stack, method: str) -> None:
    reply = await stack.post(client(), method=method)
    assert_refused(reply, Code.METHOD_NOT_ALLOWED)
    assert reply.headers["Allow"] == "POST, OPTIONS"


async def test_a_body_that_does_not_come_in_time(start_stack: StartStack) -> None:
    stack = await start_stack(front={"body_timeout_s": 0.1})
    reply = await stack.raw(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{{".encode())
    assert_refused(reply, Code.REQUEST_TIMEOUT)
    assert await refused_so_far(stack, Code.REQUEST_TIMEOUT) == (1, 1)


async def test_a_body_that_trickles_has_one_deadline_in_all(start_stack: StartStack) -> None:
    stack = await start_stack(front={"body_timeout_s": 0.2})
    async with stack.connection() as (reader, writer):
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n".encode())
        answer = asyncio.ensure_future(read_reply(reader))
        async with asyncio.timeout(PATIENCE_S):
            while not answer.done():
                writer.write(b" ")
                await asyncio.wait([answer], timeout=0.02)
        assert_refused(await answer, Code.REQUEST_TIMEOUT)


async def test_a_body_too_large_by_its_own_word_is_not_waited_for(stack: Stack) -> None:
    reply = await stack.raw(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 10000001\r\n\r\n".encode())
    assert_refused(reply, Code.BODY_TOO_LARGE)


async def test_a_body_that_does_not_say_its_size_is_read_to_the_bound(start_stack: StartStack) -> None:
    stack = await start_stack(front={"max_body_bytes": 1_000})
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    assert_refused(await stack.raw(head + b"3e9\r\n" + b" " * 1_001 + b"\r\n"), Code.BODY_TOO_LARGE)
    within = GOOD + b" " * (1_000 - len(GOOD))
    assert (await stack.raw(head + b"3e8\r\n" + within + b"\r\n0\r\n\r\n")).status == 200
    await stack.arrived(1)


async def test_a_body_that_grows_too_large_when_it_is_inflated(start_stack: StartStack) -> None:
    stack = await start_stack(front={"max_body_bytes": 100_000})
    bomb = gzip.compress(b" " * 100_001)
    assert len(bomb) < 1_000
    assert_refused(await stack.post(bomb, headers={"Content-Encoding": "gzip"}), Code.BODY_TOO_LARGE)


async def test_too_many_events(start_stack: StartStack) -> None:
    stack = await start_stack(front={"max_events": 3})
    reply = await stack.post(client(*[event(number=n) for n in range(4)]))
    assert_refused(reply, Code.TOO_MANY_EVENTS, ["events"])
    assert (await stack.metrics())("events_rejected_total", reason="too_many") == 4
    assert (await stack.post(client(*[event(number=n) for n in range(3)]))).status == 200
    await stack.arrived(3)


async def test_a_bomb_of_events_is_refused_while_others_are_served(stack: Stack) -> None:
    """Ten kilobytes that hold five million events: reading each of them took 23 s, and all of the loop."""
    bomb = gzip.compress(b'{"visitorId":"%s","events":[1%s]}' % (VISITOR.encode(), b",1" * 4_900_000))
    bombing = asyncio.ensure_future(stack.post(bomb, headers={"Content-Encoding": "gzip"}))
    slowest = 0.0
    while not bombing.done():
        started = time.perf_counter()
        assert (await stack.get("/livez")).status == 200
        slowest = max(slowest, time.perf_counter() - started)
    assert_refused(await bombing, Code.TOO_MANY_EVENTS, ["events"])
    assert slowest < 2.0


async def test_an_envelope_that_no_request_could_carry(stack: Stack) -> None:
    traits: dict[str, Any] = {f"{n:x}": [] for n in range(300_000)}
    reply = await stack.post(client(event(), event(), userIdentity={"traits": traits}))
    assert_refused(reply, Code.BODY_TOO_LARGE)
    assert (await stack.metrics())("events_rejected_total", reason="too_large") == 2


@pytest.mark.parametrize("padding", [0, LARGE_BYTES, ORDINARY_BYTES])
@pytest.mark.parametrize("beside", [[], [event(path=7), event("new", number=2)]], ids=["ordinary", "odd"])
async def test_a_body_is_read_alike_wherever_it_is_read(
    stack: Stack, padding: int, beside: list[Any]
) -> None:
    sent = event(number=1, title="x" * padding)
    reply = await stack.post(client(sent, *beside))
    assert (reply.status, reply.json["processed"]) == ((207, 2) if beside else (200, 1))
    assert [arrival.event for arrival in await stack.arrived(1 + bool(beside))] == [sent, *beside[1:]]


async def test_no_batch_waits_behind_a_body_that_takes_long_to_read(
    monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    reading, go_on = threading.Event(), threading.Event()

    def slowly(body: bytes, max_events: int) -> Envelope | Unusable:
        reading.set()
        assert go_on.wait(PATIENCE_S)
        return read_tolerantly(body, max_events)

    monkeypatch.setattr("proxy.front.ingest.read_tolerantly", slowly)
    slow = asyncio.ensure_future(stack.post(client(event("new", title="x" * LARGE_BYTES))))
    assert await asyncio.to_thread(reading.wait, PATIENCE_S)
    for number, padding in enumerate((0, LARGE_BYTES, ORDINARY_BYTES), 1):
        reply = await stack.post(client(event(number=number, title="x" * padding)))
        assert (reply.status, reply.json["processed"]) == (200, 1)
    assert not slow.done()
    go_on.set()
    assert (await slow).status == 200
    await stack.arrived(4)


@pytest.mark.parametrize("coding", ["snappy", "gzip, snappy", "aes128gcm", "*"])
async def test_a_coding_that_is_not_spoken_here(stack: Stack, coding: str) -> None:
    assert_refused(await stack.post(GOOD, headers={"Content-Encoding": coding}), Code.UNSUPPORTED_ENCODING)


async def test_a_damaged_compression_is_a_malformed_body(stack: Stack) -> None:
    damaged = gzip.compress(GOOD)[:-9]
    assert_refused(await stack.post(damaged, headers={"Content-Encoding": "gzip"}), Code.MALFORMED_BODY)


async def test_a_body_that_ends_before_its_end_keeps_nothing(stack: Stack) -> None:
    async with stack.connection() as (reader, writer):
        writer.write(
            f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(GOOD) + 1}\r\n\r\n".encode() + GOOD
        )
        writer.write_eof()
        await asyncio.wait_for(reader.read(), PATIENCE_S)
    assert (await stack.metrics())("events_received_total") == 0


async def test_a_key_that_outlit_never_confirmed_holds_a_few_queues_only(start_stack: StartStack) -> None:
    stack = await start_stack(front={"unknown_key_quota": UnknownKeyQuota(queues=1, keys=2)})
    stack.fault(Fault(what=What.STATUS, status=503))
    assert (await stack.post(client(event(number=1)), "pk_one")).status == 200
    assert_refused(
        await stack.post(client(event(number=2), visitorId=OTHER_VISITOR), "pk_one"), Code.QUOTA_EXCEEDED
    )
    assert (await stack.post(client(event(number=3)), "pk_two")).status == 200
    assert_refused(await stack.post(client(event(number=4)), "pk_three"), Code.QUOTA_EXCEEDED)
    assert (await stack.metrics())("events_rejected_total", reason="quota") == 2
    assert await refused_so_far(stack, Code.QUOTA_EXCEEDED) == (2, 2)


async def test_a_key_that_outlit_confirmed_has_no_quota(start_stack: StartStack) -> None:
    stack = await start_stack(front={"unknown_key_quota": UnknownKeyQuota(queues=1, keys=1)})
    assert (await stack.post(client(event(number=1)))).status == 200
    await stack.arrived(1)
    stack.fault(Fault(what=What.STATUS, status=503))
    for number, visitor in enumerate((VISITOR, OTHER_VISITOR), 2):
        assert (await stack.post(client(event(number=number), visitorId=visitor))).status == 200


# -- 503 ---------------------------------------------------------------------------------------------------


async def test_a_full_buffer(start_stack: StartStack) -> None:
    stack = await start_stack(buffer={"max_bytes": 1_000_000})
    stack.fault(Fault(what=What.STATUS, status=503))
    # Such as nobody can compress.
    large = [
        event("custom", number=n, properties={"a": b64encode(Random(n).randbytes(75_000)).decode()})
        for n in range(6)
    ]
    assert (await stack.post(client(*large))).status == 200
    assert_refused(await stack.post(client(*large, visitorId=OTHER_VISITOR)), Code.BUFFER_FULL)
    assert (await stack.metrics())("events_rejected_total", reason="buffer_full") == 6
    assert (await stack.ledger())["accepted"] == 6


async def until_pending_bytes(stack: Stack, holds: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds((await stack.metrics())("pending_body_bytes")):
            pass


async def test_more_bodies_than_memory_is_set_aside_for(start_stack: StartStack) -> None:
    stack = await start_stack(front={"max_pending_bytes": 1_000_000, "max_body_bytes": 1_000_000})
    async with stack.connection() as (_, writer):
        writer.write(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n".encode())
        writer.write(b" " * 999_900)
        await until_pending_bytes(stack, lambda pending: pending == 999_900)
        assert_refused(await stack.post(client()), Code.OVERLOADED)
    await until_pending_bytes(stack, lambda pending: pending == 0)
    assert (await stack.post(client())).status == 200
    await stack.arrived(1)


async def test_a_compressed_body_fits_where_a_plain_one_does(start_stack: StartStack) -> None:
    """What it grows to is not known beforehand; it must not be refused for ever."""
    stack = await start_stack(front={"max_pending_bytes": 1_000_000, "max_body_bytes": 1_000_000})
    reply = await stack.post(gzip.compress(GOOD), headers={"Content-Encoding": "gzip"})
    assert reply.status == 200
    await stack.arrived(1)
    assert (await stack.metrics())("pending_body_bytes") == 0


async def test_a_body_that_is_only_announced_takes_no_room(start_stack: StartStack) -> None:
    stack = await start_stack(front={"max_pending_bytes": 1_000_000, "max_body_bytes": 1_000_000})
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n".encode()
    async with stack.connection() as (_, one), stack.connection() as (_, two):
        for writer in (one, two):
            writer.write(head + b"{")
        await until_pending_bytes(stack, lambda pending: pending == 2)
        assert (await stack.post(client())).status == 200
    await stack.arrived(1)


async def test_small_compressed_bodies_leave_each_other_room(start_stack: StartStack) -> None:
    """What they grow to is taken as it comes: reserving the bound for each refused all but one of them."""
    stack = await start_stack(front={"max_pending_bytes": 1_000_000, "max_body_bytes": 1_000_000})
    head = f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n".encode()
    async with stack.connection() as (_, writer):
        writer.write(head + b" " * 900_000)
        await until_pending_bytes(stack, lambda pending: pending == 900_000)
        within, beyond = (gzip.compress(GOOD + b" " * size) for size in (50_000, 100_000))
        assert (await stack.post(within, headers={"Content-Encoding": "gzip"})).status == 200
        assert_refused(await stack.post(beyond, headers={"Content-Encoding": "gzip"}), Code.OVERLOADED)
    await until_pending_bytes(stack, lambda pending: pending == 0)
    await stack.arrived(1)


def test_a_share_that_was_given_back_grows_no_more() -> None:
    """A thread may still inflate for a request that has ended."""
    gauge = Metrics().pending_bytes
    with Body(Room(10, gauge)) as held:
        held.grow(10)
        with pytest.raises(NoRoom):
            held.grow(1)
    with pytest.raises(NoRoom):
        held.grow(1)
    assert gauge._value.get() == 0


class Away(SqliteBuffer):
    """A buffer that does not answer appends: `failures` of them, before or after they are made."""

    failures = 0
    stores_all_the_same = False
    hangs: asyncio.Event | None = None

    async def append(self, *arguments: Any) -> Appended:
        if self.hangs is not None:
            await self.hangs.wait()
        if type(self).failures:
            type(self).failures -= 1
            if self.stores_all_the_same:
                await super().append(*arguments)
            raise BufferUnavailable("the test's doing")
        return await super().append(*arguments)


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> type[Away]:
    class OfThisTest(Away):
        pass

    monkeypatch.setattr("proxy.engines.on_sqlite.SqliteBuffer", OfThisTest)
    return OfThisTest


async def test_a_buffer_that_stays_away_beyond_the_hold(
    monkeypatch: pytest.MonkeyPatch, start_stack: StartStack, away: type[Away]
) -> None:
    monkeypatch.setattr("proxy.front.ingest.HOLD_S", 0.3)
    stack = await start_stack()
    away.failures = 10**6
    assert_refused(await stack.post(client(event(), event(path=7))), Code.BUFFER_UNAVAILABLE)
    seen = await stack.metrics()
    assert seen("events_rejected_total", reason="buffer_unavailable") == 1
    assert seen("events_rejected_total", reason="invalid") == 1
    away.failures = 0
    assert (await stack.post(client())).status == 200
    await stack.arrived(1)


async def test_a_buffer_that_hangs_beyond_the_hold(
    monkeypatch: pytest.MonkeyPatch, start_stack: StartStack, away: type[Away]
) -> None:
    monkeypatch.setattr("proxy.front.ingest.HOLD_S", 0.2)
    stack = await start_stack()
    away.hangs = asyncio.Event()
    async with asyncio.timeout(PATIENCE_S):
        assert_refused(await stack.post(client(event(), event(path=7))), Code.BUFFER_UNAVAILABLE)
    assert (await stack.metrics())("events_rejected_total", reason="buffer_unavailable") == 1
    away.hangs.set()
    assert (await stack.post(client())).status == 200
    await stack.arrived(1)


async def test_a_buffer_that_comes_back_within_the_hold(start_stack: StartStack, away: type[Away]) -> None:
    stack = await start_stack()
    away.failures = 2
    reply = await stack.post(client(event(number=1), event(number=2)))
    assert (reply.status, reply.json["processed"]) == (200, 2)
    await stack.arrived(2)
    assert (await stack.metrics())("buffer_retries_total") == 2


async def test_an_append_whose_answer_was_lost_is_not_kept_twice(
    start_stack: StartStack, away: type[Away]
) -> None:
    stack = await start_stack()
    away.failures, away.stores_all_the_same = 1, True
    sent = [event(number=1), event(uuid=..., title="b"), event(uuid=..., timestamp=..., title="c")]
    reply = await stack.post(client(*sent))
    assert (reply.status, reply.json["processed"]) == (200, 3)
    assert [arrival.event.get("title") for arrival in await stack.arrived(3)] == [None, "b", "c"]
    assert (await stack.metrics())("events_duplicate_total") == 3
    assert (await stack.ledger())["accepted"] == 3


async def test_an_error_of_our_own_is_a_500_in_json_and_is_logged(
    monkeypatch: pytest.MonkeyPatch, stack: Stack, logs: Any
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the test's doing")

    with monkeypatch.context() as patched:
        patched.setattr("proxy.front.ingest.read_ordinary", broken)
        assert_refused(await stack.post(client()), Code.INTERNAL)
    assert "the test's doing" in logs.getvalue()
    assert (await stack.post(client())).status == 200
    await stack.arrived(1)


# -- every answer ------------------------------------------------------------------------------------------


async def test_a_request_id_is_given_or_kept(stack: Stack) -> None:
    ids = {(await stack.post(client(event(number=n)))).headers["X-Request-Id"] for n in range(3)}
    assert len(ids) == 3
    for given in ("trace-1/A.b_c=+", "x" * 128):
        assert (await stack.post(client(), headers={"X-Request-Id": given})).headers["X-Request-Id"] == given
    for unfit in ("x" * 129, "a b", "é", '"', ""):
        answered = (await stack.post(client(), headers={"X-Request-Id": unfit})).headers["X-Request-Id"]
        assert answered not in ("", unfit)


def test_each_status_of_the_closed_list_is_counted_from_the_start() -> None:
    """`metrics.http_requests[status]` must exist for every answer that can be given."""
    assert {str(status) for status in STATUS.values()} | {
        "200",
        "204",
        "207",
    } <= Metrics().http_requests.keys()


async def test_no_log_line_holds_what_a_body_says(
    monkeypatch: pytest.MonkeyPatch, start_stack: StartStack, away: type[Away], logs: Any
) -> None:
    monkeypatch.setattr("proxy.front.ingest.HOLD_S", 0.1)
    stack = await start_stack()
    marker = "whose-word-is-this"
    traits = {marker: [marker]}
    for body in (
        marker.encode(),
        client(event(url=marker, title=marker), marker, event("form", formFields={marker: [marker]})),
        client(event(title=marker), userIdentity={"email": marker, "traits": traits}, **{marker: marker}),
        client(visitorId=marker),
        client(event("calendar", provider=marker), source=marker, title="\ud800" + marker),
    ):
        await stack.post(body)
    await stack.post(marker.encode(), headers={"Content-Encoding": "gzip"})
    away.failures = 10**6
    assert_refused(
        await stack.post(client(event("custom", properties={marker: marker}))), Code.BUFFER_UNAVAILABLE
    )
    assert "append failed" in logs.getvalue()
    assert marker not in logs.getvalue()
