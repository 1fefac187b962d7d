"""What the record of the Platform API tells, and that it holds no key."""

import errno
import hashlib
import json
import types

import pytest
from yarl import URL

from proxy.sandbox.platform import Calls
from tests.sandbox.bodies import KEY, client

DIGEST = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()[:16]


async def test_a_call_is_told_as_it_came(call, sandbox, clock):
    body = {"tool": "outlit_schema", "input": {"cut": "\ud83d", "big": 2**70}}
    await call(
        "POST", "/api/tools/call?trace=1&x=%20", body, headers=[("X-B", "1"), ("X-A", "2"), ("X-B", "3")]
    )
    (entry,) = sandbox.platform.calls.entries
    assert (entry.seq, entry.received_at, entry.method, entry.path) == (
        1,
        clock.now,
        "POST",
        "/api/tools/call",
    )
    assert (entry.query, entry.key, entry.tool, entry.body) == (
        "trace=1&x=%20",
        DIGEST,
        "outlit_schema",
        body,
    )
    assert (entry.status, entry.executed, entry.incident, entry.violations) == (200, True, None, ())
    assert [each for each in entry.headers if each[0].startswith("x-")] == [
        ("x-b", "1"),
        ("x-a", "2"),
        ("x-b", "3"),
    ]
    assert entry.line().isascii()


async def test_the_record_is_given_as_lines_and_emptied(call, control, sandbox):
    for _ in range(3):
        await call("GET", "/api/integrations")
    _, text = await control("GET", "calls")
    assert text.splitlines() == [entry.line() for entry in sandbox.platform.calls.entries]
    first = json.loads(text.splitlines()[0])
    assert set(first) == {
        *("api", "seq", "received_at", "method", "path", "query", "headers", "key", "tool", "body", "status"),
        *("executed", "incident", "violations"),
    }
    _, text = await control("GET", "calls?since=2")
    assert [json.loads(line)["seq"] for line in text.splitlines()] == [3]
    assert (await control("GET", "calls?from=2"))[0] == 400
    assert await control("DELETE", "calls") == (200, '{"cleared": 3}')
    assert await control("GET", "calls") == (200, "")
    await call("GET", "/api/integrations")
    assert sandbox.platform.calls.entries[0].seq == 4


async def test_the_counts_are_the_platforms_own(call, tool, control, post):
    await tool("outlit_schema")
    await tool("outlit_schema")
    await call("GET", "/api/integrations", headers=[("Cookie", "a=b")])
    await call("GET", "/api/settings", key=None)
    await post(client())
    counts = json.loads((await control("GET", "stats"))[1])
    assert counts["platform"] == {
        "requests": {"200": 3, "404": 1},
        "executed": {"outlit_schema": 2, "GET /api/integrations": 1},
        "violations": {"cookie": 1},
        "unrecorded": 0,
    }
    assert counts["requests"] == {"200": 1}


@pytest.mark.parametrize(
    ("headers", "kinds"),
    [
        ([("Cookie", "session=1")], ["cookie"]),
        ([("Origin", "https://a.example")], ["origin"]),
        ([("X-Forwarded-For", "203.0.113.7")], ["forwarded"]),
        ([("X-Forwarded-Host", "a.example")], ["forwarded"]),
        ([("Forwarded", "for=203.0.113.7")], ["forwarded"]),
        ([("X-Real-IP", "203.0.113.7")], ["forwarded"]),
        ([("Authorization", "Bearer an-operators-token")], ["authorization"]),
        ([("X-Api-Key", "ok_another")], ["key"]),
        ([("Cookie", "a=1"), ("Origin", "null")], ["cookie", "origin"]),
        ([("X-Request-Id", "1")], []),
    ],
    ids=str,
)
async def test_what_should_not_have_come_is_recorded(call, sandbox, headers, kinds):
    await call("GET", "/api/integrations", headers=headers)
    (entry,) = sandbox.platform.calls.entries
    assert [violation.kind for violation in entry.violations] == kinds


@pytest.mark.parametrize(
    "path",
    ["/api/a/../b", "/api//b", "/api/%2e%2e/b", "/api/a%2Fb", "/api/a%5cb", "/api/a%252fb", "/api/a;b"],
)
async def test_a_path_with_two_meanings_is_recorded(call, sandbox, path):
    await call("GET", URL(path, encoded=True))
    (entry,) = sandbox.platform.calls.entries
    assert (entry.path, [each.kind for each in entry.violations]) == (path, ["path"])


async def test_no_key_is_in_the_record_wherever_it_came(call, control, start, tmp_path, sandbox):
    secrets = [KEY, "ok_revoked_key", "ok_in-the-path", "ok_in-the-query", "ok_in-a-header", "ok_in-the-body"]
    written = tmp_path / "record.jsonl"
    other = await start(record_file=written)
    body = {"tool": "ok_in-the-body", "input": {"ok_in-the-body": ["is ok_in-the-body."]}}
    for to in (sandbox, other):
        await call("GET", "/api/ok_in-the-path?key=ok_in-the-query", headers=[("X", "ok_in-a-header")], to=to)
        await call("POST", "/api/tools/call", body, to=to)
        await call("POST", "/api/tools/call", json.dumps(body).replace("ok_", "\\u006fk_").encode(), to=to)
        await call("POST", "/api/tools/call", body, key="ok_revoked_key", to=to)
        await call("GET", "/api/integrations", key=None, headers=[("Authorization", f"Token {KEY}")], to=to)
    shown = [(await control("GET", path))[1] for path in ("calls", "stats")]
    for text in (*shown, written.read_text(), repr(sandbox.platform.calls.entries)):
        assert text
        assert not [secret for secret in secrets if secret in text]
    assert [entry.key is None for entry in sandbox.platform.calls.entries] == [False] * 4 + [True]
    entry = sandbox.platform.calls.entries[1]
    assert entry.tool == entry.body["tool"] == next(iter(entry.body["input"]))
    assert entry.tool.startswith("sha256:")


async def test_a_word_that_only_holds_a_keys_beginning_is_no_key(tool, sandbox):
    await tool("outlit_search_customer_context", query="book_club looks ok")
    (entry,) = sandbox.platform.calls.entries
    assert (entry.body["input"]["query"], entry.violations) == ("book_club looks ok", ())


async def test_calls_and_events_share_the_file_in_their_order(call, post, start, tmp_path):
    written = tmp_path / "record.jsonl"
    sandbox = await start(record_file=written)
    await call("GET", "/api/integrations", to=sandbox)
    await post(client(), to=sandbox)
    lines = [json.loads(line) for line in written.read_text().splitlines()]
    assert [line.get("api") for line in lines] == ["platform", None]
    assert [line["seq"] for line in lines] == [1, 1]


async def test_a_call_that_the_file_cannot_take_is_refused(call, start, tmp_path, monkeypatch):
    sandbox = await start(record_file=tmp_path / "record")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sandbox._transcript, "_file", types.SimpleNamespace(write=full, close=lambda: None))
    for _ in range(2):
        reply = await call("GET", "/api/integrations", to=sandbox)
        assert reply.status == 500
        assert "No space left" in reply.body["error"]
    assert sandbox.platform.calls.stats.unrecorded == 2
    assert len(sandbox.platform.calls.entries) == 1


async def test_a_full_record_refuses_calls_until_it_is_emptied(call, control, start):
    sandbox = await start(record_bound=2)
    statuses = [(await call("GET", "/api/integrations", to=sandbox)).status for _ in range(3)]
    assert statuses == [200, 200, 500]
    assert sandbox.platform.calls.stats.unrecorded == 1
    sandbox.platform.calls.clear()
    assert (await call("GET", "/api/integrations", to=sandbox)).status == 200


def test_a_record_without_room_is_none():
    with pytest.raises(ValueError, match="at least 1 entry"):
        Calls(0)
