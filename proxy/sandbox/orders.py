"""Orders as they are given in JSON, by a script's file or over HTTP, with an answer to every mistake.

A script is an object of arrays, each the same as what is posted to the route of its name:

    {"faults":    [{"what": "status", "status": 503, "after_s": 10, "seconds": 5}],
     "limits":    [{"limit": 10, "after_s": 30, "seconds": 60}],
     "strangers": [{"public_key": "pk_test", "per_s": 30}],
     "links":     [{"latency_ms": 20, "latency_to_ms": 200}],
     "platform":  [{"what": "plan", "allowance": 3, "reset_in_s": 60}]}
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from proxy.sandbox.bounds import OrderError
from proxy.sandbox.circumstances import LimitChange, Link, Stranger
from proxy.sandbox.faults import Fault, Names, What
from proxy.sandbox.platform import Happens, Incident, Route
from proxy.sandbox.platform.keys import without_keys
from proxy.sandbox.reading import (
    Form,
    Read,
    anything,
    headers,
    indices,
    integer,
    integers,
    number,
    one_of,
    parsed,
    paths,
    suggestion,
    text,
)
from proxy.sandbox.window import Kind


@dataclass(frozen=True, slots=True)
class Script:
    """What is ordered together."""

    faults: tuple[Fault, ...] = ()
    limits: tuple[LimitChange, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    links: tuple[Link, ...] = ()
    platform: tuple[Incident, ...] = ()


def script_of(raw: bytes) -> Script:
    """Read a script. Raises OrderError, which says where in it."""
    document = parsed(raw)
    sorts = tuple(form.sort for form in (_FAULTS, _LIMITS, _STRANGERS, _LINKS, _PLATFORM))
    if not isinstance(document, dict):
        raise OrderError(f"A script is a JSON object of {', '.join(sorts)}, each an array")
    for name in document:
        if name not in sorts:
            raise OrderError(f"Unknown name {name!a}. {suggestion(name, sorts)}")
    return Script(
        _FAULTS.read_all(document.get("faults", [])),
        _LIMITS.read_all(document.get("limits", [])),
        _STRANGERS.read_all(document.get("strangers", [])),
        _LINKS.read_all(document.get("links", [])),
        _PLATFORM.read_all(document.get("platform", [])),
    )


def faults_of(raw: bytes) -> tuple[Fault, ...]:
    """Read one fault or an array of them, all or none. Raises OrderError."""
    return _FAULTS.read_all(parsed(raw))


def limits_of(raw: bytes) -> tuple[LimitChange, ...]:
    """Read one change of the limit or an array of them, all or none. Raises OrderError."""
    return _LIMITS.read_all(parsed(raw))


def strangers_of(raw: bytes) -> tuple[Stranger, ...]:
    """Read one stranger or an array of them, all or none. Raises OrderError."""
    return _STRANGERS.read_all(parsed(raw))


def links_of(raw: bytes) -> tuple[Link, ...]:
    """Read one link or an array of them, all or none. Raises OrderError."""
    return _LINKS.read_all(parsed(raw))


def platform_of(raw: bytes) -> tuple[Incident, ...]:
    """Read one order for the Platform API or an array of them, all or none. Raises OrderError."""
    return _PLATFORM.read_all(parsed(raw))


def _key(name: str, value: object) -> str:
    """Read a key, to keep what stands for it, or that."""
    return without_keys(text(name, value))


# -- sorts ---------------------------------------------------------------------------------------------

_TIMES: Final[Mapping[str, Read]] = {"after_s": number, "seconds": number}
_LATENCY: Final[Mapping[str, Read]] = {"latency_ms": integer, "latency_to_ms": integer}
_STRIKE: Final[Mapping[str, Read]] = {
    **_LATENCY,
    "headers": headers,
    "bytes_per_s": integer,
    "answer_bytes": integer,
    "every": integer,
    "requests": integer,
    **_TIMES,
}

_FAULTS: Final = Form(
    "faults",
    Fault,
    {
        "what": one_of(What, "fault"),
        "status": integer,
        "statuses": integers,
        "retry_after_s": integer,
        "body": text,
        "indices": indices,
        "paths": paths,
        "names": one_of(Names, "way to name events"),
        "max_events": integer,
        "max_bytes": integer,
        "shrink": number,
        "public_key": text,
        "origin": text,
        "visitor": text,
        "event": text,
        "uuid": text,
        **_STRIKE,
    },
    {"what": f"one of {', '.join(What)}"},
)
_LIMITS: Final = Form(
    "limits",
    LimitChange,
    {"limit": integer, "window": one_of(Kind, "window"), "burst": integer, **_TIMES},
    {},
)
_STRANGERS: Final = Form(
    "strangers",
    Stranger,
    {"public_key": text, "per_s": number, **_TIMES},
    {"public_key": "whose budget it uses", "per_s": "how many requests a second it makes"},
)
_LINKS: Final = Form("links", Link, {**_LATENCY, **_TIMES}, {"latency_ms": "of the way here and back"})
_PLATFORM: Final = Form(
    "platform",
    Incident,
    {
        "what": one_of(Happens, "order"),
        "status": integer,
        "body": anything,
        "error": text,
        "code": text,
        "plan": text,
        "feature": text,
        "reset_at": anything,
        "reset_in_s": number,
        "allowance": integer,
        "route": one_of(Route, "route"),
        "tool": text,
        "method": text,
        "path": text,
        "key": _key,
        **_STRIKE,
    },
    {"what": f"one of {', '.join(Happens)}"},
)
