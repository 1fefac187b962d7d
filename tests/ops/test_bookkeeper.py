"""The bookkeeper: what it shows of the buffer, what it says of pauses, and which dead letters it lets go."""

import asyncio
import threading
from array import array
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from proxy.buffer import BufferUnavailable, Death, KeyFigures, Lease, Portion, Settlement, Terms
from proxy.buffer.sqlite import SqliteBuffer
from proxy.gate import View
from proxy.lanes import Lane, lane_id, visitor_queue
from proxy.ledger import Answered, Books, Dead, Dropped, Pause, Rejected, Underfull, Unsafe
from proxy.metrics import Metrics
from proxy.ops import Bookkeeper, bookkeeper
from proxy.ops.backlog import drain_s
from proxy.ops.bookkeeper import PAUSES_TOLD
from proxy.ops.pauses import WORDS
from proxy.wire.limits import PublicKey
from tests.around import BufferAround

KEY = PublicKey("pk_one")
OTHERS = (PublicKey("pk_two"), PublicKey("pk_three"))
DAY_S = 86_400.0


def figures(held: int = 0, queues: int = 0, *, succeeded: bool = True, **gate: object) -> KeyFigures:
    view = View(**{"rate_per_s": 90.0, "limit_per_s": 100.0} | gate)  # type: ignore[arg-type]
    return KeyFigures(Books(accepted=held, held=held), queues, 100, None, view, succeeded)


class Told(BufferAround):
    """A buffer whose figures are what a test says."""

    def __init__(self, inner: SqliteBuffer) -> None:
        super().__init__(inner)
        self.figures_now: Mapping[PublicKey, KeyFigures] = {}
        self.failures = 0
        self.looks: list[bool] = []
        self.answers = asyncio.Event()
        self.answers.set()

    async def figures(self, *, recount: bool = False) -> Mapping[PublicKey, KeyFigures]:
        self.looks.append(recount)
        await self.answers.wait()
        if self.failures:
            self.failures -= 1
            raise BufferUnavailable("away")
        return self.figures_now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteBuffer]:
    terms = Terms(linger_s=0.0, limit_per_s=1_000_000.0)
    buffer = await SqliteBuffer.opened(tmp_path / "buffer.db", terms, sync_every_commit=False)
    yield buffer
    await buffer.close()


@pytest.fixture
def told(store: SqliteBuffer) -> Told:
    return Told(store)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(max_key_labels=1)


@pytest.fixture
def books(told: Told, metrics: Metrics) -> Bookkeeper:
    return Bookkeeper(told, metrics, retention_s=DAY_S)


def shown(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"outlit_proxy_{name}", labels)


def reasons(metrics: Metrics, key: str) -> set[str]:
    return {reason for reason in Pause if shown(metrics, "gate_paused", key=key, reason=reason) == 1}


# -- gates ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", Pause)
@pytest.mark.parametrize("for_s", [0.0, 12.0])
async def test_a_pause_is_shown_while_it_lasts_and_while_it_probes(
    told: Told, books: Bookkeeper, metrics: Metrics, reason: Pause, for_s: float
) -> None:
    told.figures_now = {KEY: figures(paused=reason, paused_for_s=for_s)}
    await books.show()
    assert reasons(metrics, KEY) == {reason}
    told.figures_now = {KEY: figures()}
    await books.show()
    assert reasons(metrics, KEY) == set()


async def test_the_operators_pause_is_shown_beside_another(
    told: Told, books: Bookkeeper, metrics: Metrics
) -> None:
    told.figures_now = {KEY: figures(paused=Pause.KEY_REFUSED, by_operator=True)}
    await books.show()
    assert reasons(metrics, KEY) == {Pause.KEY_REFUSED, Pause.OPERATOR}


async def test_under_other_every_keys_pause_is_seen_whichever_comes_last(
    told: Told, books: Bookkeeper, metrics: Metrics
) -> None:
    """It once showed the last key's only, so that an alert came and went with the order of keys."""
    told.figures_now = {
        KEY: figures(rate_per_s=80.0, forbidden_origins=("https://a.example", "https://b.example")),
        OTHERS[0]: figures(
            paused=Pause.REFUSAL_STORM, rate_per_s=10.0, forbidden_origins=("https://c.example",)
        ),
        OTHERS[1]: figures(rate_per_s=50.0),
    }
    await books.show()
    assert (reasons(metrics, KEY), reasons(metrics, "other")) == (set(), {Pause.REFUSAL_STORM})
    assert shown(metrics, "gate_rate_requests_per_second", key=KEY) == 80
    assert shown(metrics, "gate_rate_requests_per_second", key="other") == 10
    assert shown(metrics, "forbidden_origins", key=KEY) == 2
    assert shown(metrics, "forbidden_origins", key="other") == 1
    assert b"example" not in metrics.exposition("")[0], "an Origin is no label"


async def test_a_key_that_gets_a_label_of_its_own_leaves_nothing_under_other(
    told: Told, books: Bookkeeper, metrics: Metrics
) -> None:
    """Its pause once stood there for ever, with an alert on it."""
    told.figures_now = {KEY: figures(held=7, queues=1, succeeded=False, paused=Pause.KEY_REFUSED)}
    await books.show()
    assert reasons(metrics, "other") == {Pause.KEY_REFUSED}
    assert shown(metrics, "held_events", key="other") == 7
    told.figures_now = {KEY: figures(held=5, queues=1)}
    await books.show()
    assert [shown(metrics, "gate_paused", key="other", reason=reason) for reason in Pause] == [0] * len(Pause)
    assert shown(metrics, "held_events", key="other") is None
    assert shown(metrics, "held_events", key=KEY) == 5


async def test_a_key_that_the_buffer_no_longer_knows_is_no_longer_shown(
    told: Told, books: Bookkeeper, metrics: Metrics
) -> None:
    told.figures_now = {KEY: figures(held=7, queues=1, paused=Pause.UPSTREAM_FAILING)}
    await books.show()
    told.figures_now = {}
    await books.show()
    for name in ("held_events", "gate_rate_requests_per_second", "forbidden_origins"):
        assert shown(metrics, name, key=KEY) is None
    assert reasons(metrics, KEY) == set()


async def test_the_nearest_bound_on_stored_bytes_is_the_one_that_is_shown(
    told: Told, books: Bookkeeper, metrics: Metrics
) -> None:
    told.figures_now = {key: figures(held=1, queues=1) for key in (KEY, *OTHERS)}  # 100 bytes each
    for bounds, nearest in [((1000.0, 1000.0), 0.3), ((1000.0, 125.0), 0.8)]:
        books.set_bounds(DAY_S, *bounds)
        await books.show()
        assert shown(metrics, "buffer_used_ratio") == pytest.approx(nearest)


@pytest.mark.parametrize(
    ("name", "label", "values"),
    [
        ("events_rejected_total", "reason", Rejected),
        ("events_dead_total", "reason", Dead),
        ("events_dropped_total", "reason", Dropped),
        ("upstream_requests_total", "verdict", Answered),
        ("batch_underfull_total", "reason", Underfull),
        ("buffer_unsafe", "reason", Unsafe),
    ],
)
def test_every_value_of_a_closed_list_has_its_series_from_the_start(
    metrics: Metrics, name: str, label: str, values: type[StrEnum]
) -> None:
    assert {value: shown(metrics, name, **{label: value}) for value in values} == dict.fromkeys(values, 0)


def test_every_pause_has_its_series_before_anything_pauses(metrics: Metrics) -> None:
    assert [shown(metrics, "gate_paused", key="other", reason=reason) for reason in Pause] == [0] * len(Pause)


# -- what is said --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", PAUSES_TOLD)
async def test_a_pause_is_said_when_it_begins_and_when_it_ends_once_each(
    told: Told, books: Bookkeeper, reason: Pause
) -> None:
    paused = figures(paused=reason, paused_for_s=5.0)
    probing = figures(paused=reason)
    with capture_logs() as logs:
        for now in (figures(), paused, probing, paused, probing, figures(), figures()):
            told.figures_now = {KEY: now}
            await books.show()
    assert [(line["log_level"], line["reason"], line["key"]) for line in logs] == [
        ("warning", reason, KEY),
        ("info", reason, KEY),
    ]
    assert logs[0]["event"] == f"a key pauses: {WORDS[reason]}"


@pytest.mark.parametrize("reason", sorted(set(Pause) - set(PAUSES_TOLD)))
async def test_what_is_short_or_the_operators_own_is_not_said(
    told: Told, books: Bookkeeper, reason: Pause
) -> None:
    with capture_logs() as logs:
        for now in (figures(paused=reason, paused_for_s=5.0), figures()):
            told.figures_now = {KEY: now}
            await books.show()
    assert logs == []


async def test_the_operators_pause_does_not_end_the_one_beneath_it(told: Told, books: Bookkeeper) -> None:
    storm = figures(paused=Pause.REFUSAL_STORM)
    with capture_logs() as logs:
        for now in (storm, figures(paused=Pause.OPERATOR, by_operator=True), storm):
            told.figures_now = {KEY: now}
            await books.show()
    assert len(logs) == 1


# -- time to drain -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("of", "seconds"),
    [
        (figures(), 0.0),
        (figures(paused=Pause.KEY_REFUSED, paused_for_s=200.0), 0.0),
        (figures(90, 90), 1.0),
        (figures(9_000, 1), 1.0),
        (figures(9_001, 1), 91 / 90),
        (figures(9_000, 180), 2.0),
        (figures(90, 90, rate_per_s=10.0), 9.0),
        (figures(90, 90, paused=Pause.UPSTREAM_FAILING, paused_for_s=120.0), 121.0),
        (figures(90, 90, paused=Pause.UPSTREAM_FAILING), 1.0),
        (figures(90, 90, paused=Pause.OPERATOR, by_operator=True), 1.0),
    ],
)
def test_time_to_drain_is_of_requests_over_the_rate_after_the_pause(of: KeyFigures, seconds: float) -> None:
    assert drain_s(of) == pytest.approx(seconds)


async def test_the_slowest_keys_time_to_drain_is_shown(
    told: Told, books: Bookkeeper, metrics: Metrics
) -> None:
    told.figures_now = {KEY: figures(90, 90), OTHERS[0]: figures(90, 90, rate_per_s=10.0)}
    await books.show()
    assert shown(metrics, "time_to_drain_seconds") == 9


# -- dead letters that have had their time ---------------------------------------------------------------


async def bury(store: SqliteBuffer, events: Sequence[int]) -> None:
    """Make dead letters of new events."""
    header = Lane(b'{"visitorId":"v"}').header()
    portion = Portion(
        visitor_queue("v"),
        lane_id(header),
        header,
        b"".join(number.to_bytes(16, "big") for number in events),
        array("q", events),
        [b'{"n":%d}' % number for number in events],
    )
    await store.append(KEY, [portion])
    lease = await store.claim(KEY, events[0].to_bytes(12, "big"))
    assert isinstance(lease, Lease)
    dead = {at: Death(Dead.REFUSED, "bad") for at in range(len(events))}
    await store.settle(lease, Settlement(len(events), dead))


async def test_only_what_is_older_than_the_retention_is_given_up_and_counted(
    store: SqliteBuffer, metrics: Metrics
) -> None:
    await bury(store, range(1, 6))
    died_at_ms = (await store.dead_letters())[0].died_at_ms
    now_ms = died_at_ms + int(DAY_S * 1000)
    books = Bookkeeper(store, metrics, retention_s=DAY_S, now_ms=lambda: now_ms)
    await books.clear_up()
    assert await store.count_dead() == 5
    now_ms += 1_000
    await books.clear_up()
    assert await store.count_dead() == 0
    assert shown(metrics, "events_dropped_total", reason="dead_expired") == 5
    found = (await store.figures(recount=True))[KEY].books
    assert found == Books(accepted=5, dropped=5)


async def test_more_than_one_call_may_purge_is_given_up_in_one_go(
    store: SqliteBuffer, metrics: Metrics
) -> None:
    for start in range(1, 1_101, 100):
        await bury(store, range(start, start + 100))
    books = Bookkeeper(store, metrics, retention_s=0.0, now_ms=lambda: 10**13)
    with capture_logs() as logs:
        await books.clear_up()
    assert await store.count_dead() == 0
    assert shown(metrics, "events_dropped_total", reason="dead_expired") == 1_100
    assert [line["events"] for line in logs] == [1_100]


# -- looks that are shared -----------------------------------------------------------------------------


async def asking(told: Told, books: Bookkeeper, callers: int) -> list[asyncio.Task[object]]:
    """Those who ask while a look is under way."""
    told.answers.clear()
    tasks: list[asyncio.Task[object]] = [asyncio.create_task(books.show()) for _ in range(callers)]
    async with asyncio.timeout(5):
        while not told.looks:  # noqa: ASYNC110
            await asyncio.sleep(0)
    return tasks


async def test_those_who_ask_at_once_share_one_look_and_the_next_gets_a_new_one(
    told: Told, books: Bookkeeper
) -> None:
    told.figures_now = {KEY: figures(held=1)}
    tasks = await asking(told, books, 24)
    told.answers.set()
    assert await asyncio.gather(*tasks) == [{KEY: figures(held=1)}] * 24
    assert len(told.looks) == 1
    told.figures_now = {KEY: figures(held=2)}
    assert await books.show() == {KEY: figures(held=2)}


async def test_whoever_goes_away_takes_the_look_from_nobody_else(told: Told, books: Bookkeeper) -> None:
    first, second = await asking(told, books, 2)
    first.cancel()
    await asyncio.wait([first])
    told.answers.set()
    assert (await second, first.cancelled(), len(told.looks)) == ({}, True, 1)


async def test_all_who_share_a_look_are_told_that_it_failed_and_the_next_one_is_new(
    told: Told, books: Bookkeeper
) -> None:
    told.failures = 1
    tasks = await asking(told, books, 3)
    told.answers.set()
    assert [str(error) for error in await asyncio.gather(*tasks, return_exceptions=True)] == ["away"] * 3
    assert await books.show() == {}


async def test_a_look_that_takes_long_is_used_again_for_as_long_as_it_took(
    told: Told, books: Bookkeeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 100.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now_s)
    [task] = await asking(told, books, 1)
    now_s += 0.8
    told.answers.set()
    await task
    for after_s, looks in [(0.79, 1), (0.81, 2)]:
        now_s = 100.8 + after_s
        await books.show()
        assert len(told.looks) == looks


async def test_a_look_needs_none_of_the_threads_that_requests_need(
    store: SqliteBuffer, metrics: Metrics
) -> None:
    """Looks once stood in one row with bodies to inflate and host names to look up."""
    loop, ends = asyncio.get_running_loop(), threading.Event()
    with ThreadPoolExecutor(1) as requests:
        loop.set_default_executor(requests)
        busy = loop.run_in_executor(None, ends.wait)
        try:
            async with asyncio.timeout(5):
                await Bookkeeper(store, metrics, retention_s=DAY_S).show()
        finally:
            ends.set()
        await busy


# -- in the background ---------------------------------------------------------------------------------


async def test_it_looks_often_recounts_seldom_and_survives_a_buffer_that_does_not_answer(
    told: Told, books: Bookkeeper, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bookkeeper, "LOOK_S", 0.001)
    monkeypatch.setattr(bookkeeper, "RECOUNT_S", 0.2)
    told.failures = 2
    running = asyncio.create_task(books.run())
    async with asyncio.timeout(5):
        while told.looks.count(True) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    running.cancel()
    assert told.looks[0] is True
    assert told.looks.count(False) > 10
    assert shown(metrics, "buffer_retries_total") == 2
