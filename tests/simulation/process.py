"""A life of the proxy: one process's loop, and in it what the service builds, but for HTTP.

`kill` leaves of it what SIGKILL leaves: what stands in the storage. The next life starts from that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

from proxy.buffer import Buffer, BufferFault, BufferUnavailable, Terms
from proxy.flusher import Flusher
from proxy.front import Ingest
from proxy.metrics import Metrics
from proxy.wire.answers import ClientAnswer
from tests.simulation.evidence import Broken, Evidence, Met, Post
from tests.simulation.loop import World
from tests.simulation.storage import Storage
from tests.simulation.trouble import Trouble, UnreliableBuffer
from tests.simulation.upstream import Line, SimulatedUpstream

_MAX_EVENTS = 5_000
_START_AGAIN_S = 1.0


@dataclass(frozen=True, slots=True)
class Build:
    """How a process is built; as the operator's settings, the same in every life."""

    terms: Terms
    timeout_s: float = 10.0
    in_flight: int = 64
    flushers: int = 1
    grace_s: float = 25.0
    drains: bool = False
    max_age_s: float = 72 * 3_600.0


@dataclass(slots=True)
class Surroundings:
    """What outlives a process."""

    world: World
    storage: Storage
    upstream: SimulatedUpstream
    evidence: Evidence
    chance: Random
    trouble: Trouble


class Process:
    """One life. It begins at once; `ended` is done when it is over, one way or the other."""

    def __init__(self, build: Build, around: Surroundings) -> None:
        around.evidence.lives += 1
        self.loop = around.world.loop(f"process {around.evidence.lives}")
        self.ended: asyncio.Future[None] = around.world.outside.create_future()
        self.buffer: Buffer | None = None
        self._build = build
        self._around = around
        self._life = around.storage.life()
        self._metrics = Metrics()
        self._ingest: Ingest | None = None  # while it listens
        self._replies: dict[asyncio.Future[ClientAnswer], None] = {}
        self._serving: dict[asyncio.Task[None], None] = {}
        self._stopping = asyncio.Event()
        self._gave_requests_up = False
        around.evidence.note(f"process {around.evidence.lives} starts")
        self._running = self.loop.create_task(self._run())
        self._running.add_done_callback(self._end)

    # -- from outside ----------------------------------------------------------------------------------

    @property
    def listens(self) -> bool:
        return self._ingest is not None

    async def answer_to(self, post: Post) -> ClientAnswer:
        """Post it, from outside. Raises ConnectionError where nobody listens, or the process dies first."""
        if not self.listens:
            raise ConnectionRefusedError("nobody listens")
        reply: asyncio.Future[ClientAnswer] = asyncio.get_running_loop().create_future()
        self._replies[reply] = None
        self._serve_until_done(self._serve(post, reply))
        return await reply

    def stop(self) -> None:
        """SIGTERM."""
        self._around.evidence.met[Met.STOP] += 1
        self._around.evidence.note("the process is told to stop")
        self.loop.call_soon(self._stopping.set)

    def operate(self, verb: Callable[[Buffer], Awaitable[object]]) -> None:
        """Have the buffer do what an operator asks for; nobody waits for it, and a refusal is no failure."""

        async def done(buffer: Buffer) -> None:
            with suppress(BufferFault):
                await verb(buffer)

        if self.listens and self.buffer is not None:
            self._serve_until_done(done(self.buffer))

    def kill(self) -> None:
        """SIGKILL."""
        evidence = self._around.evidence
        evidence.met[Met.KILL] += 1
        evidence.note(f"the process is killed, after {self.loop.steps} steps")
        self._life.kill()
        self.loop.kill()
        self._life.end()
        self._count(door_is_quiet=False)
        self._hang_up()
        self.ended.set_result(None)

    # -- inside ----------------------------------------------------------------------------------------

    async def _run(self) -> None:
        build, around = self._build, self._around
        self.buffer = await self._opened()
        watched = self._life.around(self.buffer, build.terms)
        line = Line(around.upstream, around.world.outside, around.evidence, timeout_s=build.timeout_s)
        flushers = [
            Flusher(
                self._unreliable(watched),
                line,
                self._metrics,
                in_flight=build.in_flight,
                timeout_s=build.timeout_s,
                lease_s=build.terms.lease_s,
                max_age_s=build.max_age_s,
            )
            for _ in range(build.flushers)
        ]
        async with asyncio.TaskGroup() as tasks:
            flushing = [tasks.create_task(flusher.run()) for flusher in flushers]
            self._ingest = Ingest(
                self._unreliable(watched), self._metrics, max_events=_MAX_EVENTS, unknown="forward"
            )
            watching = tasks.create_task(self._watch(self.buffer))
            await self._stopping.wait()
            await self._finish(flushers, flushing)
            watching.cancel()
        await self.buffer.close()

    async def _opened(self) -> Buffer:
        """As a supervisor would have it: started again until the store answers."""
        while True:
            try:
                return await self._life.opened(self._build.terms)
            except BufferUnavailable as error:
                self._around.evidence.note(f"the process cannot start: {error}")
            await asyncio.sleep(_START_AGAIN_S)

    @staticmethod
    async def _watch(buffer: Buffer) -> None:
        error = await buffer.failed()
        raise Broken(f"the engine failed: {error.__cause__ or error!r}")

    def _unreliable(self, buffer: Buffer) -> UnreliableBuffer:
        return UnreliableBuffer(buffer, self._around.trouble, self._around.chance, self._around.evidence)

    async def _finish(self, flushers: list[Flusher], flushing: "list[asyncio.Task[None]]") -> None:
        """As the service stops."""
        self._ingest = None
        deadline_s = self.loop.time() + self._build.grace_s
        if self._serving:
            await asyncio.wait(list(self._serving), timeout=self._build.grace_s)
        for task in list(self._serving):
            self._gave_requests_up = True
            self._around.evidence.met[Met.GRACE_OVER] += 1
            task.cancel()
        if self._build.drains:
            try:
                async with asyncio.timeout_at(deadline_s):
                    await flushers[0].drain()
            except TimeoutError:
                self._around.evidence.met[Met.GRACE_OVER] += 1
                self._around.evidence.note("the grace is over before all is drained")
        for flusher in flushers:
            flusher.stop()
        _, late = await asyncio.wait(flushing, timeout=max(0.0, deadline_s - self.loop.time()))
        for task in sorted(late, key=flushing.index):
            self._around.evidence.met[Met.GRACE_OVER] += 1
            self._around.evidence.note("the grace is over: a flusher's deliveries are given up")
            task.cancel()

    async def _serve(self, post: Post, reply: "asyncio.Future[ClientAnswer]") -> None:
        if self._ingest is None:
            self._reset(reply)
            return
        world = self._around.world
        if post.asked_at is None:
            post.asked_at = world.steps
        answer = await self._ingest.take(post.key, post.body, post.sender)
        if 200 <= answer.status < 300 and post.accepted_at is None:
            post.accepted_at = world.steps
        self._replies.pop(reply, None)
        if not reply.done():
            reply.set_result(answer)

    def _serve_until_done(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._serving[task] = None
        task.add_done_callback(self._served)

    def _served(self, task: "asyncio.Task[None]") -> None:
        self._serving.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and not self.ended.done():
            self.ended.set_exception(error)

    # -- the end ---------------------------------------------------------------------------------------

    def _end(self, running: "asyncio.Task[None]") -> None:
        self._around.evidence.note("the process has ended")
        error = running.exception()
        if error is not None:
            if not self.ended.done():
                self.ended.set_exception(error)
            return
        self.loop.kill()
        self._life.end()
        self._count(door_is_quiet=not self._gave_requests_up)
        self._hang_up()
        self.ended.set_result(None)

    def _hang_up(self) -> None:
        self._ingest = None
        for reply in list(self._replies):
            self._reset(reply)

    def _reset(self, reply: "asyncio.Future[ClientAnswer]") -> None:
        self._replies.pop(reply, None)
        if not reply.done():
            reply.set_exception(ConnectionResetError("the process is gone"))

    def _count(self, *, door_is_quiet: bool) -> None:
        """Read the process's own counters. Raises Broken where they do not balance."""
        metrics = self._metrics
        received, accepted, duplicate, rejected, lane_faults = (
            int(sum(counter._value.get() for counter in counters))
            for counters in (
                [metrics.received],
                [metrics.accepted],
                [metrics.duplicate],
                metrics.rejected.values(),
                [metrics.lane_faults],
            )
        )
        self._around.evidence.accepted_at_doors += accepted
        answered = accepted + duplicate + rejected
        if answered > received or (door_is_quiet and answered < received):
            raise Broken(
                f"the door: received {received} is not accepted {accepted} + duplicate {duplicate}"
                f" + rejected {rejected}"
            )
        if lane_faults:
            raise Broken("a lane check failed: a head held an event of another lane")
