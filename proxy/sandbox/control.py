"""The control endpoints under ``/_sandbox/``: read the record, order faults. They count towards no limit.

| route | does |
|---|---|
| ``GET /_sandbox/record[?since=SEQ]`` | the entries above SEQ, one line of JSON each |
| ``DELETE /_sandbox/record`` | empties it and the counts, but not its file: ``{"cleared": n}`` |
| ``GET /_sandbox/stats`` | the counts |
| ``POST /_sandbox/faults`` | orders one fault or an array of them, all or none; answers as GET |
| ``GET /_sandbox/faults`` | what is on or to come, with ``since``, ``until`` (Unix s or null), ``left`` |
| ``DELETE /_sandbox/faults`` | switches all off: ``{"cleared": n}`` |
| ``/_sandbox/limits`` | the same for changes of the limit; a DELETE leaves the one it began with |
| ``/_sandbox/strangers`` | the same for others on a key |
| ``/_sandbox/links`` | the same for the way here and back |
| ``/_sandbox/platform`` | the same for what happens to calls of the Platform API |
| ``/_sandbox/calls`` | GET and DELETE: its record, as that of the Ingest API |

An error is 400 with ``{"error": "…"}``.
"""

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic

from aiohttp import web

from proxy.sandbox.bounds import OrderError
from proxy.sandbox.chronicle import Chronicle, EntryT
from proxy.sandbox.orders import faults_of, limits_of, links_of, platform_of, strangers_of
from proxy.sandbox.room import Room
from proxy.sandbox.schedule import OrderT, Schedule

_SEQ: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


class Control:
    """Answers the control endpoints."""

    def __init__(self, room: Room) -> None:
        """Hold what is controlled."""
        self._room = room

    def routes(self) -> Iterable[web.RouteDef]:
        """Give the routes of the table above."""
        clock, limiter = self._room.clock, self._room.limiter
        platform = self._room.platform
        return (
            *_Lines(self._room.record).routes("/_sandbox/record"),
            *_Lines(platform.calls).routes("/_sandbox/calls"),
            web.get("/_sandbox/stats", self._get_stats),
            *_Orders(self._room.programme, faults_of, clock).routes("/_sandbox/faults"),
            *_Orders(limiter.changes, limits_of, clock).routes("/_sandbox/limits"),
            *_Orders(limiter.strangers, strangers_of, clock).routes("/_sandbox/strangers"),
            *_Orders(self._room.links, links_of, clock).routes("/_sandbox/links"),
            *_Orders(platform.incidents, platform_of, clock).routes("/_sandbox/platform"),
        )

    async def _get_stats(self, _: web.Request) -> web.Response:
        limiter = self._room.limiter
        limiter.catch_up(self._room.clock())
        strangers = {
            "taken": dict(limiter.strangers_taken),
            "limited": dict(limiter.strangers_limited),
        }
        platform = self._room.platform.calls.stats.document()
        counts = {**self._room.record.stats.document(), "strangers": strangers, "platform": platform}
        return web.json_response(counts)


@dataclass(frozen=True, slots=True)
class _Lines(Generic[EntryT]):
    """The two methods of a record's route."""

    record: Chronicle[EntryT]

    def routes(self, path: str) -> Iterable[web.RouteDef]:
        return (web.get(path, self._get), web.delete(path, self._delete))

    async def _get(self, request: web.Request) -> web.StreamResponse:
        unknown = set(request.query) - {"since"}
        since = request.query.get("since", "0")
        if unknown or _SEQ.fullmatch(since) is None:
            return _error("The one parameter is since, the number of an entry: since=0 gives all")
        response = web.StreamResponse()
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        for entry in self.record.since(int(since)):
            await response.write(entry.line().encode("ascii") + b"\n")
            # A write to a fast reader never waits, and a long record would stop the event loop.
            await asyncio.sleep(0)
        return response

    async def _delete(self, _: web.Request) -> web.Response:
        return web.json_response({"cleared": self.record.clear()})


@dataclass(frozen=True, slots=True)
class _Orders(Generic[OrderT]):
    """The three methods of a route that takes orders of one sort."""

    schedule: Schedule[OrderT]
    read: Callable[[bytes], tuple[OrderT, ...]]
    clock: Callable[[], float]

    def routes(self, path: str) -> Iterable[web.RouteDef]:
        return (web.post(path, self._post), web.get(path, self._get), web.delete(path, self._delete))

    async def _post(self, request: web.Request) -> web.Response:
        try:
            self.schedule.add(*self.read(await request.read()), now=self.clock())
        except OrderError as error:
            return _error(str(error))
        return await self._get(request)

    async def _get(self, _: web.Request) -> web.Response:
        return web.json_response([each.document() for each in self.schedule.running(self.clock())])

    async def _delete(self, _: web.Request) -> web.Response:
        return web.json_response({"cleared": self.schedule.clear()})


def _error(message: str) -> web.Response:
    return web.json_response({"error": message}, status=400)
