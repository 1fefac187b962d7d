"""The alarm: no ring is lost, whenever it comes. The loop's clock is the test's."""

import asyncio

import pytest

from proxy.flusher.alarm import Alarm


class Clock:
    """The event loop's time; it moves when told to, or leaps to the next timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._start = loop.time()
        self.now = self._start

    @property
    def passed(self) -> float:
        return round(self.now - self._start, 3)

    async def until(self, task: asyncio.Task[None]) -> float:
        """Leap from timer to timer until `task` is done; the seconds that passed."""
        began = self.now
        while not task.done():
            await asyncio.sleep(0)
            timers = [timer.when() for timer in self._loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
            if not task.done() and timers:
                self.now = max(self.now, min(timers))
        await task
        return round(self.now - began, 3)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    loop = asyncio.get_running_loop()
    made = Clock(loop)
    monkeypatch.setattr(loop, "time", lambda: made.now)
    return made


@pytest.fixture
async def alarm(clock: Clock) -> Alarm:
    made = Alarm()
    made.set()
    return made


def asleep(alarm: Alarm, at_most_s: float) -> asyncio.Task[None]:
    return asyncio.create_task(alarm.sleep(at_most_s))


async def test_a_sleep_ends_after_its_time(clock: Clock, alarm: Alarm) -> None:
    assert await clock.until(asleep(alarm, 60)) == 60


async def test_a_ring_ends_the_sleep(clock: Clock, alarm: Alarm) -> None:
    sleeping = asleep(alarm, 60)
    await asyncio.sleep(0)
    alarm.ring_in(0.0)
    assert await clock.until(sleeping) == 0


async def test_a_ring_before_the_sleep_is_not_lost(clock: Clock, alarm: Alarm) -> None:
    alarm.ring_in(3)
    clock.now += 1
    assert await clock.until(asleep(alarm, 60)) == 2


async def test_a_ring_that_is_over_before_the_sleep_ends_it_at_once(clock: Clock, alarm: Alarm) -> None:
    alarm.ring_in(3)
    clock.now += 10
    assert await clock.until(asleep(alarm, 60)) == 0


@pytest.mark.parametrize("rings", [(5, 3, 8), (3, 5, 8), (8, 5, 3)])
async def test_the_earliest_of_several_rings_counts(
    clock: Clock, alarm: Alarm, rings: tuple[int, ...]
) -> None:
    sleeping = asleep(alarm, 60)
    await asyncio.sleep(0)
    for in_s in rings:
        alarm.ring_in(in_s)
    assert await clock.until(sleeping) == 3


async def test_a_later_ring_does_not_lengthen_the_sleep(clock: Clock, alarm: Alarm) -> None:
    sleeping = asleep(alarm, 2)
    await asyncio.sleep(0)
    alarm.ring_in(30)
    assert await clock.until(sleeping) == 2


async def test_setting_it_forgets_what_rang_before(clock: Clock, alarm: Alarm) -> None:
    alarm.ring_in(1)
    quiet_before = alarm.is_quiet
    alarm.set()
    assert (quiet_before, alarm.is_quiet) == (False, True)
    assert await clock.until(asleep(alarm, 60)) == 60


async def test_it_serves_for_sleep_after_sleep(clock: Clock, alarm: Alarm) -> None:
    for in_s in (5, 7, 2):
        alarm.set()
        alarm.ring_in(in_s)
        assert await clock.until(asleep(alarm, 60)) == in_s
    assert clock.passed == 14


async def test_a_cancelled_sleep_leaves_no_timer(clock: Clock, alarm: Alarm) -> None:
    sleeping = asleep(alarm, 60)
    await asyncio.sleep(0)
    sleeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeping
    alarm.set()
    assert await clock.until(asleep(alarm, 5)) == 5
