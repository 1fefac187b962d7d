"""`ops.allowed_hosts`: a page that rebinds its own name to the operations listener gets nothing from it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from proxy.settings import ListenAddress, Settings
from tests.ops.listener import TOKEN, Listener, listening
from tests.stack import PATIENCE_S, running_stack, settings_of

LISTED = "ops.example.com"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Listener]:
    async with listening(tmp_path_factory.mktemp("hosts"), allowed_hosts=(LISTED, "ops_service")) as listener:
        yield listener


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:9090",
        "10.244.1.7:9090",
        "[::1]:9090",
        "[fd00::7]",
        "[::FFFF:10.0.0.7]:9090",
        "127.0.0.1.",
        "localhost",
        "LocalHost:9090",
        "localhost.",
        LISTED,
        "OPS.Example.COM.:443",
        f"{LISTED}:",
        "ops_service:9090",
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_addresses_localhost_and_what_is_listed_are_answered(shared: Listener, host: str) -> None:
    assert (await shared.asked_under(host)).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:9090",
        f"{LISTED}.evil.example",
        f"x{LISTED}",
        "sub.ops.example.com",
        "localhost.evil.example",
        "evil.localhost",
        "127.0.0.1.evil.example",
        "127.0.0.1.nip.io",
        "127.1",
        "2130706433",
        "0x7f000001",
        "127.0.0.01",
        "[evil.example]",
        "[::1].evil.example",
        "::1",
        "[fe80::1%25eth0]",
        "localhost@evil.example",
        "evil@localhost",
        ":@localhost",
        "evil.example#localhost",
        "evil.example/localhost",
        "localhost, evil.example",
        "localhost evil.example",
        "localhost:80:80",
        "localhost:http",
        "localhost..",
        ".",
        ":9090",
        "",
        "ｌocalhost",
        "localhoſt",
        "ops_service.\u212a",
        "１27.0.0.1",
        "*",
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_any_other_host_is_refused_and_counted(shared: Listener, host: str) -> None:
    before = await shared.refused()
    reply = await shared.asked_under(host)
    assert (reply.status, reply.json["code"]) == (403, "host_not_allowed")
    assert "ops.allowed_hosts" in reply.json["error"]
    assert await shared.refused() == before + 1


@pytest.mark.parametrize(
    ("line", "host", "status"),
    [
        ("GET http://evil.example/livez HTTP/1.1", "localhost", 403),
        ("GET http://evil.example:9090/livez HTTP/1.1", "127.0.0.1", 403),
        ("GET HTTP://EVIL.example/livez HTTP/1.1", "localhost", 403),
        ("GET http://localhost@evil.example/livez HTTP/1.1", "localhost", 403),
        ("GET http://evil@localhost/livez HTTP/1.1", "localhost", 403),
        ("GET http://localhost/livez HTTP/1.1", "evil.example", 403),
        ("GET http://evil.example?@localhost/livez HTTP/1.1", "localhost", 403),
        ("GET http://localhost/livez HTTP/1.1", "localhost", 200),
        (f"GET http://{LISTED}:9090/livez?http://evil.example/ HTTP/1.1", LISTED, 200),
        ("CONNECT evil.example:80 HTTP/1.1", "localhost", 403),
        ("OPTIONS * HTTP/1.1", "evil.example", 403),
        ("GET //evil.example/livez HTTP/1.1", "localhost", 404),
        ("GET /livez HTTP/1.0", "10.0.0.7", 200),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_host_in_a_target_counts_like_the_header(
    shared: Listener, line: str, host: str, status: int
) -> None:
    assert (await shared.asked_under(host, line=line)).status == status


@pytest.mark.parametrize(
    ("line", "hosts", "status"),
    [
        ("GET /livez HTTP/1.0", (), 403),
        ("GET /livez HTTP/1.1", (), 400),
        ("GET /livez HTTP/1.1", ("localhost", "evil.example"), 400),
        ("GET /livez HTTP/1.1", ("evil.example", "localhost"), 400),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_no_host_and_several_are_refused(
    shared: Listener, line: str, hosts: tuple[str, ...], status: int
) -> None:
    assert (await shared.asked_under(*hosts, line=line)).status == status


@pytest.mark.parametrize("path", ["/", "/status", "/metrics", "/readyz", "/keys", "/nothing", "/platformer"])
@pytest.mark.asyncio(loop_scope="module")
async def test_every_path_is_behind_it_whoever_asks(shared: Listener, path: str) -> None:
    reply = await shared.asked_under("evil.example", line=f"GET {path} HTTP/1.1", **TOKEN)
    assert (reply.status, set(reply.json)) == (403, {"error", "code"})


@pytest.mark.parametrize(
    "path", ["/platform/api/tools/call", "/api/tools/call", "/platform", "/api/i/v1/pk_a/events"]
)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_gateways_callers_are_told_in_its_own_shape(shared: Listener, path: str) -> None:
    for target in (path, f"http://evil.example{path}"):
        reply = await shared.asked_under("evil.example", line=f"POST {target} HTTP/1.1", **TOKEN)
        assert reply.status == 403
        assert reply.json["code"] == "host_not_allowed"
        assert reply.json["error"] == reply.json["message"]
        assert reply.json["retryable"] is False
        assert reply.headers["Proxy-Status"].startswith("outlit-proxy; error=")
        assert not [name for name in reply.headers if name.startswith("Access-Control-")]


async def test_what_is_refused_is_not_done(tmp_path: Path) -> None:
    drains: list[bool] = []
    async with listening(tmp_path, allowed_hosts=(), on_drain=drains.append) as listener:
        for host, status in (("evil.example", 403), ("localhost", 200)):
            assert not drains
            assert (await listener.asked_under(host, line="POST /drain HTTP/1.1", **TOKEN)).status == status
    assert drains == [True]


async def test_by_default_any_host_is_answered_until_a_reload_lists_some(tmp_path: Path) -> None:
    async with listening(tmp_path) as listener:
        assert (await listener.asked_under("any.example")).status == 200
        assert (await listener.asked_under(line="GET /livez HTTP/1.0")).status == 200
        listener.reload(LISTED)
        assert (await listener.asked_under("any.example")).status == 403
        assert (await listener.asked_under(LISTED)).status == 200
        listener.reload()
        assert (await listener.asked_under(LISTED)).status == 403
        assert (await listener.asked_under("127.0.0.1:1")).status == 200
        listener.reload("*")
        assert (await listener.asked_under("any.example")).status == 200


async def test_the_service_goes_by_the_setting_and_by_its_reload(tmp_path: Path) -> None:
    def listing(name: str) -> Settings:
        return settings_of(tmp_path, "http://127.0.0.1:9", ops={"allowed_hosts": (name,)})

    async with running_stack(
        tmp_path, lambda: listing("new.example"), ops={"allowed_hosts": ("old.example",)}
    ) as stack:
        assert (await stack.get("/livez", Host="old.example")).status == 200
        assert (await stack.get("/livez", Host="new.example")).status == 403
        stack.service.reload()
        async with asyncio.timeout(PATIENCE_S):
            while (await stack.get("/livez", Host="new.example")).status != 200:  # noqa: ASYNC110  # there is no event: it is asked for
                await asyncio.sleep(0.01)
        assert (await stack.get("/livez", Host="old.example")).status == 403
        assert (await stack.metrics())("ops_hosts_refused_total") >= 2


async def test_the_name_that_it_listens_on_passes_for_commands_ask_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def resolved(host: str, *rest: Any, **named: Any) -> Any:
        return resolve("127.0.0.1" if host == "Proxy.internal" else host, *rest, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    ops = {"listen": ListenAddress("Proxy.internal", 0), "allowed_hosts": ("listed.example",)}
    async with running_stack(tmp_path, ops=ops) as stack:
        assert (await stack.get("/readyz", Host="proxy.internal")).status == 200
        assert (await stack.get("/readyz", Host="listed.example")).status == 200
        assert (await stack.get("/readyz", Host="other.internal")).status == 403
