"""Who may do what on the operations listener: whoever has ops.token, and nobody where none is set."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

from proxy.ops.answers import as_json

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Access:
    """`token`: the one of now; a reload changes it. None: what needs one is off."""

    token: str | None

    def allows(self, request: web.Request) -> bool:
        """Whether a request has the token; compared in constant time."""
        if self.token is None:
            return False
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        token = given.strip(" ").encode("utf-8", "surrogateescape")
        return hmac.compare_digest(token, self.token.encode()) and scheme.lower() == "bearer"

    def guarded(self, handler: Handler) -> Handler:
        """`handler`, for holders of the token alone."""

        async def checked(request: web.Request) -> web.StreamResponse:
            if self.allows(request):
                return await handler(request)
            if self.token is None:
                return as_json({"error": "off: set ops.token to use this"}, status=403)
            return as_json(
                {"error": "give ops.token: Authorization: Bearer <token>"},
                status=401,
                headers={"WWW-Authenticate": "Bearer"},
            )

        return checked
