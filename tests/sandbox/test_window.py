"""The request limit and its headers."""

from email.utils import parsedate_to_datetime

import pytest

from proxy.sandbox import FixedWindow, Sandbox
from tests.sandbox.bodies import client, event

LIMIT, REMAINING, RESET = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"


async def test_the_request_beyond_the_limit_is_refused_until_the_second_turns(post, start, clock):
    sandbox = await start(limit=3)
    replies = [await post(client(), to=sandbox) for _ in range(4)]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert [reply.headers[REMAINING] for reply in replies] == ["2", "1", "0", "0"]
    assert {reply.headers[LIMIT] for reply in replies} == {"3"}
    assert {reply.headers[RESET] for reply in replies} == {"1700000001"}
    assert replies[3].body["success"] is False
    assert "Retry-After" not in replies[3].headers

    clock.now = 1_700_000_000.999
    assert (await post(client(), to=sandbox)).status == 429
    clock.now = 1_700_000_001.0
    reply = await post(client(), to=sandbox)
    assert (reply.status, reply.headers[REMAINING], reply.headers[RESET]) == (200, "2", "1700000002")
    assert sandbox.record.stats.limited == 2


async def test_a_limited_request_is_recorded_without_its_events(post, start):
    sandbox = await start(limit=1)
    await post(client(), to=sandbox)
    await post(client(event("custom")), to=sandbox)
    entry = sandbox.record.entries[1]
    assert (entry.status, entry.events, entry.taken, entry.violations) == (429, (), (), ())
    assert entry.body_bytes > 0


async def test_every_public_key_has_a_budget_of_its_own(post, start):
    sandbox = await start(limit=1)
    assert (await post(client(), "pk_a", to=sandbox)).status == 200
    assert (await post(client(), "pk_b", to=sandbox)).status == 200
    assert (await post(client(), "pk_a", to=sandbox)).status == 429


async def test_refused_requests_take_from_the_budget_and_carry_the_headers(post, start):
    sandbox = await start(limit=9)
    for body, key in ((b"{", "pk_a"), (client(visitorId=""), "pk_a"), (client(event(path=...)), "pk_a")):
        await post(body, key, to=sandbox)
    reply = await post(client(), "pk_a", to=sandbox)
    assert reply.headers[REMAINING] == "5"
    assert (await post(client(), "nokey", to=sandbox)).headers[REMAINING] == "8"


async def test_the_date_of_an_answer_follows_the_clock(post, clock):
    clock.now = 1_600_000_000.9
    reply = await post(client())
    assert parsedate_to_datetime(reply.headers["Date"]).timestamp() == 1_600_000_000
    assert reply.headers[RESET] == "1600000001"


async def test_the_busiest_second_counts_what_one_key_sent_in_it(post, sandbox, clock):
    for key in ("pk_a", "pk_a", "pk_b"):
        await post(client(), key)
    clock.now += 1
    await post(client(), "pk_a")
    assert sandbox.record.stats.busiest_second == 2


def test_a_window_ends_on_a_multiple_of_its_length():
    window = FixedWindow(limit=1, window_s=10)
    assert window.take("pk_a", 25.0).reset_at == 30
    assert not window.take("pk_a", 29.9).granted
    assert window.take("pk_a", 30.0).granted


def test_a_clock_that_jumps_back_does_not_close_the_key():
    window = FixedWindow(limit=1)
    assert window.take("pk_a", 5000.0).granted
    assert window.take("pk_a", 1000.0).granted
    assert not window.take("pk_a", 1000.5).granted


def test_limits_and_windows_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 1 request"):
        Sandbox(limit=0)
    with pytest.raises(ValueError, match="known are fixed"):
        Sandbox(window="sliding")
    with pytest.raises(ValueError, match="at least 1 event"):
        Sandbox(record_bound=0)
