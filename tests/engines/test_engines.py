"""Opening the engine that the settings name: what it waits for, and what it says in one line."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from proxy.buffer.redis import keys, survey
from proxy.engines import StartRefused, on_redis, open_engine
from proxy.ledger import Unsafe
from proxy.metrics import Metrics
from proxy.settings import Settings, load, parse_buffer_url
from proxy.wire.limits import PublicKey
from tests.programs import OUTLIT_PROXY
from tests.redis_servers import HOST, Cluster, RedisServer, free_port
from tests.stack import StartStack

PASSWORD = "t0ken-that-nobody-may-see"


def settings_of(url: str, **more: str) -> Settings:
    return load(None, {}, {"buffer.url": url, **{f"buffer.{name}": value for name, value in more.items()}})


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(on_redis, "REACH_S", 0.5)


async def refusal(settings: Settings) -> str:
    with pytest.raises(StartRefused) as refused:
        await open_engine(settings, Metrics())
    text = str(refused.value)
    assert "\n" not in text
    assert PASSWORD not in text
    return text


async def test_a_file_is_opened_and_says_what_it_is(tmp_path):
    path = tmp_path / "x.db"
    engine = await open_engine(settings_of(f"sqlite:///{path}"), Metrics())
    assert engine.shown == {"engine": "SQLite", "path": str(path), "durability": "always"}
    assert engine.watch is None
    await engine.buffer.close()


async def test_a_redis_is_opened_and_says_what_it_is(redis_server, logs):
    engine = await open_engine(settings_of(redis_server.url), Metrics())
    try:
        await engine.buffer.check()
        shown = {"engine": "Redis", "url": f"redis://{redis_server.address}", "durability": "everysec"}
        version = redis_server.client.info("server")["redis_version"]
        shown |= {"server": f"Redis {version}", "primaries": "1", "append_only_file": "yes"}
        assert engine.shown == shown
        assert engine.watch is not None
    finally:
        await engine.buffer.close()


async def test_a_redis_that_nobody_can_reach_is_tried_for_a_while_and_then_refused(logs):
    text = await refusal(settings_of(f"redis://:{PASSWORD}@{HOST}:{free_port()}"))
    assert "cannot be reached" in text
    assert text.endswith("(tried for 0.5 s)")
    assert logs.getvalue().count("cannot be reached yet") == 1
    assert PASSWORD not in logs.getvalue()


async def test_a_redis_that_comes_up_a_little_later_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(on_redis, "REACH_S", 20.0)
    server = RedisServer(tmp_path / "late")
    opening = asyncio.create_task(open_engine(settings_of(server.url), Metrics()))
    await asyncio.sleep(0.2)
    assert not opening.done()
    server.start()
    try:
        async with asyncio.timeout(10):
            engine = await opening
        await engine.buffer.check()
        await engine.buffer.close()
    finally:
        server.close()


@contextmanager
def configured(folder: Path, **options: str) -> Iterator[RedisServer]:
    server = RedisServer(
        folder / "server", options={name.replace("_", "-"): of for name, of in options.items()}
    )
    with server:
        yield server


async def test_a_wrong_password_is_refused_without_being_shown(tmp_path):
    with configured(tmp_path, requirepass="the-right-one") as server:
        text = await refusal(settings_of(f"redis://:{PASSWORD}@{server.address}"))
    assert "refuses the login" in text


async def test_the_password_may_come_apart_from_the_url(tmp_path):
    with configured(tmp_path, requirepass=PASSWORD) as server:
        url = f"redis://{server.address}"
        settings = load(None, {"OUTLIT_PROXY_BUFFER_PASSWORD": PASSWORD, "OUTLIT_PROXY_BUFFER_URL": url})
        engine = await open_engine(settings, Metrics())
        assert PASSWORD not in str(engine.shown)
        await engine.buffer.close()


async def test_one_that_evicts_is_refused(tmp_path):
    with configured(tmp_path, maxmemory_policy="allkeys-lru") as server:
        assert "noeviction" in await refusal(settings_of(server.url))


async def test_one_that_holds_a_newer_layout_is_refused_at_once(tmp_path, logs):
    with configured(tmp_path) as server:
        server.command("SET", keys.LAYOUT, b"99 0123456789abcdef")
        assert "99" in await refusal(settings_of(server.url))
    assert "cannot be reached yet" not in logs.getvalue()


async def test_a_node_of_a_cluster_needs_the_scheme_of_clusters(cluster: Cluster):
    assert "redis+cluster://" in await refusal(settings_of(cluster.nodes[0].url))


async def test_a_lone_server_needs_the_scheme_of_one(redis_server: RedisServer):
    assert "redis://" in await refusal(settings_of(f"redis+cluster://{redis_server.address}"))


async def test_what_endangers_the_events_shows_in_the_metrics_while_it_lasts(
    tmp_path, start_stack: StartStack, monkeypatch
):
    monkeypatch.setattr(survey, "_LOOK_S", 0.05)
    with configured(tmp_path) as server:
        stack = await start_stack(buffer={"url": parse_buffer_url(server.url), "durability": "everysec"})

        async def becomes(reason: Unsafe, value: int) -> None:
            for _ in range(200):
                if (await stack.metrics())("buffer_unsafe", reason=reason) == value:
                    return
                await asyncio.sleep(0.05)
            raise AssertionError(f"{reason} never became {value}")

        seen = await stack.metrics()
        assert [seen("buffer_unsafe", reason=reason) for reason in Unsafe] == [0] * len(Unsafe)
        assert seen("buffer_lost_total") == seen("buffer_lost_events_total") == 0
        server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        await becomes(Unsafe.EVICTION, 1)
        server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        await becomes(Unsafe.EVICTION, 0)
        stack.stop.set()
        await stack.serving


async def test_a_loss_is_counted_once_however_many_keys_show_it(logs):
    metrics = Metrics()
    losses = on_redis._Losses(metrics)
    losses.of_all()
    for number in range(30):
        losses.of_key(PublicKey(f"pk_{number}"), 2)
    values = {
        sample.name: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if "buffer_lost" in sample.name
    }
    assert values == {
        "outlit_proxy_buffer_lost_total": 1.0,
        "outlit_proxy_buffer_lost_events_total": 60.0,
    }
    assert logs.getvalue().count("forgotten_events") == 10


# -- a store apart -------------------------------------------------------------------------------------


async def test_a_store_apart_sees_nothing_of_another_and_leaves_nothing(redis_server: RedisServer):
    settings = settings_of(redis_server.url)
    theirs = await open_engine(settings, Metrics())
    redis_server.command("SADD", keys.KNOWN, "pk_theirs")
    before = {key: redis_server.command("DUMP", key) for key in redis_server.command("KEYS", "*")}
    ours = await open_engine(settings, Metrics(), apart="demo-1")
    assert not await ours.buffer.figures(recount=True)
    assert not await ours.buffer.keys_with_work()
    assert len(redis_server.command("KEYS", "outlit:demo-1:*")) > 0
    await ours.buffer.close()
    assert {key: redis_server.command("DUMP", key) for key in redis_server.command("KEYS", "*")} == before
    await theirs.buffer.close()


# -- the program ---------------------------------------------------------------------------------------


def run_with(url: str, folder: Path) -> subprocess.Popen[str]:
    listen = ["--front-listen", "127.0.0.1:0", "--ops-listen", "127.0.0.1:0"]
    return subprocess.Popen(
        [OUTLIT_PROXY, "run", *listen],
        env={"OUTLIT_PROXY_BUFFER_URL": url},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_while_it_waits_for_redis_it_can_be_stopped(tmp_path):
    process = run_with(f"redis://:{PASSWORD}@{HOST}:{free_port()}", tmp_path)
    assert process.stdout
    line = process.stdout.readline()
    assert "cannot be reached yet" in line
    process.terminate()
    rest, _ = process.communicate(timeout=10)
    assert process.returncode == 0, rest
    assert PASSWORD not in line + rest


def test_it_says_at_the_start_what_its_buffer_is_but_not_the_password(tmp_path):
    with configured(tmp_path, requirepass=PASSWORD) as server:
        process = run_with(server.url, tmp_path)
        assert process.stdout
        lines = [process.stdout.readline() for _ in range(5)]
        process.terminate()
        rest, _ = process.communicate(timeout=30)
    said = "".join(lines) + rest
    assert process.returncode == 0, said
    assert PASSWORD not in said
    (line,) = (line for line in said.splitlines() if '"event":"buffer"' in line.replace(" ", ""))
    assert f"redis://{server.address}" in line
    assert "everysec" in line


def test_a_proxy_with_a_file_does_not_load_what_a_redis_needs() -> None:
    """A third of all that is imported, at each start."""
    asked = (
        "import sys, proxy.service; print(*(name for name in sys.modules if name.split('.')[0] == 'redis'))"
    )
    loaded = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert loaded.stdout.split() == []
