"""How an address is written: where to listen, whom to trust, where Outlit and the buffer are.

Each ``parse_*`` is as those in ``values``.
"""

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from pydantic import SecretStr

from proxy.settings.redis_url import SCHEMES, is_loopback, parse_target

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_LISTEN = re.compile(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:\[\]]*)):(?P<port>[0-9]{1,5})")
_HOST_NAME = re.compile(r"(?=.{1,253}\Z)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(\.(?!\Z)|\.?\Z))+")
_HOST = re.compile(r"(?P<host>\[[0-9a-f:.]+\]|[^/\s:?#@\[\]]+)(:(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_HOST.pattern}")
_VISIBLE = re.compile(r"[!-~]+")
# Of the URL of a Redis, where parse_target has let it pass: what stands before and behind the password.
_PASSWORD_IN_URL = re.compile(r"(?P<before>[a-z+]+://[^:@/?]*:)[^@/?]+(?P<behind>@.*)")

_HIGHEST_PORT = 65_535


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


def parse_host(value: object) -> str:
    """A host as browsers send it, without its port, or "*". What no browser sends could never match."""
    form = 'write "proxy.example.com", or "*"'
    if value == "*":
        return "*"
    match = _HOST.fullmatch(value.lower()) if isinstance(value, str) else None
    if match is None:
        raise ValueError(f"not a host name: {form}")
    sent = match["host"]
    if sent.startswith("["):
        _address(ipaddress.IPv6Address, sent[1:-1], '"[::1]"')
    elif not sent.isascii():
        raise ValueError('not as browsers send it: write it in ASCII, "xn--bcher-kva.example"')
    elif sent.endswith(".") or not _HOST_NAME.fullmatch(sent):
        raise ValueError(f"not a host name: {form}")
    if sent != value:
        raise ValueError(f'is compared without port and in small letters: write "{sent}"')
    return sent


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


def is_in_clear(url: str) -> bool:
    """Whether what is sent to an http or https URL can be read on its way."""
    where = urlsplit(url)
    return where.scheme != "https" and not is_loopback(where.hostname or "")
