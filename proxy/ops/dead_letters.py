"""Dead letters: listed, shown, put back into their queues, given up.

A replay or a purge is fixed when it begins: it goes no further than the newest dead letter of that moment,
so it never meets what dies of it. The buffer does a thousand in a transaction; what is done stays done
when a later one fails, and the answer says how many that are. Whoever wants to see it progress asks for one
such portion after the other, which is the same: the next begins where the last one ended.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog
from aiohttp import web
from prometheus_client import Counter

from proxy.buffer import ALL_LETTERS, MAX_LETTERS, Buffer, BufferFault, DeadLetter, Which
from proxy.lanes import Lane
from proxy.ledger import Dead, Dropped
from proxy.metrics import Metrics
from proxy.ops.answers import BadParameter, as_it_is, as_json, moment
from proxy.ops.fates import text_of
from proxy.ops.parameters import (
    Parameters,
    one_of,
    read_flag,
    read_id,
    read_key,
    read_moment_ms,
    read_uuid,
    read_visitor,
    up_to,
)


class DeadLetters:
    """Answers `/dead`, `/dead/{id}`, `/dead/replay` and `/dead/purge`."""

    def __init__(self, buffer: Buffer, metrics: Metrics) -> None:
        self._buffer = buffer
        self._metrics = metrics
        self._log = structlog.get_logger("ops")

    async def list(self, request: web.Request) -> web.Response:
        """The newest of those that fit; how many fit in all, where no page was asked for."""
        given = Parameters.of_query(request)
        limit = given.take("limit", up_to(MAX_LETTERS)) or 100
        before, full = given.take("before", read_id), given.take("full", read_flag)
        which = _which(given)
        letters = await self._buffer.dead_letters(which, before_id=before, limit=limit)
        page = {
            "dead": [_whole(letter) if full else _line(letter) for letter in letters],
            # A page that is not full is the last one.
            "before": letters[-1].id if len(letters) == limit else None,
        }
        return as_json({"count": await self._buffer.count_dead(which), **page} if before is None else page)

    async def show(self, request: web.Request) -> web.Response:
        """One of them with everything that it would be sent with."""
        number = Parameters(request.match_info).need("id", read_id)
        Parameters.of_query(request).refuse_others()
        letters = await self._buffer.dead_letters(Which(id=number), limit=1)
        if not letters:
            gone = "it was replayed, purged, erased or evicted, or never was; list them to see what there is"
            return as_json({"error": f"no dead letter {number}: {gone}"}, status=404)
        return as_json(_whole(letters[0]))

    async def replay(self, request: web.Request) -> web.Response:
        """Put those that fit back at the tails of their queues."""
        return await self._all_of(request, self._buffer.replay, "replayed", self._metrics.dead_replayed)

    async def purge(self, request: web.Request) -> web.Response:
        """Give those that fit up."""
        counter = self._metrics.dropped[Dropped.DEAD_PURGED]
        return await self._all_of(request, self._buffer.purge, "purged", counter)

    async def _all_of(
        self,
        request: web.Request,
        verb: Callable[[Which], Awaitable[int]],
        word: str,
        counter: Counter,
    ) -> web.Response:
        given = Parameters.of_query(request)
        dry_run, everything = given.take("dry_run", read_flag), given.take("all", read_flag)
        portion = given.take("portion", read_flag)
        which = await self._fixed(_asked_for(given, everything=bool(everything)))
        if portion and not dry_run:
            return await self._portion(which, verb, word, counter)
        count = await self._buffer.count_dead(which)
        done = 0
        answer = {"count": count, "up_to_id": which.up_to_id}
        if dry_run:
            return as_json({**answer, word: done})
        try:
            while part := await verb(which):
                done += part
                counter.inc(part)
        except BufferFault as error:
            return as_json(
                {"error": f"{error}; {word} {done} of {count}: ask again for the rest", **answer, word: done},
                status=503,
            )
        finally:
            if done:
                self._log.info(f"dead letters {word}", events=done)
        return as_json({**answer, word: done})

    async def _portion(
        self, which: Which, verb: Callable[[Which], Awaitable[int]], word: str, counter: Counter
    ) -> web.Response:
        """The first of them, as many as the buffer does at once; 0 where none is left."""
        done = await verb(which)
        counter.inc(done)
        if done:
            self._log.info(f"dead letters {word}", events=done)
        return as_json({"up_to_id": which.up_to_id, word: done})

    async def _fixed(self, which: Which) -> Which:
        """The same, and none that is written from now on."""
        newest = await self._buffer.dead_letters(which, limit=1)
        return replace(which, up_to_id=newest[0].id if newest else 0)


def _asked_for(given: Parameters, *, everything: bool) -> Which:
    """Which dead letters; all of them only where that was said."""
    up_to_id = given.take("up_to_id", read_id)
    which = _which(given)
    if which == ALL_LETTERS and not everything:
        raise BadParameter("all", "no filter is given: write all=true if all of them are meant")
    if which != ALL_LETTERS and everything:
        raise BadParameter("all", "is given beside a filter: leave one of them out")
    return replace(which, up_to_id=up_to_id)


def _which(given: Parameters) -> Which:
    which = Which(
        key=given.take("key", read_key),
        id=given.take("id", read_id),
        uuid=given.take("uuid", read_uuid),
        queue=given.take("visitor", read_visitor),
        reason=given.take("reason", one_of(Dead)),
        died_from_ms=given.take("since", read_moment_ms),
        died_before_ms=given.take("until", read_moment_ms),
    )
    given.refuse_others()
    return which


def _line(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "key": letter.key,
        "uuid": text_of(letter.uuid),
        "reason": letter.reason,
        "message": letter.message,
        "attempts": letter.attempts,
        "first_tried_at": moment(letter.first_tried_ms),
        "died_at": moment(letter.died_at_ms),
    }


def _whole(letter: DeadLetter) -> dict[str, object]:
    lane = Lane.of_header(letter.lane_header)
    return {
        **_line(letter),
        "event": as_it_is(letter.text),
        "envelope": as_it_is(lane.envelope),
        "client_ip": lane.client_ip,
        "user_agent": lane.user_agent,
        "origin": lane.origin,
    }
