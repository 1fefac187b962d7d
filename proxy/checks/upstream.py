"""The way to Outlit: DNS, TCP, TLS, and an answer to a request that sends nothing and asks for nothing."""

import email.utils
import errno
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence

import aiohttp
from yarl import URL

from proxy.checklist import Checked, error, ok, warning
from proxy.settings import is_loopback
from proxy.wire.answers import printable

_NAME = "upstream"
_LONGEST_S = 10.0
_CLOCK_S = 30.0
"""A Date is in whole seconds, and an answer may take some; what is further off is the clock's doing."""


async def look_at_upstream(
    url: str, timeout_s: float, wall_s: Callable[[], float] = time.time
) -> Sequence[Checked]:
    """One HEAD of `url`, which carries no event and no key, by the client library that delivers.

    Any answer will do. `wall_s`: Unix time.
    """
    within_s = min(timeout_s, _LONGEST_S)
    try:
        # As in deliveries: no proxy of the environment's, no redirect, no cookie.
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=within_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            ) as session,
            session.head(f"{url}/", allow_redirects=False) as answer,
        ):
            status, date = answer.status, answer.headers.get("Date")
    except (aiohttp.ClientError, OSError) as problem:
        return [error(_NAME, f"{url} {_why(problem, within_s)}")]
    return [_answered(url, status), *_clock(date, wall_s())]


def _answered(url: str, status: int) -> Checked:
    said = f"HEAD of {url}/ was answered {status}; no event was sent"
    if status >= 500:
        return warning(_NAME, f"{said}: Outlit seems to be in trouble; events are kept until it is well")
    where = URL(url)
    if where.scheme == "https":
        return ok(_NAME, f"{said}; its certificate was verified")
    if is_loopback(where.host or ""):
        return ok(_NAME, said)
    return warning(_NAME, f"{said}; in clear: who is on the way can read and alter events: write https://")


def _clock(date: str | None, now_s: float) -> list[Checked]:
    if date is None:
        return []
    try:
        ahead_s = now_s - email.utils.parsedate_to_datetime(date).timestamp()
    except ValueError:
        return []
    if abs(ahead_s) <= _CLOCK_S:
        return [ok("clock", "agrees with upstream's")]
    where = "ahead of" if ahead_s > 0 else "behind"
    return [
        warning(
            "clock",
            f"{abs(ahead_s):.0f} s {where} upstream's: see to this machine's time synchronisation (NTP); ages"
            " and times of events are wrong meanwhile",
        )
    ]


def _why(problem: Exception, within_s: float) -> str:
    match problem:
        case aiohttp.ClientConnectorDNSError():
            return f"cannot be found ({_said(problem.os_error)}): correct upstream.url, or see to DNS"
        case aiohttp.ClientConnectorCertificateError():
            return (
                f"has a certificate that does not verify ({printable(str(problem.certificate_error))}): see"
                " to the system's authorities (ca-certificates), its clock, and who answers in Outlit's place"
            )
        case aiohttp.ClientConnectorSSLError():
            return f"speaks no TLS that fits ({_said(problem.os_error)}): is it the right port, or http://?"
        case aiohttp.ClientConnectorError():
            return (
                f"cannot be reached ({_said(problem.os_error)}): see to the network and its firewall; HTTP"
                " proxies of the environment are not used"
            )
        case TimeoutError():
            return f"did not answer within {within_s:g} s: see to the network and its firewall"
        case _:
            return (
                f"gave no answer ({printable(str(problem) or type(problem).__name__)}): is it an HTTP server?"
            )


def _said(problem: OSError) -> str:
    """The system's word where there is one: asyncio's own only repeats the address."""
    known = problem.errno in errno.errorcode and not isinstance(problem, ssl.SSLError | socket.gaierror)
    return printable(os.strerror(problem.errno or 0) if known else problem.strerror or str(problem))
