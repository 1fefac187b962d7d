"""The operations listener as the service builds it, to be looked at: nothing behind it answers."""

from typing import cast

from aiohttp import web

from proxy.buffer import Buffer
from proxy.gateway import Gateway
from proxy.metrics import Metrics
from proxy.ops import Bookkeeper, Health, Status, make_app
from proxy.ops.reloads import Reloads
from proxy.settings import Settings


def operations() -> web.Application:
    """With everything on."""
    nothing, metrics, health, settings = cast(Buffer, None), Metrics(), Health(), Settings()
    books = Bookkeeper(nothing, metrics, retention_s=1.0)
    status = Status(nothing, books, metrics, health, Reloads(), settings, started_at_ms=0)
    gateway = Gateway(metrics.gateway, settings.gateway, settings.upstream.url)
    return make_app(nothing, books, metrics, health, "a-token", status=status, gateway=gateway)


def routes() -> set[tuple[str, str]]:
    """Method and path of each of its routes: `("GET", "/dead/{id}")`. The gateway reads its paths itself."""
    return {
        (route.method, route.resource.canonical)
        for route in operations().router.routes()
        if route.method not in ("HEAD", "*") and route.resource is not None
    }
