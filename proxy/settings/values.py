"""How what an operator writes becomes a value, and how a value is written back.

Each ``parse_*`` takes whatever a source gave and returns the value, or raises ValueError with the end of a
sentence whose beginning names the place: what is wrong, then what to write instead. None repeats the value:
whoever prints the sentence knows whether it may be shown. (ValueError for a wrong type, too: it is the one
that pydantic collects.)
"""

import ipaddress
import re
from dataclasses import dataclass
from fractions import Fraction
from urllib.parse import urlsplit

from pydantic import SecretStr

from proxy.settings.redis_url import SCHEMES, parse_target

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_SECONDS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}
_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)(ms|s|m|h|d)?")

# Largest first: the first unit that divides a size evenly is the one it is shown in.
_BYTES = {
    "TiB": 1024**4,
    "TB": 1000**4,
    "GiB": 1024**3,
    "GB": 1000**3,
    "MiB": 1024**2,
    "MB": 1000**2,
    "KiB": 1024,
    "KB": 1000,
}
_BYTES_BY_LETTERS = {unit.lower(): size for unit, size in _BYTES.items()} | {"b": 1, "": 1}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)([A-Za-z]{0,3})")

_LISTEN = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.(?!\Z)|\.?\Z))+")
_PUBLIC_KEY = re.compile(r"pk_[A-Za-z0-9_-]{1,64}")
_PATH_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
_ORIGIN = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>\[[0-9a-f:.]+\]|[^/\s:?#@\[\]]+)(:(?P<port>[0-9]{1,5}))?"
)
_VISIBLE = re.compile(r"[!-~]+")

_HIGHEST_PORT = 65_535
# Shorter tokens can be guessed over a network; much longer ones outgrow a request header (8,190 bytes).
TOKEN_LENGTHS = range(8, 513)
# Of the URL of a Redis, where parse_target has let it pass: what stands before and behind the password.
_PASSWORD_IN_URL = re.compile(r"(?P<before>[a-z+]+://[^:@/?]*:)[^@/?]+(?P<behind>@.*)")
PASSWORD_LENGTHS = range(1, 513)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where a listener binds. `host` is a name, an address without brackets, or "" for every interface.

    `port` is 0 to 65535; 0 lets the operating system choose one.
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class BufferUrl:
    """Where the buffer is. `written`: as it was, for a password may stand in it; the text has *** there."""

    written: SecretStr

    @property
    def is_redis(self) -> bool:
        return self.written.get_secret_value().partition("://")[0] in SCHEMES

    def __str__(self) -> str:
        text = self.written.get_secret_value()
        match = _PASSWORD_IN_URL.fullmatch(text)
        return f"{match['before']}***{match['behind']}" if match else text


def parse_whole(value: object) -> int:
    """A count. Refuses true and false, which Python would take for 1 and 0."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,15}", value):
        return int(value)
    raise ValueError("not a whole number: write digits only, such as 100")


def parse_number(value: object) -> float:
    """A number that need not be whole; neither infinite nor NaN."""
    text = "" if isinstance(value, bool) else str(value)
    if not re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", text):
        raise ValueError("not a number: write one such as 0.5")
    return float(text)


def parse_duration(value: object) -> float:
    """Seconds from "250ms", "1s", "10m", "72h" or "30d". A number is taken as seconds, as code gives it.

    What an operator writes arrives here as text, numbers of a TOML file included: "5" of what is a guess that
    nobody should have to make.
    """
    if isinstance(value, int | float):
        return float(value)
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('not a duration: write a number and ms, s, m, h or d, such as "250ms" or "30s"')
    number, unit = match.groups()
    if unit is None:
        raise ValueError(f'a duration needs a unit: write "{number}s" for seconds, or ms, m, h, d')
    return float(number) / 1_000 if unit == "ms" else float(number) * _SECONDS[unit]


def show_duration(seconds: float) -> str:
    """The shortest text that parses back to these seconds: 600.0 is "10m", 0.25 is "250ms"."""
    for unit, length in _SECONDS.items():
        if seconds and seconds % length == 0:
            return f"{seconds // length:.0f}{unit}"
    return f"{seconds * 1_000:.6f}".rstrip("0").rstrip(".") + "ms" if seconds else "0s"


def parse_size(value: object) -> int:
    """Bytes from "10MB" (10,000,000), "1MiB" (1,048,576) or a whole number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    unit = _BYTES_BY_LETTERS.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise ValueError('not a size: write "10MB" (10,000,000), "1MiB" (1,048,576) or a number of bytes')
    size = Fraction(match[1]) * unit
    if size.denominator != 1:
        raise ValueError('not a whole number of bytes: write "10MB", "1MiB" or a whole number')
    return int(size)


def show_size(size: int) -> str | int:
    """The size in its largest even unit, or as a number of bytes: 4000000000 is "4GB", 1500 stays 1500."""
    for unit, length in _BYTES.items():
        if size and size % length == 0:
            return f"{size // length}{unit}"
    return size


def parse_listen(value: object) -> ListenAddress:
    """Host and port; the host may be left out, and an IPv6 address stands in brackets."""
    if isinstance(value, ListenAddress):
        return value
    match = _LISTEN.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError('not an address to listen on: write "127.0.0.1:8080", "[::1]:8080" or ":8080"')
    host, port = match["v6"] if match["host"] is None else match["host"], int(match["port"])
    if port > _HIGHEST_PORT:
        raise ValueError(f"no such port: write 0 to {_HIGHEST_PORT}")
    if match["v6"] is not None:
        _address(ipaddress.IPv6Address, host, '"[::1]:8080"')
    elif re.fullmatch(r"[0-9.]+", host):
        _address(ipaddress.IPv4Address, host, '"127.0.0.1:8080"')
    elif host and not _HOST_NAME.fullmatch(host):
        raise ValueError('not a host name: write "127.0.0.1:8080", "localhost:8080" or ":8080"')
    return ListenAddress(host, port)


def _address(kind: type[ipaddress.IPv4Address | ipaddress.IPv6Address], text: str, form: str) -> None:
    try:
        kind(text)
    except ValueError:
        raise ValueError(f"not an IP address: write one such as {form}") from None


def parse_network(value: object) -> IpNetwork:
    """A range of addresses; a single address is a range of one. Bits beyond the prefix length are refused."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    # Of a number, ipaddress would make an address.
    text = value if isinstance(value, str) else ""
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError('not a range of addresses: write "10.0.0.0/8", "fd00::/8" or one address') from None
    address, _, length = text.partition("/")
    if length and ipaddress.ip_address(address) != network.network_address:
        raise ValueError(
            f'reaches below its first address: write "{network}", or "{address}" for the one alone'
        )
    return network


def parse_public_key(value: object) -> str:
    """`pk_` and 1 to 64 letters, digits, `_` or `-`."""
    if not isinstance(value, str) or not _PUBLIC_KEY.fullmatch(value):
        raise ValueError('not a public key: write "pk_" and 1 to 64 letters, digits, "_" or "-"')
    return value


def parse_path_prefix(value: object) -> str:
    """A path of plain segments, without a slash at its end: one that every router reads in the same way."""
    form = 'write one that begins with "/" and does not end with it, such as "/t/v1"'
    if not isinstance(value, str) or not _PATH_PREFIX.fullmatch(value) or {".", ".."} & {*value.split("/")}:
        raise ValueError(f"not a path prefix: {form}")
    return value


def parse_origin(value: object) -> str:
    """An origin as browsers send it, or "*". What no browser sends could never match, so it is refused."""
    if value == "*":
        return "*"
    match = _ORIGIN.fullmatch(value.lower()) if isinstance(value, str) else None
    if match is None or int(match["port"] or 0) > _HIGHEST_PORT:
        raise ValueError('not an origin: write "https://www.example.com", the port if unusual, or "*"')
    usual = {"http": "80", "https": "443"}.get(match["scheme"])
    port = f":{match['port']}" if match["port"] and match["port"] != usual else ""
    sent = f"{match['scheme']}://{match['host']}{port}"
    if sent != value:
        raise ValueError(f'not as browsers send it: write "{sent}"')
    if not sent.isascii():
        raise ValueError('not as browsers send it: write the host in ASCII, "https://xn--bcher-kva.example"')
    return sent


def parse_upstream_url(value: object) -> str:
    """An http or https URL to which paths can be appended: no trailing slash, user, query or fragment."""
    form = 'write "https://app.outlit.ai"'
    if not isinstance(value, str) or not _VISIBLE.fullmatch(value):
        raise ValueError(f"not a URL: {form}")
    try:
        url = urlsplit(value)
        host, _port = url.hostname or "", url.port
    except ValueError:
        raise ValueError(f"not a URL: {form}") from None
    if url.scheme not in {"http", "https"}:
        raise ValueError(f"not an http or https URL: {form}")
    if "@" in url.netloc:
        raise ValueError(f"may not carry a user or password: {form}")
    if "?" in value or "#" in value:
        raise ValueError(f"may not carry a query or fragment: {form}")
    if ":" in host:
        _address(ipaddress.IPv6Address, host, '"http://[::1]:9300"')
    elif not _HOST_NAME.fullmatch(host):
        raise ValueError(f"has no proper host: {form}")
    return value.rstrip("/")


def parse_buffer_url(value: object) -> BufferUrl:
    """The URL of a file (sqlite:///relative/file, sqlite:////absolute/file) or a Redis (see `redis_url`)."""
    if isinstance(value, BufferUrl):
        return value
    form = 'write "sqlite:///data/buffer.db" (under the working directory) or "sqlite:////data/buffer.db"'
    scheme, separator, rest = value.partition("://") if isinstance(value, str) else ("", "", "")
    if separator and scheme in SCHEMES:
        return _redis_url(f"{scheme}://{rest}")
    # "?" and "#" are kept free for options; a file of that name would change its meaning later.
    if scheme != "sqlite" or not re.fullmatch(r"/[^\x00-\x1f\x7f?#]+", rest):
        redis = f"for a Redis {', '.join(f'{known}://' for known in SCHEMES)}"
        raise ValueError(f"not the URL of a buffer: {form}, {redis}")
    if rest.endswith(("/", "/.", "/..")) or rest == "/:memory:":
        raise ValueError(f"names no file, and what was acknowledged must be kept: {form}")
    return BufferUrl(SecretStr(f"{scheme}://{rest}"))


def _redis_url(text: str) -> BufferUrl:
    # The password that a URL with a user needs may come apart from it; whether it does is known to the table.
    parse_target(text, None if _PASSWORD_IN_URL.fullmatch(text) else "one that may come")
    return BufferUrl(SecretStr(text))


def parse_password(value: object) -> SecretStr:
    """The password of a Redis: any text without control characters."""
    password = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(password, str):
        raise ValueError("not a text: write it in quotes")  # noqa: TRY004
    if len(password) not in PASSWORD_LENGTHS:
        raise ValueError(f"must have {PASSWORD_LENGTHS.start} to {PASSWORD_LENGTHS.stop - 1} characters")
    if not password.isprintable():
        raise ValueError("must have no control characters: write the password, and nothing else")
    return SecretStr(password)


def parse_token(value: object) -> SecretStr:
    """A bearer token. Outlit's own API keys begin with `ok_`: one pasted here would go to every operator."""
    token = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(token, str):
        raise ValueError("not a text: write it in quotes")  # noqa: TRY004
    if token.startswith("ok_"):
        raise ValueError('must not begin with "ok_", as an API key of Outlit does: make one of your own')
    if len(token) not in TOKEN_LENGTHS:
        raise ValueError(f"must have {TOKEN_LENGTHS.start} to {TOKEN_LENGTHS.stop - 1} characters")
    if not _VISIBLE.fullmatch(token):
        raise ValueError("must be visible ASCII without spaces: it is sent in a header")
    return SecretStr(token)
