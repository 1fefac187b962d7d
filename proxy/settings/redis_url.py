"""Where a Redis is, as an operator writes it in one URL.

    redis://[user[:password]@]host[:port][/db]
    rediss://…the same, over TLS…[?ca=/path&cert=/path&key=/path]
    unix://[user[:password]@]/path/to.sock[?db=n]
    redis+sentinel://[user[:password]@]host[:port][,host[:port]…]/service[/db][?tls=true&sentinel_auth=true]
    redis+cluster://[user[:password]@]host[:port][,host[:port]…][?tls=true]

TLS is always verified: against the system's authorities, or those of the file `ca`. `tls=true` may have
`ca`, `cert` and `key` beside it. With Sentinel, TLS is for the Sentinels and the servers alike, and user and
password are for the servers; Sentinels that want a password too are given the same with `sentinel_auth=true`.

Nothing here repeats a part of the URL that might be a piece of a password which was written without
percent-encoding; as in `values`, errors are the end of a sentence whose beginning names the place.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal
from urllib.parse import unquote

from pydantic import SecretStr

Kind = Literal["standalone", "unix", "sentinel", "cluster"]

_KINDS: Mapping[str, Kind] = {
    "redis": "standalone",
    "rediss": "standalone",
    "unix": "unix",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
SCHEMES = tuple(_KINDS)
"""The schemes of the URLs that mean a Redis."""

_FORMS: Mapping[str, str] = {
    "redis": 'write "redis://redis.example:6379/0"',
    "rediss": 'write "rediss://redis.example:6379/0"',
    "unix": 'write "unix:///run/redis/redis.sock"',
    "redis+sentinel": 'write "redis+sentinel://one.example:26379,two.example:26379/mymaster"',
    "redis+cluster": 'write "redis+cluster://one.example:6379,two.example:6379"',
}
_TLS_FILES = ("ca", "cert", "key")
_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "redis": (),
    "rediss": _TLS_FILES,
    "unix": ("db",),
    "redis+sentinel": ("tls", *_TLS_FILES, "sentinel_auth"),
    "redis+cluster": ("tls", *_TLS_FILES),
}
_ENCODE = 'write "@", ":", "/", "?", "#" and "%" in a user or password as %40, %3A, %2F, %3F, %23, %25'
_HOST = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_.-]{1,253}))(?::(?P<port>[0-9]{1,5}))?"
)
_OPTION_NAME = re.compile(r"[A-Za-z_]{1,40}")
_HIGHEST_PORT = 65_535
_HIGHEST_DB = 999_999


@dataclass(frozen=True, slots=True)
class Target:
    """A Redis deployment: where it is and how it is entered. Its text is its URL without the password.

    `hosts`: names or addresses without brackets, and ports; one, where it stands alone, none of a socket
    file. `path`: of the socket file. `service`: what the Sentinels call it. `ca`, `cert`, `key`: paths of
    PEM files; without `ca` the system's authorities count.
    """

    kind: Kind
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    db: int = 0
    tls: bool = False
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    username: str | None = None
    password: SecretStr | None = None
    sentinel_auth: bool = False

    def __str__(self) -> str:
        user = f"{self.username}@" if self.username else ""
        hosts = ",".join(f"{_bracketed(host)}:{port}" for host, port in self.hosts)
        db = f"/{self.db}" if self.db else ""
        match self.kind:
            case "standalone":
                return f"{'rediss' if self.tls else 'redis'}://{user}{hosts}{db}"
            case "unix":
                return f"unix://{user}{self.path}{f'?db={self.db}' if self.db else ''}"
            case "sentinel":
                return f"redis+sentinel://{user}{hosts}/{self.service}{db}{'?tls=true' if self.tls else ''}"
            case "cluster":
                return f"redis+cluster://{user}{hosts}{'?tls=true' if self.tls else ''}"

    @property
    def in_clear_over_network(self) -> bool:
        """Whether events, and the password if there is one, cross a network that anyone on it can read."""
        return not self.tls and any(not is_loopback(host) for host, _ in self.hosts)


def parse_target(url: str, password: str | None = None) -> Target:
    """The Redis of a URL. `password`: one that was given apart from it, and so may not stand in it too.

    Raises ValueError with one line.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _KINDS:
        raise ValueError(f"not the URL of a Redis: {_FORMS['redis']}")
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError(f"holds a space or control character: {_ENCODE}")
    before_options, _, options_text = rest.partition("?")
    if "#" in rest or "@" in before_options.partition("/")[2] or "@" in options_text:
        raise ValueError(f'holds a "#", or an "@" where none can stand: {_ENCODE}')
    login, _, place = before_options.rpartition("@")
    username, _, password_in_url = login.partition(":")
    if "@" in login or ":" in password_in_url:
        raise ValueError(f"has more than one user and password: {_ENCODE}")
    if password is not None and password_in_url:
        raise ValueError("holds a password, and another was given apart from it: take it out of the URL")
    secret = password or unquote(password_in_url)
    if username and not secret:
        raise ValueError("names a user but there is no password: give both, or neither")
    options = _options(scheme, options_text)
    tls = scheme == "rediss" or _is_true(options, "tls")
    _check_tls(options, tls=tls)
    hosts, path, service, db = _place(scheme, place)
    if "db" in options:
        db = _db(options["db"])
    return Target(
        _KINDS[scheme],
        hosts,
        path,
        service,
        db,
        tls,
        ca=options.get("ca"),
        cert=options.get("cert"),
        key=options.get("key"),
        username=unquote(username) or None,
        password=SecretStr(secret) if secret else None,
        sentinel_auth=_is_true(options, "sentinel_auth"),
    )


def _place(scheme: str, place: str) -> tuple[tuple[tuple[str, int], ...], str, str, int]:
    """Hosts, path of the socket, service and database."""
    authority, slash, path = place.partition("/")
    if scheme == "unix":
        if authority or not path or path.endswith("/"):
            raise ValueError(f"names no socket file by its absolute path: {_FORMS[scheme]}")
        return (), unquote(f"/{path}"), "", 0
    port = 26_379 if scheme == "redis+sentinel" else 6_379
    hosts = tuple(_host(text, port, scheme) for text in authority.split(","))
    match scheme:
        case "redis+cluster":
            if path:
                raise ValueError(f"has a path, but a cluster has no databases: {_FORMS[scheme]}")
            return hosts, "", "", 0
        case "redis+sentinel":
            service, slash, path = path.partition("/")
            if not service:
                raise ValueError(f"does not say what the Sentinels call the service: {_FORMS[scheme]}")
        case _:
            service = ""
            if len(hosts) > 1:
                raise ValueError("names several hosts: write redis+sentinel:// or redis+cluster:// for them")
    return hosts, "", unquote(service), _db(path) if slash and path else 0


def _host(text: str, default_port: int, scheme: str) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    if match is None:
        raise ValueError(f"has no host, or one that is no name or address: {_FORMS[scheme]}")
    if match["v6"] is not None:
        try:
            ipaddress.IPv6Address(match["v6"])
        except ValueError:
            raise ValueError('has no IPv6 address in its brackets: write "redis://[::1]:6379"') from None
    port = int(match["port"] or default_port)
    if not 1 <= port <= _HIGHEST_PORT:
        raise ValueError(f"has a port that is not 1 to {_HIGHEST_PORT}: {_FORMS[scheme]}")
    return match["v6"] or match["name"], port


def _db(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text) or int(text) > _HIGHEST_DB:
        raise ValueError("has a database that is no whole number: write the number alone, or leave it out")
    return int(text)


def _options(scheme: str, text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        if name not in _OPTIONS[scheme]:
            raise ValueError(_refusal(scheme, name))
        if name in options:
            raise ValueError(f'has the option "{name}" twice: write it once')
        options[name] = unquote(value)
    return options


def _refusal(scheme: str, name: str) -> str:
    """Why an option is not taken, and what to write instead."""
    lower = name.lower()
    known = _OPTIONS[scheme]
    if "cert_req" in lower or "verif" in lower or "insecure" in lower or "check_host" in lower:
        return "asks for TLS without verification, which is not to be had: name the authority with ca=/path"
    if "pass" in lower or "user" in lower:
        return f"has a user or password among its options: write it before the host, {scheme}://user:…@"
    if scheme == "redis" and lower in {"tls", "ssl", *_TLS_FILES}:
        return "has an option of TLS, but redis:// is in clear: write rediss://"
    if lower == "db" and scheme != "redis+cluster":
        return f'has the option "db": write the database as a path, "{scheme}://…/3"'
    shown = f' "{name}"' if _OPTION_NAME.fullmatch(name) else ""
    close = get_close_matches(lower, known, 1, 0.5)
    if close:
        return f'has an unknown option{shown}: did you mean "{close[0]}"?'
    allowed = f"there are {', '.join(known)}" if known else "there are none with this scheme"
    return f"has an unknown option{shown}: {allowed}"


def _is_true(options: Mapping[str, str], name: str) -> bool:
    value = options.get(name, "false")
    if value not in {"true", "false"}:
        raise ValueError(f'has the option "{name}" with neither true nor false: write {name}=true')
    return value == "true"


def _check_tls(options: Mapping[str, str], *, tls: bool) -> None:
    for name in _TLS_FILES:
        if name not in options:
            continue
        if not tls:
            raise ValueError(f'has the option "{name}" but no TLS: write tls=true beside it')
        if not options[name]:
            raise ValueError(f'has the option "{name}" without a file: write {name}=/path/to.pem')
    if ("cert" in options) != ("key" in options):
        raise ValueError("has one of cert and key: a client's certificate needs both")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def is_loopback(host: str) -> bool:
    """Whether a host's name or address is of this machine alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
