"""Whether a call may be made: where it leads, who calls, and what it asks for."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import SecretStr

from proxy.gateway.bearer import Operators, read_caller
from proxy.gateway.paths import Astray, Place
from proxy.gateway.plan import VALIDITY, CallKind
from proxy.gateway.presence import CallerLeft
from proxy.ledger import OwnCode, PlatformRoute
from proxy.settings import ALL, GatewaySettings
from proxy.wire.platform import NoTool, read_tool_call

MAX_REQUEST_BYTES: Final = 1_000_000
MAX_CALLS: Final = 128
"""At one time; each may hold a body, and two connections."""
MAX_CALLS_OF_OTHERS: Final = 64
"""Up to so many at one time a caller with a key of their own gets a place: anybody can write `ok_`."""

_BODY_S: Final = 10.0
_READ_AT_ONCE_BYTES: Final = 32_768
"""Longer bodies of tools/call are read one after the other: many that end together would stop all else."""


class Rejected(Exception):
    """A call is answered here, because it may not be made."""

    def __init__(self, code: OwnCode, text: str | None = None, headers: dict[str, str] | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.text = text
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Wanted:
    """A call that may be made. `tool`: which one it calls; None: none.

    `is_with_own_key`: with `gateway.api_key`, for a caller who gave ops.token.
    """

    place: Place
    method: str
    key: SecretStr
    body: bytes = field(repr=False)
    tool: str | None
    is_with_own_key: bool

    @property
    def is_safe(self) -> bool:
        """Whether it changes nothing, as its method says, and so may be repeated whatever became of it."""
        return self.method == "GET"

    @property
    def is_harmless(self) -> bool:
        """Whether its caller may repeat it: also a question about a key changes nothing."""
        return self.is_safe or self.place.route is PlatformRoute.VALIDATE

    @property
    def kind(self) -> CallKind:
        """What is known of it is known of all calls of its kind."""
        route, path = self.place.route, self.place.path.removesuffix("/")
        if self.tool is not None:
            return CallKind(route, self.tool)
        if route is PlatformRoute.VALIDATE and self.place.target == path and not self.body:
            return VALIDITY
        name = path.rpartition("/")[2] if route is PlatformRoute.INTEGRATIONS else path
        return CallKind(route, f"{self.method} {name}")


class Admission:
    """Lets calls in, so many at a time. Nobody takes a place before it is known who calls."""

    def __init__(self) -> None:
        self.in_flight = 0
        """Calls that are in."""
        self._reading = asyncio.Lock()
        self._nobody = asyncio.Event()
        self._nobody.set()

    async def until_nobody_is_in(self) -> None:
        """Wait until all calls have left."""
        await self._nobody.wait()

    @asynccontextmanager
    async def admit(
        self, request: web.Request, place: Place | Astray, operators: Operators, settings: GatewaySettings
    ) -> AsyncIterator[Wanted]:
        """Read a request as a call that may be made; it is in until the context ends.

        Raises Rejected, or CallerLeft.
        """
        if isinstance(place, Astray):  # before all else: who has lost the way is not helped by a token
            raise Rejected(place.code, place.text)
        key, is_own = _key_of(request, operators, settings)
        with self._let_in(MAX_CALLS if is_own else MAX_CALLS_OF_OTHERS):
            _check_method(request.method, place, settings)
            body, tool = await _read_body(request), None
            if place.route is PlatformRoute.TOOLS:
                tool, body = await self._read_tool_call(body)
                _check_tool(tool, place, settings)
            yield Wanted(place, request.method, key, body, tool, is_own)

    @contextmanager
    def _let_in(self, most: int) -> Iterator[None]:
        if self.in_flight >= most:
            raise Rejected(OwnCode.OVERLOADED, headers={"Retry-After": "1"})
        self.in_flight += 1
        self._nobody.clear()
        try:
            yield
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self._nobody.set()

    async def _read_tool_call(self, body: bytes) -> tuple[str, bytes]:
        is_long = len(body) > _READ_AT_ONCE_BYTES
        async with self._reading if is_long else nullcontext():
            try:
                return read_tool_call(body)
            except NoTool as problem:
                raise Rejected(OwnCode.MALFORMED_BODY, str(problem)) from None
            finally:
                if is_long:
                    await asyncio.sleep(0)  # all else has its turn before the next


def _key_of(request: web.Request, operators: Operators, settings: GatewaySettings) -> tuple[SecretStr, bool]:
    """The API key that a request goes with, and whether that is `gateway.api_key`."""
    if operators.token is None:
        raise Rejected(OwnCode.GATEWAY_OFF)
    caller = read_caller(request, operators)
    if caller is None:
        raise Rejected(OwnCode.UNAUTHORIZED)
    key = caller.key or settings.api_key
    if key is None:
        raise Rejected(OwnCode.NO_API_KEY)
    return key, caller.key is None


def _check_method(method: str, place: Place, settings: GatewaySettings) -> None:
    if method not in place.methods:
        raise Rejected(OwnCode.METHOD_NOT_ALLOWED, headers={"Allow": ", ".join(place.methods)})
    if ALL not in settings.tools and place.route is PlatformRoute.OTHER and method != "GET":
        raise Rejected(
            OwnCode.TOOL_NOT_ALLOWED,
            "gateway.tools is a list: of paths that are not known only GET passes, for others may call tools",
        )


def _check_tool(tool: str, place: Place, settings: GatewaySettings) -> None:
    if ALL in settings.tools:
        return
    if tool not in settings.tools:
        raise Rejected(OwnCode.TOOL_NOT_ALLOWED)
    if place.target != place.path:
        raise Rejected(
            OwnCode.TOOL_NOT_ALLOWED,
            "gateway.tools is a list: a query of tools/call might name another tool",
        )


async def _read_body(request: web.Request) -> bytes:
    if request.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Rejected(OwnCode.UNSUPPORTED_ENCODING)
    if (request.content_length or 0) > MAX_REQUEST_BYTES:
        raise Rejected(OwnCode.BODY_TOO_LARGE)
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            while len(body) <= MAX_REQUEST_BYTES and (part := await request.content.readany()):
                body += part
    except TimeoutError:
        raise Rejected(OwnCode.REQUEST_TIMEOUT) from None
    except ConnectionError:
        raise CallerLeft from None
    except (web.RequestPayloadError, HttpProcessingError):
        raise Rejected(OwnCode.MALFORMED_BODY, "the body is not what its headers say") from None
    if len(body) > MAX_REQUEST_BYTES:
        raise Rejected(OwnCode.BODY_TOO_LARGE)
    return bytes(body)
