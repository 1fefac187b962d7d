"""The request limit and its headers."""

from email.utils import parsedate_to_datetime
from random import Random

import pytest

from proxy.sandbox import Bucket, FixedWindow, Kind, Limit, OrderError, Sandbox, SlidingCounter, SlidingLog
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


def test_a_clock_that_jumps_back_does_not_close_the_key():
    window = FixedWindow(limit=1)
    assert window.take("pk_a", 5000.0).granted
    assert window.take("pk_a", 1000.0).granted
    assert not window.take("pk_a", 1000.5).granted


def test_limits_and_windows_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="limit must be 1 to"):
        Sandbox(limit=0)
    with pytest.raises(ValueError, match="fixed has no burst"):
        Limit(100, Kind.FIXED, burst=10)
    with pytest.raises(ValueError, match="at least 1 entry"):
        Sandbox(record_bound=0)


# -- the other kinds -----------------------------------------------------------------------------------

T = 1_700_000_000.0


def granted(window, *times):
    return [window.take("pk_a", T + at).granted for at in times]


def told(window, at):
    allowance = window.take("pk_a", T + at)
    return allowance.granted, allowance.remaining, allowance.reset_at - T


def test_a_log_frees_one_request_when_the_oldest_is_a_second_old():
    log = SlidingLog(2)
    assert told(log, 0.25) == (True, 1, 2)
    assert told(log, 0.75) == (True, 0, 2)
    assert told(log, 1.125) == (False, 0, 2)
    assert told(log, 1.25) == (True, 0, 2), "the first is a second old; reset is about the second"
    assert told(log, 1.75) == (True, 0, 3)


def test_no_second_whenever_it_begins_sees_more_than_a_logs_limit():
    chance, log, now, passed = Random(1), SlidingLog(10), T, []
    for _ in range(2_000):
        now += chance.expovariate(20)
        if log.take("pk_a", now).granted:
            passed.append(now)
    assert all(later - first >= 1 for first, later in zip(passed, passed[10:], strict=False))
    assert len(passed) > 0.9 * 10 * (now - T), "and it is not closed for longer than it must be"


def test_a_counter_adds_what_still_overlaps_of_the_second_before():
    counter = SlidingCounter(10)
    assert granted(counter, *[0.5] * 11) == [True] * 10 + [False]
    assert told(counter, 1.0) == (False, 0, 2), "at the turn of the second all of the last one overlaps"
    assert told(counter, 1.125) == (True, 0, 2), "an eighth of ten is gone: one and a quarter are free"
    assert granted(counter, 1.1875, 1.25) == [False, True]
    assert told(counter, 2.5) == (True, 8, 3), "half of the two requests overlap"
    assert told(counter, 9.5) == (True, 9, 10), "what lies two seconds back counts no more"


def test_a_bucket_fills_at_the_limits_pace_up_to_its_burst():
    bucket = Bucket(4, burst=2)
    assert told(bucket, 0.0) == (True, 1, 1), "full again in a quarter of a second, rounded up"
    assert granted(bucket, 0.0, 0.0) == [True, False]
    assert told(bucket, 0.25) == (True, 0, 1)
    assert granted(bucket, 0.375, 0.5) == [False, True]
    assert granted(bucket, 60, 60, 60) == [True, True, False], "it never holds more than its burst"


def test_what_comes_at_a_buckets_pace_is_never_refused():
    bucket = Bucket(100, burst=1)
    assert all(granted(bucket, *(at / 100 for at in range(10_000))))


def test_a_bucket_without_a_burst_holds_its_limit():
    assert granted(Bucket(3), 0, 0, 0, 0) == [True, True, True, False]


@pytest.mark.parametrize("kind", Kind)
def test_a_lowered_limit_holds_at_once_and_says_that_nothing_is_free(kind):
    window = Limit(100, kind).opened()
    assert all(granted(window, *[0.5] * 50))
    Limit(10, kind).impose(window)
    allowance = window.take("pk_a", T + 0.5)
    # A bucket keeps as many tokens as its new burst holds.
    assert (allowance.granted, allowance.limit) == (kind is Kind.BUCKET, 10)
    assert allowance.remaining == (9 if kind is Kind.BUCKET else 0)
    assert sum(granted(window, *(2.5 + at / 1000 for at in range(300)))) in range(10, 14)


@pytest.mark.parametrize("kind", Kind)
def test_a_raised_limit_counts_what_was_taken_before(kind):
    window = Limit(10, kind).opened()
    assert sum(granted(window, *[0.5] * 11)) == 10
    Limit(100, kind).impose(window)
    passed = sum(granted(window, *[0.5] * 200))
    assert passed == (0 if kind is Kind.BUCKET else 90), "a bucket gets no tokens for nothing"


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("jump_s", [-3600.0, -0.125, 3600.0])
def test_no_jump_of_the_clock_closes_a_key_for_longer_than_a_second(kind, jump_s):
    window = Limit(5, kind).opened()
    granted(window, *[100.5] * 6)
    assert any(granted(window, 101.5 + jump_s, 102.5 + jump_s))
    passed = granted(window, *(103 + jump_s + at / 100 for at in range(100)))
    assert 4 <= sum(passed) <= 10


@pytest.mark.parametrize("kind", Kind)
def test_keys_that_no_longer_count_are_forgotten(kind):
    window = Limit(5, kind).opened()
    for number in range(1_000):
        window.take(f"pk_{number}", T)
    window.take("pk_a", T + 3)
    (kept,) = (value for value in vars(window).values() if isinstance(value, dict))
    assert list(kept) == ["pk_a"]


@pytest.mark.parametrize("kind", Kind)
async def test_every_kind_is_met_over_http(post, start, clock, kind):
    sandbox = await start(limit=Limit(2, kind))
    replies = [await post(client(), to=sandbox) for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert [reply.headers[REMAINING] for reply in replies] == ["1", "0", "0"]
    assert {reply.headers[LIMIT] for reply in replies} == {"2"}
    clock.now += 2
    assert (await post(client(), to=sandbox)).status == 200


@pytest.mark.parametrize("figures", [{"limit": 0}, {"burst": 0, "window": Kind.BUCKET}, {"limit": 10**7}])
def test_a_limit_of_nothing_or_beyond_reason_is_refused(figures):
    with pytest.raises(OrderError, match="must be 1 to 1000000"):
        Limit(**figures)
