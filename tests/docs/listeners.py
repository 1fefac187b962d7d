"""The operations listener as the service builds it, to be looked at: nothing behind it answers."""

from typing import cast

from aiohttp import web

from proxy.buffer import Buffer
from proxy.metrics import Metrics
from proxy.ops import Bookkeeper, Health, Status, make_app
from proxy.ops.reloads import Reloads
from proxy.settings import Settings


def operations() -> web.Application:
    """With everything on."""
    nothing, metrics, health = cast(Buffer, None), Metrics(), Health()
    books = Bookkeeper(nothing, metrics, retention_s=1.0)
    status = Status(nothing, books, metrics, health, Reloads(), Settings(), started_at_ms=0)
    return make_app(nothing, books, metrics, health, "a-token", status=status)


def routes() -> set[tuple[str, str]]:
    """Method and path of each of its routes: `("GET", "/dead/{id}")`."""
    return {
        (route.method, route.resource.canonical)
        for route in operations().router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
