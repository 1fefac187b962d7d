"""Where a Redis is, in one URL: what is understood, what is refused, and that no password is repeated."""

import re

import pytest

from proxy.settings.redis_url import Target, parse_target


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "db", "shown"),
    [
        ("redis://h", "standalone", (("h", 6379),), 0, "redis://h:6379"),
        ("redis://h:1/", "standalone", (("h", 1),), 0, "redis://h:1"),
        ("redis://:pw@h:1/3", "standalone", (("h", 1),), 3, "redis://h:1/3"),
        ("redis://u:pw@10.0.0.1", "standalone", (("10.0.0.1", 6379),), 0, "redis://u@10.0.0.1:6379"),
        ("rediss://u:pw@[::1]:7", "standalone", (("::1", 7),), 0, "rediss://u@[::1]:7"),
        ("unix:///run/r.sock", "unix", (), 0, "unix:///run/r.sock"),
        ("unix://u:pw@/run/r.sock?db=2", "unix", (), 2, "unix://u@/run/r.sock?db=2"),
        (
            "redis+sentinel://u:pw@a,b:1/main/2?tls=true",
            "sentinel",
            (("a", 26379), ("b", 1)),
            2,
            "redis+sentinel://u@a:26379,b:1/main/2?tls=true",
        ),
        ("redis+sentinel://a/main", "sentinel", (("a", 26379),), 0, "redis+sentinel://a:26379/main"),
        ("redis+cluster://a:1,b", "cluster", (("a", 1), ("b", 6379)), 0, "redis+cluster://a:1,b:6379"),
        ("redis+cluster://a?tls=true", "cluster", (("a", 6379),), 0, "redis+cluster://a:6379?tls=true"),
    ],
)
def test_each_form_is_understood_and_shown_without_its_password(
    url: str, kind: str, hosts: tuple[tuple[str, int], ...], db: int, shown: str
) -> None:
    target = parse_target(url)
    assert (target.kind, target.hosts, target.db) == (kind, hosts, db)
    assert str(target) == shown
    assert target.tls == ("rediss" in url or "tls" in url)
    assert "pw" not in str(target) + repr(target)
    assert (target.password is not None) == ("pw@" in url)


def test_what_was_percent_encoded_is_decoded() -> None:
    target = parse_target("redis://us%65r:p%40%2F%3a%23%25@h")
    assert target.username == "user"
    assert target.password is not None
    assert target.password.get_secret_value() == "p@/:#%"


def test_a_password_may_be_given_apart() -> None:
    for url, user in (("redis://h", None), ("redis://u@h", "u"), ("redis+cluster://u@h", "u")):
        target = parse_target(url, "p@ss word")
        assert target.username == user
        assert target.password is not None
        assert target.password.get_secret_value() == "p@ss word"


def test_files_of_tls_are_taken() -> None:
    target = parse_target("rediss://h?ca=/a.pem&cert=/b.pem&key=/c.pem")
    assert (target.ca, target.cert, target.key) == ("/a.pem", "/b.pem", "/c.pem")
    assert parse_target("redis+cluster://h?tls=true&ca=/a.pem").ca == "/a.pem"
    assert parse_target("redis+sentinel://u:p@h/m?sentinel_auth=true").sentinel_auth


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("http://secret@h", "not the URL of a Redis"),
        ("redis:h", "not the URL of a Redis"),
        ("redis://", "has no host"),
        ("redis://:secret@", "has no host"),
        ("redis://h:0", "1 to 65535"),
        ("redis://h:99999", "1 to 65535"),
        ("redis://h o", "space"),
        ("redis://h\n", "space or control"),
        ("redis://[1.2.3]", "no IPv6 address"),
        ("redis://[fe80::zz]", "has no host"),
        ("redis://a,b", "several hosts"),
        ("redis://h/secret", "no whole number"),
        ("redis://h/-1", "no whole number"),
        ("redis://h?db=1", "as a path"),
        ("redis://h?ca=/x", "write rediss://"),
        ("redis://h?tls=true", "write rediss://"),
        ("redis://h?password=secret", "before the host"),
        ("rediss://h?ssl_cert_reqs=none", "without verification"),
        ("rediss://h?verify=false", "without verification"),
        ("rediss://h?cq=/x", 'did you mean "ca"?'),
        ("rediss://h?frob=/x", "there are ca, cert, key"),
        ("rediss://h?ca=", "without a file"),
        ("rediss://h?ca=/x&ca=/y", "twice"),
        ("rediss://h?cert=/x", "needs both"),
        ("redis://user@h", "names a user but there is no password"),
        ("redis://u:se/cret@h", "%2F"),
        ("redis://u:se?cret@h", "%2F"),
        ("redis://u:se#cret@h", "%23"),
        ("redis://u:se@cret@h", "%40"),
        ("redis://u:se:cret@h", "%3A"),
        ("unix://run/r.sock", "absolute path"),
        ("unix:///", "absolute path"),
        ("unix:///r.sock?db=x", "no whole number"),
        ("redis+sentinel://a", "service"),
        ("redis+sentinel://a/m?tls=yes", "tls=true"),
        ("redis+sentinel://a/m?tsl=true", 'did you mean "tls"?'),
        ("redis+cluster://a/1", "no databases"),
        ("redis+cluster://a,", "has no host"),
        ("redis+cluster://a?ca=/x", "tls=true"),
    ],
)
def test_what_is_refused_is_said_in_one_line_that_repeats_no_secret(url: str, part: str) -> None:
    with pytest.raises(ValueError, match=re.escape(part)) as raised:
        parse_target(url)
    message = str(raised.value)
    assert "\n" not in message
    assert "secret" not in message
    assert "cret" not in message.replace("secret", "")


def test_two_passwords_are_one_too_many() -> None:
    with pytest.raises(ValueError, match="take it out of the URL"):
        parse_target("redis://u:one@h", "two")


@pytest.mark.parametrize(
    ("url", "is_in_clear"),
    [
        ("redis://localhost", False),
        ("redis://127.0.0.2", False),
        ("redis://[::1]", False),
        ("unix:///r.sock", False),
        ("rediss://redis.example", False),
        ("redis+cluster://a?tls=true", False),
        ("redis://redis.example", True),
        ("redis://10.0.0.1", True),
        ("redis+cluster://localhost,b", True),
    ],
)
def test_what_crosses_a_network_in_clear_is_known(url: str, is_in_clear: bool) -> None:
    assert parse_target(url).in_clear_over_network is is_in_clear


def test_a_target_can_be_compared_and_kept() -> None:
    assert parse_target("redis://:pw@h") == parse_target("redis://h", "pw")
    assert isinstance(hash(parse_target("redis://:pw@h")), int)
    assert Target("unix", path="/r.sock") == parse_target("unix:///r.sock")
