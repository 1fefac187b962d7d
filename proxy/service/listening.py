"""What listening takes: a safe parser, an address of its own, and enough file descriptors."""

import errno
import os
import resource
import socket

import structlog
from aiohttp import http_parser, web

from proxy.engines import StartRefused
from proxy.gateway import MAX_CALLS
from proxy.ops import MAX_CONNECTIONS
from proxy.settings import ListenAddress, Settings

_OTHER_DESCRIPTORS = 64 + MAX_CONNECTIONS + MAX_CALLS
"""Files, the event loop's own, the operations listener's callers, the gateway's connections to Outlit."""


def unsafe_parser() -> str | None:
    """What to do where requests would be read by aiohttp's parser in Python; None where it is the one in C.

    The former has let through what other servers on the way read in another way (request smuggling).
    """
    if http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy:
        return None
    return (
        "aiohttp reads requests with its parser in Python, which others have got smuggled requests past:"
        " install aiohttp from its wheel, and unset AIOHTTP_NO_EXTENSIONS"
    )


def descriptors(settings: Settings) -> int:
    """How many files a process of these settings may have open at once."""
    return settings.front.max_connections + settings.delivery.in_flight + _OTHER_DESCRIPTORS


def too_few_descriptors(settings: Settings) -> str | None:
    """What to do where the system does not let us open so many; None where it does."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY or most >= descriptors(settings):
        return None
    return (
        f"the limit of open files is below {descriptors(settings)}, which front.max_connections and what else"
        " is opened take: raise it (ulimit -n, LimitNOFILE) or lower the setting"
    )


def make_room(settings: Settings) -> None:
    """Have as many file descriptors as connections are allowed, as far as the system lets us."""
    soft, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors(settings)
    if problem := too_few_descriptors(settings):
        structlog.get_logger("service").warning(problem, limit=most, wanted=wanted)
        wanted = most
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def cannot_listen(setting: str, address: ListenAddress, error: OSError) -> str:
    """Why nobody can listen on the address of a setting, and what to do."""
    why = os.strerror(error.errno) if error.errno else str(error)
    what_to_do = "choose another address"
    if isinstance(error, socket.gaierror):  # its numbers are of another kind
        why = (error.strerror or str(error)).lower()
        what_to_do = "write an IP address, or a name that this machine can resolve"
    if error.errno == errno.EACCES:
        what_to_do = "choose a port from 1024 on, or give the process CAP_NET_BIND_SERVICE"
    return f"{setting}: cannot listen on {address}: {why}; {what_to_do}"


async def listen(runner: web.BaseRunner, address: ListenAddress, setting: str) -> str:
    """Listen on `address`. Returns the URL to reach it by. Raises StartRefused."""
    await runner.setup()
    site = web.TCPSite(runner, address.host or None, address.port, backlog=1024)
    try:
        await site.start()
    except OSError as error:
        raise StartRefused(cannot_listen(setting, address, error)) from error
    host, port = runner.addresses[0][:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
