"""The loop that stands for a process: its clock, its freezing and its end."""

import asyncio
from collections.abc import Callable
from random import Random

import pytest

from tests.simulation.loop import ProcessLoop, Stuck, World


@pytest.fixture
def world() -> World:
    return World(Random(1))


async def _note_after(seconds: float, note: Callable[[float], None]) -> None:
    await asyncio.sleep(seconds)
    note(asyncio.get_running_loop().time())


def test_an_hour_of_waiting_takes_no_time(world: World) -> None:
    times: list[float] = []
    world.run(_note_after(3_600, times.append))
    assert times == [3_600]


def test_timers_ring_in_the_order_of_their_times_and_then_of_their_setting(world: World) -> None:
    rung: list[str] = []

    async def story() -> None:
        loop = asyncio.get_running_loop()
        for name, at_s in (("c", 2.0), ("a", 1.0), ("b", 1.0)):
            loop.call_later(at_s, rung.append, name)
        await asyncio.sleep(3)

    world.run(story())
    assert rung == ["a", "b", "c"]


def test_a_frozen_process_wakes_late_and_all_at_once(world: World) -> None:
    process = world.loop("process")
    times: list[float] = []
    for seconds in (1, 2, 60):
        process.create_task(_note_after(seconds, times.append))

    async def story() -> None:
        await asyncio.sleep(0.5)
        process.freeze(30)
        await asyncio.sleep(100)

    world.run(story())
    assert times == [30.5, 30.5, 60]


def test_what_was_suspended_in_a_killed_process_never_goes_on(world: World) -> None:
    process = world.loop("process")
    went_on: list[float] = []
    left: list[str] = []

    async def insist() -> None:
        try:
            await _note_after(1, went_on.append)
        finally:
            left.append("left")
            await _note_after(1, went_on.append)

    process.create_task(insist())

    async def story() -> None:
        await asyncio.sleep(0.5)
        process.kill()
        process.call_soon(went_on.append, 0.0)
        await asyncio.sleep(10)

    world.run(story())
    assert left == ["left"]
    assert went_on == []


def test_a_kill_closes_task_groups_too(world: World) -> None:
    process = world.loop("process")
    went_on: list[float] = []

    async def group() -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_note_after(1, went_on.append))
            await _note_after(1, went_on.append)
        went_on.append(0)

    process.create_task(group())

    async def story() -> None:
        await asyncio.sleep(0.5)
        process.kill()

    world.run(story())
    assert went_on == []


def test_waiting_for_nothing_is_an_error_not_a_hang(world: World) -> None:
    async def story() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck, match="nothing will ever happen"):
        world.run(story())
    world.close()


def test_running_in_circles_is_an_error_not_a_hang(world: World) -> None:
    async def story() -> None:
        while True:  # noqa: ASYNC110  # it is what must be noticed
            await asyncio.sleep(0)

    with pytest.raises(Stuck, match="the clock stood still"):
        world.run(story())
    world.close()


def test_an_error_in_a_callback_ends_the_run(world: World) -> None:
    async def story() -> None:
        asyncio.get_running_loop().call_soon(_fail)
        await asyncio.sleep(1)

    with pytest.raises(RuntimeError, match="_fail"):
        world.run(story())
    world.close()


def _fail() -> None:
    raise ValueError


def test_turns_are_drawn_so_that_seeds_differ() -> None:
    assert len({_turns(seed) for seed in range(10)}) > 1
    assert _turns(3) == _turns(3)


def _turns(seed: int) -> tuple[str, ...]:
    world = World(Random(seed))
    turns: list[str] = []
    loops: list[ProcessLoop] = [world.loop(name) for name in "ab"]

    async def take_turns(name: str) -> None:
        for _ in range(5):
            turns.append(name)
            await asyncio.sleep(0)

    for loop, name in zip(loops, "ab", strict=True):
        loop.create_task(take_turns(name))

    async def story() -> None:
        await asyncio.sleep(1)

    world.run(story())
    world.close()
    return tuple(turns)
