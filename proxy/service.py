"""The one place that builds every room, starts them, watches them, and stops them in order.

Stopped in the order in which an event walks: not ready, no new connections, requests that were read are
answered, the flusher finishes what is in flight (or all that is held), then the buffer; the operations
listener closes last. Every long-lived task is in one task group: one that dies takes the process down.
"""

import asyncio
import os
import resource
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass

import structlog
from aiohttp import web

from proxy import __version__
from proxy.buffer import Buffer, BufferUnavailable
from proxy.engines import Engine, StartRefused, open_engine
from proxy.flusher import Flusher
from proxy.front import Front, Ingest, Server
from proxy.log import count_lines
from proxy.metrics import Metrics
from proxy.ops import Bookkeeper, Health, make_app
from proxy.settings import ListenAddress, Settings
from proxy.upstream import Upstream

_OTHER_DESCRIPTORS = 64
"""Files, the operations listener and its callers, the event loop's own."""

_OPS_SHUTDOWN_S = 2.0
_OPS_KEEPALIVE_S = 75.0

_LAST_CALL_S = 0.2
"""From the last new connection to closing the idle ones: what was sent by then is read and answered."""

_IDLE_END_S = 0.1
"""How long a flusher with nothing in flight may take to end, also where the grace is over."""


@dataclass(frozen=True, slots=True)
class Running:
    """Where a started service listens."""

    front_url: str
    ops_url: str


class Service:
    """One process: front, flusher and operations around one buffer.

    `apart`: in a Redis, the name of a store that is this service's alone, and gone when it has stopped.
    """

    def __init__(self, settings: Settings, apart: str = "") -> None:
        self._settings = settings
        self._apart = apart
        self._log = structlog.get_logger("service")
        self._health = Health()

    async def run(
        self, stop: asyncio.Event, on_start: Callable[[Running], None] = lambda _running: None
    ) -> None:
        """Serve until `stop` is set, then stop in order within `delivery.grace`.

        Raises StartRefused, or a group with what a task died of.
        """
        settings = self._settings
        self._make_room_for_connections()
        async with AsyncExitStack() as rooms:
            metrics = Metrics(settings.metrics.max_key_labels)
            count_lines(metrics.count_line)
            engine = await self._open(metrics, stop)
            if engine is None:
                return
            buffer = engine.buffer
            books = Bookkeeper(buffer, metrics, retention_s=settings.dead.retention_s)
            token = settings.ops.token
            ops = web.AppRunner(
                make_app(
                    buffer,
                    books,
                    metrics,
                    self._health,
                    token.get_secret_value() if token else None,
                    lease_s=settings.delivery.lease_s,
                ),
                access_log=None,
                keepalive_timeout=_OPS_KEEPALIVE_S,
                shutdown_timeout=_OPS_SHUTDOWN_S,
            )
            rooms.push_async_callback(ops.cleanup)  # of these the last to be called
            rooms.push_async_callback(buffer.close)
            ops_url = await _listen(ops, settings.ops.listen, "ops.listen")
            upstream = await rooms.enter_async_context(
                Upstream(
                    settings.upstream.url,
                    timeout_s=settings.delivery.timeout_s,
                    connections=settings.delivery.in_flight,
                )
            )
            flusher = Flusher(
                buffer,
                upstream,
                metrics,
                in_flight=settings.delivery.in_flight,
                timeout_s=settings.delivery.timeout_s,
                lease_s=settings.delivery.lease_s,
                max_age_s=settings.delivery.max_age_s,
            )
            ingest = Ingest(
                buffer, metrics, max_events=settings.front.max_events, unknown=settings.front.unknown
            )
            server = Front(settings.front, ingest, metrics).server()
            front = web.ServerRunner(server, shutdown_timeout=self._front_grace_s())
            rooms.push_async_callback(front.cleanup)
            front_url = await _listen(front, settings.front.listen, "front.listen")
            async with asyncio.TaskGroup() as tasks:
                beside = [tasks.create_task(_watch(buffer), name="watch the buffer")]
                if engine.watch is not None:
                    beside.append(tasks.create_task(engine.watch(), name="survey the buffer"))
                beside.append(tasks.create_task(books.run(), name="recount the books"))
                flushing = tasks.create_task(flusher.run(), name="flusher")
                self._health.started = True
                running = Running(front_url, ops_url)
                self._say_what_it_is(running, engine)
                on_start(running)
                await stop.wait()
                self._health.stopping = True
                self._log.info("stopping", on_exit=settings.delivery.on_exit)
                await self._stop(front, server, flusher, flushing)
                for task in beside:
                    task.cancel()
            self._log.info("stopped", held=await _held(buffer))

    async def _open(self, metrics: Metrics, stop: asyncio.Event) -> Engine | None:
        """The engine; None where `stop` was set before it could be reached. Raises StartRefused."""
        opening = asyncio.create_task(open_engine(self._settings, metrics, self._apart), name="open")
        stopping = asyncio.create_task(stop.wait(), name="told to stop")
        try:
            await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
            return opening.result() if opening.done() else None
        finally:
            stopping.cancel()
            opening.cancel()
            await asyncio.gather(opening, stopping, return_exceptions=True)

    def _make_room_for_connections(self) -> None:
        """Have as many file descriptors as connections are allowed, as far as the system lets us."""
        soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        settings = self._settings
        wanted = settings.front.max_connections + settings.delivery.in_flight + _OTHER_DESCRIPTORS
        if most != resource.RLIM_INFINITY and most < wanted:
            self._log.warning(
                "the limit of open files is below front.max_connections: raise it (ulimit -n, LimitNOFILE)"
                " or lower the setting",
                limit=most,
                wanted=wanted,
            )
            wanted = most
        if soft != resource.RLIM_INFINITY and soft < wanted:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))

    def _front_grace_s(self) -> float:
        """How long clients may take to finish what they send: what deliveries in flight do not need."""
        delivery = self._settings.delivery
        return max(delivery.grace_s / 2, delivery.grace_s - delivery.timeout_s)

    async def _stop(
        self, front: web.ServerRunner, server: Server, flusher: Flusher, flushing: asyncio.Task[None]
    ) -> None:
        deadline = asyncio.get_running_loop().time() + self._settings.delivery.grace_s
        try:
            async with asyncio.timeout_at(deadline):
                for site in list(front.sites):
                    await site.stop()
                server.is_closing = True
                await asyncio.sleep(_LAST_CALL_S)
                await front.cleanup()
                if self._settings.delivery.on_exit == "drain":
                    await flusher.drain()
        except TimeoutError:
            self._log.warning("the grace is over; what is still held stays in the buffer")
        flusher.stop()
        left_s = deadline - asyncio.get_running_loop().time()
        await asyncio.wait([flushing], timeout=max(_IDLE_END_S, left_s))
        if not flushing.done():
            # Their leases end by themselves; the same events go out again after the next start.
            self._log.warning("the grace is over; deliveries in flight are given up")
            flushing.cancel()

    def _say_what_it_is(self, running: Running, engine: Engine) -> None:
        settings = self._settings
        self._log.info("outlit-proxy", version=__version__)
        self._log.info(
            "front",
            listen=str(settings.front.listen),
            url=running.front_url,
            keys=list(settings.front.public_keys) or "any pk_ key",
        )
        self._log.info(
            "operations", url=running.ops_url, administration="on" if settings.ops.token else "off"
        )
        self._log.info("buffer", **engine.shown)
        self._log.info(
            "upstream",
            url=settings.upstream.url,
            limit_per_s=settings.delivery.limit_per_s,
            rate_share=settings.delivery.rate_share,
        )


async def _held(buffer: Buffer) -> int | str:
    try:
        return sum(of.books.held for of in (await buffer.figures()).values())
    except BufferUnavailable as error:
        return f"unknown: {error}"


async def _watch(buffer: Buffer) -> None:
    """Ends, with an error, when the buffer cannot go on."""
    raise await buffer.failed()


async def _listen(runner: web.BaseRunner, address: ListenAddress, setting: str) -> str:
    """Listen on `address`. Returns the URL to reach it by. Raises StartRefused."""
    await runner.setup()
    site = web.TCPSite(runner, address.host or None, address.port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise StartRefused(f"{setting}: cannot listen on {address}: {why}; choose another address") from error
    host, port = runner.addresses[0][:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
