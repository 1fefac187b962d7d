"""Headers that do not tell the truth."""

from email.utils import formatdate, parsedate_to_datetime
from random import Random

import pytest

from proxy.sandbox import Fault, What
from proxy.sandbox.lies import told
from tests.sandbox.bodies import client

NOW = 1_700_000_000.75
LIMIT, REMAINING, RESET = "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("soon", "soon"),
        ("", ""),
        ("{now}", "1700000000"),
        ("{now+3600}", "1700003600"),
        ("{now-60}", "1699999940"),
        ("{now_ms}", "1700000000750"),
        ("{now_ms+1}", "1700000001750"),
        ("{date}", formatdate(NOW, usegmt=True)),
        ("{date-9999999999}", formatdate(0, usegmt=True)),
        ("in {now+5} s, {date+5}", f"in 1700000005 s, {formatdate(NOW + 5, usegmt=True)}"),
    ],
)
def test_places_are_filled_with_moments(value, sent):
    assert told(value, NOW, Random(1)) == sent


def test_chance_fills_a_place_evenly_and_by_its_seed():
    chance = Random(1)
    rolled = [int(told("{random:-1..2}", NOW, chance)) for _ in range(400)]
    assert set(rolled) == {-1, 0, 1, 2}
    near = {int(told("{now~2}", NOW, chance)) - int(NOW) for _ in range(400)}
    assert near == {-2, -1, 0, 1, 2}
    assert told("{random:0..1000000}", NOW, Random(7)) == told("{random:0..1000000}", NOW, Random(7))


@pytest.fixture
def lie(sandbox, clock):
    def ordered(**headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        sandbox.programme.add(Fault(what=What.HEADERS, headers=named), now=clock())

    return ordered


@pytest.mark.parametrize("remaining", ["0", "100", "-1", "many"])
async def test_remaining_may_always_be_the_same(post, lie, remaining):
    lie(X_RateLimit_Remaining=remaining)
    replies = [await post(client()) for _ in range(3)]
    assert {reply.headers[REMAINING] for reply in replies} == {remaining}
    assert {reply.status for reply in replies} == {200}


async def test_headers_may_be_missing_even_the_date(post, lie, sandbox):
    lie(X_RateLimit_Limit=None, x_ratelimit_remaining=None, X_RateLimit_Reset=None, Date=None)
    reply = await post(client())
    assert reply.status == 200
    assert not {LIMIT, REMAINING, RESET, "Date"} & set(reply.headers)
    assert sandbox.record.entries[0].taken == (0,)


async def test_a_header_is_replaced_and_not_sent_twice(post, lie, clock):
    lie(x_ratelimit_reset="{now_ms}", date="{date-86400}")
    reply = await post(client())
    assert reply.headers.getall(RESET) == [str(int(clock.now * 1000))]
    (date,) = reply.headers.getall("Date")
    assert parsedate_to_datetime(date).timestamp() == int(clock.now) - 86_400


async def test_a_limited_request_is_lied_to_as_well(post, start, clock):
    sandbox = await start(limit=1)
    fault = Fault(what=What.HEADERS, headers={REMAINING: "100", "Retry-After": "-5"})
    sandbox.programme.add(fault, now=clock())
    replies = [await post(client(), to=sandbox) for _ in range(2)]
    assert [(reply.status, reply.headers[REMAINING]) for reply in replies] == [(200, "100"), (429, "100")]
    assert replies[1].headers["Retry-After"] == "-5"
    assert [entry.fault for entry in sandbox.record.entries] == ["headers", "headers"]
    assert sandbox.record.stats.limited == 1


@pytest.mark.parametrize("after", ["soon", "-1", "1e9", "99999999999999999999", "{date+5}", "Thu, 1 Jan"])
async def test_any_fault_may_send_headers_of_its_own(post, sandbox, clock, after):
    sandbox.programme.add(Fault(what=What.STATUS, status=429, headers={"Retry-After": after}), now=clock())
    reply = await post(client())
    assert reply.status == 429
    assert reply.headers["Retry-After"] == after.replace("{date+5}", formatdate(clock.now + 5, usegmt=True))


async def test_a_redirect_points_wherever_it_is_told(post, sandbox, clock):
    for status in (301, 302, 307, 308):
        location = f"http://elsewhere.example/{status}"
        fault = Fault(what=What.STATUS, status=status, headers={"Location": location}, requests=1)
        sandbox.programme.add(fault, now=clock())
        reply = await post(client(), follow=False)
        assert (reply.status, reply.headers["Location"]) == (status, location)
