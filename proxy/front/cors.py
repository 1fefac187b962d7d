"""Which browsers' pages may send, and what the answer must say for their browsers to let them.

The clients send with `navigator.sendBeacon`, whose requests carry credentials. Across origins such a request
is preflighted, and leaves the browser only if the answer names the page's own origin (`*` does not do),
allows credentials and names Content-Type. With anything less the events are lost and the page sees no error.

An Origin says where a browser's page is from, and nothing about anyone else: whoever is no browser can leave
it out or make it up. The list keeps other sites' pages from sending under one's key; it authenticates nobody.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from proxy.front.headers import clean_header
from proxy.front.response import header_lines

_ANY: Final = "*"
# The Origin of sandboxed frames, of files and of some redirects: nobody in particular (RFC 6454, 7.3).
_OPAQUE: Final = "null"

# RFC 6454, 6.2, no wider than it has to be: hosts are ASCII there (browsers send Punycode). What does not
# match is never repeated in an answer. 253 is the longest domain name.
_ORIGIN: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,31})://"
    r"(?P<host>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_DEFAULT_PORTS: Final = {"http": "80", "https": "443"}

_METHODS: Final = "POST, OPTIONS"
_CONTENT_TYPE: Final = "Content-Type"
_EXPOSED: Final = "X-Request-Id, Retry-After"
# Answers to OPTIONS are not cacheable (RFC 9110, 9.3.7), but some CDNs can be told to keep them.
_PREFLIGHT_VARY: Final = "Origin, Access-Control-Request-Headers, Access-Control-Request-Private-Network"
# Seconds. Chromium keeps a preflight's answer no longer than this; Firefox would for a day.
_MAX_AGE_S: Final = 7200

# A header's name as RFC 9110, 5.6.2 has it; the bounds are ours. Tracing adds two or three names.
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_MAX_REQUESTED_HEADERS: Final = 16
_MAX_REQUESTED_CHARS: Final = 1024

# So many Origins are remembered with what follows from them, and none that is longer than a real one can be:
# 3 MB at most. Strangers may fill it with made-up ones; to work out what is not in it takes 2 µs.
_ORIGINS: Final = 1024
_ORIGIN_CHARS: Final = 300


@dataclass(frozen=True, slots=True)
class Origin:
    """What follows from a request's Origin header.

    `text`: the header, cleaned. `lines`: the header lines of every answer to it but a preflight's.
    """

    text: str | None
    may_post: bool
    lines: str


class Cors:
    """The origins that may send, and the headers that tell their browsers so.

    `allowed_origins`: `scheme://host[:port]` each, or `*` for all, `null` among them. Compared without regard
    to case, a scheme's default port or a closing slash. Raises ValueError for an entry that is no origin: no
    browser would ever send it, so the site that was meant would lose its events in silence.
    """

    __slots__ = ("_allowed", "_answer", "_any", "_preflight", "_preflight_refusal", "_refusal", "_remembered")

    def __init__(self, allowed_origins: Sequence[str]) -> None:
        self._any = _ANY in allowed_origins
        self._allowed = frozenset(_listed(origin) for origin in allowed_origins if origin != _ANY)
        # Pages are few and come again.
        self._remembered = lru_cache(maxsize=_ORIGINS)(self._origin)
        # A cache that kept the answer for one origin, or for none, would give it to another.
        self._refusal = {"Vary": "Origin"}
        self._answer = {
            "Vary": "Origin",
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Expose-Headers": _EXPOSED,
        }
        self._preflight_refusal = {"Vary": _PREFLIGHT_VARY}
        self._preflight = {
            "Vary": _PREFLIGHT_VARY,
            "Access-Control-Allow-Credentials": "true",
            "Access-Control-Allow-Methods": _METHODS,
            "Access-Control-Allow-Headers": _CONTENT_TYPE,
            "Access-Control-Max-Age": str(_MAX_AGE_S),
        }

    def origin(self, header: str | None) -> Origin:
        """What follows from an Origin header, as it came."""
        if header is not None and len(header) > _ORIGIN_CHARS:
            return self._origin(header)
        return self._remembered(header)

    def _origin(self, header: str | None) -> Origin:
        text = clean_header(header)
        return Origin(text, self.is_allowed(text), header_lines(self.answer_headers(text)))

    def is_allowed(self, origin: str | None) -> bool:
        """Whether a request with this Origin may send. Without one, or an empty one, it may: servers do."""
        return self._any or not origin or _canonical(origin) in self._allowed

    def answer_headers(self, origin: str | None) -> dict[str, str]:
        """What every answer carries that is not a preflight's, the refusals included.

        For an Origin that is not allowed, or is none, that is `Vary` alone.
        """
        if origin is None or not self._is_named(origin):
            return self._refusal.copy()
        return {**self._answer, "Access-Control-Allow-Origin": origin}

    def preflight_headers(
        self,
        origin: str | None,
        requested_headers: str | None = None,
        requested_private_network: str | None = None,
    ) -> dict[str, str]:
        """What the 204 to an `OPTIONS` carries; for an Origin that is not allowed, `Vary` alone.

        `requested_headers` (Access-Control-Request-Headers): allowed as far as they are names, at most 16.
        Tracing libraries add some to every `fetch`, a refusal would lose the events, and what the headers say
        is ignored. With credentials `*` would not stand for them. `requested_private_network` (the header
        Access-Control-Request-Private-Network): older Chromiums ask on the way from a public page to an
        internal host, some by policy heed the answer, and an allowed page may write wherever it is.
        """
        if origin is None or not self._is_named(origin):
            return self._preflight_refusal.copy()
        headers = {**self._preflight, "Access-Control-Allow-Origin": origin}
        if requested_headers:
            headers["Access-Control-Allow-Headers"] = _allowed_headers(requested_headers)
        if requested_private_network == "true":
            headers["Access-Control-Allow-Private-Network"] = "true"
        return headers

    def _is_named(self, origin: str) -> bool:
        """Whether the answer may repeat this Origin, as it stands: the browser compares byte by byte."""
        canonical = _canonical(origin)
        return canonical is not None and (self._any or canonical in self._allowed)


def _canonical(origin: str) -> str | None:
    """The origin in the one form that is compared; None if it is none."""
    if origin == _OPAQUE:
        return _OPAQUE
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return None
    scheme, host, port = match["scheme"].lower(), match["host"].lower(), match["port"]
    if port is None or port == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{port}"


def _listed(entry: str) -> str:
    """An entry of the list in canonical form. `null` names nobody, so it cannot be listed."""
    canonical = _canonical(entry.strip().removesuffix("/"))
    if canonical is None or canonical == _OPAQUE:
        raise ValueError(
            f"allowed_origins: {entry!r} is no origin; write scheme://host or scheme://host:port, without "
            'a path and with the host as browsers send it (xn--… for other alphabets), or "*" for all'
        )
    return canonical


def _allowed_headers(requested: str) -> str:
    """Content-Type, and the names that were asked for, each once and in their order."""
    names = {_CONTENT_TYPE.lower(): _CONTENT_TYPE}
    for name in requested[:_MAX_REQUESTED_CHARS].split(",")[:_MAX_REQUESTED_HEADERS]:
        token = name.strip(" \t")
        if _TOKEN.fullmatch(token):
            names.setdefault(token.lower(), token)
    return ", ".join(names.values())
