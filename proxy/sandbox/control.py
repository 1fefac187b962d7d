"""The control endpoints under ``/_sandbox/``: read the record, switch faults. They count towards no limit.

| route | does |
|---|---|
| ``GET /_sandbox/record[?since=SEQ]`` | the entries above SEQ, one line of JSON each |
| ``DELETE /_sandbox/record`` | empties it and the counts, but not its file: ``{"cleared": n}`` |
| ``GET /_sandbox/stats`` | the counts |
| ``POST /_sandbox/faults`` | switches on one fault or an array of them, all or none; answers as GET |
| ``GET /_sandbox/faults`` | what is on: ``[{"what": …, "until": <Unix s or null>, "left": <n or null>}]`` |
| ``DELETE /_sandbox/faults`` | switches all off: ``{"cleared": n}`` |

An error is 400 with ``{"error": "…"}``.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Final

from aiohttp import web

from proxy.sandbox.body import MalformedBodyError, parse
from proxy.sandbox.faults import FaultError, Programme
from proxy.sandbox.orders import faults_of
from proxy.sandbox.record import Record

_SEQ: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


class Control:
    """Answers the control endpoints."""

    def __init__(self, *, record: Record, programme: Programme, clock: Callable[[], float]) -> None:
        """Hold what is controlled. `clock` gives Unix seconds."""
        self._record = record
        self._programme = programme
        self._clock = clock

    def routes(self) -> Iterable[web.RouteDef]:
        """Give the routes of the table above."""
        return (
            web.get("/_sandbox/record", self._get_record),
            web.delete("/_sandbox/record", self._delete_record),
            web.get("/_sandbox/stats", self._get_stats),
            web.post("/_sandbox/faults", self._post_faults),
            web.get("/_sandbox/faults", self._get_faults),
            web.delete("/_sandbox/faults", self._delete_faults),
        )

    async def _get_record(self, request: web.Request) -> web.StreamResponse:
        unknown = set(request.query) - {"since"}
        since = request.query.get("since", "0")
        if unknown or _SEQ.fullmatch(since) is None:
            return _error("The one parameter is since, the number of an entry: since=0 gives all")
        response = web.StreamResponse()
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        for entry in self._record.since(int(since)):
            await response.write(entry.line().encode("ascii") + b"\n")
            # A write to a fast reader never waits, and a long record would stop the event loop.
            await asyncio.sleep(0)
        return response

    async def _delete_record(self, _: web.Request) -> web.Response:
        return web.json_response({"cleared": self._record.clear()})

    async def _get_stats(self, _: web.Request) -> web.Response:
        return web.json_response(self._record.stats.document())

    async def _post_faults(self, request: web.Request) -> web.Response:
        try:
            faults = faults_of(parse(await request.read()))
            self._programme.add(*faults, now=self._clock())
        except (MalformedBodyError, FaultError) as error:
            return _error(str(error))
        return await self._get_faults(request)

    async def _get_faults(self, _: web.Request) -> web.Response:
        return web.json_response([each.document() for each in self._programme.running(self._clock())])

    async def _delete_faults(self, _: web.Request) -> web.Response:
        return web.json_response({"cleared": self._programme.clear()})


def _error(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)
