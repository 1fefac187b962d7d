"""What the record tells, in memory and in its file."""

import asyncio
import errno
import json

import pytest

from proxy.sandbox import Sandbox
from tests.sandbox.bodies import VISITOR, client, event


async def test_an_entry_tells_everything_that_came(post, sandbox, clock):
    sent = client(event(number=0), event(number=1, path=...), sessionId=..., whatever=[1])
    raw = json.dumps(sent).encode()
    await post(raw, "pk_a", headers={"User-Agent": "Test/1", "X-Forwarded-For": "203.0.113.7"})
    (entry,) = sandbox.record.entries
    assert (entry.seq, entry.received_at, entry.public_key) == (1, clock.now, "pk_a")
    assert (entry.status, entry.fault, entry.body_bytes) == (207, None, len(raw))
    assert entry.envelope == {"source": "client", "visitorId": VISITOR, "whatever": [1]}
    assert list(entry.events) == sent["events"]
    assert entry.taken == (0,)
    headers = dict(entry.headers)
    assert headers["user-agent"] == "Test/1"
    assert headers["x-forwarded-for"] == "203.0.113.7"
    assert {name for name, _ in entry.headers} >= {"host", "accept", "accept-encoding", "content-type"}


async def test_headers_keep_their_order_their_repetitions_and_odd_bytes(sandbox):
    reader, writer = await asyncio.open_connection(*sandbox.url.removeprefix("http://").split(":"))
    writer.write(
        b"POST /api/i/v1/pk_a/events HTTP/1.1\r\nHost: x\r\nX-B: 1\r\nX-A: caf\xc3\xa9\r\nX-B: \xff\r\n"
        b"Content-Length: 2\r\nConnection: close\r\n\r\n{}"
    )
    await reader.read()
    writer.close()
    (entry,) = sandbox.record.entries
    assert entry.headers == (
        ("host", "x"),
        ("x-b", "1"),
        ("x-a", "café"),
        ("x-b", "\udcff"),
        ("content-length", "2"),
        ("connection", "close"),
    )


async def test_the_file_has_a_line_by_the_time_of_the_answer(post, start, tmp_path):
    path = tmp_path / "record.jsonl"
    sandbox = await start(record_file=path)
    odd = event("custom", properties={"cut": "x\ud83d", "nul": "\0", "big": 2**70, "list": [1, {"a": None}]})
    await post(client(odd), to=sandbox)
    (line,) = path.read_bytes().splitlines()
    assert line.isascii()
    written = json.loads(line)
    assert written["events"] == [odd]
    assert written == json.loads(sandbox.record.entries[0].line())
    await post(b"{", to=sandbox)
    assert len(path.read_bytes().splitlines()) == 2


async def test_the_file_of_an_earlier_run_is_added_to(post, start, tmp_path):
    path = tmp_path / "record.jsonl"
    for _ in range(2):
        sandbox = await start(record_file=path)
        await post(client(), to=sandbox)
        await sandbox.stop()
    assert len(path.read_bytes().splitlines()) == 2


async def test_a_file_that_cannot_be_written_refuses_every_later_request(post, start, tmp_path, monkeypatch):
    sandbox = await start(record_file=tmp_path / "record.jsonl")

    class FullDisk:
        def write(self, _):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(sandbox._transcript, "_file", FullDisk())
    first = await post(client(), to=sandbox)
    second = await post(client(), to=sandbox)
    assert (first.status, second.status) == (500, 500)
    assert "No space left" in second.body["message"]
    # The first was taken before the disk said no: its sender was told of a failure, as it might be for real.
    assert [entry.taken for entry in sandbox.record.entries] == [(0,)]
    assert sandbox.record.stats.unrecorded == 2


async def test_a_file_that_cannot_be_opened_says_so_at_the_start(tmp_path):
    with pytest.raises(OSError, match="missing"):
        await Sandbox(record_file=tmp_path / "missing" / "record").start()


async def test_a_full_record_refuses_instead_of_forgetting(post, start):
    sandbox = await start(record_bound=3)
    assert (await post(client(event(), event()), to=sandbox)).status == 200
    reply = await post(client(event(), event()), to=sandbox)
    assert reply.status == 500
    assert "record is full" in reply.body["message"]
    assert reply.headers["X-RateLimit-Remaining"] == "98"
    assert (await post(client(), to=sandbox)).status == 200
    assert (await post(b"{", to=sandbox)).status == 500
    assert [len(entry.events) for entry in sandbox.record.entries] == [2, 1]
    assert sandbox.record.stats.unrecorded == 2
    sandbox.record.clear()
    assert (await post(client(), to=sandbox)).status == 200
    assert sandbox.record.entries[0].seq == 3


async def test_a_request_without_events_takes_room_too(post, start):
    sandbox = await start(record_bound=2)
    assert [(await post(b"{", to=sandbox)).status for _ in range(3)] == [400, 400, 500]


async def test_since_gives_what_is_newer(post, sandbox):
    for _ in range(3):
        await post(client())
    assert [entry.seq for entry in sandbox.record.since(1)] == [2, 3]
    assert sandbox.record.since(3) == []


async def test_requests_at_once_are_all_recorded_once(post, sandbox):
    await asyncio.gather(*(post(client(event(number=n))) for n in range(50)))
    assert sorted(entry.events[0]["uuid"] for entry in sandbox.record.entries) == [
        event(number=n)["uuid"] for n in range(50)
    ]
    assert [entry.seq for entry in sandbox.record.entries] == list(range(1, 51))


async def test_an_address_in_use_is_reported_and_leaves_nothing_open(sandbox, tmp_path):
    port = int(sandbox.url.rpartition(":")[2])
    second = Sandbox(record_file=tmp_path / "record")
    with pytest.raises(OSError, match="address already in use"):
        await second.start(port=port)
    with pytest.raises(RuntimeError, match="not started"):
        _ = second.url
