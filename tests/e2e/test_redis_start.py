"""The program as it is started on a Redis: every kind that it takes, and what it says where it must not.

A start that is refused is one readable line and an exit code: 78 where the settings are wrong, 1 where the
Redis is. Nowhere does a password stand in what it writes.
"""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.programs import OUTLIT_PROXY, Proxy, Sandbox, http, installed_proxy, wait_for
from tests.redis_servers import Certificates, Cluster, RedisServer, Sentinels, free_port

KEY = "pk_e2e"
PASSWORD = "s3cret of nobody's/@:"
IN_URL = "s3cret%20of%20nobody's%2F%40%3A"
NOT_YET = "cannot be reached yet"
"""What it writes to its log before it tries again: a Redis that is not there may be starting."""

ROOMY = {"maxmemory": "5gb"}
"""More than the buffer may take by default: nothing to warn of."""

Settings = dict[str, str]


def event(number: int) -> dict[str, object]:
    return {"type": "pageview", "url": f"https://shop.example/{number}", "path": f"/{number}"}


def run_once(proxy: Proxy, sandbox: Sandbox) -> None:
    """Start it, post two visitors' events, and stop it when upstream has them; nothing may be amiss."""
    before = len(sandbox.taken())
    proxy.start()
    for visitor in ("0193b0a0-0000-7000-8000-000000000001", "0193b0a0-0000-7000-8000-000000000002"):
        status, body = http(
            f"{proxy.url}/api/i/v1/{KEY}/events", {"visitorId": visitor, "events": [event(1), event(2)]}
        )
        assert status == 200, body
    proxy.wait_until_empty()
    assert len(sandbox.taken()) == before + 4
    assert proxy.ledger()["difference"] == 0
    unsafe = {name: value for name, value in proxy.metrics().items() if "buffer_unsafe{" in name}
    assert len(unsafe) > 5
    assert not any(unsafe.values()), unsafe
    assert proxy.metrics()["outlit_proxy_buffer_lost_total"] == 0
    assert proxy.program.stop() == 0, proxy.program.log


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path / "certificates")


@contextmanager
def secured(folder: Path, certificates: Certificates | None = None) -> Iterator[RedisServer]:
    """A server of the test's own that wants a password."""
    with RedisServer(folder / "redis", options=ROOMY, certificates=certificates) as server:
        server.command("CONFIG", "SET", "requirepass", PASSWORD)  # the connection that says so stays in
        yield server


# -- every kind of Redis -------------------------------------------------------------------------------


@pytest.fixture(params=["redis", "unix", "valkey", "sentinels", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    """The address of one kind of deployment; it is empty."""
    match request.param:
        case "redis" | "valkey":
            server: RedisServer = request.getfixturevalue(f"{request.param}_server")
            return server.url
        case "unix":
            by_socket: RedisServer = request.getfixturevalue("redis_server")
            return by_socket.unix_url
        case "sentinels":
            sentinels: Sentinels = request.getfixturevalue("sentinels")
            return sentinels.url
        case _:
            cluster: Cluster = request.getfixturevalue("cluster")
            return cluster.url


def test_it_runs_on_every_kind_and_says_which_it_is(tmp_path: Path, sandbox: Sandbox, url: str) -> None:
    small = {"OUTLIT_PROXY_BUFFER_MAX_BYTES": "100MB", "OUTLIT_PROXY_DEAD_MAX_BYTES": "10MB"}
    with installed_proxy(tmp_path, sandbox, OUTLIT_PROXY_BUFFER_URL=url, **small) as proxy:
        run_once(proxy, sandbox)
        run_once(proxy, sandbox)  # on what the last life has left
        assert f'"url":"{url}"' in proxy.program.log
        assert '"durability":"everysec"' in proxy.program.log
        assert not list(proxy.database.parent.iterdir()), "nothing is kept in a file"


def test_it_runs_over_tls_with_an_authority_of_ones_own_and_a_password_that_nobody_sees(
    tmp_path: Path, sandbox: Sandbox, certificates: Certificates
) -> None:
    with secured(tmp_path, certificates) as server:
        in_url = server.url.replace("rediss://", f"rediss://:{IN_URL}@")
        with installed_proxy(tmp_path, sandbox, OUTLIT_PROXY_BUFFER_URL=in_url) as proxy:
            run_once(proxy, sandbox)
        password_file = tmp_path / "password"
        password_file.write_text(f"{PASSWORD}\n")
        by_file = {
            "OUTLIT_PROXY_BUFFER_URL": server.url,
            "OUTLIT_PROXY_BUFFER_PASSWORD_FILE": str(password_file),
        }
        with installed_proxy(tmp_path, sandbox, **by_file) as proxy:
            run_once(proxy, sandbox)
        written = proxy.program.log_file.read_text()
        assert f"rediss://{server.address}" in written
        assert PASSWORD not in written
        assert IN_URL not in written


def test_a_redis_that_starts_after_the_proxy_is_waited_for(tmp_path: Path, sandbox: Sandbox) -> None:
    server = RedisServer(tmp_path / "redis", options=ROOMY)
    with installed_proxy(tmp_path, sandbox, OUTLIT_PROXY_BUFFER_URL=server.url) as proxy:
        proxy.program.start()
        time.sleep(2)
        assert proxy.program.process.poll() is None, proxy.program.log
        with server:
            assert proxy.comes_up(), proxy.program.log
            assert proxy.program.stop() == 0


def test_a_start_that_waits_for_redis_stops_when_it_is_told_to(tmp_path: Path, sandbox: Sandbox) -> None:
    nobody = f"redis://127.0.0.1:{free_port()}"
    with installed_proxy(tmp_path, sandbox, OUTLIT_PROXY_BUFFER_URL=nobody) as proxy:
        proxy.program.start()
        wait_for("it to try again", lambda: NOT_YET in proxy.program.log)
        began = time.monotonic()
        assert proxy.program.stop() == 0, proxy.program.log
        assert time.monotonic() - began < 3


# -- starts that are refused ---------------------------------------------------------------------------


def start(**settings: str) -> tuple[int, list[str], bool]:
    """Run it to its end: exit code, the lines that are no log of it, and whether it tried more than once."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OUTLIT_PROXY_")}
    anywhere = {
        "OUTLIT_PROXY_FRONT_LISTEN": "127.0.0.1:0",
        "OUTLIT_PROXY_OPS_LISTEN": "127.0.0.1:0",
        "OUTLIT_PROXY_LOG_FORMAT": "json",
    }
    of_test = {f"OUTLIT_PROXY_{name}": value for name, value in settings.items()}
    ended = subprocess.run(
        [OUTLIT_PROXY, "run"],
        env=inherited | anywhere | of_test,
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    everything = ended.stdout + ended.stderr
    assert "Traceback" not in everything
    assert PASSWORD not in everything
    assert IN_URL not in everything
    lines = [line for line in everything.splitlines() if not line.startswith("{")]
    return ended.returncode, lines, NOT_YET in everything


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"BUFFER_URL": "redis://h", "BUFFER_DURABILITY": "normal"},
            (
                'OUTLIT_PROXY_BUFFER_DURABILITY: buffer.durability is "normal", which a Redis does not have:'
                ' write "everysec", "always" or "replica"'
            ),
        ),
        (
            {"BUFFER_DURABILITY": "everysec"},
            (
                'OUTLIT_PROXY_BUFFER_DURABILITY: buffer.durability is "everysec", which a file does not have:'
                ' write "always" or "normal"'
            ),
        ),
        (
            {"BUFFER_URL": f"redis://:{IN_URL}@h", "BUFFER_PASSWORD": PASSWORD},
            (
                "OUTLIT_PROXY_BUFFER_URL: buffer.url holds a password, and another was given apart from it:"
                " take it out of the URL"
            ),
        ),
        (
            {"BUFFER_PASSWORD": PASSWORD},
            (
                "OUTLIT_PROXY_BUFFER_PASSWORD: buffer.password is for a Redis, and buffer.url is a file:"
                " leave the password out, or write the Redis into buffer.url"
            ),
        ),
        (
            {"BUFFER_URL": f"redis://:{PASSWORD}@h"},
            (
                'OUTLIT_PROXY_BUFFER_URL: holds a space or control character: write "@", ":", "/", "?", "#"'
                ' and "%" in a user or password as %40, %3A, %2F, %3F, %23, %25'
            ),
        ),
        (
            {"BUFFER_URL": "rediss://h?ssl_cert_reqs=none"},
            (
                "OUTLIT_PROXY_BUFFER_URL: asks for TLS without verification, which is not to be had:"
                " name the authority with ca=/path"
            ),
        ),
    ],
)
def test_wrong_settings_are_one_line_and_78(settings: Settings, line: str) -> None:
    code, lines, _ = start(**settings)
    assert (code, lines) == (78, [f"configuration: {line}"])


def refused(settings: Settings) -> tuple[str, bool]:
    """The one line of a start that the Redis does not allow, and whether it tried more than once."""
    code, lines, tried_again = start(**settings)
    assert code == 1, lines
    [line] = lines
    assert line.startswith("outlit-proxy: ")
    return line.removeprefix("outlit-proxy: "), tried_again


def test_nobody_at_the_address_is_one_line_after_some_seconds_of_trying() -> None:
    address = f"127.0.0.1:{free_port()}"
    line, tried_again = refused({"BUFFER_URL": f"redis://{address}"})
    assert line.startswith(
        f"Redis at {address} cannot be reached (Connection refused): is it running, and is buffer.url right?"
    )
    assert tried_again


def test_a_wrong_password_and_none_are_refused_at_once(tmp_path: Path) -> None:
    with secured(tmp_path) as server:
        for given in ({"BUFFER_PASSWORD": "another"}, {}):
            line, tried_again = refused({"BUFFER_URL": server.url, **given})
            assert line == (
                f"Redis at {server.address} refuses the login: give the right user and password"
                " (buffer.url, buffer.password)"
            )
            assert not tried_again


def test_a_certificate_of_an_unknown_authority_is_refused_at_once(
    tmp_path: Path, certificates: Certificates
) -> None:
    with RedisServer(tmp_path / "redis", certificates=certificates) as server:
        line, tried_again = refused({"BUFFER_URL": f"rediss://{server.address}"})
        assert line.startswith(f"Redis at {server.address} has a certificate that does not verify (")
        assert "name its authority in buffer.url with ca=/path" in line
        assert not tried_again


def test_a_user_who_may_too_little_is_refused_at_once(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        server.command("ACL", "SETUSER", "narrow", "on", f">{PASSWORD}", "~outlit:*", "+get", "+info")
        line, tried_again = refused(
            {"BUFFER_URL": f"redis://narrow@{server.address}", "BUFFER_PASSWORD": PASSWORD}
        )
        assert re.search("does not let this user run .*: widen its ACL", line), line
        assert not tried_again


def _evicts(server: RedisServer) -> None:
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")


def _is_a_replica(server: RedisServer) -> None:
    server.command("REPLICAOF", "127.0.0.1", "1")
    server.command("CONFIG", "SET", "replica-read-only", "yes")


def _is_newer(server: RedisServer) -> None:
    server.command("SET", "outlit:{fleet}:layout", "99 0123456789abcdef")


@pytest.mark.parametrize(
    ("make_unfit", "remedy"),
    [
        (_evicts, "set its maxmemory-policy to noeviction"),
        (_is_a_replica, "name the primary in buffer.url, or the Sentinels"),
        (_is_newer, "start that version again, or use another Redis"),
    ],
)
def test_a_redis_that_cannot_keep_events_is_refused_with_the_remedy(
    tmp_path: Path, make_unfit: Callable[[RedisServer], None], remedy: str
) -> None:
    with RedisServer(tmp_path / "redis") as server:
        make_unfit(server)
        line, _ = refused({"BUFFER_URL": server.url})
        assert remedy in line


def test_a_node_of_a_cluster_is_no_redis_alone_and_a_redis_alone_no_cluster(
    cluster: Cluster, redis_server: RedisServer
) -> None:
    line, tried_again = refused({"BUFFER_URL": cluster.nodes[0].url})
    assert "write redis+cluster:// in buffer.url" in line
    assert not tried_again
    line, tried_again = refused({"BUFFER_URL": f"redis+cluster://{redis_server.address}"})
    assert "write redis://" in line
    assert not tried_again
