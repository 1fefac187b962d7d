"""Public keys: how each fares, and the operator's levers on it.

Pausing and resuming set what is so afterwards, and retrying ends what is waiting now: each may be asked for
again without harm, and the answer is the key as it is then. A lever of a key that no event was ever accepted
for is refused: it would be a misspelt key as a rule.
"""

from collections.abc import Awaitable, Callable
from dataclasses import asdict

import structlog
from aiohttp import web

from proxy.buffer import Buffer, KeyFigures
from proxy.clock import wall_ms
from proxy.log import short_key
from proxy.ops.answers import as_json, moment
from proxy.ops.backlog import drain_s
from proxy.ops.parameters import Parameters, read_key
from proxy.ops.trends import Trend, Trends, waits_by_itself
from proxy.wire.limits import PublicKey


class Keys:
    """Answers `/keys`, `/keys/{key}`, and `/keys/{key}/pause`, `resume` and `retry`."""

    def __init__(self, buffer: Buffer, trends: Trends) -> None:
        self._buffer = buffer
        self._trends = trends
        self._log = structlog.get_logger("ops")

    async def list(self, request: web.Request) -> web.Response:
        """Every key that the buffer knows, in the order of their names."""
        Parameters.of_query(request).refuse_others()
        figures = await self._buffer.figures()
        return as_json({"keys": [self._shown(key, figures[key]) for key in sorted(figures)]})

    async def show(self, request: web.Request) -> web.Response:
        """One of them."""
        key = _asked_for(request)
        return _unknown(key) if (now := await self._now(key)) is None else as_json(now)

    async def pause(self, request: web.Request) -> web.Response:
        """Send nothing of this key until it is resumed."""
        return await self._pulled(request, "paused", self._buffer.pause)

    async def resume(self, request: web.Request) -> web.Response:
        """End the operator's pause."""
        return await self._pulled(request, "resumed", self._buffer.resume)

    async def retry(self, request: web.Request) -> web.Response:
        """End every wait of this key but the operator's pause, and say how many queues had waited."""
        key = _asked_for(request)
        waited = await self._buffer.retry(key)
        if waited is None:
            return _unknown(key)
        self._log.info("key retried", key=short_key(key), queues=waited)
        return as_json({"did": "retried", "waited": waited, **(await self._now(key) or {})})

    async def _pulled(
        self, request: web.Request, did: str, lever: Callable[[PublicKey], Awaitable[bool]]
    ) -> web.Response:
        key = _asked_for(request)
        if not await lever(key):
            return _unknown(key)
        self._log.info(f"key {did}", key=short_key(key))
        return as_json({"did": did, **(await self._now(key) or {})})

    async def _now(self, key: PublicKey) -> dict[str, object] | None:
        of = (await self._buffer.figures()).get(key)
        return None if of is None else self._shown(key, of)

    def _shown(self, key: PublicKey, of: KeyFigures) -> dict[str, object]:
        return shown(key, of, self._trends.of(key))


def _asked_for(request: web.Request) -> PublicKey:
    Parameters.of_query(request).refuse_others()
    return Parameters(request.match_info).need("key", read_key)


def _unknown(key: PublicKey) -> web.Response:
    why = "no event was ever accepted for it; see how it is spelt, or list the keys that there are"
    return as_json({"error": f"{key} is not known: {why}"}, status=404)


def shown(key: PublicKey, of: KeyFigures, trend: Trend) -> dict[str, object]:
    """A key as it is shown.

    `paused`: why nothing is sent now (null: it is), for `paused_for_s` more seconds; 0 of them, where it is
    not the operator's, means one request at a time, to see whether upstream takes it again. `queue_waits`:
    the oldest event waits though the key sends.
    """
    gate = of.gate
    return {
        "key": key,
        "confirmed": of.succeeded,
        "paused": gate.paused,
        "paused_for_s": round(gate.paused_for_s, 3),
        "by_operator": gate.by_operator,
        "forbidden_origins": gate.forbidden_origins,
        "rate_per_s": round(gate.rate_per_s, 3),
        "limit_per_s": gate.limit_per_s,
        "queues": of.queues,
        "stored_bytes": of.stored_bytes,
        "oldest_held_at": None if of.oldest_held_ms is None else moment(of.oldest_held_ms),
        "time_to_drain_s": round(drain_s(of), 3),
        "queue_waits": waits_by_itself(of, trend, wall_ms()),
        "ambiguous": of.ambiguous,
        "books": asdict(of.books),
    }
