"""One meaning, many requests: a sender's post as bytes on a connection.

The body's names come in any order, doubled, escaped, beside fields that upstream would refuse; the client's
address comes by true proxies, behind the client's own lies, in either header and any notation.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from random import Random
from typing import Any

from tests.attribution.lookalikes import ADDRESSES, TRUSTED, UNTRUSTED, Sender
from tests.wire.spelling import spelt

_LIES = (*ADDRESSES, *TRUSTED, "unknown", "_hidden", "evil", "999.1.1.1", "198.51.100.1:x", '"', "")
_NOBODY = ("unknown", "_hidden", "evil")
# What is taken out of an envelope because upstream would refuse it, where nothing else stands in its place.
_FLAWS: Mapping[str, Sequence[Any]] = {
    "visitorId": ("",),
    "sessionId": ("", "1", 1, None, "0190a1b2-0000-7000-8000-00000000000"),
    "fingerprint": ("", 1, None),
    "userIdentity": (None, "1", [], {"email": "ann@localhost"}, {"userId": ""}, {"userId": 1}),
    "customerIdentity": (0, "", {"customerId": None}, {"customerTraits": 1}),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request to the front, and the address that it is made from."""

    peer: str
    raw: bytes


def request(of: Sender, events: str, random: Random, *, plainly: bool) -> Request:
    """A request of this sender with `events`, the text of an array; `plainly`: as most clients write it."""
    peer, hops = _way(of.lane.client_ip, random)
    headers = [[b"Host: proxy"], [b"Content-Type: application/json"], _hop_lines(hops, random)]
    for name, value in ((b"User-Agent", of.agent), (b"Origin", of.origin)):
        if value is not None:
            headers.append([random.choice((name, name.lower(), name.upper())) + b": " + value])
    body = _body(of.lane.envelope, events, random, plainly=plainly)
    headers.append([b"Content-Length: %d" % len(body)])
    random.shuffle(headers)
    key = of.key.replace("_", random.choice(("_", "_", "%5F")))
    target = f"{random.choice(('', '', '/', '/c'))}/api/i/v1/{key}/events"
    lines = [f"POST {target} HTTP/1.1".encode(), *(line for lines in headers for line in lines)]
    return Request(peer, b"\r\n".join([*lines, b"", body]))


def _body(envelope: Mapping[str, Any], events: str, random: Random, *, plainly: bool) -> bytes:
    flaws = {
        name: random.choice(values)
        for name, values in _FLAWS.items()
        if name not in envelope and not plainly and random.random() < 0.1
    }
    fields = [{name: value} for name, value in (*envelope.items(), *flaws.items())]
    members = [(json.dumps(field) if plainly else spelt(field, random))[1:-1] for field in fields]
    members.append(f'"events": {events}')
    random.shuffle(members)
    return ("{" + ",".join(members) + "}").encode()


def _way(client_ip: str, random: Random) -> tuple[str, list[str]]:
    """The peer that a request of this client comes from, and what stands in its forwarding header."""
    lies = random.choices(_LIES, k=random.choice((0, 0, 1, 2)))
    if client_ip in UNTRUSTED:  # without a proxy in between: whatever it writes, it is believed in nothing
        return client_ip, lies
    proxies = random.choices(TRUSTED, k=random.choice((0, 0, 1, 2)))
    if client_ip not in TRUSTED:
        return random.choice(TRUSTED), [*lies, _spelt_address(client_ip, random), *proxies]
    # A proxy is the client where nobody is known before it. It would be believed: what stands there is no
    # address.
    *hops, peer = client_ip, *proxies
    return peer, [*random.choices(_NOBODY, k=random.choice((0, 0, 1))), *hops]


def _hop_lines(hops: Sequence[str], random: Random) -> list[bytes]:
    """The hops in one header line or several, of either header."""
    if not hops:
        return []
    name, written = b"X-Forwarded-For", [hop.encode() for hop in hops]
    if random.random() < 0.3:
        name, written = b"Forwarded", [_forwarded(hop, random) for hop in hops]
    cut = random.randrange(len(hops))
    lines = (written[:cut], written[cut:])
    return [name + b": " + random.choice((b", ", b",")).join(line) for line in lines if line]


def _forwarded(hop: str, random: Random) -> bytes:
    """An element of RFC 7239. What has a colon is to be quoted, and some do not care."""
    if hop == '"':
        return b'for="evil'
    value = f'"{hop}"' if ":" in hop or random.random() < 0.3 else hop
    return random.choice(("for={}", "For={}", "proto=https;for={}", "for={};by=_us")).format(value).encode()


def _spelt_address(address: str, random: Random) -> str:
    parsed = ip_address(address)
    spellings: Iterable[str]
    if parsed.version == 4:
        spellings = (address, address, f"{address}:4711", f"::ffff:{address}", f"[::ffff:{address}]:1")
    else:
        long = parsed.exploded.upper()
        spellings = (address, long, f"[{address}]", f"[{long}]:443", f"{address}%1")
    return random.choice(tuple(spellings))
