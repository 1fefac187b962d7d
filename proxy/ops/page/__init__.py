"""The status page: three files that the operations listener hands out as they are.

All that is seen on it the page's script fetches from `/status`, and with the operator's token from the other
routes; so the files are the same for everybody and hold no secret. Nothing is loaded from anywhere else.
"""

from collections.abc import Awaitable, Callable
from hashlib import sha256
from importlib.resources import files
from typing import Final

from aiohttp import web

_TYPES: Final = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

# The page runs only what came from here, sends only to here, and stands in nobody's frame: whoever gets
# text onto it (an event's name, Outlit's message) gets no further.
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    " img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked for again each time, and mostly answered 304
}


def page_routes() -> list[web.RouteDef]:
    """`/` and what it consists of. Its addresses are relative: it may stand below any path of a proxy's."""
    return [
        web.get("/", _answering("index.html")),
        web.get("/page/status.css", _answering("status.css")),
        web.get("/page/status.js", _answering("status.js")),
    ]


def _answering(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    body = files(__name__).joinpath(name).read_bytes()
    content_type = _TYPES[name.rpartition(".")[2]]
    etag = sha256(body).hexdigest()[:32]

    async def answer(request: web.Request) -> web.Response:
        known = request.if_none_match or ()
        if any(tag.value in (etag, "*") for tag in known):
            response = web.Response(status=304, headers=_HEADERS)
        else:
            response = web.Response(body=body, content_type=content_type, charset="utf-8", headers=_HEADERS)
        response.etag = etag
        return response

    return answer
