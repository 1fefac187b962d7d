"""A reload: each setting that is said to be taken over is, and what is wrong leaves all as they were.

One service for all of it: each case reloads it with one setting changed, looks, and reloads it back.
"""

import asyncio
import gzip
import hashlib
import io
import itertools
import json
import logging
import random
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
import structlog
from multidict import CIMultiDict
from pydantic import SecretStr

from proxy.metrics import Metrics
from proxy.ops.rates import value_of
from proxy.ops.reloads import Reloads
from proxy.sandbox import Fault, Happens, Incident, What
from proxy.service import Supervisor
from proxy.service import reload as reload_module
from proxy.service.reload import Reload
from proxy.service.rooms import Rooms
from proxy.settings import (
    SETTINGS,
    LogSettings,
    MetricsSettings,
    Settings,
    SettingsError,
    UnknownKeyQuota,
    load,
)
from tests.sandbox.bodies import client, event
from tests.stack import KEY, OPS_TOKEN, Reply, Stack, read_reply, running_stack, settings_of

beside_the_service = pytest.mark.asyncio(loop_scope="module")

Observe = Callable[["Reloaded"], Awaitable[None]]

PATH = f"/api/i/v1/{KEY}/events"
API_KEY = "ok_another-key-of-0123456789-0123456789"


async def until(fact: Callable[[], bool], within_s: float = 3.0) -> None:
    async with asyncio.timeout(within_s):
        while not fact():  # noqa: ASYNC110  # the service's own state, which tells nobody
            await asyncio.sleep(0.001)


@dataclass
class Reloaded:
    """A service, and what it finds where it reads its settings again."""

    stack: Stack
    folder: Path
    found: Settings | SettingsError

    def settings(self, **tables: Mapping[str, Any]) -> Settings:
        """The settings of the start, but for these; `metrics` and `log` whole."""
        whole: dict[str, Any] = {name: tables.pop(name) for name in ("metrics", "log") if name in tables}
        tables = {"upstream": {"url": self.stack.sandbox.url}, **tables}
        given = settings_of(self.folder, "", **tables)
        return given.model_copy(update={"metrics": MetricsSettings(max_key_labels=0), **whole})

    async def reload(self, found: Settings | SettingsError) -> dict[str, Any]:
        """Reload, and return what `/status` says of it."""
        self.found = found
        reloads = self.stack.service._reloads
        reloads.at_ms = None
        self.stack.service.reload()
        await until(lambda: reloads.at_ms is not None)
        token = found.ops.token if isinstance(found, Settings) else None
        shown = await self.asked("/status", token.get_secret_value() if token else OPS_TOKEN)
        config: dict[str, Any] = shown.json["config"]
        return config

    @property
    def rooms(self) -> Rooms:
        assert self.stack.service._rooms is not None
        return self.stack.service._rooms

    async def post(self, *, status: int = 200, events: int = 1, **given: Any) -> Reply:
        """Post new events of a new visitor."""
        posted = [event(uuid=str(uuid4())) for _ in range(events)]
        reply = await self.stack.post(client(*posted, visitorId=str(uuid4())), **given)
        assert reply.status == status, reply.body
        return reply

    async def asked(self, path: str, token: str = OPS_TOKEN) -> Reply:
        return await self.stack.get(path, Authorization=f"Bearer {token}")

    async def calls_a_tool(self, bearer: str, tool: str = "outlit_list_customers") -> Reply:
        """Call a tool through the gateway."""
        async with self.stack.http.post(
            f"{self.stack.ops_url}/platform/api/tools/call",
            json={"tool": tool, "input": {}},
            headers={"Authorization": f"Bearer {bearer}"},
        ) as answer:
            return Reply(answer.status, CIMultiDict(answer.headers), await answer.read())

    async def first_header(self, name: str) -> str | None:
        """A header of the next upstream request."""
        before = len(self.stack.entries)
        await self.post(headers={"X-Forwarded-For": "203.0.113.9"})
        await self.stack.until(lambda record: len(record.entries) > before)
        return CIMultiDict(self.stack.entries[-1].headers).get(name)

    async def emptied(self) -> None:
        """Have all delivered that was left, whatever it waits for."""
        for key in (await self.asked("/keys")).json["keys"]:
            async with self.stack.http.post(
                f"{self.stack.ops_url}/keys/{key['key']}/retry",
                headers={"Authorization": f"Bearer {OPS_TOKEN}"},
            ) as answer:
                assert answer.status == 200
        await self.rooms.flusher.drain()
        self.rooms.flusher.linger(lingers=True)


def lines(logs: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logs.getvalue().splitlines()]


def toml_lines(values: Mapping[str, Any]) -> str:
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())


@pytest.fixture(autouse=True)
def logging_is_as_before() -> Iterator[None]:
    """The service reloads how this process logs."""
    root, config = logging.getLogger(), structlog.get_config()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**config)
    root.handlers = handlers
    root.setLevel(level)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def reloaded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Reloaded]:
    folder = tmp_path_factory.mktemp("reloaded")
    holder: list[Reloaded] = []

    def read_again() -> Settings:
        found = holder[0].found
        if isinstance(found, SettingsError):
            raise found
        return found

    async with running_stack(folder, read_again) as stack:
        holder.append(Reloaded(stack, folder, SettingsError(())))
        await holder[0].reload(holder[0].settings())
        yield holder[0]


# -- what each setting does when it is changed -------------------------------------------------------------


async def another_path_is_taken(it: Reloaded) -> None:
    await it.post(path=f"/t/v1/{KEY}/events")
    await it.post(status=404)


async def another_key_is_refused(it: Reloaded) -> None:
    await it.post(status=403)
    await it.post(key="pk_only")
    assert it.rooms.engine.buffer._verbs.store.terms.quota is None  # type: ignore[attr-defined]


async def another_origin_is_refused(it: Reloaded) -> None:
    await it.post(status=403, headers={"Origin": "https://b.example"})
    await it.post(headers={"Origin": "https://a.example"})


async def the_peer_is_trusted(it: Reloaded) -> None:
    assert await it.first_header("X-Forwarded-For") == "203.0.113.9"


async def no_address_is_sent_on(it: Reloaded) -> None:
    assert await it.first_header("X-Forwarded-For") is None


async def a_larger_body_is_refused(it: Reloaded) -> None:
    await it.post(status=413, events=20)


async def more_events_are_refused(it: Reloaded) -> None:
    await it.post(status=413, events=2)
    await it.post()


async def more_bytes_at_once_are_refused(it: Reloaded) -> None:
    body = json.dumps(client()).encode().ljust(999_900)
    reply = await it.stack.post(gzip.compress(body), headers={"Content-Encoding": "gzip"})
    assert (reply.status, reply.json["code"]) == (503, "overloaded")


async def a_silent_connection_is_closed(it: Reloaded) -> None:
    async with it.stack.connection() as (reader, _), asyncio.timeout(3):
        assert await reader.read() == b""


async def a_body_that_does_not_come_is_not_waited_for(it: Reloaded) -> None:
    request = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n".encode()
    async with asyncio.timeout(3):
        assert (await it.stack.raw(request)).status == 408


async def a_second_connection_is_refused(it: Reloaded) -> None:
    async with it.stack.connection(), it.stack.connection() as (reader, _), asyncio.timeout(3):
        assert (await reader.readline()).startswith(b"HTTP/1.1 503")


async def an_unknown_field_is_refused(it: Reloaded) -> None:
    assert (await it.stack.post(client(event(shoe="red", uuid=str(uuid4()))))).status == 207


async def an_unknown_keys_second_queue_is_refused(it: Reloaded) -> None:
    await it.post(key="pk_unknown")
    await it.post(key="pk_unknown", status=429)


async def another_token_is_asked_for(it: Reloaded) -> None:
    assert (await it.asked("/ledger")).status == 401
    assert (await it.asked("/ledger", "another-token")).status == 200


async def another_name_is_refused(it: Reloaded) -> None:
    for name, status in [("other.example", 403), ("proxy.example:9090", 200), ("127.0.0.1", 200)]:
        assert (await it.stack.get("/livez", Host=name)).status == status


async def outlit_is_asked_with_the_new_key(it: Reloaded) -> None:
    assert (await it.calls_a_tool(OPS_TOKEN)).status == 200
    marked = hashlib.sha256(API_KEY.encode()).hexdigest()[:16]
    assert it.stack.sandbox.platform.calls.entries[-1].key == f"sha256:{marked}"


async def another_tool_is_refused(it: Reloaded) -> None:
    refused = await it.calls_a_tool(API_KEY, "outlit_query")
    assert (refused.status, refused.json["code"]) == (403, "tool_not_allowed")
    assert (await it.calls_a_tool(API_KEY)).status == 200


async def a_call_without_an_answer_is_given_up(it: Reloaded) -> None:
    platform = it.stack.sandbox.platform
    platform.incidents.add(Incident(what=Happens.HANG, requests=1), now=time.time())
    given_up = await it.calls_a_tool(API_KEY)
    assert (given_up.status, given_up.json["code"]) == (504, "upstream_timeout")
    platform.incidents.clear()


async def a_fuller_buffer_is_refused(it: Reloaded) -> None:
    def noise() -> str:
        return random.Random(str(uuid4())).randbytes(200_000).hex()

    for status in (200, 503):
        posted = [event("custom", uuid=str(uuid4()), properties={"noise": noise()}) for _ in range(2)]
        assert (await it.stack.post(client(*posted))).status == status


async def an_event_waits_for_company(it: Reloaded) -> None:
    uuid = str(uuid4())
    await it.stack.post(client(event(uuid=uuid)))
    [held] = (await it.asked(f"/events/{uuid}")).json["held"]
    assert held["due_in_s"] > 50


async def a_late_answer_is_not_waited_for(it: Reloaded) -> None:
    unanswered = it.rooms.metrics.upstream_requests["unanswered"]
    before = value_of(unanswered)
    it.stack.fault(Fault(what=What.HANG_BEFORE, requests=1))
    await it.post()
    await until(lambda: value_of(unanswered) > before)
    it.stack.sandbox.programme.clear()


async def the_rate_is_lower(it: Reloaded) -> None:
    await it.post()
    key = (await it.asked(f"/keys/{KEY}")).json
    assert key["rate_per_s"] <= 40


async def nothing_arrives_any_more(it: Reloaded) -> None:
    unreached = it.rooms.metrics.upstream_requests["unreached"]
    before = value_of(unreached)
    await it.post()
    await until(lambda: value_of(unreached) > before)


async def a_key_is_named(it: Reloaded) -> None:
    await it.post()
    await it.emptied()
    assert (await it.stack.metrics())("gate_paused", key=KEY, reason="operator") == 0


def room_has(reach: Callable[[Rooms], Any], value: Any) -> Observe:
    """For what takes hours or a process's end to be seen: the value is where it is used."""

    async def look(it: Reloaded) -> None:
        assert reach(it.rooms) == value

    return look


def terms(rooms: Rooms) -> Any:
    return rooms.engine.buffer._verbs.store.terms  # type: ignore[attr-defined]


def the_stop_goes_by(**expected: Any) -> Observe:
    async def look(it: Reloaded) -> None:
        delivery = it.stack.service._settings.delivery
        assert {name: getattr(delivery, name) for name in expected} == expected

    return look


async def logs_are_for_machines(it: Reloaded) -> None:
    assert not isinstance(structlog.get_config()["processors"][-1], structlog.dev.ConsoleRenderer)


async def less_is_logged(it: Reloaded) -> None:
    logger = structlog.get_logger()
    assert (logger.is_enabled_for(logging.WARNING), logger.is_enabled_for(logging.ERROR)) == (False, True)


@dataclass(frozen=True, slots=True)
class Case:
    """`value`: the setting's new one. `also`: what else is set, so that it shows."""

    value: Any
    observe: Observe
    also: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def tables(self, name: str) -> dict[str, Any]:
        [setting] = [one for one in SETTINGS if one.name == name]
        tables = {table: dict(values) for table, values in self.also.items()}
        tables.setdefault(setting.table, {})[setting.attribute] = self.value
        whole = {"metrics": MetricsSettings, "log": LogSettings}
        return {of: whole[of](**values) if of in whole else values for of, values in tables.items()}


LINGERING = {"delivery": {"linger_s": 60.0}}

CASES = {
    "front.path_prefixes": Case(("/t/v1",), another_path_is_taken),
    "front.public_keys": Case(("pk_only",), another_key_is_refused),
    "front.allowed_origins": Case(("https://a.example",), another_origin_is_refused),
    "front.trusted_proxies": Case((ip_network("127.0.0.1"),), the_peer_is_trusted),
    "front.client_ip": Case("drop", no_address_is_sent_on),
    "front.max_body": Case(1_000, a_larger_body_is_refused),
    "front.max_events": Case(1, more_events_are_refused),
    "front.max_pending_bytes": Case(
        1_000_000, more_bytes_at_once_are_refused, {"front": {"max_body_bytes": 1_000_000}}
    ),
    "front.header_timeout": Case(0.1, a_silent_connection_is_closed),
    "front.body_timeout": Case(0.1, a_body_that_does_not_come_is_not_waited_for),
    "front.max_connections": Case(1, a_second_connection_is_refused),
    "front.unknown": Case("refuse", an_unknown_field_is_refused),
    "front.unknown_key_quota": Case(
        UnknownKeyQuota(queues=1, keys=5), an_unknown_keys_second_queue_is_refused, LINGERING
    ),
    "ops.token": Case(SecretStr("another-token"), another_token_is_asked_for),
    "ops.allowed_hosts": Case(("proxy.example",), another_name_is_refused),
    "buffer.max_bytes": Case(1_000_000, a_fuller_buffer_is_refused, LINGERING),
    "buffer.max_bytes_per_key": Case(1_000_000, a_fuller_buffer_is_refused, LINGERING),
    "buffer.dedup_window": Case(7.0, room_has(lambda it: terms(it).dedup_window_ms, 7_000)),
    "delivery.linger": Case(60.0, an_event_waits_for_company),
    "delivery.in_flight": Case(
        3, room_has(lambda it: (it.flusher._slots._slots, it.flusher._slots._free), (3, 3))
    ),
    "delivery.limit_per_s": Case(40, the_rate_is_lower),
    "delivery.rate_share": Case(0.004, the_rate_is_lower),
    "delivery.timeout": Case(0.1, a_late_answer_is_not_waited_for),
    "delivery.lease": Case(
        99.0, room_has(lambda it: (terms(it).lease_ms, it.flusher._lease_s), (99_000, 99))
    ),
    "delivery.max_age": Case(77.0, room_has(lambda it: it.flusher._max_age_ms, 77_000)),
    "delivery.on_exit": Case("drain", the_stop_goes_by(on_exit="drain")),
    "delivery.grace": Case(3.0, the_stop_goes_by(grace_s=3.0)),
    "dead.max_bytes": Case(1_234_567, room_has(lambda it: terms(it).dead_max_bytes, 1_234_567)),
    "dead.retention": Case(88.0, room_has(lambda it: it.books._retention_ms, 88_000)),
    "upstream.url": Case("http://127.0.0.1:9", nothing_arrives_any_more),
    "gateway.api_key": Case(SecretStr(API_KEY), outlit_is_asked_with_the_new_key),
    "gateway.tools": Case(("outlit_list_customers",), another_tool_is_refused),
    "gateway.timeout": Case(0.1, a_call_without_an_answer_is_given_up),
    "metrics.max_key_labels": Case(1, a_key_is_named),
    "log.format": Case("json", logs_are_for_machines),
    "log.level": Case("error", less_is_logged),
}


def test_every_setting_that_is_said_to_reload_has_its_case() -> None:
    assert list(CASES) == [setting.name for setting in SETTINGS if setting.reloads]


@beside_the_service
@pytest.mark.parametrize("name", CASES)
async def test_a_reload_takes_a_setting_over(reloaded: Reloaded, name: str) -> None:
    case = CASES[name]
    try:
        config = await reloaded.reload(reloaded.settings(**case.tables(name)))
        assert (config["successful"], config["error"], config["needs_restart"]) == (True, None, [])
        await case.observe(reloaded)
    finally:
        await reloaded.reload(reloaded.settings())
        await reloaded.emptied()


# -- what a reload leaves as it is -------------------------------------------------------------------------

NEEDS_RESTART = {
    "front.listen": "127.0.0.1:1",
    "ops.listen": "127.0.0.1:2",
    "buffer.url": "redis://redis.example.com",
    "buffer.password": "secret-of-redis",
    "buffer.durability": "replica",
    "buffer.replicas": 2,
    "buffer.wait_timeout": "2s",
}


@beside_the_service
async def test_what_only_a_start_reads_stays_and_is_named_until_it_is_back(
    reloaded: Reloaded, logs: io.StringIO
) -> None:
    assert list(NEEDS_RESTART) == [setting.name for setting in SETTINGS if not setting.reloads]
    tables: dict[str, dict[str, Any]] = {}
    for name, value in NEEDS_RESTART.items():
        table, key = name.split(".")
        tables.setdefault(table, {})[key] = value
    file = reloaded.folder / "other.toml"
    file.write_text("".join(f"[{of}]\n{toml_lines(values)}" for of, values in tables.items()))
    other = load(file)
    wanted = reloaded.settings(front={"max_events": 1}).model_copy(update={"buffer": other.buffer})
    for table in ("front", "ops"):
        listen = getattr(other, table).listen
        wanted = wanted.model_copy(
            update={table: getattr(wanted, table).model_copy(update={"listen": listen})}
        )
    config = await reloaded.reload(wanted)
    assert (config["successful"], config["needs_restart"]) == (True, list(NEEDS_RESTART))
    await reloaded.post()
    await reloaded.post(status=413, events=2)  # what can be changed is, all the same
    [warning] = [line for line in lines(logs) if line["level"] == "warning"]
    assert list(warning["settings"]) == list(NEEDS_RESTART)
    assert "secret-of-redis" not in logs.getvalue()
    assert (await reloaded.reload(reloaded.settings()))["needs_restart"] == []


@beside_the_service
async def test_a_wrong_setting_leaves_all_as_they_were_and_says_why(
    reloaded: Reloaded, logs: io.StringIO
) -> None:
    wrong = ["front.max_events = 0: out of bounds", "delivery.linger = 5: a duration needs a unit"]
    before = await reloaded.stack.metrics()
    config = await reloaded.reload(SettingsError(wrong))
    assert (config["successful"], config["error"]) == (False, "\n".join(wrong))
    said = [line["event"] for line in lines(logs) if line["level"] == "error"]
    assert [line.partition(": ")[2] for line in said] == wrong
    after = await reloaded.stack.metrics()
    stamp = "config_last_reload_success_timestamp_seconds"
    assert (before("config_last_reload_successful"), after("config_last_reload_successful")) == (1, 0)
    assert after(stamp) == before(stamp) > 0
    await reloaded.post()
    assert (await reloaded.reload(reloaded.settings()))["error"] is None
    mended = await reloaded.stack.metrics()
    assert (mended("config_last_reload_successful"), mended(stamp) > before(stamp)) == (1, True)


async def test_sources_that_do_not_answer_are_refused_and_a_later_reload_is_served(
    logs: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload_module, "_READ_S", 0.05)
    answers, reads = threading.Event(), itertools.count()

    def read() -> Settings:
        if next(reads) == 0:
            answers.wait()
        return Settings()

    reloads = Reloads()
    reload = Reload(Settings(), read, lambda _settings: None, reloads, Metrics())
    running = asyncio.create_task(reload.run(Supervisor({}), lambda: ""))
    for successful, said in [(False, "could not be read within 0.05 s"), (True, "settings reloaded")]:
        reloads.at_ms = None
        reload.ask()
        await until(lambda: reloads.at_ms is not None)
        assert (reloads.successful, said in lines(logs)[-1]["event"]) == (successful, True)
    answers.set()
    running.cancel()


@beside_the_service
async def test_a_reload_that_changes_nothing_says_so(reloaded: Reloaded, logs: io.StringIO) -> None:
    await reloaded.reload(reloaded.settings())
    assert [(line["event"], line["changed"]) for line in lines(logs)] == [("settings reloaded", "nothing")]


@beside_the_service
async def test_secrets_and_keys_are_in_no_line_of_a_reload(reloaded: Reloaded, logs: io.StringIO) -> None:
    changed = reloaded.settings(
        front={"public_keys": ("pk_a_long_public_key",)},
        ops={"token": SecretStr("another-secret-token")},
        delivery={"linger_s": 3.0},
        gateway={"api_key": SecretStr(API_KEY), "timeout_s": 3.0},
    )
    await reloaded.reload(changed)
    [line] = lines(logs)
    assert line["changed"] == {
        "front.public_keys": "changed",
        "ops.token": "changed",
        "delivery.linger": "20ms -> 3s",
        "gateway.api_key": "changed",
        "gateway.timeout": "1m -> 3s",
    }
    await reloaded.reload(reloaded.settings())


@beside_the_service
async def test_open_connections_and_what_is_posted_meanwhile_are_not_touched(reloaded: Reloaded) -> None:
    body = json.dumps(client(event(uuid=str(uuid4())))).encode()
    request = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    async with reloaded.stack.connection() as (reader, writer):
        for half in range(6):  # a reload between the halves of a request, and between two requests
            at = half * len(request) // 2 % len(request)
            writer.write(request[at : at + len(request) // 2 + (half % 2)])
            await writer.drain()
            await reloaded.reload(reloaded.settings(delivery={"linger_s": 0.01 * (half + 1)}))
        for _ in range(3):
            assert (await read_reply(reader)).status == 200
    await reloaded.reload(reloaded.settings())
