"""Which part of the Platform API a request is for, as its target spells it.

Nothing is decoded, joined or normalised: a path passes as it stands, or not at all. What two readers could
take for two different paths (dots, doubled or encoded slashes, unusual spellings of a route that is known) is
refused, for what is checked here must be what Outlit answers.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from proxy.ledger import OwnCode, PlatformRoute

PREFIX: Final = "/platform"
"""Stands before the API's paths, or not: Outlit's own clients put a path of theirs in the place of their base
URL's, and so come without it."""

ROOTS: Final = (PREFIX, "/api")
"""What the paths begin with that are the gateway's to answer, spelled well or not."""

METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")

_TARGET = re.compile(rf"(?P<prefix>{PREFIX})?(?P<path>/api/[^?#]*)(?P<query>\?[!\"$-~]*)?")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+")
_MISREAD = re.compile(r"[/\\%\x00-\x1f\x7f]")
"""What a decoded segment may not hold: a second reader might take it for more than a part of a name."""


@dataclass(frozen=True, slots=True)
class Place:
    """A path of the API. `target`: with its query, as it goes upstream. `prefix`: what stood before it."""

    route: PlatformRoute
    path: str
    target: str
    prefix: str

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that it takes."""
        return ("POST",) if self.route in (PlatformRoute.VALIDATE, PlatformRoute.TOOLS) else METHODS


@dataclass(frozen=True, slots=True)
class Astray:
    """A target that leads nowhere, and why."""

    code: OwnCode
    text: str


def is_of_the_gateway(path: str) -> bool:
    """Whether a path, spelled well or not, is the gateway's to answer."""
    return any(path == root or path.startswith(f"{root}/") for root in ROOTS)


def read_target(target: str) -> Place | Astray:
    """Read the target of a request, as it stood in its first line."""
    match = _TARGET.fullmatch(target)
    if match is None:
        if target.removeprefix(PREFIX).startswith("/api/"):
            return Astray(OwnCode.PATH_REFUSED, "the target holds what belongs in no URL")
        return Astray(OwnCode.NOT_FOUND, f"nothing here: the Platform API is below {PREFIX}/api/")
    path = match["path"]
    segments = path.split("/")[2:]
    if any(not _is_plain(segment) for segment in segments[:-1]) or not _is_plain(segments[-1] or "-"):
        return Astray(
            OwnCode.PATH_REFUSED, "the path could be read in two ways: no dots, doubled or encoded slashes"
        )
    route = _route(segments)
    if isinstance(route, Astray):
        return route
    return Place(route, path, path + (match["query"] or ""), match["prefix"] or "")


def _is_plain(segment: str) -> bool:
    if _SEGMENT.fullmatch(segment) is None:
        return False
    try:
        name = unicodedata.normalize("NFKC", unquote(segment, errors="strict"))
    except UnicodeDecodeError:
        return False
    return _MISREAD.search(name) is None and _meant(name) not in (".", "..", "")


def _meant(name: str) -> str:
    """A decoded segment as some servers read it.

    Some take off what stands behind a semicolon, or blanks, before they read the dots; to some full-width
    letters and dots are plain ones, to some large letters small ones.
    """
    return unicodedata.normalize("NFKC", name).partition(";")[0].strip().casefold()


def _route(segments: list[str]) -> PlatformRoute | Astray:
    first, rest = segments[0], segments[1:]
    meant = [_meant(unquote(segment, errors="replace")) for segment in segments]
    while len(meant) > 1 and not meant[-1]:
        meant.pop()
    if not first:
        return Astray(OwnCode.NOT_FOUND, "nothing here: name a path of the API")
    if meant[0] == "i":
        return Astray(
            OwnCode.NOT_FOUND, "nothing here: events are posted to the other listener, front.listen"
        )
    if meant in _KNOWN and segments != meant:
        return Astray(OwnCode.PATH_REFUSED, f"write /api/{'/'.join(meant)}, in just this way")
    match first, rest:
        case "validate-api-key", []:
            return PlatformRoute.VALIDATE
        case "tools", ["call"]:
            return PlatformRoute.TOOLS
        case "integrations", _:
            return PlatformRoute.INTEGRATIONS
    if meant[0] in ("integrations", "tools") and first != meant[0]:
        return Astray(OwnCode.PATH_REFUSED, f"write /api/{meant[0]}/…, in just this way")
    return PlatformRoute.OTHER


_KNOWN: Final = (["validate-api-key"], ["tools", "call"], ["integrations"])
