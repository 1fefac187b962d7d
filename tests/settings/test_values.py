"""What operators write, what it becomes, and how it is written back."""

import re
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from proxy.settings import ListenAddress
from proxy.settings.addresses import (
    parse_buffer_url,
    parse_host,
    parse_listen,
    parse_network,
    parse_origin,
    parse_upstream_url,
)
from proxy.settings.credentials import parse_api_key, parse_password, parse_token
from proxy.settings.values import (
    parse_duration,
    parse_number,
    parse_path_prefix,
    parse_public_key,
    parse_size,
    parse_tool,
    parse_whole,
    show_duration,
    show_size,
)

TAKEN = [
    (parse_duration, "250ms", 0.25),
    (parse_duration, "1s", 1.0),
    (parse_duration, "1.5h", 5_400.0),
    (parse_duration, "10m", 600.0),
    (parse_duration, "72h", 259_200.0),
    (parse_duration, "30d", 2_592_000.0),
    (parse_duration, "0s", 0.0),
    (parse_size, "1MB", 1_000_000),
    (parse_size, "1MiB", 1_048_576),
    (parse_size, "1mb", 1_000_000),
    (parse_size, "1.5GB", 1_500_000_000),
    (parse_size, "1500", 1_500),
    (parse_size, "12B", 12),
    (parse_size, 4_096, 4_096),
    (parse_listen, "127.0.0.1:8080", ListenAddress("127.0.0.1", 8080)),
    (parse_listen, "[::1]:8080", ListenAddress("::1", 8080)),
    (parse_listen, ":8080", ListenAddress("", 8080)),
    (parse_listen, "localhost:0", ListenAddress("localhost", 0)),
    (parse_network, "10.0.0.0/8", ip_network("10.0.0.0/8")),
    (parse_network, "fd00::/8", ip_network("fd00::/8")),
    (parse_network, "192.0.2.7", ip_network("192.0.2.7/32")),
    (parse_network, "192.0.2.7/32", ip_network("192.0.2.7/32")),
    (parse_public_key, "pk_a", "pk_a"),
    (parse_public_key, "pk_" + "aZ0_-" * 12 + "1234", "pk_" + "aZ0_-" * 12 + "1234"),
    (parse_path_prefix, "/api/i/v1", "/api/i/v1"),
    (parse_path_prefix, "/c", "/c"),
    (parse_origin, "*", "*"),
    (parse_origin, "https://www.example.com", "https://www.example.com"),
    (parse_origin, "http://localhost:3000", "http://localhost:3000"),
    (parse_origin, "http://[::1]:3000", "http://[::1]:3000"),
    (parse_origin, "capacitor://localhost", "capacitor://localhost"),
    (parse_host, "*", "*"),
    (parse_host, "proxy.example.com", "proxy.example.com"),
    (parse_host, "outlit-proxy-ops", "outlit-proxy-ops"),
    (parse_host, "xn--bcher-kva.example", "xn--bcher-kva.example"),
    (parse_host, "localhost", "localhost"),
    (parse_host, "10.0.0.7", "10.0.0.7"),
    (parse_host, "[::1]", "[::1]"),
    (parse_upstream_url, "https://app.outlit.ai", "https://app.outlit.ai"),
    (parse_upstream_url, "https://app.outlit.ai/", "https://app.outlit.ai"),
    (parse_upstream_url, "http://127.0.0.1:9300/base/", "http://127.0.0.1:9300/base"),
    (parse_upstream_url, "http://[::1]:9300", "http://[::1]:9300"),
    (parse_password, "x", SecretStr("x")),
    (parse_password, "ok_ with a space and ü", SecretStr("ok_ with a space and ü")),
    (parse_api_key, "ok_" + "aZ0_-" * 8, SecretStr("ok_" + "aZ0_-" * 8)),
    (parse_tool, "*", "*"),
    (parse_tool, "outlit_list_customers", "outlit_list_customers"),
    (parse_tool, "v2:sql.query-1", "v2:sql.query-1"),
    (parse_whole, "12", 12),
    (parse_number, "0.5", 0.5),
    (parse_number, 1, 1.0),
]


@pytest.mark.parametrize(("parse", "text", "value"), TAKEN)
def test_is_taken(parse, text, value):
    assert parse(text) == value


REFUSED = [
    (parse_duration, "5", 'needs a unit: write "5s"'),
    (parse_duration, "1h30m", "not a duration"),
    (parse_duration, "-1s", "not a duration"),
    (parse_duration, "1 s", "not a duration"),
    (parse_duration, "", "not a duration"),
    (parse_duration, "٣s", "not a duration"),
    (parse_size, "10 megs", "not a size"),
    (parse_size, "1M", "not a size"),
    (parse_size, "1.5", "not a whole number of bytes"),
    (parse_size, "1.0001KB", "not a whole number of bytes"),
    (parse_size, 1.0, "not a size"),
    (parse_size, True, "not a size"),
    (parse_listen, "8080", 'write "127.0.0.1:8080"'),
    (parse_listen, "::1:8080", r'"\[::1\]:8080"'),
    (parse_listen, "[::g]:8080", "not an IP address"),
    (parse_listen, "127.0.0.256:8080", "not an IP address"),
    (parse_listen, "127.0.0.1:65536", "no such port"),
    (parse_listen, "http://x:80", "not an address"),
    (parse_listen, "a b:80", "not a host name"),
    (parse_listen, 8080, "not an address"),
    (parse_network, "10.0.0.5/8", 'write "10.0.0.0/8", or "10.0.0.5"'),
    (parse_network, "10.0.0.0/33", "not a range"),
    (parse_network, "load-balancer", "not a range"),
    (parse_network, 10, "not a range"),
    (parse_public_key, "sk_a", "not a public key"),
    (parse_public_key, "pk_", "not a public key"),
    (parse_public_key, "pk_" + "a" * 65, "not a public key"),
    (parse_public_key, "pk_a\n", "not a public key"),
    (parse_path_prefix, "", "not a path prefix"),
    (parse_path_prefix, "/", "not a path prefix"),
    (parse_path_prefix, "t", "not a path prefix"),
    (parse_path_prefix, "/t/", "not a path prefix"),
    (parse_path_prefix, "/a/../b", "not a path prefix"),
    (parse_path_prefix, "/{key}", "not a path prefix"),
    (parse_origin, "www.example.com", "not an origin"),
    (parse_origin, "https://www.example.com/", "not an origin"),
    (parse_origin, "https://*.example.com:99999", "not an origin"),
    (parse_origin, "https://WWW.example.com", 'write "https://www.example.com"'),
    (parse_origin, "https://www.example.com:443", 'write "https://www.example.com"'),
    (parse_origin, "https://bücher.example", "in ASCII"),
    (parse_host, "", "not a host name"),
    (parse_host, "*.example.com", "not a host name"),
    (parse_host, "proxy.example.com.", "not a host name"),
    (parse_host, "https://proxy.example.com", "not a host name"),
    (parse_host, "a b", "not a host name"),
    (parse_host, "::1", "not a host name"),
    (parse_host, "[::g]", "not a host name"),
    (parse_host, "[1::2::3]", "not an IP address"),
    (parse_host, 7, "not a host name"),
    (parse_host, "Proxy.Example.com", 'write "proxy.example.com"'),
    (parse_host, "proxy.example.com:9090", 'write "proxy.example.com"'),
    (parse_host, "bücher.example", "in ASCII"),
    (parse_upstream_url, "app.outlit.ai", "not an http or https URL"),
    (parse_upstream_url, "ftp://app.outlit.ai", "not an http or https URL"),
    (parse_upstream_url, "https://", "no proper host"),
    (parse_upstream_url, "https://a b", "not a URL"),
    (parse_upstream_url, "https://x:port", "not a URL"),
    (parse_upstream_url, "https://[::1", "not a URL"),
    (parse_upstream_url, "https://x?", "query or fragment"),
    (parse_upstream_url, "https://x#", "query or fragment"),
    (parse_upstream_url, "https://user:pass@x", "user or password"),
    (parse_buffer_url, "redis://", "has no host"),
    (parse_buffer_url, "redis://h?ssl=true", "write rediss://"),
    (parse_buffer_url, "redis+sentinel://h", "what the Sentinels call the service"),
    (parse_buffer_url, "redis+cluster://h/1", "has no databases"),
    (parse_buffer_url, "postgres://h", "for a Redis redis://, rediss://, unix://"),
    (parse_buffer_url, "data/x.db", "not the URL of a buffer"),
    (parse_buffer_url, "sqlite://data/x.db", "not the URL of a buffer"),
    (parse_buffer_url, "sqlite:///", "not the URL of a buffer"),
    (parse_buffer_url, "sqlite:///x.db?mode=ro", "not the URL of a buffer"),
    (parse_buffer_url, "sqlite:///data/", "names no file"),
    (parse_buffer_url, "sqlite:///:memory:", "must be kept"),
    (parse_password, "", "1 to 512 characters"),
    (parse_password, "a" * 513, "1 to 512 characters"),
    (parse_password, "a\nb", "no control characters"),
    (parse_password, 12, "not a text"),
    (parse_token, "ok_" + "a" * 20, 'must not begin with "ok_"'),
    (parse_token, "short", "8 to 512 characters"),
    (parse_token, "a" * 513, "8 to 512 characters"),
    (parse_token, "with a space", "visible ASCII"),
    (parse_token, 12_345_678, "not a text"),
    (parse_api_key, "a-token-of-ours", "ops.token is for a token of your own"),
    (parse_api_key, "pk_a_public_key", "front.public_keys for public keys"),
    (parse_api_key, "OK_" + "a" * 32, 'must begin with "ok_"'),
    (parse_api_key, "ok_abcd", "8 to 512 characters"),
    (parse_api_key, "ok_" + "a" * 510, "8 to 512 characters"),
    (parse_api_key, "ok_with a space", "visible ASCII"),
    (parse_api_key, 12_345_678, "not a text"),
    (parse_tool, "", "not the name of a tool"),
    (parse_tool, "a" * 65, "not the name of a tool"),
    (parse_tool, "outlit list", "not the name of a tool"),
    (parse_tool, "outlit_*", "not the name of a tool"),
    (parse_tool, "ok_" + "a" * 32, "not the name of a tool"),
    (parse_tool, None, "not the name of a tool"),
    (parse_whole, True, "not a whole number"),
    (parse_whole, 1.0, "not a whole number"),
    (parse_whole, "1e3", "not a whole number"),
    (parse_number, True, "not a number"),
    (parse_number, float("nan"), "not a number"),
    (parse_number, "inf", "not a number"),
]


@pytest.mark.parametrize(("parse", "text", "problem"), REFUSED)
def test_is_refused_with_a_remedy(parse, text, problem):
    with pytest.raises(ValueError, match=problem) as refusal:
        parse(text)
    assert re.search(r"write|make|must", str(refusal.value))


URLS = [
    ("sqlite:///data/x.db", "sqlite:///data/x.db", False),
    ("sqlite:////data/x.db", "sqlite:////data/x.db", False),
    ("sqlite:////data/a:b@c.db", "sqlite:////data/a:b@c.db", False),
    ("redis://h", "redis://h", True),
    ("redis://h:1/2", "redis://h:1/2", True),
    ("redis://u@h", "redis://u@h", True),
    ("redis://u:p@h/2", "redis://u:***@h/2", True),
    ("redis://:p%40%2Fq@h", "redis://:***@h", True),
    ("rediss://u:p@h:1?ca=/ca.pem", "rediss://u:***@h:1?ca=/ca.pem", True),
    ("unix://:p@/run/redis.sock?db=1", "unix://:***@/run/redis.sock?db=1", True),
    ("redis+sentinel://u:p@a,b:1/main/2?tls=true", "redis+sentinel://u:***@a,b:1/main/2?tls=true", True),
    ("redis+cluster://u:p@a,[::1]:1", "redis+cluster://u:***@a,[::1]:1", True),
]


@pytest.mark.parametrize(("written", "shown", "is_redis"), URLS)
def test_a_buffers_url_is_shown_as_it_was_written_but_for_its_password(written, shown, is_redis):
    url = parse_buffer_url(written)
    assert str(url) == shown
    assert url.written.get_secret_value() == written
    assert url.is_redis == is_redis
    assert parse_buffer_url(url) == url
    if shown != written:
        assert written not in repr(url)
        assert str(parse_buffer_url(shown)) == shown, "it can be read again, though it lets nobody in"


@given(st.integers(0, 10**14))
def test_a_size_that_is_shown_is_the_size_that_was_given(size):
    assert parse_size(show_size(size)) == size


@given(st.integers(0, 10**9))
def test_a_duration_that_is_shown_is_the_duration_that_was_given(milliseconds):
    assert parse_duration(show_duration(milliseconds / 1_000)) == milliseconds / 1_000


@pytest.mark.parametrize(
    ("address", "text"),
    [
        (ListenAddress("::1", 80), "[::1]:80"),
        (ListenAddress("", 80), ":80"),
        (ListenAddress("a", 80), "a:80"),
    ],
)
def test_a_listen_address_is_shown_as_it_is_written(address, text):
    assert str(address) == text
    assert parse_listen(text) == address
