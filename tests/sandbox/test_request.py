"""Bodies that are no envelope, routes that are none, and what must not have been passed on."""

import gzip
import json

import pytest
from yarl import URL

from proxy.sandbox.sensitive import is_sensitive_name, is_sensitive_value
from tests.sandbox.bodies import client, event


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e400}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\xbd"}',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b'{"a": ' + b"[" * 501 + b"]" * 501 + b"}",
        b"[" * 200_000,
        b'{"events": [], "events": []}',
    ],
    ids=lambda raw: ascii(raw)[:40],
)
async def test_a_body_that_is_no_plain_json_object_is_refused_whole(post, sandbox, raw):
    reply = await post(raw)
    assert (reply.status, reply.body["errors"]) == (400, [])
    entry = sandbox.record.entries[0]
    assert (entry.body_bytes, entry.events, entry.taken) == (len(raw), (), ())
    assert [violation.kind for violation in entry.violations] == ["request"]


async def test_a_doubled_name_deep_in_an_event_is_refused(post):
    doubled = '{"formFields": {"password": "x"}, "formFields": {}, '
    raw = json.dumps(client(event("form"))).replace('[{"type"', f'[{doubled}"type"').encode()
    reply = await post(raw)
    assert reply.status == 400
    assert "'formFields' stands twice" in reply.body["message"]


async def test_what_is_deep_but_allowed_is_recorded_and_written(post, start, tmp_path):
    sandbox = await start(record_file=tmp_path / "record")
    deep = json.loads("[" * 490 + "]" * 490)
    assert (await post(client(event("custom", properties={"deep": deep})), to=sandbox)).status == 200
    assert json.loads((tmp_path / "record").read_text())["events"][0]["properties"]["deep"] == deep


async def test_a_million_bytes_are_taken_and_not_one_more(post, sandbox):
    empty = len(json.dumps(client(event("custom", properties={"pad": ""}))))
    pad = "x" * (1_000_000 - empty)
    assert (await post(client(event("custom", properties={"pad": pad})))).status == 200
    reply = await post(client(event("custom", properties={"pad": pad + "x"})))
    assert reply.status == 413
    assert reply.headers["X-RateLimit-Remaining"] == "98"
    assert [entry.body_bytes for entry in sandbox.record.entries] == [1_000_000, 1_000_001]


@pytest.mark.parametrize("key", ["ok_test", "test", "pk_", "pk_a.b", "pk_" + "a" * 65, "pk_a%2Fb"])
async def test_a_key_of_another_shape_is_refused(post, sandbox, key):
    reply = await post(client(), key)
    assert reply.status == 403
    assert reply.headers["X-RateLimit-Limit"] == "100"
    assert sandbox.record.entries[0].taken == ()


async def test_only_json_uncompressed_is_read(post, sandbox):
    assert (await post(client(), headers={"Content-Type": "text/plain"})).status == 400
    assert (await post(client(), headers={"Content-Type": "application/json; charset=utf-8"})).status == 200
    raw = gzip.compress(json.dumps(client()).encode())
    reply = await post(raw, headers={"Content-Encoding": "gzip"})
    assert (reply.status, reply.body["message"]) == (400, "The body must not be compressed")
    assert sandbox.record.entries[-1].body_bytes == len(raw)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "//api/i/v1/pk_test/events"),
        ("POST", "/api/i/v1/pk_test/events/"),
        ("POST", "/api/i/v1/pk_test/events?x=1"),
        ("POST", "/api/i/v1//events"),
        ("POST", "/api/i/v1/pk_test/event"),
        ("POST", "/"),
        ("GET", "/api/i/v1/pk_test/events"),
        ("OPTIONS", "/api/i/v1/pk_test/events"),
    ],
)
async def test_every_other_route_is_unknown_and_counted(sandbox, http, method, path):
    # `encoded`: the client library is not to tidy the path up.
    async with http.request(method, URL(sandbox.url + path, encoded=True), json=client()) as response:
        assert response.status == 404
        assert (await response.json())["success"] is False
    assert sandbox.record.stats.elsewhere == 1
    assert not sandbox.record.entries


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "user[PassWord]",
        "API-Key",
        "api key",
        "a_p_i_k_e_y",
        "SSN",
        "Card Number",
        "x-cvc2",
        "bankAccount",
    ],
)
def test_a_sensitive_name_is_seen_in_any_writing(name):
    assert is_sensitive_name(name)


@pytest.mark.parametrize("name", ["email", "company", "card", "account", "number", ""])
def test_an_ordinary_name_is_left_alone(name):
    assert not is_sensitive_name(name)


@pytest.mark.parametrize(
    ("value", "sensitive"),
    [
        ("123456789", True),
        ("123-45-6789", True),
        ("4111 1111 1111 1111", True),
        ("1" * 13, True),
        ("1" * 19, True),
        ("1" * 8, False),
        ("1" * 10, False),
        ("1" * 12, False),
        ("1" * 20, False),
        ("a123456789", False),
        ("", False),
    ],
)
def test_a_value_is_sensitive_by_its_number_of_digits(value, sensitive):
    assert is_sensitive_value(value) is sensitive


LEAKS = [
    (event("form", formFields={"new-password": "x"}), ("formFields", "new-password")),
    (event("form", formFields={"field_7": "4111-1111-1111-1111"}), ("formFields", "field_7")),
    (event("brand_new_type", formFields={"pwd": "x"}), ("formFields", "pwd")),
    (event(url="https://acme.example/reset?lang=en&reset_token=abc#top"), ("url",)),
    (event(url="https://acme.example/?api%5Fkey=abc"), ("url",)),
    (event(referrer="https://acme.example/?secret=abc"), ("referrer",)),
]


@pytest.mark.parametrize(("sent", "path"), LEAKS, ids=ascii)
async def test_a_secret_is_taken_but_reported_without_its_value(post, sandbox, sent, path):
    assert (await post(client(sent))).status == 200
    (violation,) = sandbox.record.entries[0].violations
    assert (violation.kind, violation.path) == ("sensitive", ("events", 0, *path))
    assert "abc" not in violation.message
    assert sandbox.record.stats.violations == {"sensitive": 1}


@pytest.mark.parametrize(
    "url",
    [
        "https://acme.example/?token=",
        "https://acme.example/?token=[REDACTED]",
        "https://acme.example/?token=%5Bredacted%5D&q=1",
        "https://acme.example/token/abc?q=token",
        "https://acme.example/#/reset?token=in-the-fragment",
        "server://[pass",
    ],
)
async def test_an_address_without_a_secret_is_no_violation(post, sandbox, url):
    assert (await post(client(event(url=url)))).status == 200
    assert sandbox.record.entries[0].violations == ()


async def test_cookies_and_missing_uuids_are_reported(post, sandbox):
    assert (await post(client(event(), event(uuid=...)), headers={"Cookie": "session=1"})).status == 200
    found = {(violation.kind, violation.path) for violation in sandbox.record.entries[0].violations}
    assert found == {("cookie", ()), ("no_uuid", ("events", 1))}
