"""Which address is the client's.

Outlit finds the visitor's company by it, and it is part of the lane; so whoever could write it freely would
pick the company that a visit is attributed to, and could make a lane of every request. A header counts only
if the peer at the other end of the socket is a declared proxy, and in it only what declared proxies wrote:

    X-Forwarded-For: 6.6.6.6, 198.51.100.7, 10.0.0.5         peer 10.0.0.9, trusted: 10.0.0.0/8
                     made up  the client    ←─ trusted ───── the walk begins here and goes left

Each proxy appends the address that it was called from. So the walk goes leftwards from the peer for as long
as the address it stands on is trusted, and ends on the first that is not; what is further left is the
client's own word. If all are trusted, the leftmost is the client. A hop that is no address ends the walk on
the last good one: better the address of one's own proxy than one that anybody may have written.

Bounds: 64 hops are looked at and no hop of more than 512 characters, whatever the headers hold.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal, TypeAlias, assert_never

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network
Policy: TypeAlias = Literal["forward", "truncate", "drop"]

_MAX_HOPS: Final = 64

# A hop of X-Forwarded-For ends at 70 or so: `[`, an IPv6 address with a zone, `]:65535`. An element of
# Forwarded may hold a host of 253 characters as well.
_MAX_ADDRESS_CHARS: Final = 100
_MAX_ELEMENT_CHARS: Final = 512

# Addresses remembered with what was found about them; each takes half a kilobyte; a miss costs some 5 µs.
_REMEMBERED: Final = 8192

# What remains of an address so that it names a site or a provider's area, not a household: the usual choice,
# as with analytics that mask addresses.
_TRUNCATED_BITS: Final = {4: 24, 6: 48}
_V4_MAPPED: Final = IPv6Network("::ffff:0:0/96")

_WHITESPACE: Final = " \t"
# An empty element of a list; RFC 9110, 5.6.1.2 has it ignored.
_BLANK: Final = ""

# RFC 7239, 4, and a little wider: the value of `for=` with an address in colons or brackets has to be quoted,
# and some do not.
_PAIR: Final = re.compile(
    r"[ \t]*(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)="
    r'(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^ \t",;=\\]+))[ \t]*(?:;|\Z)'
)
_ESCAPED: Final = re.compile(r"\\(.)")

# `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]`, `[2001:db8::1]:80`, the port also as RFC 7239 may hide it.
_WITH_PORT: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+(?:%[^\]\[%/]+)?)\]|(?P<v4>[0-9.]+))(?::(?:[0-9]{1,5}|_[0-9A-Za-z._-]+))?"
)
# RFC 7239, 6.2 and 6.3: a proxy that will not say, or says it in its own words. Squid does so too.
_HIDDEN: Final = re.compile(r"unknown|_[0-9A-Za-z._-]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """What is known about where a request came from.

    `address`: the client's, in canonical form, as far as the policy leaves it; None if it is not known or
    not to be known. `junk`: a header of a trusted peer held no address where one had to be, or too many.
    `untrusted_headers`: forwarding headers came from a peer that is not declared; they were ignored.
    `trusted_peer`: the peer is one of the declared proxies.
    """

    address: str | None
    junk: bool
    untrusted_headers: bool
    trusted_peer: bool


class _NoAddress(Enum):
    HIDDEN = auto()
    JUNK = auto()


@dataclass(frozen=True, slots=True)
class _Hop:
    """One address on the way: as the policy leaves it, whether it is trusted, and two answers made ready.

    `alone`: for a peer without headers. `with_untrusted_headers`: for a peer whose headers do not count.
    """

    address: str | None
    trusted: bool
    alone: Found
    with_untrusted_headers: Found


_UNKNOWN_PEER: Final = Found(address=None, junk=False, untrusted_headers=False, trusted_peer=False)
_UNKNOWN_PEER_WITH_HEADERS: Final = Found(
    address=None, junk=False, untrusted_headers=True, trusted_peer=False
)


class ClientIp:
    """Finds a request's client, given the proxies that are trusted.

    `policy` is applied to what is found, before anyone sees it: `forward` leaves the address, `truncate`
    leaves its network (/24 of IPv4, /48 of IPv6), `drop` leaves nothing. Trust looks at the whole address.
    """

    __slots__ = ("_hop", "_policy", "_trusted")

    def __init__(self, trusted: Sequence[Network], policy: Policy) -> None:
        self._trusted = tuple(_unmapped_network(network) for network in trusted)
        self._policy = policy
        # Peers and proxies are few and come again; a direct visitor sends several requests.
        self._hop: Callable[[str], _Hop | _NoAddress] = lru_cache(maxsize=_REMEMBERED)(self._judged)

    def find(self, peer: str | None, x_forwarded_for: Sequence[str], forwarded: Sequence[str]) -> Found:
        """The client of a request from `peer`, with every line of both headers in the order they came.

        Of two headers X-Forwarded-For is believed, as the one that nearly all load balancers write. That is
        safe only if the proxy writes it: one that writes Forwarded alone and lets the client's own
        X-Forwarded-For pass must be told to remove it, or the client picks its address.

        A peer without an address (None, or a Unix socket's path) is not known, and is never trusted: that one
        is also what the peer of a connection already reset looks like.
        """
        hop = self._hop(peer) if peer and len(peer) <= _MAX_ADDRESS_CHARS else _NoAddress.HIDDEN
        has_headers = bool(x_forwarded_for or forwarded) and _any_text(x_forwarded_for, forwarded)
        if isinstance(hop, _NoAddress):
            return _UNKNOWN_PEER_WITH_HEADERS if has_headers else _UNKNOWN_PEER
        if not has_headers:
            return hop.alone
        if not hop.trusted:
            return hop.with_untrusted_headers
        nodes = _x_forwarded_for(x_forwarded_for) if _any_text(x_forwarded_for) else _forwarded(forwarded)
        return self._walked(hop, nodes)

    def _walked(self, peer: _Hop, nodes: Iterator[str | _NoAddress]) -> Found:
        """The walk: from a trusted peer leftwards, to the first hop that is not trusted."""
        last = peer
        junk = False
        for looked_at, node in enumerate(nodes):
            if looked_at == _MAX_HOPS:
                junk = True
                break
            if node == _BLANK:
                continue
            hop = self._hop(node) if isinstance(node, str) else node
            if isinstance(hop, _NoAddress):
                junk = hop is _NoAddress.JUNK
                break
            last = hop
            if not hop.trusted:
                break
        return Found(address=last.address, junk=junk, untrusted_headers=False, trusted_peer=True)

    def _judged(self, text: str) -> _Hop | _NoAddress:
        """What stands in a hop, or at the other end of the socket; remembered, so `text` has to be short."""
        address = _address(text)
        if isinstance(address, _NoAddress):
            return address
        trusted = any(address in network for network in self._trusted)
        left = self._left_of(address)
        alone = Found(address=left, junk=False, untrusted_headers=False, trusted_peer=trusted)
        return _Hop(left, trusted, alone, replace(alone, untrusted_headers=True))

    def _left_of(self, address: Address) -> str | None:
        """What the policy leaves of an address."""
        match self._policy:
            case "forward":
                return str(address)
            case "truncate":
                gone = address.max_prefixlen - _TRUNCATED_BITS[address.version]
                return str(type(address)(int(address) >> gone << gone))
            case "drop":
                return None
            case _:
                assert_never(self._policy)


def _any_text(*headers: Sequence[str]) -> bool:
    """Whether any line holds more than blanks: an empty header is as good as none."""
    return any(line and not line.isspace() for lines in headers for line in lines)


def _x_forwarded_for(lines: Sequence[str]) -> Iterator[str | _NoAddress]:
    """The hops from right to left, as far as they are asked for."""
    for line in reversed(lines):
        end = len(line)
        while end >= 0:
            start = line.rfind(",", 0, end) + 1
            yield _short(line[start:end].strip(_WHITESPACE))
            end = start - 1


def _forwarded(lines: Sequence[str]) -> Iterator[str | _NoAddress]:
    """The `for=` of each element from right to left, as far as they are asked for; RFC 7239."""
    for line in reversed(lines):
        end = len(line)
        while end >= 0:
            start = _element_start(line, end)
            if start is None:
                yield _NoAddress.JUNK
                return
            yield _node(line[start:end].strip(_WHITESPACE))
            end = start - 1


def _element_start(line: str, end: int) -> int | None:
    """Where the element begins that ends at `end`: behind the nearest comma that is not within quotes.

    Read from the right, like the walk: a quote that a client opened and never closed must not swallow what
    the proxy wrote behind it. None if the element is longer than any honest one.
    """
    floor = max(0, end - _MAX_ELEMENT_CHARS)
    comma = line.rfind(",", floor, end)
    while comma >= 0 and (line.count('"', comma, end) - line.count('\\"', comma, end)) % 2:
        comma = line.rfind(",", floor, comma)
    if comma < 0 < floor:
        return None
    return comma + 1


def _node(element: str) -> str | _NoAddress:
    """Whom an element of Forwarded is `for`. One that does not say hides it."""
    if not element:
        return _BLANK
    node: str | None = None
    at = 0
    while at < len(element):
        pair = _PAIR.match(element, at)
        if pair is None:
            return _NoAddress.JUNK
        at = pair.end()
        if pair["name"].lower() == "for":
            if node is not None:
                return _NoAddress.JUNK
            node = pair["bare"] or _ESCAPED.sub(r"\1", pair["quoted"])
    if node is None:
        return _NoAddress.HIDDEN
    return _short(node) if node else _NoAddress.JUNK


def _short(text: str) -> str | _NoAddress:
    return text if len(text) <= _MAX_ADDRESS_CHARS else _NoAddress.JUNK


def _address(text: str) -> Address | _NoAddress:
    """The address in `text`, without port, brackets and zone, an IPv4-mapped one as IPv4."""
    if _HIDDEN.fullmatch(text):
        return _NoAddress.HIDDEN
    match = _WITH_PORT.fullmatch(text)
    try:
        address = ip_address((match["v6"] or match["v4"]) if match else text)
    except ValueError:
        return _NoAddress.JUNK
    if isinstance(address, IPv6Address):
        # A zone means something on the host that wrote it only.
        return address.ipv4_mapped or IPv6Address(int(address))
    return address


def _unmapped_network(network: Network) -> Network:
    """Addresses are compared as IPv4 where they can be, so networks have to be too."""
    if isinstance(network, IPv6Network) and network.subnet_of(_V4_MAPPED):
        v4 = int(network.network_address) - int(_V4_MAPPED.network_address)
        return IPv4Network((v4, network.prefixlen - _V4_MAPPED.prefixlen))
    return network
