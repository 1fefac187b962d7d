"""The listener for clients: from a request to `ingest`, and its answer back.

It stands before the open internet: `connection` bounds what aiohttp leaves open on the way to a request, this
file the time for its body and the bodies in memory. Every answer is JSON with an `X-Request-Id`, also to what
is no HTTP; none repeats what came in but a checked Origin and request id.
"""

import asyncio
import re
import time
from functools import lru_cache
from urllib.parse import unquote

import structlog
import uuid_utils
from aiohttp import hdrs, web

from proxy.front.admission import Body, NoRoom, Room
from proxy.front.client_ip import ClientIp
from proxy.front.connection import Server
from proxy.front.cors import Cors, Origin
from proxy.front.headers import clean_header
from proxy.front.inflate import BodyRefused, BodyTooLarge, MalformedBody, UnsupportedEncoding, inflate
from proxy.front.ingest import LARGE_BYTES, Ingest, Sender
from proxy.front.response import Response, head, header_lines
from proxy.metrics import Metrics
from proxy.settings import FrontSettings
from proxy.wire.answers import ClientAnswer, Code, refused
from proxy.wire.limits import PublicKey, public_key

_REQUEST_ID = re.compile(r"[A-Za-z0-9._=+/-]{1,128}\Z")
_SLASHES = re.compile(r"/{2,}")
_AUTHORITY = re.compile(r"\Ahttps?://[^/]*", re.IGNORECASE)

_BODY_CODES: dict[type[BodyRefused], Code] = {
    BodyTooLarge: Code.BODY_TOO_LARGE,
    UnsupportedEncoding: Code.UNSUPPORTED_ENCODING,
    MalformedBody: Code.MALFORMED_BODY,
}

_PATHS = 1024
_PATH_CHARS = 256
"""So many paths are remembered with the key that they name, and none that is longer: half a megabyte. To find
the key in a path takes 2 µs; the paths that come are few."""


class _Refused(Exception):
    """A request that ends here, with its answer."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.answer = refused(code, message)


class Front:
    """Answers clients' requests. `server` is what a site listens with."""

    def __init__(self, settings: FrontSettings, ingest: Ingest, metrics: Metrics) -> None:
        self._ingest = ingest
        self._metrics = metrics
        self._room = Room(settings.max_pending_bytes, metrics.pending_bytes)
        self._log = structlog.get_logger("front")
        self.go_by(settings)

    def go_by(self, settings: FrontSettings) -> None:
        """Go by these from the next request on; open connections stay."""
        self._settings = settings
        self._cors = Cors(settings.allowed_origins)
        self._client_ip = ClientIp(settings.trusted_proxies, settings.client_ip)
        self._room.max_bytes = settings.max_pending_bytes
        self._keys = frozenset(settings.public_keys)
        # A client whose apiHost is a path of the page's own site (`/c`) posts below that path.
        prefixes = "|".join(map(re.escape, settings.path_prefixes))
        self._route = re.compile(rf"(?:/.*)?(?:{prefixes})/([^/]*)/events/?\Z")
        # What raises is not remembered, so strangers' junk pushes nothing out.
        self._remembered_key = lru_cache(maxsize=_PATHS)(self._key)
        self._warned_of_untrusted = False

    def server(self) -> Server:
        """A protocol factory for sockets; made inside a running loop."""
        return Server(self, self._metrics, self._settings)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        origin = self._cors.origin(request.headers.get(hdrs.ORIGIN))
        if request.method == hdrs.METH_OPTIONS:
            return self.respond(request, None, self._preflight(request, origin))
        started = time.perf_counter()
        try:
            answer = await self._taken(request, origin)
        except _Refused as refusal:
            answer = refusal.answer
        finally:
            self._metrics.http_seconds.observe(time.perf_counter() - started)
        if answer.code is not None:
            self._metrics.refused[answer.code].inc()
        return self.respond(request, answer, origin.lines)

    def respond(self, request: web.BaseRequest, answer: ClientAnswer | None, lines: str) -> Response:
        """The response of an answer with these header lines, counted. No answer: 204."""
        given = request.headers.get("X-Request-Id", "")
        lines += f"X-Request-Id: {given if _REQUEST_ID.match(given) else uuid_utils.uuid7()}\r\n"
        if answer is None:
            self._metrics.http_requests["204"].inc()
            return Response(204, lines)
        self._metrics.http_requests[str(answer.status)].inc()
        return Response(answer.status, lines, answer.body)

    def unasked(self, code: Code, message: str) -> bytes:
        """The bytes of an answer to who sent no whole request, counted; the connection ends with them."""
        answer = refused(code, message)
        self._metrics.refused[code].inc()
        self._metrics.http_requests[str(answer.status)].inc()
        lines = header_lines({"X-Request-Id": str(uuid_utils.uuid7()), "Connection": "close"})
        return head(answer.status, lines, answer.body) + answer.body

    # -- a post ----------------------------------------------------------------------------------------

    async def _taken(self, request: web.BaseRequest, origin: Origin) -> ClientAnswer:
        path = request.raw_path
        key = self._remembered_key(path) if len(path) <= _PATH_CHARS else self._key(path)
        if request.method != hdrs.METH_POST:
            raise _Refused(Code.METHOD_NOT_ALLOWED, "post events here")
        if not origin.may_post:
            raise _Refused(Code.ORIGIN_NOT_ALLOWED, "this Origin may not post here")
        user_agent = clean_header(request.headers.get(hdrs.USER_AGENT))
        sender = Sender(self._address(request), user_agent, origin.text)
        with Body(self._room) as held:
            body = await self._body(request, held)
            return await self._ingest.take(key, body, sender)

    def _key(self, raw_path: str) -> PublicKey:
        """The public key that a path names, which may post; nothing else of the request may matter here."""
        path = _AUTHORITY.sub("", raw_path.partition("?")[0], count=1)
        match = self._route.match(_SLASHES.sub("/", path))
        if match is None:
            raise _Refused(Code.NOT_FOUND, "nothing here; events are posted to …/{publicKey}/events")
        key = public_key(unquote(match[1]))  # the 3.0.0 clients encode it
        if key is None:
            raise _Refused(Code.KEY_NOT_ALLOWED, "this is no public key: it begins with pk_")
        if self._keys and key not in self._keys:
            raise _Refused(Code.KEY_NOT_ALLOWED, "this public key may not post here")
        return key

    def _address(self, request: web.BaseRequest) -> str | None:
        found = self._client_ip.find(
            request.remote,
            request.headers.getall(hdrs.X_FORWARDED_FOR, ()),
            request.headers.getall(hdrs.FORWARDED, ()),
        )
        if found.junk:
            self._metrics.junk.inc()
        if found.untrusted_headers:
            self._metrics.untrusted.inc()
            if not self._warned_of_untrusted:
                self._warned_of_untrusted = True
                self._log.warning(
                    "forwarding headers of a peer that is not trusted are ignored: if it is your load"
                    " balancer, add it to front.trusted_proxies, or all visitors seem to be in one place",
                    peer=request.remote,
                )
        return found.address

    async def _body(self, request: web.BaseRequest, held: Body) -> bytes:
        """The body without its codings. `held` holds what has come, whatever the client says is to come."""
        limit = self._settings.max_body_bytes
        try:
            if request.content.is_eof():  # the usual case: it came with the headers
                body = request.content.read_nowait()
                self._check_size(len(body))
                held.grow(len(body))
            else:
                body = await self._awaited(request, held)
            if hdrs.CONTENT_ENCODING not in request.headers:
                return body
            coding = ", ".join(request.headers.getall(hdrs.CONTENT_ENCODING))
            if len(body) < LARGE_BYTES:
                return inflate(body, coding, limit, held.grow)
            return await asyncio.to_thread(inflate, body, coding, limit, held.grow)
        except NoRoom:
            raise _Refused(Code.OVERLOADED, "too much is being sent at once: send it again later") from None
        except TimeoutError:
            raise _Refused(Code.REQUEST_TIMEOUT, "the body did not come in time") from None
        except BodyRefused as error:
            raise _Refused(_BODY_CODES[type(error)], str(error)) from None
        except (web.RequestPayloadError, ConnectionError):
            raise _Refused(Code.MALFORMED_REQUEST, "the body ended before its end") from None

    async def _awaited(self, request: web.BaseRequest, held: Body) -> bytes:
        """A body of which some is still to come; its client has so long to send it."""
        self._check_size(request.content_length or 0)
        if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(self._settings.body_timeout_s):
            while part := await request.content.readany():
                size += len(part)
                self._check_size(size)
                held.grow(len(part))
                parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _check_size(self, bytes_: int) -> None:
        limit = self._settings.max_body_bytes
        if bytes_ > limit:
            raise _Refused(Code.BODY_TOO_LARGE, f"the body is larger than {limit} bytes")

    def _preflight(self, request: web.BaseRequest, origin: Origin) -> str:
        headers = self._cors.preflight_headers(
            origin.text,
            request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS),
            request.headers.get("Access-Control-Request-Private-Network"),
        )
        return header_lines(headers)
