"""JSON as clients may spell it: one value in many texts, and values of every kind."""

import json
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.sandbox.bodies import SESSION, VISITOR, client, event

any_text = st.text(st.characters(exclude_categories=[]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
odd_values = st.recursive(
    scalars | st.floats(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)

FIELDS = [
    "type",
    "timestamp",
    "url",
    "path",
    "uuid",
    "referrer",
    "utm",
    "customerId",
    "customerTraits",
    "customerDomain",
    "title",
    "eventName",
    "properties",
    "email",
    "userId",
    "fingerprint",
    "formId",
    "formFields",
    "traits",
    "activeTimeMs",
    "totalTimeMs",
    "sessionId",
    "provider",
    "eventType",
    "startTime",
    "endTime",
    "duration",
    "isRecurring",
    "inviteeEmail",
    "inviteeName",
    "stage",
    "status",
    "stripeCustomerId",
    "domain",
    "unknownField",
]
KINDS = [
    "pageview",
    "custom",
    "form",
    "identify",
    "engagement",
    "calendar",
    "stage",
    "billing",
    "brand_new_type",
]

# Of each kind of field some values that fit and some that nearly do.
telling_values: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, False, 0, -1, 7, 1.5, 2**70, "", "a", "\0", "x\ud83d", [], ["a"], {}, {"a": "b"}),
        *({"a": 1, "b": None}, {"a": [1]}, {"a": {}}, {"customer": {"id": "c"}}, {"customer": [1]}),
        *({"source": "s"}, {"source": 1}, {"source": "s", "odd": 1}, {"__userId": "u"}, {"__email": None}),
        *({"__customerId": "c"}, {"__fingerprint": ""}, {"nested": [{"a": [None]}]}, {"password": "p"}),
        *(SESSION, VISITOR.upper(), SESSION + "\n", "00000000-0000-0000-0000-000000000000", "F" * 8),
        *("a@b.co", "o'neil@acme.example", "ann@localhost", ".a@b.co", "a@b.co\n"),
        *("https://a/?token=x", "server://auth0|123", "server:", "/path", "a:b", "https://a\n"),
        *("2026-07-01T10:00:00Z", "2026-07-01", "tomorrow", "cal.com", "calendly", "unknown", "Cal.com"),
        *(
            "activated",
            "engaged",
            "discovered",
            "trialing",
            "paid",
            "client",
            "server",
            "integration",
            "browser",
        ),
        *KINDS,
    ]
)


@st.composite
def events(draw: st.DrawFn) -> Any:
    """An event that is good but for a few fields, or something else altogether."""
    made: Any = event(draw(st.sampled_from(KINDS)), number=draw(st.integers(0, 10**6)))
    for name in draw(st.lists(st.sampled_from(FIELDS), max_size=4)):
        if draw(st.booleans()):
            made[name] = draw(telling_values | json_values)
        else:
            made.pop(name, None)
    if draw(st.integers(0, 20)) == 0:
        made = draw(telling_values)
    return made


_good_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=6)
)

GOOD: dict[str, st.SearchStrategy[Any]] = {
    "uuid": st.uuids(version=4).map(str) | st.just(...) | st.just(VISITOR.upper()),
    "timestamp": st.sampled_from([1_795_000_000_000, 1_795_000_000_000.5, 0, 1e300, 2**70, ...]),
    "url": st.sampled_from(
        [
            *("https://a.example/?utm_source=x&b=2", "server://auth0|123", "https://a.example/?b=1#token=x"),
            *("https://a.example/?%74oken=x", "https://a.example/?" + "b=1&" * 100, "https://a.example/?d"),
        ]
    ),
    "path": st.sampled_from(["", "/", "/reset?token=x", "=", "b=1"]),
    "referrer": st.sampled_from(["", "https://b.example/", "https://b.example/?session_token=x", "a?", "=&"]),
    "utm": st.sampled_from([{}, {"source": "s", "ref": ""}]),
    "customerId": st.just("c"),
    "customerTraits": st.dictionaries(st.text(max_size=6), _good_scalars, max_size=2),
    "title": st.just("t"),
    "properties": st.dictionaries(st.text(max_size=6), _good_scalars | st.just([{"a": [1.5]}]), max_size=2)
    | st.sampled_from([{"__userId": "u"}, {"__email": None, "__fingerprint": "f"}]),
    "email": st.sampled_from(["a@b.co", "o'neil@acme.example"]),
    "userId": st.sampled_from(["u", "u2", "é"]),
    "fingerprint": st.just("f"),
    "formFields": st.sampled_from(
        [{}, {"company": "Acme"}, {"password": "p", "a": "b"}, {"a": "4111 1111 1111 1111"}]
    ),
    "traits": st.sampled_from([{}, {"plan": "pro", "seats": 1.5}, {"customer": {"id": "c"}}]),
    "duration": st.sampled_from([30, 0.5]),
    "startTime": st.just("2026-07-01T10:00:00Z"),
    "stripeCustomerId": st.just("cus_1"),
}
"""Values that each field may have."""

OWN_FIELDS = {
    "pageview": {"title"},
    "custom": {"properties", "email", "userId", "fingerprint"},
    "form": {"formFields"},
    "identify": {"email", "userId", "fingerprint", "traits"},
    "engagement": set(),
    "calendar": {"duration", "startTime"},
    "stage": {"email", "userId", "fingerprint"},
    "billing": {"stripeCustomerId"},
}
SHARED_FIELDS = {"uuid", "timestamp", "url", "path", "referrer", "utm", "customerId", "customerTraits"}


@st.composite
def ordinary_events(draw: st.DrawFn) -> Any:
    """An event about which little or nothing is odd."""
    kind = draw(st.sampled_from(sorted(OWN_FIELDS)))
    names = st.sampled_from(sorted(SHARED_FIELDS | OWN_FIELDS[kind]))
    fields = {name: draw(GOOD[name]) for name in draw(st.lists(names, max_size=5))}
    return event(kind, number=draw(st.integers(0, 3)), **fields)


@st.composite
def ordinary_requests(draw: st.DrawFn) -> bytes:
    """A request about which little or nothing is odd; near half are ordinary."""
    fields = client(
        source=draw(st.sampled_from(["client", "server", "integration", ...])),
        visitorId=draw(st.sampled_from([VISITOR, VISITOR, VISITOR.upper(), ...])),
        sessionId=draw(st.sampled_from([..., SESSION])),
        userIdentity=draw(st.sampled_from([..., ..., {}, {"userId": "u", "traits": {"a": 1.5, "b": None}}])),
        customerIdentity=draw(st.sampled_from([..., ..., {"customerId": "c", "customerTraits": {}}])),
        fingerprint=draw(st.sampled_from([..., ..., "f"])),
        events=...,
    )
    posted = draw(st.lists(ordinary_events(), min_size=1, max_size=6))
    if draw(st.integers(0, 3)) == 0:
        posted.insert(draw(st.integers(0, len(posted))), draw(events()))
        fields |= draw(envelopes())
    body: dict[str, Any] = {**fields, "events": posted}
    if draw(st.integers(0, 3)) == 0:
        return spelt(body, draw(st.integers(0, 2**32).map(Random))).encode()
    return json.dumps(body).encode()


@st.composite
def envelopes(draw: st.DrawFn) -> dict[str, Any]:
    """An envelope's fields without events, good but for a few."""
    made: dict[str, Any] = {
        "source": draw(st.sampled_from(["client", "server", "integration"])),
        "visitorId": VISITOR,
    }
    for name in draw(
        st.lists(
            st.sampled_from(
                [
                    "source",
                    "visitorId",
                    "sessionId",
                    "fingerprint",
                    "userIdentity",
                    "customerIdentity",
                    "unknown",
                ]
            ),
            max_size=4,
        )
    ):
        if draw(st.integers(0, 3)) == 0:
            made.pop(name, None)
        elif name.endswith("Identity") and draw(st.integers(0, 3)):
            members = st.sampled_from(
                ["email", "userId", "fingerprint", "traits", "customerId", "customerTraits", "unknown"]
            )
            made[name] = draw(st.dictionaries(members, telling_values, max_size=3))
        else:
            made[name] = draw(telling_values | json_values)
    return made


def spelt(value: Any, random: Random) -> str:
    """`value` as JSON text, with blanks, escapes and doubled names as the dice fall."""
    match value:
        case dict():
            members = []
            for name, held in value.items():
                if random.random() < 0.15:
                    junk = random.choice(
                        ["0", "null", '"x"', "[]", "{}", '{"a":1}', "NaN", "1e999", '"\\ud83d"']
                    )
                    members.append(f"{spelt(name, random)}{_blank(random)}:{junk}")
                members.append(f"{spelt(name, random)}{_blank(random)}:{_blank(random)}{spelt(held, random)}")
            return "{" + _blank(random) + f"{_blank(random)},{_blank(random)}".join(members) + "}"
        case list():
            return (
                "[" + f",{_blank(random)}".join(spelt(held, random) for held in value) + _blank(random) + "]"
            )
        case str():
            escape = random.random() < 0.3
            return '"' + "".join(_char(char, random, escape=escape) for char in value) + '"'
        case _:
            return json.dumps(value)


def _blank(random: Random) -> str:
    return random.choice(["", "", "", " ", "\n", "\t "])


def _char(char: str, random: Random, *, escape: bool) -> str:
    if "\ud800" <= char <= "\udfff" or (escape and random.random() < 0.5):
        return json.dumps(char)[1:-1] if ord(char) > 0xFFFF or ord(char) < 0x20 else f"\\u{ord(char):04x}"
    return json.dumps(char, ensure_ascii=False)[1:-1]
