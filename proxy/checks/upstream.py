"""The way to Outlit: DNS, TCP, TLS, and an answer to a request that sends nothing and asks for nothing."""

import email.utils
import time
from collections.abc import Callable

import aiohttp

from proxy.checklist import Checked, error, ok, warning
from proxy.checks.unanswered import why
from proxy.outgoing import Sent, open_session
from proxy.settings import is_in_clear

_NAME = "upstream"
_LONGEST_S = 10.0
_CLOCK_S = 30.0
"""A Date is in whole seconds, and an answer may take some; what is further off is the clock's doing."""


async def look_at_upstream(
    url: str, timeout_s: float, wall_s: Callable[[], float] = time.time
) -> list[Checked]:
    """One HEAD of `url`, which carries no event and no key, by the client library that delivers.

    Any answer will do. `wall_s`: Unix time.
    """
    within_s = min(timeout_s, _LONGEST_S)
    try:
        async with (
            open_session() as session,
            session.head(
                f"{url}/",
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=within_s),
                trace_request_ctx=Sent(),
            ) as answer,
        ):
            status, date = answer.status, answer.headers.get("Date")
    except (aiohttp.ClientError, OSError) as problem:
        return [error(_NAME, f"{url} {why(problem, within_s)}")]
    return [_answered(url, status), *_clock(date, wall_s())]


def _answered(url: str, status: int) -> Checked:
    said = f"HEAD of {url}/ was answered {status}; no event was sent"
    if status >= 500:
        return warning(_NAME, f"{said}: Outlit seems to be in trouble; events are kept until it is well")
    if is_in_clear(url):
        return warning(
            _NAME, f"{said}; in clear: who is on the way can read and alter events: write https://"
        )
    return ok(_NAME, f"{said}; its certificate was verified" if url.startswith("https:") else said)


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
