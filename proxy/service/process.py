"""Starts every room, watches it, and stops it in order.

Stopped in the order in which an event walks: not ready, no new connections, requests that were read are
answered, the flusher finishes what is in flight (or all that is held), then the buffer; the operations
listener closes last, and calls of the gateway have all that time. Every long-lived task is in one task group:
one that dies takes the process down.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog
from aiohttp import web

from proxy.buffer import Buffer, BufferUnavailable
from proxy.engines import Engine, StartRefused, open_engine
from proxy.log import count_lines, count_unwritten, short_key
from proxy.metrics import Metrics
from proxy.ops import Health, Runner
from proxy.ops.reloads import Reloads
from proxy.service.introduction import introduce
from proxy.service.leftovers import Leftover, leftovers
from proxy.service.listening import listen, make_room, unsafe_parser
from proxy.service.reload import Reload
from proxy.service.rooms import Rooms
from proxy.service.supervisor import Supervisor
from proxy.settings import Settings
from proxy.wire.limits import PublicKey

_LAST_CALL_S = 0.2
"""From the last new connection to closing the idle ones: what was sent by then is read and answered."""

_CUT_OFF_S = 0.5
"""How long clients whose time is over may take to be told so."""

_IDLE_END_S = 0.1
"""How long a flusher with nothing in flight may take to end, also where the grace is over."""

_FINISH_S = 2.0
"""A drain begins nothing new so long before the end of the grace, at most a quarter of it: what is in flight
then is to be answered and settled, or Outlit gets it twice."""

_LAST_LOOK_S = 1.0
"""How long beyond the grace the buffer may take to say what it still holds."""

_AFTER_GRACE_S = 10.0
"""What closing the buffer and the operations listener may take on top of it."""

_TOLD_KEYS = 20
"""Keys that get a line of their own where something of them is left."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where a started service listens."""

    front_url: str
    ops_url: str


class Service:
    """One process: front, flusher and operations around one buffer.

    `apart`: in a Redis, the name of a store that is this service's alone, and gone when it has stopped.
    `read_again` reads the sources of the settings anew, for `reload`; it raises SettingsError. `supervisor`
    is told how the process is.
    """

    def __init__(
        self,
        settings: Settings,
        apart: str = "",
        *,
        read_again: Callable[[], Settings] | None = None,
        supervisor: Supervisor | None = None,
    ) -> None:
        self._settings = settings
        self._apart = apart
        self._supervisor = supervisor or Supervisor({})
        self._log = structlog.get_logger("service")
        self._health = Health()
        self._metrics = Metrics(settings.metrics.max_key_labels)
        self._reloads = Reloads()
        self._reload = Reload(
            settings, read_again or (lambda: settings), self._go_by, self._reloads, self._metrics
        )
        self._rooms: Rooms | None = None  # once the buffer is open

    def reload(self) -> None:
        """Read the settings anew and take over what can be changed; the log, /status and metrics say how.

        May be called at any time, as often as one likes: during the start it is done after it, and while the
        service stops not at all.
        """
        self._reload.ask()

    async def run(
        self, stop: asyncio.Event, on_start: Callable[[Running], None] = lambda _running: None
    ) -> None:
        """Serve until `stop` is set, then stop in order within `delivery.grace`.

        Raises StartRefused, or a group with what a task died of.
        """
        settings = self._settings
        if problem := unsafe_parser():
            raise StartRefused(problem)
        make_room(settings)
        async with AsyncExitStack() as closing:
            count_lines(self._metrics.count_line)
            count_unwritten(self._metrics.log_lines_unwritten.inc)
            self._supervisor.opening()
            engine = await self._open(stop)
            if engine is None:
                return
            rooms = self._rooms = Rooms.built(settings, engine, self._metrics, self._health, self._reloads)
            ops = Runner(rooms.operations, self._metrics)
            closing.push_async_callback(ops.cleanup)  # of these the last to be called
            closing.push_async_callback(engine.buffer.close)
            ops_url = await listen(ops, settings.ops.listen, "ops.listen")
            await closing.enter_async_context(rooms.upstream)
            front = web.ServerRunner(rooms.server, shutdown_timeout=_CUT_OFF_S)
            closing.push_async_callback(front.cleanup)
            front_url = await listen(front, settings.front.listen, "front.listen")
            running = Running(front_url, ops_url)
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(_watch(engine.buffer), name="watch the buffer")]
                if engine.watch is not None:
                    beside.append(tasks.create_task(engine.watch(), name="survey the buffer"))
                beside.append(tasks.create_task(rooms.books.run(), name="recount the books"))
                beside.append(tasks.create_task(rooms.status.run(), name="look at the rates"))
                flushing = tasks.create_task(rooms.flusher.run(), name="flusher")
                self._health.started = True
                introduce(settings, running.front_url, running.ops_url, engine.shown)
                self._supervisor.ready(self._state(running))
                beside.append(tasks.create_task(self._supervisor.keep_watch(), name="keep watch"))
                reloading = tasks.create_task(
                    self._reload.run(self._supervisor, lambda: self._state(running)), name="reload"
                )
                on_start(running)
                await stop.wait()
                await _ended(reloading)
                self._health.stopping = True
                delivery = self._settings.delivery
                self._log.info("stopping", on_exit=delivery.on_exit)
                self._supervisor.stopping(f"stopping ({delivery.on_exit})", delivery.grace_s + _AFTER_GRACE_S)
                deadline = asyncio.get_running_loop().time() + delivery.grace_s
                drains = delivery.on_exit == "drain"
                if drains:
                    given_up, _ = await asyncio.gather(
                        self._stop(rooms, front, flushing, deadline), rooms.gateway.finish(deadline)
                    )
                else:
                    # Posts are taken and sent meanwhile: a browser does not try again what a stop refuses.
                    await rooms.gateway.finish(deadline - delivery.grace_s / 2)
                    given_up = await self._stop(rooms, front, flushing, deadline)
                for task in beside:
                    task.cancel()
            await self._say_what_is_held(rooms, given_up, deadline + _LAST_LOOK_S, drained=drains)

    async def _open(self, stop: asyncio.Event) -> Engine | None:
        """The engine; None where `stop` was set before it could be reached. Raises StartRefused."""
        opening = asyncio.create_task(open_engine(self._settings, self._metrics, self._apart), name="open")
        stopping = asyncio.create_task(stop.wait(), name="told to stop")
        try:
            await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
            return opening.result() if opening.done() else None
        finally:
            stopping.cancel()
            opening.cancel()
            await asyncio.gather(opening, stopping, return_exceptions=True)

    def _go_by(self, settings: Settings) -> None:
        """Have all rooms go by other settings."""
        if self._rooms is not None:
            self._rooms.go_by(self._settings, settings)
        self._settings = settings

    async def _stop(
        self, rooms: Rooms, front: web.ServerRunner, flushing: asyncio.Task[None], deadline: float
    ) -> Mapping[PublicKey, int]:
        """Stop taking and sending by the deadline. Returns how many events, of each key, were given up."""
        settings, flusher, server = self._settings, rooms.flusher, rooms.server
        loop = asyncio.get_running_loop()
        drains = settings.delivery.on_exit == "drain"
        if drains:
            flusher.linger(lingers=False)
        else:
            flusher.stop()  # what is in flight has the time that clients take to finish what they send
        try:
            async with asyncio.timeout_at(deadline):
                for site in list(front.sites):
                    await site.stop()
                server.is_closing = True
                await asyncio.sleep(_LAST_CALL_S)
                server.pre_shutdown()
                await server.shutdown(_front_grace_s(deadline - loop.time(), settings.delivery.timeout_s))
                await front.cleanup()
                if drains:
                    await flusher.drain(deadline - min(_FINISH_S, settings.delivery.grace_s / 4))
        except TimeoutError:
            self._log.warning("the grace is over; what is still held stays in the buffer")
        flusher.stop()
        left_s = deadline - loop.time()
        await asyncio.wait([flushing], timeout=max(_IDLE_END_S, left_s))
        if flushing.done():
            return {}
        given_up = flusher.prospects.sending
        # Their leases end by themselves; the same events go out again after the next start.
        self._log.warning(
            "the grace is over; deliveries in flight are given up", events=sum(given_up.values())
        )
        flushing.cancel()
        return given_up

    async def _say_what_is_held(
        self, rooms: Rooms, given_up: Mapping[PublicKey, int], deadline: float, *, drained: bool
    ) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                figures = await rooms.engine.buffer.figures()
        except BufferUnavailable as error:
            self._log.info("stopped", held=f"unknown: {error}")
            return
        except TimeoutError:
            self._log.info("stopped", held="unknown: the buffer does not answer")
            return
        if drained:
            self._say_what_is_left(leftovers(figures, given_up, rooms.flusher.prospects.waits_s))
        self._log.info("stopped", held=sum(of.books.held for of in figures.values()))

    def _say_what_is_left(self, left: Sequence[Leftover]) -> None:
        for of_key in left[:_TOLD_KEYS]:
            self._log.warning(
                "left in the buffer",
                key=short_key(of_key.key),
                held=of_key.held,
                why=of_key.why,
                pause=of_key.pause,
                for_s=round(of_key.for_s, 1),
                in_flight=of_key.in_flight,
            )
        if left:
            self._log.warning(
                "not all could be sent: what is left is delivered by the next process that has this buffer,"
                " and lost with it",
                held=sum(of_key.held for of_key in left),
                keys=len(left),
                in_flight=sum(of_key.in_flight for of_key in left),
            )

    def _state(self, running: Running) -> str:
        """One line for the supervisor."""
        state = f"serving on {running.front_url}, operations on {running.ops_url}"
        return state if self._reloads.successful else f"{state}; the last reload failed: see the log"


def _front_grace_s(left_s: float, timeout_s: float) -> float:
    """How long clients may take, of what is left of the grace, to finish what they send.

    What deliveries in flight, which `timeout_s` bounds, do not need.
    """
    return max(left_s / 2, left_s - timeout_s)


async def _watch(buffer: Buffer) -> None:
    """Ends, with an error, when the buffer cannot go on."""
    raise await buffer.failed()


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task, and return when it has ended: it may be in the midst of something."""
    task.cancel()
    await asyncio.wait([task])
