"""The routes of the operations listener."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import asdict

from aiohttp import web

from proxy.buffer import Buffer, BufferFault, Terms
from proxy.ledger import Books
from proxy.metrics import Metrics
from proxy.ops.answers import BadParameter, as_json
from proxy.ops.bookkeeper import Bookkeeper
from proxy.ops.dead_letters import DeadLetters
from proxy.ops.erasure import Erasure
from proxy.ops.fates import Fates
from proxy.ops.health import Health, checks
from proxy.ops.keys import Keys

_BUFFER = web.AppKey("buffer", Buffer)
_BOOKS = web.AppKey("books", Bookkeeper)
_METRICS = web.AppKey("metrics", Metrics)
_HEALTH = web.AppKey("health", Health)

_LEASE_S = Terms().lease_s

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def make_app(
    buffer: Buffer,
    books: Bookkeeper,
    metrics: Metrics,
    health: Health,
    token: str | None,
    *,
    lease_s: float = _LEASE_S,
) -> web.Application:
    """The operations listener. Without `token` everything that needs one is off.

    `lease_s`: how long a delivery can keep a queue, and an erasure waits for it.
    """
    app = web.Application(middlewares=[_errors_in_json])
    app[_BUFFER], app[_BOOKS], app[_METRICS], app[_HEALTH] = buffer, books, metrics, health
    guarded = _guard(token)
    fates, dead, keys = Fates(buffer), DeadLetters(buffer, metrics), Keys(buffer)
    app.add_routes(
        [
            web.get("/metrics", _metrics),
            web.get("/livez", _livez),
            web.get("/readyz", _readyz),
            web.get("/startupz", _startupz),
            web.get("/ledger", guarded(_ledger)),
            web.get("/events/{uuid}", guarded(fates.event)),
            web.get("/ambiguous", guarded(fates.ambiguous)),
            web.get("/dead", guarded(dead.list)),
            web.get("/dead/{id}", guarded(dead.show)),
            web.post("/dead/replay", guarded(dead.replay)),
            web.post("/dead/purge", guarded(dead.purge)),
            web.get("/keys", guarded(keys.list)),
            web.get("/keys/{key}", guarded(keys.show)),
            web.post("/keys/{key}/pause", guarded(keys.pause)),
            web.post("/keys/{key}/resume", guarded(keys.resume)),
            web.post("/keys/{key}/retry", guarded(keys.retry)),
            web.post("/erase", guarded(Erasure(buffer, metrics, lease_s).erase)),
        ]
    )
    return app


async def _metrics(request: web.Request) -> web.Response:
    await request.app[_BOOKS].show()
    body, content_type = request.app[_METRICS].exposition(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={"Content-Type": content_type})


async def _livez(_request: web.Request) -> web.Response:
    return web.Response(text="ok\n")


async def _startupz(request: web.Request) -> web.Response:
    started = request.app[_HEALTH].started
    return web.Response(status=200 if started else 503, text="ok\n" if started else "starting\n")


async def _readyz(request: web.Request) -> web.Response:
    found = await checks(request.app[_HEALTH], request.app[_BUFFER])
    ready = all(word == "ok" for word in found.values())
    text = "ok\n" if ready else "not ready\n"
    if "verbose" in request.query or not ready:
        text = "".join(f"{name}: {word}\n" for name, word in found.items()) + text
    return web.Response(status=200 if ready else 503, text=text)


async def _ledger(request: web.Request) -> web.Response:
    figures = await request.app[_BOOKS].show(recount=True)
    total = sum((of.books for of in figures.values()), Books())
    return as_json({"keys": {key: asdict(of.books) for key, of in figures.items()}, "total": asdict(total)})


def _guard(token: str | None) -> Callable[[Handler], Handler]:
    """Lets only holders of the token through; compared in constant time."""
    wanted = None if token is None else f"Bearer {token}".encode()

    def guarded(handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            if wanted is None:
                return as_json({"error": "off: set ops.token to use this"}, status=403)
            given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, wanted):
                return as_json(
                    {"error": "give ops.token: Authorization: Bearer <token>"},
                    status=401,
                    headers={"WWW-Authenticate": "Bearer"},
                )
            return await handler(request)

        return checked

    return guarded


@web.middleware
async def _errors_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadParameter as error:
        return as_json({"error": str(error), "parameter": error.name}, status=400)
    except BufferFault as error:
        return as_json({"error": str(error)}, status=503)
    except web.HTTPException as error:
        allow = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return as_json({"error": error.reason.lower()}, status=error.status, headers=allow)
