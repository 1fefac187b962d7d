"""The listener for clients: from a request to `ingest`, and its answer back.

It stands before the open internet: `connection` bounds what aiohttp leaves open on the way to a request, this
file the time for its body and the bodies in memory. Every answer is JSON with an `X-Request-Id`, also to what
is no HTTP; none repeats what came in but a checked Origin and request id.
"""

import asyncio
import re
from http import HTTPStatus
from urllib.parse import unquote

import structlog
import uuid_utils
from aiohttp import web

from proxy.front.admission import Body, NoRoom, Room
from proxy.front.client_ip import ClientIp
from proxy.front.connection import Server
from proxy.front.cors import Cors
from proxy.front.headers import clean_header
from proxy.front.inflate import BodyRefused, BodyTooLarge, MalformedBody, UnsupportedEncoding, inflate
from proxy.front.ingest import LARGE_BYTES, Ingest, Sender
from proxy.metrics import Metrics
from proxy.settings import FrontSettings
from proxy.wire.answers import ClientAnswer, Code, refused
from proxy.wire.limits import PublicKey, public_key

RETRY_AFTER_S = 5
"""What 429 and 503 ask for."""

_SERVER = "outlit-proxy"

_REQUEST_ID = re.compile(r"[A-Za-z0-9._=+/-]{1,128}\Z")
_SLASHES = re.compile(r"/{2,}")
_AUTHORITY = re.compile(r"\Ahttps?://[^/]*", re.IGNORECASE)

_BODY_CODES: dict[type[BodyRefused], Code] = {
    BodyTooLarge: Code.BODY_TOO_LARGE,
    UnsupportedEncoding: Code.UNSUPPORTED_ENCODING,
    MalformedBody: Code.MALFORMED_BODY,
}


class _Refused(Exception):
    """A request that ends here, with its answer."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.answer = refused(code, message)
        self.code = code


class Front:
    """Answers clients' requests. `server` is what a site listens with."""

    def __init__(self, settings: FrontSettings, ingest: Ingest, metrics: Metrics) -> None:
        self._settings = settings
        self._ingest = ingest
        self._metrics = metrics
        self._cors = Cors(settings.allowed_origins)
        self._client_ip = ClientIp(settings.trusted_proxies, settings.client_ip)
        self._room = Room(settings.max_pending_bytes, metrics.pending_bytes)
        self._keys = frozenset(settings.public_keys)
        # A client whose apiHost is a path of the page's own site (`/c`) posts below that path.
        prefixes = "|".join(map(re.escape, settings.path_prefixes))
        self._route = re.compile(rf"(?:/.*)?(?:{prefixes})/([^/]*)/events/?\Z")
        self._warned_of_untrusted = False
        self._log = structlog.get_logger("front")

    def server(self) -> web.Server:
        """A protocol factory for sockets; made inside a running loop."""
        return Server(self, self._metrics, self._settings)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        origin = clean_header(request.headers.get("Origin"))
        if request.method == "OPTIONS":
            return self.respond(request, None, self._preflight(request, origin))
        headers = self._cors.answer_headers(origin)
        with self._metrics.http_seconds.time():
            try:
                answer = await self._taken(request, origin)
            except _Refused as refusal:
                self._metrics.refused[refusal.code].inc()
                answer = refusal.answer
        if answer.status == 405:
            headers["Allow"] = "POST, OPTIONS"
        return self.respond(request, answer, headers)

    def respond(
        self, request: web.BaseRequest, answer: ClientAnswer | None, headers: dict[str, str]
    ) -> web.Response:
        """The response of an answer, counted. No answer: 204."""
        given = request.headers.get("X-Request-Id", "")
        headers["Server"] = _SERVER
        headers["X-Request-Id"] = given if _REQUEST_ID.match(given) else str(uuid_utils.uuid7())
        if answer is None:
            self._metrics.http_requests["204"].inc()
            return web.Response(status=204, headers=headers)
        if answer.status in (429, 503):
            headers["Retry-After"] = str(RETRY_AFTER_S)
        self._metrics.http_requests[str(answer.status)].inc()
        return web.Response(
            status=answer.status, body=answer.body, headers=headers, content_type="application/json"
        )

    def unasked(self, code: Code, message: str) -> bytes:
        """The bytes of an answer to who sent no whole request, counted; the connection ends with them."""
        answer = refused(code, message)
        self._metrics.refused[code].inc()
        self._metrics.http_requests[str(answer.status)].inc()
        lines = [
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(answer.body)}",
            "Connection: close",
            f"Server: {_SERVER}",
            f"X-Request-Id: {uuid_utils.uuid7()}",
        ]
        if answer.status == 503:
            lines.append(f"Retry-After: {RETRY_AFTER_S}")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + answer.body

    # -- a post ----------------------------------------------------------------------------------------

    async def _taken(self, request: web.BaseRequest, origin: str | None) -> ClientAnswer:
        key = self._key(request)
        if request.method != "POST":
            raise _Refused(Code.METHOD_NOT_ALLOWED, "post events here")
        if not self._cors.is_allowed(origin):
            raise _Refused(Code.ORIGIN_NOT_ALLOWED, "this Origin may not post here")
        sender = Sender(self._address(request), clean_header(request.headers.get("User-Agent")), origin)
        with Body(self._room) as held:
            body = await self._body(request, held)
            answer = await self._ingest.take(key, body, sender)
        if answer.code is not None:
            self._metrics.refused[answer.code].inc()
        return answer

    def _key(self, request: web.BaseRequest) -> PublicKey:
        path = _AUTHORITY.sub("", request.raw_path.partition("?")[0], count=1)
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
            request.headers.getall("X-Forwarded-For", ()),
            request.headers.getall("Forwarded", ()),
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
        limit = self._settings.max_body_bytes
        if request.content_length is not None and request.content_length > limit:
            raise _Refused(Code.BODY_TOO_LARGE, f"the body is larger than {limit} bytes")
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0
        try:
            body = await self._read(request, held, limit)
            coding = ", ".join(request.headers.getall("Content-Encoding", ()))
            if not coding:
                return body
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

    async def _read(self, request: web.BaseRequest, held: Body, limit: int) -> bytes:
        """The body as it came, of which `held` holds what has come, whatever the client says is to come."""
        content = request.content
        if content.is_eof():  # the usual case: no time-out has to be set up
            body = content.read_nowait()
            if len(body) > limit:
                raise _Refused(Code.BODY_TOO_LARGE, f"the body is larger than {limit} bytes")
            held.grow(len(body))
            return body
        parts: list[bytes] = []
        size = 0
        async with asyncio.timeout(self._settings.body_timeout_s):
            while part := await content.readany():
                size += len(part)
                if size > limit:
                    raise _Refused(Code.BODY_TOO_LARGE, f"the body is larger than {limit} bytes")
                held.grow(len(part))
                parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _preflight(self, request: web.BaseRequest, origin: str | None) -> dict[str, str]:
        return self._cors.preflight_headers(
            origin,
            request.headers.get("Access-Control-Request-Headers"),
            request.headers.get("Access-Control-Request-Private-Network"),
        )
