"""Under which hosts the operations listener may be asked: `ops.allowed_hosts`, against DNS rebinding.

A page that an operator's browser has open can have its own name point at this listener for a while, and then
ask it from inside the network: to the browser that is the page's own server. What the page cannot change is
the Host header, in which its name stands. An IP address needs no name, `localhost` is nobody's, and a name in
`ops.listen` is the operator's own, so these always pass: probes and commands beside the proxy go on.
"""

import re
from collections.abc import Collection, Iterator
from ipaddress import ip_address
from typing import Final

from aiohttp import web

from proxy.gateway import is_of_the_gateway, own_answer
from proxy.ledger import OwnCode
from proxy.metrics import Metrics
from proxy.ops.access import Handler
from proxy.ops.answers import as_json
from proxy.settings import ALL

_NAMELESS: Final = "localhost"

# A host and perhaps a port. No user before it: which of the two an agent means by `a@b` they do not agree on.
_AUTHORITY: Final = re.compile(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_.-]+))(?::[0-9]*)?")
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(?P<authority>[^/?#]*).*", re.DOTALL)

_WHY: Final = (
    "the operations listener may not be asked under this host: list it in ops.allowed_hosts, or ask by an IP"
    " address or localhost"
)


class Hosts:
    """Refuses requests to other hosts. `names`: lower-case, without port; a reload changes them."""

    def __init__(self, names: Collection[str], metrics: Metrics) -> None:
        self.names = names
        self._metrics = metrics

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Have `handler` answer what may be asked; 403 to the rest. To be the first to see a request."""
        if ALL in self.names or all(self._may_be(authority) for authority in _authorities(request)):
            return await handler(request)
        self._metrics.ops_hosts_refused.inc()
        if is_of_the_gateway(request.rel_url.raw_path):
            self._metrics.gateway.own_answers[OwnCode.HOST_NOT_ALLOWED].inc()
            return own_answer(OwnCode.HOST_NOT_ALLOWED, _WHY)
        return as_json({"error": _WHY, "code": OwnCode.HOST_NOT_ALLOWED}, status=403)

    def _may_be(self, authority: str) -> bool:
        found = _AUTHORITY.fullmatch(authority)
        if found is None:
            return False
        name = (found["v6"] or found["name"]).lower().removesuffix(".")
        return name == _NAMELESS or name in self.names or _is_address(name)


def _authorities(request: web.Request) -> Iterator[str]:
    """Every host that a request is addressed to, of which none may be a wrong one.

    Its Host header, the empty one where it is missing or there are several; and the target's own, where that
    is a whole URL (`GET http://host/ HTTP/1.1`) or a host alone (`CONNECT`): by RFC 9112 that one counts.
    """
    given = request.headers.getall("Host", [])
    yield given[0] if len(given) == 1 else ""
    target = request.raw_path
    if not target.startswith("/") and target != "*":
        found = _ABSOLUTE.fullmatch(target)
        yield target if found is None else found["authority"]


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
