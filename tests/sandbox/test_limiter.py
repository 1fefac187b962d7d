"""The limit as it changes while it runs, and strangers who take from it."""

from random import Random

import pytest

from proxy.sandbox import Kind, Limit, LimitChange, Limiter, OrderError, Stranger
from tests.sandbox.bodies import client

T = 1_700_000_000.0


def passed(limiter, at, requests=200):
    """How many of so many requests are granted, all at one moment."""
    return sum(limiter.take("pk_a", T + at).granted for _ in range(requests))


@pytest.mark.parametrize("kind", Kind)
def test_a_limit_is_lowered_for_a_while_and_then_what_it_was(kind):
    limiter = Limiter(Limit(100, kind))
    limiter.changes.add(LimitChange(limit=10, after_s=10, seconds=10), now=T)
    assert passed(limiter, 8.5) == 100
    assert passed(limiter, 11.5) == 10
    assert limiter.take("pk_a", T + 11.5).headers["X-RateLimit-Limit"] == "10"
    limiter.take("pk_a", T + 20.25)
    assert passed(limiter, 21.9) in range(99, 101)


def test_a_window_of_another_kind_begins_with_nothing_taken():
    limiter = Limiter(Limit(100))
    assert passed(limiter, 0.5) == 100
    limiter.changes.add(LimitChange(window=Kind.BUCKET, burst=7), now=T + 0.5)
    assert passed(limiter, 0.5) == 7
    limiter.changes.clear()
    assert limiter.limit(T + 0.5) == Limit(100)


def test_each_change_builds_on_the_one_before_it():
    limiter = Limiter(Limit(100))
    limiter.changes.add(
        LimitChange(window=Kind.BUCKET, burst=5, after_s=1),
        LimitChange(limit=20, after_s=2),
        LimitChange(window=Kind.FIXED, after_s=3, seconds=1),
        now=T,
    )
    limits = [limiter.limit(T + at) for at in (0.5, 1.5, 2.5, 3.5, 4.5)]
    assert limits == [
        Limit(100),
        Limit(100, Kind.BUCKET, 5),
        Limit(20, Kind.BUCKET, 5),
        Limit(20),
        Limit(20, Kind.BUCKET, 5),
    ]


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({}, "needs limit, window or burst"),
        ({"limit": 0}, "limit must be 1 to"),
        ({"window": Kind.FIXED, "burst": 5}, "fixed has no burst"),
        ({"limit": 5, "after_s": -1}, "after_s must be"),
    ],
)
def test_a_change_that_cannot_be_is_refused(order, message):
    with pytest.raises(OrderError, match=message):
        LimitChange(**order)


def test_a_stranger_takes_from_the_budget_of_its_key_at_its_own_moments():
    limiter = Limiter(Limit(100))
    limiter.strangers.add(Stranger(public_key="pk_a", per_s=30), now=T)
    # Nobody else asks until the very end of each second.
    left = [limiter.take("pk_a", T + second + 1 - 1e-6).remaining + 1 for second in range(200)]
    taken = [100 - each for each in left]
    assert sum(taken) == limiter.strangers_taken["pk_a"]
    assert 28 < sum(taken) / 200 < 32
    mean = sum(taken) / 200
    variance = sum((each - mean) ** 2 for each in taken) / 200
    assert 20 < variance < 42, "as chance has it, and not evenly"
    assert limiter.strangers_limited["pk_a"] == 0
    assert limiter.take("pk_b", T + 200).remaining == 99


def test_a_stranger_beyond_the_limit_is_counted_apart():
    limiter = Limiter(Limit(10))
    limiter.strangers.add(Stranger(public_key="pk_a", per_s=50, after_s=1, seconds=9), now=T)
    for tenth in range(200):
        limiter.catch_up(T + tenth / 10)
    assert limiter.strangers_taken["pk_a"] in range(85, 91)
    assert limiter.strangers_limited["pk_a"] in range(300, 420)


def test_a_seed_gives_the_same_stranger_whenever_others_ask():
    def moments(asking):
        limiter = Limiter(Limit(1_000), seed=7)
        limiter.strangers.add(Stranger(public_key="pk_a", per_s=40), now=T)
        for at in asking:
            limiter.catch_up(T + at)
        return limiter.strangers_taken["pk_a"]

    often = sorted(Random(1).uniform(0, 9) for _ in range(500))
    assert moments([*often, 9]) == moments([9])


def test_after_a_long_silence_a_stranger_does_not_make_up_for_it():
    limiter = Limiter(Limit(1_000))
    limiter.strangers.add(Stranger(public_key="pk_a", per_s=100), now=T)
    limiter.catch_up(T + 1e6)
    assert 800 < limiter.strangers_taken["pk_a"] < 1_200


async def test_limits_and_strangers_are_ordered_over_http(post, sandbox, http, clock):
    async def ask(method, path, order=None):
        async with http.request(method, f"{sandbox.url}/_sandbox/{path}", json=order) as response:
            return response.status, await response.json()

    _, shown = await ask("POST", "limits", {"limit": 2, "seconds": 5})
    assert shown == [{"limit": 2, "seconds": 5, "since": clock.now, "until": clock.now + 5, "left": None}]
    assert [(await post(client())).status for _ in range(3)] == [200, 200, 429]
    assert await ask("DELETE", "limits") == (200, {"cleared": 1})
    assert (await post(client())).headers["X-RateLimit-Limit"] == "100"

    order = {"public_key": "pk_x", "per_s": 1000, "after_s": 1}
    assert (await ask("POST", "strangers", order))[1][0]["since"] == clock.now + 1
    clock.now += 2
    assert (await post(client(), "pk_x")).status == 429
    assert (await post(client(), "pk_y")).status == 200
    _, stats = await ask("GET", "stats")
    assert stats["strangers"]["taken"] == {"pk_x": 200}, "two windows full"
    assert stats["strangers"]["limited"]["pk_x"] > 500
    assert stats["limited"] == 2, "those of strangers are not among them"

    for path, wrong, said in [
        ("limits", {"window": "sliding"}, "Unknown window 'sliding'. Did you mean sliding-log?"),
        ("limits", {"limit": 10.5}, "limit must be an integer"),
        ("strangers", {"per_s": 5}, "needs public_key"),
        ("strangers", {"public_key": "pk_x", "per_s": 0}, "per_s must be"),
        ("links", {}, "needs latency_ms"),
        ("links", {"latency_ms": 200, "latency_to_ms": 20}, "latency_to_ms must be 200 to"),
    ]:
        status, answer = await ask("POST", path, wrong)
        assert status == 400
        assert said in answer["error"]
