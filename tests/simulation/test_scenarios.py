"""What upstream may do for an hour or for days, told one by one, in virtual time. See `scene`."""

import asyncio
import json
from collections.abc import Sequence

import pytest

from proxy.buffer.contract import STALLED_WAIT_S
from proxy.ledger import Dead, Pause
from proxy.sandbox.window import Kind, Limit
from tests.simulation.evidence import Post, Request
from tests.simulation.scene import KEY, ORIGIN, OTHER_KEY, Scene, play
from tests.simulation.upstream import CALM, NAMED, POISON, UNNAMED, Fate, Weather

ENGINES = ["sqlite", "redis"]
SHOP = "https://shop.example.com"

PROMPT_S = 5.0
"""Linger, a request, and a few others before it."""

HOUR_S = 3_600.0


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_an_origin_forbidden_for_an_hour_stops_no_other_and_loses_nothing(engine: str) -> None:
    others: list[Post] = []

    async def story(scene: Scene) -> None:
        scene.around.upstream.weather = Weather(origins=frozenset({SHOP}))
        for minute in range(60):
            for visitor in range(3):
                await scene.post(100 * visitor + minute % 10, 2, origin=SHOP)
                others.append(await scene.post(1_000 * (1 + visitor) + minute % 7, 2))
            gate = (await scene.figures())[KEY].gate
            assert gate.paused is None
            await asyncio.sleep(60)
        assert gate.forbidden_origins == (SHOP,)
        scene.around.upstream.weather = CALM
        await scene.emptied(1.2 * HOUR_S + PROMPT_S)
        assert (await scene.figures())[KEY].gate.forbidden_origins == ()

    scene = play(story, engine)
    assert not scene.letters
    assert max(scene.delays_s(others)) < PROMPT_S


@pytest.mark.parametrize("status", [401, 402, 404, 302])
def test_a_key_refused_for_an_hour_stops_no_other_and_loses_nothing(engine: str, status: int) -> None:
    others: list[Post] = []
    back_s = 0.0

    async def story(scene: Scene) -> None:
        nonlocal back_s
        await scene.post(1)
        await scene.emptied(PROMPT_S)
        scene.around.upstream.weather = Weather(keys={KEY: status})
        for minute in range(60):
            for visitor in range(3):
                await scene.post(visitor + minute % 10)
                others.append(await scene.post(visitor, key=OTHER_KEY))
            await asyncio.sleep(60)
        assert (await scene.figures())[KEY].gate.paused == Pause.KEY_REFUSED
        scene.around.upstream.weather, back_s = CALM, scene.now_s
        await scene.emptied(300 + PROMPT_S)

    scene = play(story, engine)
    assert not scene.letters
    assert max(scene.delays_s(others)) < PROMPT_S
    refused = scene.requests(KEY, 2 * PROMPT_S, back_s)
    assert len(refused) < 20, "more than the probes, which are at last 5 minutes apart"


def test_sixty_hours_without_upstream_lose_nothing_and_end_without_a_429(engine: str) -> None:
    keys = (KEY, OTHER_KEY)
    outages = ({Fate.UNREACHED: 1.0}, {Fate.FAILED: 1.0}, {Fate.RESET: 1.0})
    back_s = 0.0

    async def story(scene: Scene) -> None:
        nonlocal back_s
        for hour in range(60):
            scene.around.upstream.weather = Weather(outages[hour // 20])
            for number in range(60 if hour == 0 else 4):
                for key in keys:
                    await scene.post(60 + hour if number == 0 else number, 2, key=key)
            await asyncio.sleep(HOUR_S)
        scene.around.upstream.weather, back_s = CALM, scene.now_s
        await scene.emptied(400)

    scene = play(story, engine, limit=Limit(20))
    assert not scene.letters
    assert not scene.evidence.refused_by_window
    for key in keys:
        probes = scene.requests(key, until_s=back_s)
        assert len(probes) < 60 * HOUR_S / 300 + 200, "more than a probe in 5 minutes"


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
def test_a_schema_slip_pauses_the_key_and_makes_no_dead_letters(engine: str, named: bool) -> None:
    queues = 220

    async def story(scene: Scene) -> None:
        for visitor in range(10):
            await scene.post(visitor)
        await scene.emptied(PROMPT_S)
        scene.around.upstream.weather = Weather(slips=named)
        for visitor in range(queues):
            await scene.post(visitor, 3)
        paused = set()
        for _ in range(240):
            await asyncio.sleep(30)
            await scene.post(visitor, 2)
            paused.add((await scene.figures())[KEY].gate.paused)
        assert Pause.REFUSAL_STORM in paused
        assert (await scene.figures())[KEY].gate.paused == Pause.REFUSAL_STORM
        scene.around.upstream.weather = CALM
        await scene.emptied(600)
        assert (await scene.figures())[KEY].gate.paused is None

    scene = play(story, engine)
    assert not scene.letters
    assert len(scene.requests(KEY)) < 2 * queues + 2 * HOUR_S / 30


@pytest.mark.parametrize("referrer", [NAMED, UNNAMED], ids=["named", "unnamed"])
def test_one_bad_sender_beside_good_ones_pauses_nothing(engine: str, referrer: str) -> None:
    good: list[Post] = []
    bad_posts = 40

    async def story(scene: Scene) -> None:
        for number in range(150):
            if number < bad_posts:
                await scene.post(number % 8, 3, bad=dict.fromkeys(range(3), referrer))
            good.append(await scene.post(100 + number % 30, 2))
            assert (await scene.figures())[KEY].gate.paused is None
            await asyncio.sleep(2)
        await scene.emptied(PROMPT_S)

    scene = play(story, engine)
    assert len(scene.letters) == 3 * bad_posts
    assert {letter.reason for letter in scene.letters} == {Dead.REFUSED}
    assert max(scene.delays_s(good)) < PROMPT_S


@pytest.mark.parametrize("bad_at", [0, 1, 37, 50, 98, 99])
@pytest.mark.parametrize("others", [False, True], ids=["alone", "beside others"])
def test_one_bad_event_of_a_hundred_is_found_within_25_requests(
    engine: str, bad_at: int, others: bool
) -> None:
    async def story(scene: Scene) -> None:
        await scene.post(2)
        await scene.emptied(PROMPT_S)
        await scene.post(1, 100, bad={bad_at: UNNAMED})
        for visitor in range(30 * others):
            await scene.post(100 + visitor)
            await asyncio.sleep(1)
        await scene.emptied(120)

    scene = play(story, engine)
    (bad,) = scene.letters
    assert json.loads(bad.text)["path"] == f"/2/{bad_at}"
    searched = [request for request in scene.requests(KEY) if request.events[0]["path"].startswith("/2/")]
    assert len(searched) <= 25
    taken = {arrival.event["path"] for arrival in scene.evidence.arrivals}
    assert taken >= {f"/2/{at}" for at in range(100) if at != bad_at}


@pytest.mark.parametrize("ahead_s", [HOUR_S, -HOUR_S])
@pytest.mark.parametrize("whose", ["store", "upstream"])
@pytest.mark.parametrize("kind", [Kind.FIXED, Kind.BUCKET])
def test_a_clock_that_jumps_by_an_hour_neither_freezes_nor_opens_a_key(
    engine: str, ahead_s: float, whose: str, kind: Kind
) -> None:
    jumped_s = 0.0

    async def story(scene: Scene) -> None:
        nonlocal jumped_s
        await scene.post(0)
        await scene.operate(lambda buffer: buffer.pause(KEY))
        for visitor in range(400):
            await scene.post(visitor)
        await scene.operate(lambda buffer: buffer.resume(KEY))
        await asyncio.sleep(8)
        jumped_s = scene.now_s
        if whose == "upstream":
            scene.around.upstream.ahead_s += ahead_s
        else:
            scene.around.storage.set_clock(ahead_s)
            await scene.restart()
        await scene.emptied(60)

    scene = play(story, engine, limit=Limit(20, kind))
    assert not scene.letters
    assert len(scene.requests(KEY, jumped_s + 1, jumped_s + 9)) > 0.7 * 8 * 20, "it was frozen"
    assert scene.busiest_second(KEY) <= 1.25 * 20
    assert len(scene.evidence.refused_by_window) < 10


def test_after_an_outage_each_key_sends_one_probe_and_then_keeps_its_rate(engine: str) -> None:
    keys = (KEY, OTHER_KEY)
    back_s = 0.0

    async def story(scene: Scene) -> None:
        nonlocal back_s
        scene.around.upstream.weather = Weather({Fate.UNREACHED: 1})
        for visitor in range(300):
            for key in keys:
                await scene.post(visitor, key=key)
        await asyncio.sleep(HOUR_S)
        figures = await scene.figures()
        assert {figures[key].gate.paused for key in keys} == {Pause.UPSTREAM_FAILING}
        scene.around.upstream.weather, back_s = CALM, scene.now_s
        await scene.emptied(400)

    scene = play(story, engine)
    assert not scene.evidence.refused_by_window
    for key in keys:
        probe, *others = scene.requests(key, back_s)
        assert probe.arrived_s is not None
        assert others[0].sent_s > probe.arrived_s, "another request left before the probe was answered"
        sent = [request.sent_s for request in others]
        assert sent[-1] - sent[0] > len(sent) / 120, "all at once"


def test_an_event_that_makes_upstream_fail_dies_alone(engine: str) -> None:
    others: list[Post] = []

    async def story(scene: Scene) -> None:
        await scene.post(1, 12, bad={7: POISON})
        for number in range(600):
            others.append(await scene.post(100 + number % 20))
            await asyncio.sleep(5)
        await scene.emptied(600)

    scene = play(story, engine)
    (bad,) = scene.letters
    assert (json.loads(bad.text)["path"], bad.reason) == ("/1/7", Dead.POISON)
    assert max(scene.delays_s(others)) < PROMPT_S


def test_an_event_that_kills_its_sender_is_put_off_alone_and_kept(engine: str) -> None:
    deadly = "/1/4"
    after: Sequence[Post] = []

    async def story(scene: Scene) -> None:
        nonlocal after

        def kill(request: Request) -> None:
            if any(event["path"] == deadly for event in request.events):
                scene.process.kill()

        scene.around.upstream.on_arrival = kill
        await scene.post(1, 9)
        for number in range(90):
            await scene.post(100 + number % 5)
            await asyncio.sleep(20)
        killed = scene.evidence.lives
        after = [await scene.post(200 + number) for number in range(20)]
        await asyncio.sleep(STALLED_WAIT_S / 4)
        assert scene.evidence.lives <= killed + 1, "it is tried once an hour"
        held = (await scene.figures())[KEY].books.held
        assert held == 5, "it, and what stands behind it"
        scene.around.upstream.on_arrival = lambda _request: None
        await scene.operate(lambda buffer: buffer.retry(KEY))
        await scene.emptied(PROMPT_S)

    # With several in flight, whoever flies with it each time is put off, too.
    scene = play(story, engine, in_flight=1)
    assert not scene.letters
    assert max(scene.delays_s(after)) < PROMPT_S + 30, "a lease that was lost with a process at most"
    assert ORIGIN in {request.origin for request in scene.evidence.requests}
