"""Senders who are nearly one another, and what must stand around their events upstream.

A *lane* here is this suite's own reading of what applies to a whole request: it shares no code with the
product, and two of them are equal only if their typed values are. Every sender of a crowd is another one
with a single thing changed, each value out of a small pool of values that look alike; so what must not meet
comes as close as it can, and often.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from random import Random
from typing import Any, TypeVar
from uuid import UUID

_T = TypeVar("_T")

KEYS = ("pk_a", "pk_A", "pk_a_", "pk_a-", "pk_aa")
TRUSTED = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
"""Addresses of the declared proxies (`TRUSTED_NETWORK`), which may write forwarding headers."""
TRUSTED_NETWORK = "127.0.0.0/29"
UNTRUSTED = ("127.0.0.21", "127.0.0.210")
"""Addresses from which a client comes without a proxy in between."""

ADDRESSES = ("198.51.100.1", "198.51.100.10", "198.51.100.11", "2001:db8::1", "2001:db8::10", "2001:db8:1::")

# Every value was taken for its neighbour by some reader, some day; `...` is none at all.
_ALIKE: tuple[tuple[Any, ...], ...] = (
    ("01", "1", 1, True, 1.0, 1, "1", "１", "1 ", "true", True, "True"),
    ("-0", "0", 0, False, 0.0, 0, -0.0, "", ..., None, "null", ""),
    (2**53, 2**53 + 1, float(2**53), str(2**53)),
    (2**70, float(2**70), str(2**70)),
    (0.3, 0.1 + 0.2, "0.3"),
    ("é", "e\u0301", "É"),
    ("K", "\u212a", "k"),
    ("ß", "ss", "ﬁ", "fi"),
    ("a", "A", "a ", " a", "a\u200b", "\u0430"),
    ("\ud83d", "\ude00", "\ude00\ud83d", "😀", "?", "\ufffd", "\\ud83d"),
    ("\0", "\\u0000", " "),
)
_ALIKE_IN_SHAPE: tuple[tuple[Any, ...], ...] = (
    ([], ..., {}, [[]], [None], [{}], {"a": {}}),
    ([1], [True], ["1"], [1.0], [1, 1], [[1]]),
    ({"a": 1}, {"a": True}, {"A": 1}, {"a": 1.0}, {"a": None}, {"a": 1, "b": 2}, {"a": 2, "b": 1}),
)
_SCALARS = tuple(value for row in _ALIKE for value in row if value is not ...)
_VALUES = (*_SCALARS, *(value for row in _ALIKE_IN_SHAPE for value in row if value is not ...))
_IDS = tuple(value for value in _SCALARS if isinstance(value, str) and value)
_MAILS = ("a@b.co", "A@b.co", "a@B.co", "a+1@b.co", "a.1@b.co")
_SESSIONS = tuple(
    f"0190a1b2-0000-7000-8000-{last}" for last in ("00000000000a", "00000000000b", "00000000000A")
)
_TRAITS = ("a", "A", "é", "e\u0301", "\ud83d", "", "customer", "__proto__")
_UNKNOWN = ("unknown", "Unknown", "visitorid", "SessionId", "session_id", "useridentity", "event", "events ")

# As sent, and as it must arrive: trimmed, and a `?` for each byte or character that cannot travel. A few of
# them become equal by that, and are then one lane.
AGENTS: tuple[tuple[bytes | None, str | None], ...] = (
    (None, None),
    (b"", ""),
    (b" \t", ""),
    (b"?", "?"),
    (b"\xff", "?"),
    (b"\xff\xfe", "??"),
    (b"\xed\xa0\xbd", "???"),
    ("a\u2028b\x85".encode(), "a?b?"),
    (b"caf\xc3", "caf?"),
    (b"caf\xe9", "caf?"),
    (b"caf?", "caf?"),
    ("café".encode(), "café"),
    ("cafe\u0301".encode(), "cafe\u0301"),
    (b"agent", "agent"),
    (b"Agent", "Agent"),
    (b"  agent\t", "agent"),
    (b"agent/1", "agent/1"),
    (b"agent/01", "agent/01"),
    (b"agent 1", "agent 1"),
    (b"agent  1", "agent  1"),
    (b"agent\t1", "agent\t1"),
    (b"a" * 2047, "a" * 2047),
    (b"a" * 2048, "a" * 2048),
    (b"a" * 2048 + b"b", "a" * 2048),
)
ORIGINS: tuple[tuple[bytes | None, str | None], ...] = (
    (None, None),
    (b"", ""),
    (b"null", "null"),
    (b"https://a.example", "https://a.example"),
    (b"https://A.example", "https://A.example"),
    (b"https://a.example/", "https://a.example/"),
    (b"https://a.example:443", "https://a.example:443"),
    (b"http://a.example", "http://a.example"),
    (b"https://b.example", "https://b.example"),
    ("https://é.example".encode(), "https://é.example"),
    (b"https://\xe9.example", "https://?.example"),
)


_PLAIN_AGENTS = [agent for agent in AGENTS if agent[0] == b"agent"]


@dataclass(frozen=True)
class Lane:
    """Everything that applies to an event, beside its public key, as it must stand upstream."""

    envelope: Mapping[str, Any]
    client_ip: str
    user_agent: str | None
    origin: str | None

    @cached_property
    def parts(self) -> dict[str, str]:
        """Each as a text in which 1, 1.0, "1", true, null, "" and nothing at all differ."""
        parts = vars(self)
        return {each.name: json.dumps(parts[each.name], sort_keys=True) for each in fields(self)}

    @property
    def visitor(self) -> str | None:
        """The visitor, of whom the case of a UUID's letters says nothing."""
        visitor = self.envelope.get("visitorId")
        return None if visitor is None else str(visitor).lower()

    def in_order_with(self, user: str) -> tuple[str, str]:
        """Whose order an event belongs to: the visitor's, or the user's of this server."""
        if self.visitor is not None:
            return "visitorId", self.visitor
        person = self.envelope.get("userIdentity", {})
        account = self.envelope.get("customerIdentity", {})
        strongest_first = (
            ("userId", person.get("userId")),
            ("email", person.get("email")),
            ("fingerprint", self.envelope.get("fingerprint") or person.get("fingerprint")),
            ("customerId", account.get("customerId")),
        )
        named = next(((kind, value) for kind, value in strongest_first if value), None)
        return named or (json.dumps(self.parts), user)


@dataclass(frozen=True)
class Sender:
    """Who posts: a lane under a public key, and the raw headers that say so."""

    key: str
    lane: Lane
    agent: bytes | None
    origin: bytes | None


def sender(key: str, envelope: Mapping[str, Any], random: Random) -> Sender:
    """One with this envelope; the plainest, or with any User-Agent and Origin."""
    agents, origins = (AGENTS, ORIGINS) if random.random() < 0.6 else (_PLAIN_AGENTS, ORIGINS[:1])
    (agent, agent_arrives), (origin, origin_arrives) = random.choice(agents), random.choice(origins)
    return Sender(key, Lane(envelope, ADDRESSES[0], agent_arrives, origin_arrives), agent, origin)


def sibling(of: Sender, random: Random) -> Sender:
    """`of` with one thing changed."""
    return random.choice(_CHANGES)(of, random)


def visitor_id(number: int) -> str:
    """Neighbours differ in the last digit alone."""
    return str(UUID(int=0x0190A1B2_C3D4_7E5F_8A6B_0C1D2E3F4A00 + number))


def _client_ip(of: Sender, random: Random) -> Sender:
    return replace(of, lane=replace(of.lane, client_ip=random.choice((*ADDRESSES, *TRUSTED, *UNTRUSTED))))


def _agent(of: Sender, random: Random) -> Sender:
    raw, arrives = random.choice(_near(AGENTS, AGENTS.index((of.agent, of.lane.user_agent)), random))
    return replace(of, agent=raw, lane=replace(of.lane, user_agent=arrives))


def _origin(of: Sender, random: Random) -> Sender:
    raw, arrives = random.choice(_near(ORIGINS, ORIGINS.index((of.origin, of.lane.origin)), random))
    return replace(of, origin=raw, lane=replace(of.lane, origin=arrives))


def _near(pool: Sequence[_T], at: int, random: Random) -> Sequence[_T]:
    """Of a pool that is sorted by likeness mostly the one at `at` and its neighbours."""
    return pool if random.random() < 0.3 else pool[max(0, at - 1) : at + 2]


def _field(of: Sender, random: Random) -> Sender:
    """Another value in a field of the envelope, or none."""
    path, pool = random.choice(_FIELDS)
    return _with(of, path, random.choice((..., *pool)))


def _twin(of: Sender, random: Random) -> Sender:
    """One value changed into one that looks like it."""
    path, value = random.choice(list(_leaves(of.lane.envelope, ())))
    if path == ("visitorId",):
        return _with(of, path, random.choice((value.lower(), value.upper())))
    places = _places(json.dumps(value))
    if not places:
        return _field(of, random)
    row, at = random.choice(places)
    is_id = any(path == field for field, _ in _ID_FIELDS)
    return _with(
        of, path, random.choice([twin for twin in _near(row, at, random) if not is_id or twin in _IDS])
    )


@cache
def _places(text: str) -> Sequence[tuple[Sequence[Any], int]]:
    """Where the value with this text stands among those that look alike."""
    return [
        (row, at)
        for row in (*_ALIKE, *_ALIKE_IN_SHAPE)
        for at, value in enumerate(row)
        if value is not ... and json.dumps(value) == text  # texts, for 1 is not true
    ]


def _leaves(value: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, held in value.items():
        if isinstance(held, dict) and (*path, name) in _OBJECTS:
            yield from _leaves(held, (*path, name))
        else:
            yield (*path, name), held


def _with(of: Sender, path: tuple[str, ...], value: Any) -> Sender:
    """`of` whose envelope holds `value` at `path`, or nothing there where `value` is `...`."""
    return replace(of, lane=replace(of.lane, envelope=_changed(of.lane.envelope, path, value)))


def _changed(held: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    name, *rest = path
    if rest:
        value = _changed(held.get(name, {}), tuple(rest), value)
    changed = {**held, name: value}
    return {name: value for name, value in changed.items() if value is not ...}


def _source(of: Sender, random: Random) -> Sender:
    sources = (..., "client", "server", "integration") if of.lane.visitor else ("server", "integration")
    return _with(of, ("source",), random.choice(sources))


_OBJECTS = (
    *(("userIdentity",), ("userIdentity", "traits")),
    *(("customerIdentity",), ("customerIdentity", "customerTraits")),
)
_ID_FIELDS = (
    (("fingerprint",), _IDS),
    (("userIdentity", "userId"), _IDS),
    (("userIdentity", "fingerprint"), _IDS),
    (("customerIdentity", "customerId"), _IDS),
)
_FIELDS: tuple[tuple[tuple[str, ...], Sequence[Any]], ...] = (
    *_ID_FIELDS,
    *[(("sessionId",), _SESSIONS)] * 2,
    (("userIdentity", "email"), _MAILS),
    (("userIdentity", "unknown"), _VALUES),
    *((path, ({},)) for path in _OBJECTS),  # there and empty, or not there
    *(((*path, name), _SCALARS) for path in _OBJECTS if len(path) == 2 for name in _TRAITS),
    *(((name,), _VALUES) for name in _UNKNOWN),
)
_CHANGES = (*[_client_ip, _source] * 2, *[_agent, _origin] * 3, *[_field] * 6, *[_twin] * 14)
