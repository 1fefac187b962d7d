"""How a connection is opened: redis-py's part, with every default of it that matters set here.

redis-py 8.1 on its own waits 5 s for an answer and then asks up to ten times more, whether or not the first
time was carried out. So: no client object and no pool of it (theirs is the resending), only its connections,
which resend nothing when they are given no `retry`.
"""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from socket import TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL
from typing import Any

from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)

from proxy.buffer.redis.link.errors import Misconfigured
from proxy.settings.redis_url import Target

CONNECT_S = 2.0
"""How long connecting may take: the network's part, and then every answer of the login."""

_ANSWER_S = 2.0

# Idle connections stay known to firewalls that forget after some minutes, and dead ones are noticed.
_KEEPALIVE: Mapping[int, int] = {TCP_KEEPIDLE: 30, TCP_KEEPINTVL: 10, TCP_KEEPCNT: 3}

Address = tuple[str, int] | str
"""Host and port, or the path of a socket file."""


def shown(address: Address) -> str:
    """An address as messages have it."""
    if isinstance(address, str):
        return address
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Entrance:
    """How a server is entered: who we are, and how the wire is protected."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    db: int = 0
    tls: ssl.SSLContext | None = None

    def connection(self, address: Address) -> AbstractConnection:
        """A connection of redis-py's that is not connected yet."""
        options: dict[str, Any] = {
            "username": self.username,
            "password": self.password,
            "db": self.db,
            "client_name": "outlit-proxy",
            "driver_info": None,  # no CLIENT SETINFO
            "protocol": 2,  # flat answers, nothing pushed in between, no HELLO
            "decode_responses": False,
            "socket_connect_timeout": CONNECT_S,
            "socket_timeout": _ANSWER_S,  # of the login; then the wire keeps the time
            "retry": None,
            "retry_on_error": [],
            "retry_on_timeout": False,
            "health_check_interval": 0,  # a PING before a call; the watch and keepalive serve for it
            "maint_notifications_config": None,
        }
        if isinstance(address, str):
            return UnixDomainSocketConnection(path=address, **options)
        host, port = address
        options |= {"host": host, "port": port}
        options |= {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
        if self.tls is None:
            return Connection(**options)
        connection = SSLConnection(ssl_cert_reqs="required", ssl_check_hostname=True, **options)
        # redis-py would read the system's authorities for each connection: milliseconds on the loop.
        connection.ssl_context.context = self.tls
        return connection


def entrance_of(target: Target) -> Entrance:
    """How the servers of a target are entered. Raises Misconfigured where its files cannot be read."""
    password = target.password.get_secret_value() if target.password else None
    return Entrance(target.username, password, target.db, _tls(target))


def entrance_of_sentinels(target: Target) -> Entrance:
    """How its Sentinels are entered; they have no databases."""
    if target.sentinel_auth:
        password = target.password.get_secret_value() if target.password else None
        return Entrance(target.username, password, 0, _tls(target))
    return Entrance(tls=_tls(target))


def _tls(target: Target) -> ssl.SSLContext | None:
    """Verified TLS, where the target has TLS."""
    if not target.tls:
        return None
    file = target.ca
    try:
        context = ssl.create_default_context(cafile=target.ca)
        if target.cert:
            file = target.cert
            context.load_cert_chain(target.cert, target.key)
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or getattr(error, "reason", None) or "not PEM"
        raise Misconfigured(
            f"the TLS file {file} of buffer.url cannot be used ({reason}): correct ca, cert or key"
        ) from error
    return context
