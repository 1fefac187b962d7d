"""The examples for nginx and Caddy, in front of the running proxy: what a client sends arrives as its own."""

import http.client
import json
import os
import ssl
import subprocess
import sys
import time
import uuid
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.programs import Proxy, Sandbox, free_port, running_proxy, running_sandbox, wait_for
from tests.redis_servers import Certificates

FOLDER = Path(__file__).parents[2] / "deploy" / "reverse-proxy"
VISITOR_ADDRESS = "127.0.0.77"
"""All of 127.0.0.0/8 is this machine's: whoever connects from here is told apart from the reverse proxy."""
LARGEST = 10_000_000
"""The default of front.max_body."""
KEY_BYTES = 12_000_000
"""What the proxy of these tests keeps of one public key: of the largest posts one, not two."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Site:
    """A site's reverse proxy, in front of `proxy`, which delivers to `sandbox`."""

    name: str
    connect: Callable[[], http.client.HTTPConnection]
    proxy: Proxy
    sandbox: Sandbox

    def post(self, body: bytes, key: str = "pk_site", **headers: str) -> Answer:
        """As a page of the site does whose apiHost is "/c"; from an address of its own."""
        connection = self.connect()
        try:
            path = f"/c/api/i/v1/{key}/events"
            connection.request("POST", path, body, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), json.loads(answer.read()))
        finally:
            connection.close()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path_factory.mktemp("sandbox")) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, sandbox: Sandbox) -> Iterator[Proxy]:
    settings = {
        "OUTLIT_PROXY_FRONT_TRUSTED_PROXIES": _trusted_as_the_examples_say(),
        "OUTLIT_PROXY_BUFFER_MAX_BYTES_PER_KEY": str(KEY_BYTES),
        "OUTLIT_PROXY_BUFFER_DURABILITY": "normal",  # no test here is about the disk
        "OUTLIT_PROXY_DELIVERY_LINGER": "0s",
    }
    with running_proxy(tmp_path_factory.mktemp("proxy"), sandbox, **settings) as running:
        yield running


@pytest.fixture(scope="module", params=["nginx", "caddy"])
def site(
    request: pytest.FixtureRequest,
    proxy: Proxy,
    sandbox: Sandbox,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    with STARTED[request.param](tmp_path_factory.mktemp(request.param), proxy) as connect:
        yield Site(request.param, connect, proxy, sandbox)


def test_an_event_arrives_with_the_address_of_who_sent_it_whatever_it_claims(site: Site):
    claims = {"X-Forwarded-For": "6.6.6.6, 127.0.0.1", "Forwarded": "for=6.6.6.6", "X-Real-IP": "6.6.6.6"}
    key = f"pk_claims_{site.name}"
    body = _body("claims")
    answer = site.post(body, key, **claims, **{"User-Agent": "A browser", "Cookie": "of=the-site"})
    assert (answer.status, answer.body) == (200, {"success": True, "processed": 1})
    (taken,) = wait_for("the event to arrive", lambda: _taken(site, key))
    headers = dict(taken.headers)
    assert headers["x-forwarded-for"] == VISITOR_ADDRESS
    assert headers["user-agent"] == "A browser"
    assert "of=the-site" not in str(taken)
    assert site.proxy.metrics()["outlit_proxy_forwarding_headers_untrusted_total"] == 0


@pytest.mark.parametrize("name", ["nginx", "caddy"])
def test_behind_a_cdn_it_is_the_address_of_who_called_that(
    name: str, proxy: Proxy, sandbox: Sandbox, tmp_path: Path
):
    """By the lines of the README; what connects from VISITOR_ADDRESS is the CDN here."""
    block = {"nginx": "nginx", "caddy": "caddyfile"}[name]
    lines = (
        (FOLDER / "README.md").read_text(encoding="utf-8").partition(f"```{block}\n")[2].partition("```")[0]
    )
    lines = _with(lines, {"192.0.2.0/24": f"{VISITOR_ADDRESS}/32"})
    key = f"pk_cdn_{name}"
    with STARTED[name](tmp_path, proxy, lines) as connect:
        site = Site(name, connect, proxy, sandbox)
        assert site.post(_body("cdn"), key, **{"X-Forwarded-For": "6.6.6.6, 198.51.100.9"}).status == 200
        (taken,) = wait_for("the event to arrive", lambda: _taken(site, key))
    assert dict(taken.headers)["x-forwarded-for"] == "198.51.100.9"


def test_the_largest_post_passes_and_one_that_the_buffer_has_no_room_for_is_told_so_once(site: Site):
    key = f"pk_large_{site.name}"
    site.sandbox.fault("status", status=503, public_key=key)  # so that what is kept stays there
    largest = _body("large", bytes_=LARGEST)
    assert len(largest) == LARGEST
    answer = site.post(largest, key)
    assert (answer.status, answer.body["success"]) == (200, True)

    refused_before = _answered_503(site.proxy)
    refused = site.post(_body("again", bytes_=LARGEST), key)
    assert (refused.status, refused.body["code"]) == (503, "buffer_full")
    assert int(refused.headers["Retry-After"]) > 0
    assert refused.headers["X-Request-Id"]
    assert _answered_503(site.proxy) - refused_before == 1, "it was tried again"


def test_of_a_post_that_is_too_large_the_proxy_says_so_itself(site: Site):
    answer = site.post(_body("large", bytes_=LARGEST + 1))
    assert (answer.status, answer.body["code"]) == (413, "body_too_large")


def test_the_events_of_a_page_that_closes_before_the_answer_count(site: Site):
    key = f"pk_closing_{site.name}"
    connection = site.connect()
    connection.request("POST", f"/c/api/i/v1/{key}/events", _body("closing"))
    connection.close()
    assert wait_for("the event to arrive", lambda: _taken(site, key))


def test_the_rest_of_the_site_is_not_the_proxys(site: Site):
    before = site.proxy.metrics()['outlit_proxy_http_requests_total{code="404"}']
    connection = site.connect()
    try:
        connection.request("GET", "/api/i/v1/pk_site/events")
        answer = connection.getresponse()
        assert (answer.status, "X-Request-Id" in dict(answer.getheaders())) == (404, False)
    finally:
        connection.close()
    assert site.proxy.metrics()['outlit_proxy_http_requests_total{code="404"}'] == before


# -- the reverse proxies ---------------------------------------------------------------------------------


@contextmanager
def _nginx(
    folder: Path, proxy: Proxy, of_server: str = ""
) -> Iterator[Callable[[], http.client.HTTPConnection]]:
    port = free_port()
    certificates = Certificates(folder / "certificates")
    example = _with(
        (FOLDER / "nginx.conf").read_text(encoding="utf-8"),
        {
            "server 127.0.0.1:8080;": f"server {proxy.url.removeprefix('http://')};",
            "listen 443 ssl http2;": f"listen {port} ssl http2; {of_server}",
            "/etc/ssl/www.example.com.pem": str(certificates.certificate),
            "/etc/ssl/www.example.com.key": str(certificates.key),
            "/var/www/html": str(folder),
        },
    )
    temporary = "\n".join(
        f"{kind}_temp_path {folder};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = f"""
        daemon off;
        pid {folder}/nginx.pid;
        {"user root;" if os.getuid() == 0 else ""}
        error_log stderr warn;
        events {{}}
        http {{
            access_log off;
            {temporary}
            {example}
        }}
    """
    file = folder / "nginx.conf"
    file.write_text(whole)
    trusting = ssl.create_default_context(cafile=str(certificates.authority))

    def connect() -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=20, source_address=(VISITOR_ADDRESS, 0), context=trusting
        )

    with _running(["nginx", "-p", folder, "-c", file], folder, connect):
        yield connect


@contextmanager
def _caddy(
    folder: Path, proxy: Proxy, options: str = "{\n}"
) -> Iterator[Callable[[], http.client.HTTPConnection]]:
    port = free_port()
    example = _with(
        (FOLDER / "Caddyfile").read_text(encoding="utf-8"),
        {
            "\nwww.example.com {": f"\nhttp://:{port} {{",  # a certificate it would get from elsewhere
            "reverse_proxy 127.0.0.1:8080 {": f"reverse_proxy {proxy.url} {{",
            "/var/www/html": str(folder),
        },
    )
    file = folder / "Caddyfile"
    file.write_text(options.replace("{", "{\n\tadmin off\n\tpersist_config off", 1) + "\n" + example)

    def connect() -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=20, source_address=(VISITOR_ADDRESS, 0))

    caddy = Path(sys.executable).with_name("caddy")
    with _running([caddy, "run", "--adapter", "caddyfile", "--config", file], folder, connect):
        yield connect


STARTED = {"nginx": _nginx, "caddy": _caddy}


@contextmanager
def _running(
    command: list[Any], folder: Path, connect: Callable[[], http.client.HTTPConnection]
) -> Iterator[None]:
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
        try:
            wait_for("it to listen", lambda: process.poll() is not None or _listens(connect))
            assert process.poll() is None, (folder / "log").read_text()
            yield
        finally:
            process.terminate()
            process.wait(20)


def _listens(connect: Callable[[], http.client.HTTPConnection]) -> bool:
    connection = connect()
    try:
        connection.connect()
    except OSError:
        return False
    else:
        return True
    finally:
        connection.close()


def _with(text: str, replaced: dict[str, str]) -> str:
    """The example with what is different in a test; each must stand there once."""
    for old, new in replaced.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def _trusted_as_the_examples_say() -> str:
    """The setting that both files ask for."""
    mark = "front.trusted_proxies = "
    (said,) = {
        (FOLDER / name).read_text(encoding="utf-8").partition(mark)[2].partition("]")[0] + "]"
        for name in ("nginx.conf", "Caddyfile")
    }
    return said


def _body(name: str, bytes_: int = 0) -> bytes:
    """Events of one visitor, exactly `bytes_` in all; without that, one."""

    def event(padding: int) -> dict[str, Any]:
        text = b64encode(os.urandom(padding)).decode()[:padding]  # nothing compresses it
        return {
            "type": "custom",
            "eventName": name,
            "timestamp": time.time_ns() // 1_000_000,
            "url": "https://www.example.com/",
            "path": "/",
            "properties": {"padding": text},
        }

    def whole(events: list[dict[str, Any]]) -> bytes:
        content = {"source": "client", "visitorId": str(uuid.uuid4()), "events": events}
        return json.dumps(content, separators=(",", ":")).encode()

    if not bytes_:
        return whole([event(0)])
    empty, one = len(whole([])), len(whole([event(0)])) + 1
    count = 100
    per_event, rest = divmod(bytes_ - empty - count * (one - empty) + 1, count)
    return whole([event(per_event + (rest if number == 0 else 0)) for number in range(count)])


def _taken(site: Site, key: str) -> list[Any]:
    return [taken for taken in site.sandbox.taken() if taken.key == key]


def _answered_503(proxy: Proxy) -> float:
    return proxy.metrics()['outlit_proxy_http_requests_total{code="503"}']
