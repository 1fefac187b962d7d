"""The sandbox as one object: built from its switches, started on an address, stopped."""

import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from aiohttp import web

from proxy.sandbox.circumstances import Link
from proxy.sandbox.control import Control
from proxy.sandbox.delivery import leave_out
from proxy.sandbox.ingest import Ingest
from proxy.sandbox.limiter import Limiter
from proxy.sandbox.orders import Script
from proxy.sandbox.outcome import Rules
from proxy.sandbox.platform import CALLS_BOUND, Calls, PlatformState, routes
from proxy.sandbox.platform.desk import Desk
from proxy.sandbox.programme import Programme
from proxy.sandbox.record import EVENTS_BOUND, Record
from proxy.sandbox.room import Room
from proxy.sandbox.schedule import Schedule
from proxy.sandbox.schema import BODY_BYTES_MAX
from proxy.sandbox.transcript import Transcript
from proxy.sandbox.window import Limit

_HEADER_BYTES_MAX = 65_536
"""One header. A header that should not have come is to be seen in the record, not lost in a bare 400."""
_STOP_S = 1.0
"""For requests in the midst of being answered. Those that a fault holds are let go at once."""


class Sandbox:
    """A stand-in for Outlit's Ingest API and Platform API, in this process or in one of its own.

    Once stopped it can be started again. `record`, `programme`, `limiter`, `links` and `platform` may be used
    before, while and after it runs, on its event loop.
    """

    def __init__(
        self,
        *,
        limit: Limit | int | None = None,
        rules: Rules | None = None,
        script: Script | None = None,
        record_file: Path | None = None,
        record_bound: int = EVENTS_BOUND,
        clock: Callable[[], float] = time.time,
        seed: int = 0,
    ) -> None:
        """Build it from its switches.

        `limit`: how requests are counted, or as many as that a second in a fixed window. `script`: what is
        ordered from the start on. `record_file`: also append every entry there. `record_bound`: events kept,
        at least 1; as many calls, up to `CALLS_BOUND`. `clock`: Unix seconds; the limit, the records, `Date`
        and the orders go by it, latencies go by the event loop. `seed`: of all chance. Raises ValueError for
        what is out of bounds.
        """
        if not isinstance(limit, Limit):
            limit = Limit() if limit is None else Limit(limit)
        self.record = Record(record_bound)
        self.programme = Programme()
        self.limiter = Limiter(limit, seed)
        self.links: Schedule[Link] = Schedule()
        self.platform = PlatformState(calls=Calls(min(record_bound, CALLS_BOUND)))
        self._room = Room(
            rules=rules or Rules(),
            limiter=self.limiter,
            links=self.links,
            programme=self.programme,
            record=self.record,
            platform=self.platform,
            clock=clock,
            chance=Random(seed),
        )
        self._script = script
        self._record_file = record_file
        # From start to stop:
        self._transcript: Transcript | None = None
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Give its address without a path: ``http://127.0.0.1:9300``. Raises RuntimeError unless it runs."""
        if self._runner is None or not self._runner.addresses:
            raise RuntimeError("The sandbox is not started")
        host, port = self._runner.addresses[0][:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Return when it listens. Port 0: a free one. Raises OSError for the address or the record's file."""
        if self._record_file is not None:
            self._transcript = Transcript(self._record_file)
        self._room.stopping.clear()
        ingest, desk = Ingest(self._room, self._transcript), Desk(self._room, self._transcript)

        async def handle(request: web.Request) -> web.StreamResponse:
            """Answer any request that is not a control's."""
            is_of_the_platform = routes.is_of_the_platform(request.raw_path)
            return await (desk if is_of_the_platform else ingest).handle(request)

        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.add_routes(Control(self._room).routes())
        app.on_response_prepare.append(leave_out)
        app.router.add_route("*", "/{path:.*}", handle)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            # A sender that gives up ends its hanging request; otherwise they would pile up until the stop.
            handler_cancellation=True,
            # A body counts as it was sent: the sandbox must see a compressed one to refuse it.
            auto_decompress=False,
            max_field_size=_HEADER_BYTES_MAX,
            max_line_size=_HEADER_BYTES_MAX,
            shutdown_timeout=_STOP_S,
        )
        try:
            await self._runner.setup()
            await web.TCPSite(self._runner, host, port).start()
        except OSError:
            await self.stop()
            raise
        if self._script is not None:
            self._room.follow(self._script)

    async def stop(self) -> None:
        """Stop listening, drop what hangs, close the record's file. Does nothing the second time."""
        self._room.stopping.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._transcript is not None:
            await self._transcript.close()
            self._transcript = None
