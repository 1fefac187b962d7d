"""The types of settings: for each, how it is called, read and shown."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr

from proxy.settings.addresses import (
    BufferUrl,
    IpNetwork,
    ListenAddress,
    parse_buffer_url,
    parse_host,
    parse_listen,
    parse_network,
    parse_origin,
    parse_upstream_url,
)
from proxy.settings.credentials import (
    API_KEY_LENGTHS,
    PASSWORD_LENGTHS,
    TOKEN_LENGTHS,
    parse_api_key,
    parse_password,
    parse_token,
)
from proxy.settings.redis_url import SCHEMES
from proxy.settings.values import (
    parse_duration,
    parse_number,
    parse_path_prefix,
    parse_public_key,
    parse_size,
    parse_tool,
    parse_whole,
    show_duration,
    show_size,
)


@dataclass(frozen=True, slots=True)
class Kind:
    """How the values of a type are called, shown, and (for lists and tables) written.

    `quotable`: whether a wrong value may be repeated in an error. A URL may hold a password where none
    belongs, and what is no public key may be an API key. `example`: of a list or table, the value that an
    error shows; JSON can say it, and so can TOML. `schema`: what JSON Schema can say of the value in a file,
    which is less than the program checks; its patterns keep to what every dialect of regular expressions has.
    """

    name: str
    show: Callable[..., object]
    schema: Mapping[str, object] = field(default_factory=dict)
    example: object = None
    quotable: bool = True


@dataclass(frozen=True, slots=True)
class NeedsRestart:
    """Marks a setting that a reload leaves as it is: only a start reads it."""


RESTART = NeedsRestart()


def as_it_is(value: object) -> object:
    """For values that are written as they are held."""
    return value


def _as_texts(values: tuple[object, ...]) -> list[str]:
    return [str(value) for value in values]


ALL = "*"
"""In a list: all there are."""


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    twice = sorted({value for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"lists {toml_text(twice[0])} twice: write it once")
    return values


def _at_least_one(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError("is empty: write at least one")
    return values


def _all_or_some(values: tuple[str, ...]) -> tuple[str, ...]:
    if ALL in values and len(values) > 1:
        raise ValueError('"*" allows all: leave it or the others out')
    return values


def _not_too_many(tools: tuple[str, ...]) -> tuple[str, ...]:
    if len(tools) > _MAX_TOOLS:
        raise ValueError(f'lists {len(tools)}: write at most {_MAX_TOOLS}, or "*" for all')
    return tools


def _text(pattern: str) -> dict[str, object]:
    return {"type": "string", "pattern": f"^{pattern}$"}


def _list_of(pattern: str, **rules: object) -> dict[str, object]:
    return {"type": "array", "items": _text(pattern), **rules}


def _secret(lengths: range, **rules: object) -> dict[str, object]:
    bounds = {"minLength": lengths.start, "maxLength": lengths.stop - 1}
    return {"type": "string", **bounds, **rules, "writeOnly": True}


_DURATION = r"[0-9]{1,9}(\.[0-9]{1,6})?(ms|s|m|h|d)"
_SIZE = r"[0-9]{1,15}(\.[0-9]{1,6})?(([KkMmGgTt][Ii]?)?[Bb])?"
_LISTEN = r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]*):[0-9]{1,5}"
_PATH = "(/[A-Za-z0-9._~-]+)+"
_PUBLIC_KEY = "pk_[A-Za-z0-9_-]{1,64}"
_ORIGIN = r"(\*|[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^/ :?#@A-Z\[\]]+)(:[0-9]{1,5})?)"
_HOST = r"(\*|\[[0-9a-f:.]+\]|[a-z0-9_]([a-z0-9_.-]*[a-z0-9_-])?)"
_TOOL = r"(\*|[A-Za-z0-9_.:-]{1,64})"
# Each is a label of a metric, so they may not be without number.
_MAX_TOOLS = 200
_NETWORK = "[0-9A-Fa-f:.]+(/[0-9]{1,3})?"
_BUFFER = rf"(sqlite:///[^?#]+|({'|'.join(map(re.escape, SCHEMES))})://[^ ]+)"

Whole = Annotated[int, BeforeValidator(parse_whole), Kind("whole number", as_it_is, {"type": "integer"})]
Number = Annotated[float, BeforeValidator(parse_number), Kind("number", as_it_is, {"type": "number"})]
Seconds = Annotated[float, BeforeValidator(parse_duration), Kind("duration", show_duration, _text(_DURATION))]
Bytes = Annotated[
    int,
    BeforeValidator(parse_size),
    Kind("size", show_size, {**_text(_SIZE), "type": ["string", "integer"]}),
]
Listen = Annotated[ListenAddress, BeforeValidator(parse_listen), Kind("host:port", str, _text(_LISTEN))]
UpstreamUrl = Annotated[
    str, BeforeValidator(parse_upstream_url), Kind("URL", str, _text("https?://[^ ?#@]+"), quotable=False)
]
Buffer = Annotated[
    BufferUrl, BeforeValidator(parse_buffer_url), Kind("URL", str, _text(_BUFFER), quotable=False)
]
Token = Annotated[
    SecretStr | None,
    BeforeValidator(parse_token),
    Kind(
        "secret",
        as_it_is,
        _secret(TOKEN_LENGTHS, pattern="^[!-~]+$", **{"not": {"pattern": "^ok_"}}),
        quotable=False,
    ),
]
ApiKey = Annotated[
    SecretStr | None,
    BeforeValidator(parse_api_key),
    Kind("secret", as_it_is, _secret(API_KEY_LENGTHS, pattern="^ok_[!-~]+$"), quotable=False),
]
Password = Annotated[
    SecretStr | None,
    BeforeValidator(parse_password),
    Kind("secret", as_it_is, _secret(PASSWORD_LENGTHS), quotable=False),
]
PathPrefixes = Annotated[
    tuple[Annotated[str, BeforeValidator(parse_path_prefix)], ...],
    AfterValidator(_at_least_one),
    AfterValidator(_once),
    Kind("list of paths", list, _list_of(_PATH, minItems=1, uniqueItems=True), ["/api/i/v1", "/t/v1"]),
]
PublicKeys = Annotated[
    tuple[Annotated[str, BeforeValidator(parse_public_key)], ...],
    AfterValidator(_once),
    Kind(
        "list of public keys",
        list,
        _list_of(_PUBLIC_KEY, uniqueItems=True),
        ["pk_abc", "pk_def"],
        quotable=False,
    ),
]
Origins = Annotated[
    tuple[Annotated[str, BeforeValidator(parse_origin)], ...],
    AfterValidator(_once),
    AfterValidator(_all_or_some),
    Kind("list of origins", list, _list_of(_ORIGIN, uniqueItems=True), ["https://www.example.com"]),
]
Hosts = Annotated[
    tuple[Annotated[str, BeforeValidator(parse_host)], ...],
    AfterValidator(_once),
    AfterValidator(_all_or_some),
    Kind("list of host names", list, _list_of(_HOST, uniqueItems=True), ["proxy.example.com"]),
]
Tools = Annotated[
    tuple[Annotated[str, BeforeValidator(parse_tool)], ...],
    AfterValidator(_once),
    AfterValidator(_all_or_some),
    AfterValidator(_not_too_many),
    Kind(
        "list of tools",
        list,
        # "not", for its patterns do without look-ahead.
        _list_of(_TOOL, **{"not": {"contains": {"pattern": "^ok_"}}}, uniqueItems=True, maxItems=_MAX_TOOLS),
        ["outlit_list_customers", "outlit_get_timeline"],
        quotable=False,
    ),
]
Networks = Annotated[
    tuple[Annotated[IpNetwork, BeforeValidator(parse_network)], ...],
    Kind("list of CIDRs", _as_texts, _list_of(_NETWORK), ["10.0.0.0/8", "fd00::/8"]),
]


def toml_text(value: object) -> str:
    """A value of TOML in one line; what TOML has no literal for (None) is refused with TypeError."""
    match value:
        case str() | bool() | int() | float():
            return json.dumps(value, ensure_ascii=False)
        case list():
            return f"[{', '.join(map(toml_text, value))}]"
        case dict():
            return f"{{{', '.join(f'{key} = {toml_text(inner)}' for key, inner in value.items())}}}"
    raise TypeError(f"no TOML literal for {type(value).__name__}")
