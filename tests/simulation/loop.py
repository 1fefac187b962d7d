"""Virtual time: event loops on one clock, which jumps to the next timer when nothing is left to do.

A `World` runs them on one thread, one callback at a time. Which loop's turn it is, is drawn; a loop's own
callbacks run in asyncio's order. So a run is a function of its seed, and an hour of waiting costs nothing.

A loop stands for an operating system's process: it can be frozen (its callbacks and timers wait, as under
SIGSTOP) and killed (whatever was suspended in it never goes on, as under SIGKILL).
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context
from itertools import count
from math import inf
from random import Random
from typing import Any, TypeVar, TypeVarTuple

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

EPOCH_S = 1_800_000_000.0
"""The time of day at which a world begins: a whole second, as the windows of a rate limit do."""

MOST_STEPS_AT_ONCE = 100_000
"""Callbacks in one moment of virtual time; beyond that something waits by running round in circles."""

_MOST_AWAITS_WHILE_CLOSING = 100


class Stuck(Exception):
    """Nothing is left to do and nothing will happen, or the clock stands still for ever."""


class World:
    """The clock, and the loops that live by it."""

    def __init__(self, chance: Random) -> None:
        self.now_s = 0.0
        self.steps = 0
        self._chance = chance
        self._loops: list[ProcessLoop] = []
        self._running: ProcessLoop | None = None
        self._moved_at = 0  # the step of the last move of the clock
        self.outside = self.loop("the world")
        """Where everybody lives who is none of the processes under test."""

    def wall_s(self) -> float:
        """The time of day, in Unix seconds."""
        return EPOCH_S + self.now_s

    def loop(self, name: str) -> "ProcessLoop":
        """A new process's loop."""
        made = ProcessLoop(self, name)  # type: ignore[abstract]  # no files, sockets, signals
        self._loops.append(made)
        return made

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        """Run until `story` ends, which is told outside. Raises Stuck where it cannot end."""
        task: asyncio.Task[T] = self.outside.create_task(story)
        try:
            while not task.done():
                self._step()
        finally:
            self._turn_to(None)
        return task.result()

    def close(self) -> None:
        """End every loop, whatever is suspended in it."""
        for loop in list(self._loops):
            loop.kill()

    def forget(self, loop: "ProcessLoop") -> None:
        """Never give `loop` a turn again."""
        if loop in self._loops:
            self._loops.remove(loop)

    def _step(self) -> None:
        ready = [loop for loop in self._loops if loop.is_ready]
        if not ready:
            self._move_clock()
            return
        self.steps += 1
        if self.steps - self._moved_at > MOST_STEPS_AT_ONCE:
            raise Stuck(f"{MOST_STEPS_AT_ONCE} callbacks ran while the clock stood still")
        loop = ready[0] if len(ready) == 1 else self._chance.choice(ready)
        self._turn_to(loop)
        loop.run_one()
        loop.on_step()

    def _turn_to(self, loop: "ProcessLoop | None") -> None:
        if loop is not self._running:
            self._running = loop
            asyncio._set_running_loop(loop)

    def _move_clock(self) -> None:
        next_s = min((loop.next_s for loop in self._loops), default=inf)
        if next_s == inf:
            raise Stuck("everything waits, and nothing will ever happen")
        self.now_s = max(self.now_s, next_s)
        self._moved_at = self.steps
        for loop in self._loops:
            loop.wake_timers()


class ProcessLoop(asyncio.AbstractEventLoop):
    """What asyncio asks of a loop, without files, sockets, signals and threads."""

    def __init__(self, world: World, name: str) -> None:
        self.steps = 0
        self.on_step: Callable[[], None] = lambda: None
        """Called after each callback, outside of the process: it may kill it."""
        self.on_error: Callable[[dict[str, Any]], None] = _raise_error
        self._world = world
        self._name = name
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._numbers = count()  # timers of one moment ring in the order in which they were set
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._frozen_until_s = 0.0
        self._killed = False

    def __repr__(self) -> str:
        return f"<loop of {self._name}>"

    # -- what the world does with it -------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether it has a callback to run now."""
        return bool(self._ready) and self._world.now_s >= self._frozen_until_s

    @property
    def next_s(self) -> float:
        """When it will be ready, if nobody else does anything."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        if self._ready:
            return self._frozen_until_s
        return max(self._timers[0][0], self._frozen_until_s) if self._timers else inf

    def wake_timers(self) -> None:
        """Make ready what has rung, unless frozen."""
        now_s = self._world.now_s
        while now_s >= self._frozen_until_s and self._timers and self._timers[0][0] <= now_s:
            self._ready.append(heapq.heappop(self._timers)[2])

    def run_one(self) -> None:
        """Run the next callback, that is as a rule a task until its next await."""
        handle = self._ready.popleft()
        if handle.cancelled():
            return
        self.steps += 1
        handle._run()

    def freeze(self, for_s: float) -> None:
        """Stop giving it turns for so long; what comes meanwhile waits, and timers ring late."""
        self._frozen_until_s = max(self._frozen_until_s, self._world.now_s + for_s)

    def kill(self) -> None:
        """End it here and now. Nothing that was suspended in it goes on, and nobody outside may rely on it.

        Python lets no coroutine vanish: each is made to leave its `finally` blocks, with a loop under its
        feet on which nothing ever runs again.
        """
        self._killed = True
        self._ready.clear()
        self._timers.clear()
        self._world.forget(self)
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            for task in list(self._tasks):
                _close(task.get_coro())
        finally:
            asyncio._set_running_loop(before)
        self._tasks.clear()

    # -- what asyncio asks of a loop -------------------------------------------------------------------

    def time(self) -> float:
        return self._world.now_s

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        if not self._killed:
            self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if not self._killed:
            heapq.heappush(self._timers, (when, next(self._numbers), handle))
            if when <= self._world.now_s:
                self.wake_timers()
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._world.now_s + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is passed over when its time has come."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Any, *, name: str | None = None, context: Context | None = None, **_: Any
    ) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    def run_in_executor(self, executor: Any, func: Callable[[*Ts], T], *args: *Ts) -> asyncio.Future[T]:
        """There are no threads: it is done before this returns."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  # the caller's
            future.set_exception(error)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self._killed:
            self.on_error(context)

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return self._killed


def _raise_error(context: dict[str, Any]) -> None:
    raise RuntimeError(context["message"]) from context.get("exception")


def _close(coroutine: Any) -> None:
    """Make a suspended coroutine leave, whatever it still awaits on its way out."""
    for _ in range(_MOST_AWAITS_WHILE_CLOSING):
        try:
            coroutine.close()
        except RuntimeError:
            continue  # it awaited something, and is suspended there now
        except (Exception, BaseExceptionGroup):  # noqa: BLE001  # a dead process's error is nobody's
            pass
        return
