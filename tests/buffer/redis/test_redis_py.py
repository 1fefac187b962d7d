"""That nothing of redis-py's asks twice, waits long or says more than we want: its defaults change."""

import ssl
from pathlib import Path
from socket import SO_KEEPALIVE, SOL_SOCKET, SOL_TCP, TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_NODELAY
from typing import Any

import pytest
import redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import (
    AbstractConnection,
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.sentinel import Sentinel

from proxy.buffer import BufferUnavailable
from proxy.buffer.redis.link import open_link, wire
from proxy.buffer.redis.link.entrance import CONNECT_S, entrance_of, entrance_of_sentinels
from proxy.settings.redis_url import parse_target
from tests.buffer.redis.small_scripts import COUNT
from tests.redis_servers import Certificates, RedisServer, Sentinels, shared, wait_for

URLS: dict[str, tuple[str, type[AbstractConnection]]] = {
    "standalone": ("redis://user:secret@localhost:1/3", Connection),
    "tls": ("rediss://user:secret@localhost:1/3", SSLConnection),
    "unix": ("unix://user:secret@/tmp/redis.sock?db=3", UnixDomainSocketConnection),
    "sentinel": ("redis+sentinel://user:secret@localhost:1/main/3", Connection),
    "sentinel over tls": ("redis+sentinel://user:secret@localhost:1/main/3?tls=true", SSLConnection),
    "cluster": ("redis+cluster://user:secret@localhost:1", Connection),
    "cluster over tls": ("redis+cluster://user:secret@localhost:1?tls=true", SSLConnection),
}


@pytest.fixture(params=URLS)
def url(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_default_that_matters_is_ours(url: str) -> None:
    text, kind = URLS[url]
    target = parse_target(text)
    connection: Any = entrance_of(target).connection(target.path or target.hosts[0])
    assert type(connection).__name__ == kind.__name__
    assert connection.retry.get_retries() == 0
    assert connection.retry_on_error == []
    assert connection.retry_on_timeout is False
    assert connection.socket_timeout == 2.0
    assert connection.socket_connect_timeout == 2.0
    assert connection.health_check_interval == 0
    assert connection.protocol == 2
    assert connection.client_name == "outlit-proxy"
    assert connection.driver_info is None
    assert connection.encoder.decode_responses is False
    assert connection.maint_notifications_config is None
    assert (connection.username, connection.password) == ("user", "secret")
    assert connection.db == (0 if target.kind == "cluster" else 3)
    if target.kind != "unix":
        assert (connection.host, connection.port) == target.hosts[0]
        assert connection.socket_keepalive is True
        assert connection.socket_keepalive_options == {TCP_KEEPIDLE: 30, TCP_KEEPINTVL: 10, TCP_KEEPCNT: 3}
    if kind is SSLConnection:
        context = connection.ssl_context.get()
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname is True
        assert connection.check_hostname is True
        assert connection.cert_reqs is ssl.CERT_REQUIRED
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert wire.ANSWER_S == CONNECT_S == 2.0
    assert "secret" not in repr(entrance_of(target))


def test_sentinels_get_the_login_only_where_it_was_asked_for() -> None:
    plain = parse_target("redis+sentinel://user:secret@localhost:1/main/3")
    connection: Any = entrance_of_sentinels(plain).connection(plain.hosts[0])
    assert (connection.username, connection.password, connection.db) == (None, None, 0)
    same = parse_target("redis+sentinel://user:secret@localhost:1/main/3?sentinel_auth=true")
    connection = entrance_of_sentinels(same).connection(same.hosts[0])
    assert (connection.username, connection.password, connection.db) == ("user", "secret", 0)


@pytest.mark.parametrize("kind", ["redis", "valkey", "cluster", "sentinels"])
async def test_no_client_and_no_pool_of_redis_py_is_made(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs is the asking again: `Redis`, `RedisCluster` and its nodes, `Sentinel`, and pools that check."""
    url = shared(kind).url

    def refuse(*_: object, **__: object) -> None:
        pytest.fail("made by redis-py's own ways")

    for made in (redis.asyncio.Redis, RedisCluster, ClusterNode, ConnectionPool, Sentinel):
        monkeypatch.setattr(made, "__init__", refuse)
    link = await open_link(parse_target(url))
    await link.run(COUNT, (b"{a}n",), ())
    await link.close()


async def test_sockets_are_kept_alive_and_send_at_once() -> None:
    server = shared("redis")
    target = parse_target(server.url)
    connection = entrance_of(target).connection(target.hosts[0])
    await connection.connect()
    assert connection._writer is not None
    socket = connection._writer.transport.get_extra_info("socket")
    assert socket.getsockopt(SOL_SOCKET, SO_KEEPALIVE) == 1
    assert socket.getsockopt(SOL_TCP, TCP_NODELAY) == 1
    assert socket.getsockopt(SOL_TCP, TCP_KEEPIDLE) == 30
    await connection.disconnect()


@pytest.mark.parametrize("kind", ["redis", "valkey", "unix", "tls", "cluster", "sentinels"])
async def test_what_was_sent_is_never_sent_again(kind: str, tmp_path: Path) -> None:
    """The server stops before it reads; the call fails; the server reads what is there, and counts one."""
    certificates = Certificates(tmp_path / "certificates") if kind == "tls" else None
    deployment: Any
    if kind in {"redis", "unix", "tls"}:
        deployment = RedisServer(tmp_path / "server", certificates=certificates)
    elif kind == "sentinels":
        deployment = Sentinels(tmp_path, down_after_ms=60_000)
    else:
        deployment = shared(kind)
    deployment.start()
    try:
        deployment.flush()
        server = deployment.server_of(b"{a}n")
        url = {"unix": getattr(deployment, "unix_url", "")}.get(kind, deployment.url)
        link = await open_link(parse_target(url))
        assert await link.run(COUNT, (b"{a}n",), ()) == 1
        server.pause()
        try:
            with pytest.raises(BufferUnavailable, match="did not answer in time"):
                await link.run(COUNT, (b"{a}n",), (), kept=True)
        finally:
            server.resume()
        wait_for("the call that was sent", lambda: server.command("GET", "{a}n") == b"2")
        assert await link.run(COUNT, (b"{a}n",), ()) == 3
        await link.close()
        assert server.command("GET", "{a}n") == b"3"
    finally:
        if deployment not in {shared("cluster"), shared("valkey")}:
            deployment.close()
