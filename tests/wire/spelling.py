"""JSON as clients may spell it: one value in many texts, and values of every kind."""

import json
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.sandbox.bodies import SESSION, VISITOR, event

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
