"""What a browser is told: enough for a credentialed beacon, and nothing to a page that may not send."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.front.cors import Cors

SITE = "https://www.example.com"

_listed = Cors([SITE, "http://localhost:3000/", "HTTPS://Shop.Example.COM:443", "http://[2001:db8::1]:8080"])
_any = Cors(["*"])


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("", True),
        (SITE, True),
        ("HTTPS://WWW.example.com", True),
        ("https://www.example.com:443", True),
        ("http://localhost:3000", True),
        ("https://shop.example.com", True),
        ("http://[2001:DB8::1]:8080", True),
        ("http://www.example.com", False),
        ("https://www.example.com:80", False),
        ("https://www.example.com:8443", False),
        ("https://example.com", False),
        ("https://www.example.com.evil.test", False),
        ("https://evil.test/https://www.example.com", False),
        ("https://www.example.com/", False),
        (" https://www.example.com", False),
        ("https://www.example.com\n", False),
        ("https://www.example.com, https://evil.test", False),
        ("https://www.example\udcff.com", False),
        ("https://www.ex\u212aample.com", False),
        ("http://localhost", False),
        ("null", False),
        ("*", False),
    ],
)
def test_only_listed_origins_may_send_and_requests_without_one(origin: str | None, *, allowed: bool) -> None:
    assert _listed.is_allowed(origin) is allowed


def test_with_a_star_everyone_may_send() -> None:
    assert all(_any.is_allowed(origin) for origin in (None, "", "null", SITE, "junk", "\udcff\n"))
    assert Cors(["*", SITE]).is_allowed("https://other.test")


def test_with_an_empty_list_no_page_may_send() -> None:
    assert Cors([]).is_allowed(None)
    assert not Cors([]).is_allowed(SITE)


@pytest.mark.parametrize(
    "entry",
    ["", "example.com", "https://", "https://example.com/path", "https://*.example.com", "null", "https://münchen.de",
     "https://a.test, https://b.test", "https://example.com:port", "https://user@example.com"],
)  # fmt: skip
def test_an_entry_that_no_browser_would_send_is_refused_with_its_remedy(entry: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(entry)) + ".* write scheme://host"):
        Cors([SITE, entry])


def test_an_answer_to_an_allowed_origin_can_be_read_by_its_page() -> None:
    assert _listed.answer_headers(SITE) == {
        "Access-Control-Allow-Origin": SITE,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Expose-Headers": "X-Request-Id, Retry-After",
        "Vary": "Origin",
    }


def test_a_preflight_names_all_that_a_credentialed_beacon_needs() -> None:
    headers = _listed.preflight_headers(SITE, "content-type")
    assert headers.pop("Vary").startswith("Origin, ")
    assert headers == {
        "Access-Control-Allow-Origin": SITE,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Methods": "POST, OPTIONS",
        "Access-Control-Allow-Headers": "Content-Type",
        "Access-Control-Max-Age": "7200",
    }


@pytest.mark.parametrize("origin", [None, "", "null", "https://evil.test", SITE + "\r\nX: y"])
def test_who_is_not_allowed_or_no_page_gets_nothing_but_vary(origin: str | None) -> None:
    assert _listed.answer_headers(origin) == {"Vary": "Origin"}
    assert _listed.preflight_headers(origin, "content-type", "true").keys() == {"Vary"}


def test_the_origin_is_repeated_byte_by_byte_as_the_browser_compares_it() -> None:
    assert _listed.answer_headers("HTTPS://www.EXAMPLE.com")["Access-Control-Allow-Origin"] == (
        "HTTPS://www.EXAMPLE.com"
    )


def test_an_opaque_origin_is_allowed_by_a_star_only() -> None:
    assert _any.answer_headers("null")["Access-Control-Allow-Origin"] == "null"
    assert _any.preflight_headers("null")["Access-Control-Allow-Origin"] == "null"


@pytest.mark.parametrize(
    ("requested", "allowed"),
    [
        (None, "Content-Type"),
        ("", "Content-Type"),
        ("content-type", "Content-Type"),
        ("content-type,traceparent", "Content-Type, traceparent"),
        ("traceparent, X-Trace , CONTENT-TYPE,x-trace", "Content-Type, traceparent, X-Trace"),
        ("a b,ok,x\r\nSet-Cookie: y,\udcff,é,,*", "Content-Type, ok, *"),
        ("x" * 65 + ",ok", "Content-Type, ok"),
        (",".join(f"h{n}" for n in range(1_000)), "Content-Type, " + ", ".join(f"h{n}" for n in range(16))),
        ("x" * 100_000, "Content-Type"),
    ],
)
def test_requested_headers_are_allowed_as_far_as_they_are_names(requested: str | None, allowed: str) -> None:
    assert _listed.preflight_headers(SITE, requested)["Access-Control-Allow-Headers"] == allowed


def test_an_internal_host_is_allowed_when_asked_for() -> None:
    name = "Access-Control-Allow-Private-Network"
    assert _listed.preflight_headers(SITE, None, "true")[name] == "true"
    assert name not in _listed.preflight_headers(SITE, None, None)
    assert name not in _listed.preflight_headers(SITE, None, "yes")


def test_headers_handed_out_are_the_callers_own() -> None:
    for hand_out in (_listed.answer_headers, _listed.preflight_headers):
        for origin in (SITE, None):
            hand_out(origin)["X-Mine"] = "1"
            assert "X-Mine" not in hand_out(origin)


_any_text = st.text(st.characters(exclude_categories=[]))


@given(
    origin=_any_text | st.builds(lambda a, b, c: f"{a}https://{b}www.example.com{c}", *[_any_text] * 3),
    requested=_any_text | st.lists(_any_text).map(",".join),
)
def test_no_request_can_write_into_the_answer(origin: str, requested: str) -> None:
    """What goes out is printable ASCII, whatever came in: no new header, no new line, no surrogate."""
    for cors in (_listed, _any):
        for headers in (cors.answer_headers(origin), cors.preflight_headers(origin, requested, requested)):
            assert all(value.isascii() and value.isprintable() for value in headers.values())
            assert headers["Vary"].split(", ")[0] == "Origin"
