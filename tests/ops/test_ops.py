"""The operations listener: probes, metrics, the books, and who may see them."""

import asyncio
import gzip
import io
import itertools
import json
import platform
import time
from base64 import b64encode
from pathlib import Path
from random import Random

import pytest
from yarl import URL

from proxy import __version__
from proxy.buffer import BufferUnavailable
from proxy.buffer.sqlite import SqliteBuffer
from proxy.ledger import Answered, Dead, Dropped, PlatformOutcome, PlatformRoute, Rejected, Underfull
from proxy.sandbox import Fault, What
from proxy.wire.answers import Code
from tests.ops.operator import die, fresh
from tests.sandbox.bodies import OTHER_VISITOR, client, event
from tests.stack import (
    OPS_TOKEN,
    PATIENCE_S,
    Reply,
    Samples,
    Stack,
    StartStack,
    read_reply,
    running_stack,
)

# Names that operators script against, of the parts that exist (interface.md, Metrics).
NAMES = [
    "events_received_total",
    "events_accepted_total",
    "events_duplicate_total",
    "events_rejected_total",
    "events_delivered_total",
    "events_dead_total",
    "events_dropped_total",
    "dead_replayed_total",
    "ledger_events",
    "ledger_difference",
    "oldest_held_timestamp_seconds",
    "time_to_drain_seconds",
    "buffer_bytes",
    "queues",
    "upstream_requests_total",
    "upstream_request_seconds",
    "batch_events",
    "batch_underfull_total",
    "deliveries_ambiguous_total",
    "rate_limit_remaining",
    "gate_rate_requests_per_second",
    "gate_paused",
    "http_requests_total",
    "http_request_seconds",
    "append_seconds",
    "config_last_reload_successful",
    "config_last_reload_success_timestamp_seconds",
    "last_accepted_timestamp_seconds",
    "last_delivered_timestamp_seconds",
    "gate_requests_total",
    "gate_limit_requests_per_second",
    "held_events",
    "buffer_up",
    "buffer_used_ratio",
    "buffer_info",
    "build_info",
    "gateway_requests_total",
    "gateway_tool_calls_total",
    "gateway_upstream_requests_total",
    "gateway_request_seconds",
    "gateway_in_flight",
    "gateway_in_flight_limit",
    "gateway_plan_refusals",
    "ops_hosts_refused_total",
]

# Every label value that is known beforehand.
LABELS: dict[tuple[str, str], list[str]] = {
    ("events_rejected_total", "reason"): list(Rejected),
    ("events_dead_total", "reason"): list(Dead),
    ("events_dropped_total", "reason"): list(Dropped),
    ("upstream_requests_total", "verdict"): list(Answered),
    ("batch_underfull_total", "reason"): list(Underfull),
    ("requests_refused_total", "code"): list(Code),
    ("http_requests_total", "code"): [
        "200",
        "204",
        "207",
        "400",
        "403",
        "404",
        "405",
        "408",
        "413",
        "415",
        "429",
        "500",
        "503",
    ],
    ("ledger_events", "outcome"): ["accepted", "held", "delivered", "dead", "dropped"],
    (
        "envelope_repaired_total",
        "field",
    ): ["source", "sessionId", "fingerprint", "userIdentity", "customerIdentity", "other"],
}


# -- metrics -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version="),
        ("text/plain", "text/plain; version="),
        ("*/*", "text/plain; version="),
        (
            "application/openmetrics-text; version=1.0.0, text/plain;q=0.5",
            "application/openmetrics-text; version=",
        ),
    ],
)
async def test_metrics_come_in_the_format_that_is_asked_for(
    stack: Stack, accept: str, content_type: str
) -> None:
    reply = await stack.get("/metrics", Accept=accept)
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith(content_type)
    assert reply.body.decode().endswith("# EOF\n") is content_type.startswith("application/openmetrics")


@pytest.mark.parametrize(
    "accept",
    [
        "text/plain;version=abc",
        "text/plain; version=",
        "text/plain;version=1.x",
        "text/plain;version",
        "text/plain;version=0.0.4;escaping=nonsense",
        "application/openmetrics-text;version=abc",
        "application/openmetrics-text;version=1.0.0.\udcff",
        "application/openmetrics-text;version=1..0",
        ",;=,;;,",
        "é",
    ],
)
async def test_whatever_is_asked_for_there_are_metrics(stack: Stack, accept: str) -> None:
    """Asked by a bare connection: a client that may send any byte."""
    url = URL(stack.ops_url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    given = f"GET /metrics HTTP/1.1\r\nHost: a\r\nAccept: {accept}\r\nConnection: close\r\n\r\n"
    writer.write(given.encode(errors="surrogateescape"))
    reply = await read_reply(reader)
    writer.close()
    assert (reply.status, reply.headers["Content-Type"][:10]) == (200, "text/plain")
    assert b"outlit_proxy_events_accepted_total" in reply.body


@pytest.mark.parametrize("accepted", ["gzip;q=abc", "GZIP", ",;gzip;=", "gzip, gzip", "*", "é", ";"])
async def test_whatever_compression_is_asked_for_there_are_metrics(stack: Stack, accepted: str) -> None:
    reply = await stack.get("/metrics", **{"Accept-Encoding": accepted})
    assert reply.status == 200
    assert b"outlit_proxy_events_accepted_total" in reply.body


async def test_every_metric_has_our_prefix_a_help_and_a_unit_of_its_own(stack: Stack) -> None:
    await stack.post(client())
    await stack.arrived(1)
    families = (await stack.metrics()).families
    assert families
    for family in families:
        assert family.name.startswith(("outlit_proxy_", "process_"))
        assert family.documentation.endswith(".")
        assert not family.name.endswith(("_ms", "_milliseconds", "_kb")), "base units"


async def test_the_names_that_operators_script_against_exist(stack: Stack) -> None:
    await stack.post(client())
    await stack.arrived(1)
    names = {sample.name for family in (await stack.metrics()).families for sample in family.samples}
    for name in NAMES:
        assert {f"outlit_proxy_{name}", f"outlit_proxy_{name}_bucket"} & names, name


@pytest.mark.parametrize(("name", "label"), LABELS)
async def test_every_known_label_value_is_there_from_the_start_at_0(
    stack: Stack, name: str, label: str
) -> None:
    seen = await stack.metrics()
    values = {
        sample.labels[label]
        for family in seen.families
        for sample in family.samples
        if sample.name == f"outlit_proxy_{name}"
    }
    assert values == {str(value) for value in LABELS[name, label]}
    assert seen.sum(name) == 0


async def test_what_may_become_of_a_call_to_the_gateway_is_there_from_the_start_at_0(
    start_stack: StartStack,
) -> None:
    seen = await (await start_stack(gateway={"tools": ("outlit_search",)})).metrics()
    for outcome in PlatformOutcome:
        for route in PlatformRoute:
            assert seen("gateway_requests_total", route=route, outcome=outcome) == 0
        for tool in ("outlit_search", "other"):
            assert seen("gateway_tool_calls_total", tool=tool, outcome=outcome) == 0


async def test_counters_without_labels_are_there_from_the_start(stack: Stack) -> None:
    seen = await stack.metrics()
    for name in NAMES:
        if name.endswith("_total"):
            assert seen.sum(name) == 0


async def test_what_happened_is_counted_once(stack: Stack) -> None:
    stack.fault(Fault(what=What.REFUSE_INDICES, indices=(1,), requests=1))
    await stack.post(client(event(number=1), event(number=2), event(path=7), event(number=3)))
    await stack.arrived(2)
    await stack.post(client(event(number=1)))
    await until_settled(stack)
    seen = await stack.metrics()
    assert seen("events_received_total") == 5
    assert seen("events_accepted_total") == 3
    assert seen("events_duplicate_total") == 1
    assert seen("events_rejected_total", reason="invalid") == 1
    assert seen("events_delivered_total") == 2
    assert seen("events_dead_total", reason="refused") == 1
    assert seen("upstream_requests_total", verdict="partly_delivered") == 1
    assert seen("batch_events_count") == 1
    assert seen("batch_events_sum") == 3
    assert seen("batch_underfull_total", reason="linger") == 1
    assert seen("http_requests_total", code="207") == 1
    assert seen("http_requests_total", code="200") == 1
    assert seen("http_request_seconds_count") == 2
    assert seen("append_seconds_count") == 2
    assert {
        name: seen("ledger_events", outcome=name)
        for name in ("accepted", "held", "delivered", "dead", "dropped")
    } == {
        "accepted": 3,
        "held": 0,
        "delivered": 2,
        "dead": 1,
        "dropped": 0,
    }
    assert seen("rate_limit_remaining", key="pk_test") > 0
    assert seen("gate_rate_requests_per_second", key="pk_test") > 0
    assert seen("build_info", version=__version__, python=platform.python_version()) == 1


async def until_settled(stack: Stack) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await stack.ledger())["held"]:
            pass


async def test_what_is_held_is_seen_coming(stack: Stack) -> None:
    stack.fault(Fault(what=What.STATUS, status=503))
    await stack.post(client(event(number=1)))
    await stack.post(client(event(number=2), visitorId=OTHER_VISITOR))
    seen = await stack.metrics()
    assert seen("queues") == 2
    assert seen("ledger_events", outcome="held") == 2
    assert seen("buffer_bytes") > 500
    assert seen("oldest_held_timestamp_seconds") > 1_700_000_000
    assert seen("time_to_drain_seconds") > 0
    assert seen("gate_rate_requests_per_second", key="other") > 0, (
        "a key that Outlit never confirmed is not named"
    )


async def test_keys_are_named_only_once_outlit_confirmed_them(stack: Stack) -> None:
    await stack.post(client(), "pk_confirmed")
    await stack.arrived(1)
    await until_settled(stack)
    stack.fault(Fault(what=What.STATUS, status=503))
    await stack.post(client(), "pk_made_up")
    text = (await stack.get("/metrics")).body.decode()
    assert 'key="pk_confirmed"' in text
    assert "pk_made_up" not in text


async def test_nothing_that_a_client_sent_becomes_a_label(stack: Stack) -> None:
    marker = "marker-of-the-client"
    body = client(
        event("custom", eventName=marker, url=f"https://{marker}", **{marker: 1}),
        sessionId=marker,
        **{marker: 2},
    )
    await stack.post(
        body, headers={"User-Agent": marker, "Origin": f"https://{marker}", "X-Request-Id": marker}
    )
    await stack.post(client(event(marker)), path=f"/{marker}", method="PUT")
    await stack.arrived(1)
    assert marker not in (await stack.get("/metrics")).body.decode()


# -- probes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
async def test_a_process_that_runs_is_live_ready_and_started(stack: Stack, path: str) -> None:
    reply = await stack.get(path)
    assert (reply.status, reply.body) == (200, b"ok\n")


async def test_ready_says_why_when_asked(stack: Stack) -> None:
    assert (await stack.get("/readyz?verbose")).body.decode().splitlines() == [
        "started: ok",
        "running: ok",
        "buffer: ok",
        "ok",
    ]


async def test_upstream_being_down_makes_nothing_unready(stack: Stack) -> None:
    await stack.sandbox.stop()
    assert (await stack.post(client())).status == 200
    assert (await stack.get("/readyz")).status == 200


async def test_not_ready_while_the_buffer_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    async def away(_buffer: SqliteBuffer) -> None:
        raise BufferUnavailable("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteBuffer, "check", away)
        reply = await stack.get("/readyz")
        assert reply.status == 503
        assert b"buffer: the disk is gone\n" in reply.body
        assert (await stack.get("/livez")).status == 200
    assert (await stack.get("/readyz")).status == 200


async def test_not_ready_while_the_buffer_hangs(monkeypatch: pytest.MonkeyPatch, stack: Stack) -> None:
    async def hanging(_buffer: SqliteBuffer) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("proxy.ops.health._CHECK_S", 0.05)
    with monkeypatch.context() as patched:
        patched.setattr(SqliteBuffer, "check", hanging)
        assert (await stack.get("/readyz")).status == 503


async def test_not_ready_when_the_buffer_is_full(start_stack: StartStack) -> None:
    """Ready means that an append would succeed now."""
    stack = await start_stack(buffer={"max_bytes": 1_000_000})
    stack.fault(Fault(what=What.STATUS, status=503))
    numbers = itertools.count(1_700_000_000_000)
    noise = Random(1)  # what compresses well would take no room
    for size in (500_000, 150_000, 40_000, *[1_000] * 500, *[1] * 10):
        filling = event("custom", uuid=..., properties={"a": b64encode(noise.randbytes(size)).decode()})
        last = await stack.post(client({**filling, "timestamp": next(numbers)}))
    assert last.status == 503
    assert (await stack.get("/readyz")).status == 503


async def test_not_ready_while_stopping_and_the_operations_port_closes_last(tmp_path: Path) -> None:
    """A request in the midst of its body is let come and answered; meanwhile the probes say what goes on."""
    async with running_stack(tmp_path) as stack:
        body = json.dumps(client()).encode()
        async with stack.connection() as (reader, writer):
            head = f"POST /api/i/v1/pk_test/events HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body[:-1])
            async with asyncio.timeout(PATIENCE_S):
                while not (await stack.metrics())("pending_body_bytes"):
                    pass
            stack.stop.set()
            async with asyncio.timeout(PATIENCE_S):
                while (await stack.get("/readyz")).status == 200:
                    pass
            reply = await stack.get("/readyz")
            assert reply.status == 503
            assert b"running: stopping\n" in reply.body
            assert (await stack.get("/livez")).status == 200
            writer.write(body[-1:])
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        await asyncio.wait_for(asyncio.shield(stack.serving), PATIENCE_S)


# -- the books ---------------------------------------------------------------------------------------------


async def test_the_ledger_tells_each_key_and_the_total(stack: Stack) -> None:
    await stack.post(client(event(number=1), event(number=2)), "pk_one")
    await stack.arrived(2)
    await until_settled(stack)
    stack.fault(Fault(what=What.STATUS, status=503))
    await stack.post(client(event(number=3)), "pk_two")
    reply = await stack.get("/ledger", Authorization=f"Bearer {OPS_TOKEN}")
    assert reply.status == 200
    assert reply.headers["Content-Type"].startswith("application/json")
    one = {"accepted": 2, "held": 0, "delivered": 2, "dead": 0, "dropped": 0, "difference": 0}
    two = {"accepted": 1, "held": 1, "delivered": 0, "dead": 0, "dropped": 0, "difference": 0}
    assert reply.json == {
        "keys": {"pk_one": one, "pk_two": two},
        "total": {name: one[name] + two[name] for name in one},
    }


GUARDED = [
    ("GET", "/ledger"),
    ("GET", "/events/0190a1b2-0000-7000-8000-000000000000"),
    ("GET", "/ambiguous"),
    ("GET", "/dead"),
    ("GET", "/dead/1"),
    ("POST", "/dead/replay?all=true"),
    ("POST", "/dead/purge?all=true"),
    ("GET", "/keys"),
    ("GET", "/keys/pk_secret"),
    ("POST", "/keys/pk_secret/pause"),
    ("POST", "/keys/pk_secret/resume"),
    ("POST", "/keys/pk_secret/retry"),
    ("POST", "/erase"),
]
WRONG = [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Bearer {OPS_TOKEN}x", f"Bearer {OPS_TOKEN[:-1]}",
         OPS_TOKEN, f"Basic {OPS_TOKEN}", f"bearer {OPS_TOKEN.upper()}", "Bearer é"]  # fmt: skip


async def ask_with(stack: Stack, method: str, path: str, given: str | None) -> Reply:
    headers = {} if given is None else {"Authorization": given}
    async with stack.http.request(method, f"{stack.ops_url}{path}", headers=headers) as response:
        return Reply(response.status, response.headers, await response.read())


async def test_without_the_token_administration_is_closed(stack: Stack) -> None:
    await die(stack, fresh(), key="pk_secret")
    for (method, path), given in itertools.product(GUARDED, WRONG):
        reply = await ask_with(stack, method, path, given)
        assert reply.status == 401, (path, given)
        assert reply.headers["WWW-Authenticate"] == "Bearer"
        assert "error" in reply.json
        assert b"pk_secret" not in reply.body
    assert (await stack.ledger())["dead"] == 1


async def test_where_there_is_no_token_administration_is_off(tmp_path: Path) -> None:
    async with running_stack(tmp_path, ops={"token": None}) as stack:
        for (method, path), given in itertools.product(GUARDED, (None, "Bearer None", "Bearer ")):
            reply = await ask_with(stack, method, path, given)
            assert reply.status == 403, (path, given)
            assert "ops.token" in reply.json["error"]
        assert (await stack.get("/metrics")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/elsewhere", 404),
        ("GET", "/api/i/v1/pk_test/events", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/ledger", 405),
        ("GET", "/erase", 405),
        ("DELETE", "/dead/1", 405),
        ("POST", "/keys", 405),
        ("GET", "/keys/pk_test/pause", 405),
        ("POST", "/keys/pk_test/delete", 404),
        ("POST", "/events/0190a1b2-0000-7000-8000-000000000000", 405),
        ("POST", "/dead", 405),
        ("PUT", "/readyz", 405),
        ("PUT", "/tap", 405),
    ],
)
async def test_what_is_not_here_is_told_in_json(stack: Stack, method: str, path: str, status: int) -> None:
    async with stack.http.request(method, f"{stack.ops_url}{path}") as response:
        assert response.status == status
        assert response.content_type == "application/json"
        assert (await response.json())["error"]
        assert ("Allow" in response.headers) == (status == 405)


async def test_the_public_listener_shows_nothing_of_this(stack: Stack) -> None:
    for path in ("/metrics", "/readyz", "/livez"):
        assert (await stack.post(b"", path=path, method="GET")).status == 404
    for method, path in GUARDED:
        assert (await stack.post(b"", path=path, method=method)).status == 404


def test_a_scrape_is_read_by_this_helper_as_prometheus_would() -> None:
    seen = Samples(
        '# TYPE outlit_proxy_a counter\noutlit_proxy_a_total{b="c"} 2\noutlit_proxy_a_total{b="d"} 3\n'
    )
    assert (seen("a_total", b="c"), seen.sum("a_total")) == (2, 5)
    with pytest.raises(AssertionError):
        seen.sum("missing_total")


async def test_a_buffer_that_does_not_answer_is_told_in_json(
    monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    async def away(_self: SqliteBuffer, *, recount: bool = False) -> None:
        raise BufferUnavailable("the file is away")

    with monkeypatch.context() as patched:
        patched.setattr(SqliteBuffer, "figures", away)
        reply = await stack.get("/ledger", Authorization=f"Bearer {OPS_TOKEN}")
    assert (reply.status, reply.json) == (503, {"error": "the file is away"})


async def test_a_defect_is_told_in_json_and_logged_and_counted(
    monkeypatch: pytest.MonkeyPatch, stack: Stack, logs: io.StringIO
) -> None:
    async def broken(_self: SqliteBuffer, *, recount: bool = False) -> None:
        raise RuntimeError("what nobody thought of")

    before = (await stack.metrics())("log_lines_total", level="error")
    with monkeypatch.context() as patched:
        patched.setattr(SqliteBuffer, "figures", broken)
        reply = await stack.get("/keys/pk_secret", Authorization=f"Bearer {OPS_TOKEN}")
    assert (reply.status, reply.json) == (500, {"error": "internal error; see the log"})
    assert (await stack.metrics())("log_lines_total", level="error") == before + 1
    [line] = [line for line in map(json.loads, logs.getvalue().splitlines()) if line["level"] == "error"]
    assert "what nobody thought of" in line["exception"]
    assert (line["method"], line["path"]) == ("GET", "/keys/{key}")


async def test_a_buffer_that_does_not_answer_takes_only_its_own_metrics_away(
    monkeypatch: pytest.MonkeyPatch, stack: Stack
) -> None:
    """Of several replicas one that is cut off must not hold up old figures against what the others know."""

    async def away(_self: SqliteBuffer, *, recount: bool = False) -> None:
        raise BufferUnavailable("the file is away")

    await stack.post(client())
    await stack.arrived(1)
    before = await stack.metrics()
    assert before("buffer_up") == 1
    of_the_buffer = {of.name for of in before.families if of.documentation.endswith("of the buffer.")}
    with monkeypatch.context() as patched:
        patched.setattr(SqliteBuffer, "figures", away)
        meanwhile = await stack.metrics()
    assert meanwhile("buffer_up") == 0
    assert meanwhile("events_accepted_total") == 1
    assert {of.name for of in before.families} - {of.name for of in meanwhile.families} == of_the_buffer
    assert len(of_the_buffer) > 8
    assert {of.name for of in (await stack.metrics()).families} >= of_the_buffer


async def test_metrics_are_compressed_for_who_takes_that(stack: Stack) -> None:
    plain = await stack.get("/metrics", **{"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    async with stack.http.get(
        f"{stack.ops_url}/metrics", headers={"Accept-Encoding": "gzip"}, auto_decompress=False
    ) as answer:
        packed = await answer.read()
    assert answer.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed).count(b"# HELP") == plain.body.count(b"# HELP")
    assert len(packed) < len(plain.body) / 4


async def test_what_is_used_of_the_bounds_on_stored_bytes_is_shown(tmp_path: Path) -> None:
    """Whichever is nearer: a key's own bound, or that of all."""
    async with running_stack(
        tmp_path, buffer={"max_bytes": 2_000_000, "max_bytes_per_key": 1_000_000}
    ) as stack:
        stack.fault(Fault(what=What.STATUS, status=503))
        await stack.post(client())
        seen = await stack.metrics()
        assert seen("buffer_used_ratio") == pytest.approx(seen("buffer_bytes") / 1_000_000)
        assert 0 < seen("buffer_used_ratio") < 1
        assert seen("held_events", key="other") == 1
        assert seen("gate_limit_requests_per_second", key="other") >= seen(
            "gate_rate_requests_per_second", key="other"
        )


async def test_the_disk_of_the_file_is_shown(stack: Stack) -> None:
    seen = await stack.metrics()
    assert 0 < seen("buffer_disk_free_bytes") < seen("buffer_disk_bytes")
    assert seen("buffer_info", engine="sqlite", durability="normal") == 1


async def test_the_bounds_of_the_process_stand_beside_what_they_bound(tmp_path: Path) -> None:
    async with running_stack(tmp_path, front={"max_connections": 77}, delivery={"in_flight": 7}) as stack:
        await stack.post(client())
        await stack.arrived(1)
        seen = await stack.metrics()
        assert seen("connections_limit") == 77
        assert 0 < seen("connections") < 77
        assert seen("upstream_in_flight_limit") == 7
        assert seen("pending_body_limit_bytes") > 1_000_000


async def test_the_last_event_in_and_out_is_told_by_its_moment(stack: Stack) -> None:
    seen = await stack.metrics()
    assert seen("last_accepted_timestamp_seconds") == seen("last_delivered_timestamp_seconds") == 0
    before = time.time()
    await stack.post(client())
    await stack.arrived(1)
    await until_settled(stack)
    seen = await stack.metrics()
    assert before <= seen("last_accepted_timestamp_seconds") <= seen("last_delivered_timestamp_seconds")
    assert seen("last_delivered_timestamp_seconds") <= time.time()
    assert seen("gate_requests_total", key="pk_test") == 1
