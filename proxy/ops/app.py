"""The routes of the operations listener."""

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import asdict

from aiohttp import web
from prometheus_client.exposition import gzip_accepted

from proxy.buffer import Buffer, BufferFault, Terms
from proxy.gateway import Gateway
from proxy.ledger import Books
from proxy.metrics import Metrics
from proxy.ops.access import Access
from proxy.ops.answers import as_json
from proxy.ops.bookkeeper import Bookkeeper
from proxy.ops.dead_letters import DeadLetters
from proxy.ops.draining import Draining
from proxy.ops.erasure import Erasure
from proxy.ops.errors import errors_in_json
from proxy.ops.fates import Fates
from proxy.ops.gateway import retrying
from proxy.ops.health import Health, checks
from proxy.ops.hosts import Hosts
from proxy.ops.keys import Keys
from proxy.ops.page import page_routes
from proxy.ops.status import Status
from proxy.ops.tap import Tapping
from proxy.settings import ALL
from proxy.tap import Taps

_BUFFER = web.AppKey("buffer", Buffer)
_BOOKS = web.AppKey("books", Bookkeeper)
_METRICS = web.AppKey("metrics", Metrics)
_HEALTH = web.AppKey("health", Health)
_STATUS = web.AppKey("status", Status)
_ACCESS = web.AppKey("access", Access)
_HOSTS = web.AppKey("hosts", Hosts)
_GATEWAY = web.AppKey("gateway", Gateway)
_ERASURE = web.AppKey("erasure", Erasure)
_TAPPING = web.AppKey("tapping", Tapping)

_LEASE_S = Terms().lease_s


def make_app(  # noqa: PLR0913  # each is a room that the listener shows or steers
    buffer: Buffer,
    books: Bookkeeper,
    metrics: Metrics,
    health: Health,
    token: str | None,
    *,
    status: Status,
    lease_s: float = _LEASE_S,
    taps: Taps | None = None,
    on_drain: Callable[[bool], None] = lambda _begins: None,
    gateway: Gateway | None = None,
    allowed_hosts: Collection[str] = (ALL,),
) -> web.Application:
    """The operations listener. Without `token` everything that needs one is off.

    `lease_s`: how long a delivery can keep a queue, and an erasure waits for it. `taps`: what samples events.
    `on_drain(begins)`: where the buffer is to be emptied before the process stops, or no longer. `gateway`:
    is mounted. `allowed_hosts`: the names under which it may be asked.
    """
    hosts = Hosts(allowed_hosts, metrics)
    app = web.Application(middlewares=[hosts.guard, errors_in_json])
    app[_BUFFER], app[_BOOKS], app[_METRICS], app[_HEALTH] = buffer, books, metrics, health
    app[_STATUS], app[_HOSTS] = status, hosts
    app[_ACCESS], app[_ERASURE] = Access(token), Erasure(buffer, metrics, lease_s)
    guarded = app[_ACCESS].guarded
    draining = Draining(buffer, on_drain)
    fates, dead, keys = Fates(buffer), DeadLetters(buffer, metrics), Keys(buffer, books.trends)
    app[_TAPPING] = tapping = Tapping(taps or Taps())
    app.on_shutdown.append(tapping.close)
    app.add_routes(
        [
            *page_routes(),
            web.get("/metrics", _metrics),
            web.get("/livez", _livez),
            web.get("/readyz", _readyz),
            web.get("/startupz", _startupz),
            web.get("/status", _status),
            web.get("/ledger", guarded(_ledger)),
            web.get("/events/{uuid}", guarded(fates.event)),
            web.get("/ambiguous", guarded(fates.ambiguous)),
            web.get("/dead", guarded(dead.list)),
            web.get("/dead/{id:(?!(?:replay|purge)$)[^{}/]+}", guarded(dead.show)),
            web.post("/dead/replay", guarded(dead.replay)),
            web.post("/dead/purge", guarded(dead.purge)),
            web.get("/keys", guarded(keys.list)),
            web.get("/keys/{key}", guarded(keys.show)),
            web.post("/keys/{key}/pause", guarded(keys.pause)),
            web.post("/keys/{key}/resume", guarded(keys.resume)),
            web.post("/keys/{key}/retry", guarded(keys.retry)),
            web.get("/tap", guarded(tapping.stream), allow_head=False),
            web.post("/drain", guarded(draining.begin)),
            web.delete("/drain", guarded(draining.end)),
            web.post("/erase", guarded(app[_ERASURE].erase)),
        ]
    )
    if gateway is not None:
        app[_GATEWAY] = gateway
        gateway.mount(app, app[_ACCESS])
        app.router.add_post("/gateway/retry", guarded(retrying(gateway)))
    return app


def go_by(app: web.Application, token: str | None, *, lease_s: float, allowed_hosts: Collection[str]) -> None:
    """Have an app of `make_app`'s go by these from now on."""
    if token != app[_ACCESS].token:
        app[_ACCESS].token = token
        app[_TAPPING].revoke()
    app[_ERASURE].lease_s = lease_s
    app[_HOSTS].names = allowed_hosts


async def _metrics(request: web.Request) -> web.Response:
    # Of a buffer that is away nothing is known, and the metrics say so; what this process did is known.
    with suppress(BufferFault):
        await request.app[_BOOKS].show()
    body, content_type = request.app[_METRICS].exposition(request.headers.get("Accept", ""))
    response = web.Response(body=body, headers={"Content-Type": content_type, "Vary": "Accept-Encoding"})
    if gzip_accepted(request.headers.get("Accept-Encoding", "")):
        response.enable_compression(web.ContentCoding.gzip)
    return response


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


async def _status(request: web.Request) -> web.Response:
    access, gateway = request.app[_ACCESS], request.app.get(_GATEWAY)
    return await request.app[_STATUS].answer(
        request,
        None if gateway is None else gateway.figures(),
        has_token=access.token is not None,
        is_operator=access.allows(request),
    )


async def _ledger(request: web.Request) -> web.Response:
    figures = await request.app[_BOOKS].recount()
    total = sum((of.books for of in figures.values()), Books())
    return as_json({"keys": {key: asdict(of.books) for key, of in figures.items()}, "total": asdict(total)})
