"""`GET /status`: one snapshot of everything that an operator looks at, as JSON.

Open like `/metrics`, and so without what is nobody else's business: unless `ops.token` is given public keys
are shortened, and Origins and what is wrong with new settings left out. It costs some milliseconds: may be
asked for every second.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Final

from aiohttp import web

from proxy import __version__
from proxy.buffer import Buffer, BufferUnavailable, KeyFigures
from proxy.clock import wall_ms
from proxy.gateway import Figures
from proxy.ledger import Books, Dead, Unsafe
from proxy.log import short_key
from proxy.metrics import Metrics
from proxy.ops.answers import as_json, moment
from proxy.ops.backlog import drain_s
from proxy.ops.bookkeeper import Bookkeeper
from proxy.ops.gateway import of_the_gateway
from proxy.ops.health import Health, checks
from proxy.ops.keys import shown
from proxy.ops.parameters import Parameters
from proxy.ops.rates import Rates, value_of
from proxy.ops.reloads import Reloads
from proxy.ops.symptoms import Finding, Seen, findings
from proxy.ops.trends import Trend
from proxy.ops.window import Window
from proxy.settings import BufferSettings, Settings
from proxy.wire.limits import PublicKey

MAX_KEYS = 50
"""Keys that are shown: what is in trouble first, then what holds most. `GET /keys` has all of them."""

_PATIENCE_S = 2.0
"""So long the buffer's figures are waited for: a page that waits longer looks broken itself."""

NO_STORE: Final[Mapping[str, str]] = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class Status:
    """Answers `/status`. `started_at_ms`: Unix milliseconds, when the process began to serve."""

    def __init__(
        self,
        buffer: Buffer,
        books: Bookkeeper,
        metrics: Metrics,
        health: Health,
        reloads: Reloads,
        settings: Settings,
        *,
        started_at_ms: int,
    ) -> None:
        self._settings = settings
        self._started_at_ms = started_at_ms
        self._buffer = buffer
        self._books = books
        self._metrics = metrics
        self._health = health
        self._reloads = reloads
        self._rates = Rates(metrics)

    def go_by(self, settings: Settings) -> None:
        """Show these from now on."""
        self._settings = settings

    async def run(self) -> None:
        """Look at the counters once a second, until cancelled."""
        await self._rates.run()

    async def answer(
        self, request: web.Request, gateway: Figures | None, *, has_token: bool, is_operator: bool
    ) -> web.Response:
        """The snapshot. `has_token`: there is one to give. `is_operator`: whoever asks has given it."""
        Parameters.of_query(request).refuse_others()
        found, figures = await asyncio.gather(checks(self._health, self._buffer), self._figures())
        now_s = asyncio.get_running_loop().time()
        delivery, bounds = self._settings.delivery, self._settings.buffer
        limit_per_s = delivery.limit_per_s * delivery.rate_share
        seen = Seen(
            found,
            self._rates.window(now_s, limit_per_s),
            figures,
            limit_per_s,
            bounds.max_bytes,
            bounds.max_bytes_per_key,
            {key: self._books.trends.of(key) for key in figures or ()},
            tuple(reason for reason in Unsafe if value_of(self._metrics.buffer_unsafe[reason])),
            # What is wrong with settings may quote them.
            self._reloads if is_operator else replace(self._reloads, error=None),
            wall_ms(),
            gateway if has_token else None,
        )
        snapshot = {
            "administration": has_token,
            "as_operator": is_operator,
            **self._shown(seen, is_operator=is_operator),
            "gateway": of_the_gateway(gateway, is_on=has_token),
        }
        return as_json(snapshot, headers=NO_STORE)

    async def _figures(self) -> Mapping[PublicKey, KeyFigures] | None:
        """None where the buffer does not answer; the checks say why."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return await self._books.show()
        except (BufferUnavailable, TimeoutError):
            return None

    def _shown(self, seen: Seen, *, is_operator: bool) -> dict[str, object]:
        settings, window, figures = self._settings, seen.window, seen.figures
        troubles = findings(seen)
        dead = {str(reason): int(value_of(self._metrics.dead[reason])) for reason in Dead}
        return {
            "at": moment(wall_ms()),
            "version": __version__,
            "started_at": moment(self._started_at_ms),
            "ready": all(word == "ok" for word in seen.checks.values()),
            "checks": seen.checks,
            **_of_the_buffer(settings.buffer, figures),
            "upstream": {
                "url": settings.upstream.url,
                "limit_per_s": settings.delivery.limit_per_s,
                "rate_share": settings.delivery.rate_share,
                "in_flight": window.in_flight,
            },
            "rates": _rates(window),
            "dead": {
                "count": None if figures is None else sum(of.books.dead for of in figures.values()),
                "by_reason": dead,
            },
            "config": {
                "reloaded_at": None if seen.reloads.at_ms is None else moment(seen.reloads.at_ms),
                "successful": seen.reloads.successful,
                "error": seen.reloads.error,
                "needs_restart": seen.reloads.needs_restart,
            },
            **_keys(seen, figures or {}, troubles, is_operator=is_operator),
            "troubles": [_trouble(finding, is_operator=is_operator) for finding in troubles],
        }


def _of_the_buffer(
    settings: BufferSettings, figures: Mapping[PublicKey, KeyFigures] | None
) -> dict[str, object]:
    """What the buffer holds; null where it did not answer."""
    engine = {
        "engine": "Redis" if settings.url.is_redis else "SQLite",
        "durability": settings.durability,
        "max_bytes": settings.max_bytes,
    }
    if figures is None:
        return {
            "ledger": None,
            "buffer": {**engine, "stored_bytes": None, "queues": None},
            "oldest_held_at": None,
            "time_to_drain_s": None,
        }
    held = [of.oldest_held_ms for of in figures.values() if of.oldest_held_ms is not None]
    return {
        "ledger": asdict(sum((of.books for of in figures.values()), Books())),
        "buffer": {
            **engine,
            "stored_bytes": sum(of.stored_bytes for of in figures.values()),
            "queues": sum(of.queues for of in figures.values()),
        },
        "oldest_held_at": moment(min(held)) if held else None,
        "time_to_drain_s": round(max(map(drain_s, figures.values()), default=0.0), 3),
    }


def _rates(window: Window) -> dict[str, float | None]:
    return {
        "window_s": round(window.window_s, 1),
        "accepted_per_s": round(window.accepted_per_s, 2),
        "rejected_per_s": round(window.rejected_per_s, 2),
        "delivered_per_s": round(window.delivered_per_s, 2),
        "requests_per_s": round(window.requests_per_s, 2),
        "failed_per_s": round(window.failed_per_s, 2),
        "events_per_request": round(window.events_per_request, 1),
        "budget_used": None if window.budget_used is None else round(min(1.0, window.budget_used), 3),
    }


def _keys(
    seen: Seen, figures: Mapping[PublicKey, KeyFigures], troubles: list[Finding], *, is_operator: bool
) -> dict[str, object]:
    troubled = [finding.key for finding in troubles if finding.key is not None]
    place = {key: at for at, key in reversed(list(enumerate(troubled)))}
    order = sorted(figures, key=lambda key: (place.get(key, len(troubled)), -figures[key].books.held, key))
    return {
        "keys": [
            _key(key, figures[key], seen.trends.get(key, Trend()), is_operator=is_operator)
            for key in order[:MAX_KEYS]
        ],
        "keys_left_out": max(0, len(order) - MAX_KEYS),
    }


def _key(key: PublicKey, of: KeyFigures, trend: Trend, *, is_operator: bool) -> dict[str, object]:
    whole = shown(key, of, trend)
    if is_operator:
        return whole
    del whole["forbidden_origins"]  # clients wrote them
    return {**whole, "key": short_key(key)}


def _trouble(finding: Finding, *, is_operator: bool) -> dict[str, object]:
    key = finding.key
    return {
        "name": finding.symptom,
        "severity": finding.severity,
        "key": key if key is None or is_operator else short_key(key),
        "what": finding.what,
        "what_to_do": finding.what_to_do,
        "section": finding.section,
    }
