"""Erasing a person: all that is held of them and their dead letters go, and nothing of anybody else's."""

import asyncio
import io
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from proxy.buffer import Buffer, BufferUnavailable, Erased, Lease, Settlement, Terms
from proxy.buffer.sqlite import SqliteBuffer
from proxy.front.ingest import Ingest, Sender
from proxy.metrics import Metrics
from proxy.ops import Bookkeeper, Health, Status, make_app
from proxy.ops.reloads import Reloads
from proxy.sandbox import Fault, What
from proxy.settings import Settings
from proxy.wire.limits import PublicKey
from tests.ops.operator import ask, books, die, done, fresh, outage, recovery, told
from tests.sandbox.bodies import OTHER_VISITOR, SESSION, VISITOR, client, server
from tests.stack import OPS_TOKEN, PATIENCE_S, Samples, Stack

ANN = "Ann@Acme.example"
NOTHING = {"erased": {"held": 0, "dead": 0}, "leased": 0}


def erased(held: int, dead: int = 0) -> dict[str, Any]:
    return {"erased": {"held": held, "dead": dead}, "leased": 0}


async def arrives(stack: Stack, *uuids: str) -> None:
    """Upstream is well again, and takes these and no others."""
    recovery(stack)
    arrivals = await stack.arrived(len(uuids))
    assert {arrival.event["uuid"] for arrival in arrivals} == set(uuids)


async def test_everything_of_a_visitor_is_taken_out_and_nothing_of_others(stack: Stack) -> None:
    await die(stack, fresh(), fresh())
    await die(stack, fresh(), visitorId=OTHER_VISITOR)
    outage(stack)
    other = fresh()
    await stack.post(client(fresh(), fresh()))
    await stack.post(client(fresh(), sessionId=SESSION), "pk_two")
    await stack.post(client(other, visitorId=OTHER_VISITOR))
    assert await done(stack, "/erase", {"visitor": VISITOR.upper()}) == erased(held=3, dead=2)
    await books(stack, accepted=7, held=1, dead=1, dropped=5)
    assert (await stack.metrics())("events_dropped_total", reason="erased") == 5
    assert await done(stack, "/erase", {"visitor": VISITOR}) == NOTHING
    await arrives(stack, other["uuid"])


async def test_everything_that_names_an_address_is_taken_out(stack: Stack) -> None:
    await die(stack, fresh("identify", email="ann@acme.example"), fresh())
    outage(stack)
    kept = [fresh(), fresh("identify", email="bob@acme.example"), fresh(), fresh()]
    await stack.post(client(kept[0], fresh("identify", email="ANN@acme.example"), kept[1]))
    await stack.post(client(fresh(), fresh(), userIdentity={"email": "ann@acme.EXAMPLE"}))
    await stack.post(client(kept[2], userIdentity={"email": "bob@acme.example"}))
    await stack.post(server(fresh("custom", properties={"__email": "ann@acme.example"})), "pk_two")
    await stack.post(client(fresh("form", formFields={"mail": "ann@acme.example"}), visitorId=OTHER_VISITOR))
    await stack.post(client(kept[3], visitorId=OTHER_VISITOR))
    assert await done(stack, "/erase", {"email": ANN}) == erased(held=5, dead=1)
    await books(stack, held=4, dead=1, dropped=6)
    await arrives(stack, *(each["uuid"] for each in kept))


async def test_everything_that_names_a_user_is_taken_out(stack: Stack) -> None:
    outage(stack)
    kept = fresh("custom", userId="u-8")
    await stack.post(server(fresh("custom", userId="u-7"), kept, fresh("custom", userId="u-7")))
    await stack.post(server(fresh(), userIdentity={"userId": "u-7"}), "pk_two")
    assert await done(stack, "/erase", {"user_id": "u-7"}) == erased(held=3)
    await arrives(stack, kept["uuid"])


async def test_a_key_keeps_an_erasure_to_itself(stack: Stack) -> None:
    outage(stack)
    kept = fresh("identify", email=ANN)
    await stack.post(client(fresh("identify", email=ANN)), "pk_one")
    await stack.post(client(kept), "pk_two")
    assert await done(stack, "/erase", {"email": ANN, "key": "pk_one"}) == erased(held=1)
    assert await done(stack, "/erase", {"visitor": VISITOR, "key": "pk_one"}) == NOTHING
    await arrives(stack, kept["uuid"])


async def test_what_is_on_its_way_is_waited_for_and_what_waits_behind_it_is_taken_out(stack: Stack) -> None:
    stack.fault(Fault(what=What.LATENCY, latency_ms=700, requests=1))
    first, second = fresh(), fresh()
    await stack.post(client(first))
    await stack.until(lambda record: len(record.entries) >= 1)  # taken; the answer takes its time
    outage(stack)
    await stack.post(client(second))
    assert await done(stack, "/erase", {"visitor": VISITOR}) == erased(held=1)
    assert (await told(stack, f"/events/{first['uuid']}"))["fate"] == "delivered"
    assert (await ask(stack, "GET", f"/events/{second['uuid']}")).status == 404
    await stack.arrived(1)


async def test_neither_log_nor_answer_nor_metric_says_who_it_was(
    stack: Stack, capsys: pytest.CaptureFixture[str]
) -> None:
    outage(stack)
    await stack.post(client(fresh("identify", email=ANN, userId="somebody-special")))
    for whom in ({"visitor": OTHER_VISITOR}, {"user_id": "somebody-special"}, {"email": ANN}):
        reply = await ask(stack, "POST", "/erase", whom)
        seen = (await stack.get("/metrics")).body.decode() + reply.body.decode() + capsys.readouterr().out
        assert "erased" in seen
        for secret in (ANN, ANN.lower(), "somebody-special", OTHER_VISITOR):
            assert secret not in seen
    assert stack.stored_bytes().lower().count(b"ann@acme") == 0


async def test_whom_to_erase_must_be_clear(stack: Stack) -> None:
    outage(stack)
    await stack.post(client(fresh("identify", email=ANN)))
    whom: list[tuple[Any, str]] = [
        (b"", "body"),
        (b"{", "body"),
        (b"\xff", "body"),
        ([], "body"),
        ("me", "body"),
        ({}, "visitor, email, user_id"),
        ({"key": "pk_test"}, "visitor, email, user_id"),
        ({"visitor": VISITOR, "email": ANN}, "visitor, email, user_id"),
        ({"user_id": "7", "email": ANN}, "visitor, email, user_id"),
        ({"visitor": "me"}, "visitor"),
        ({"visitor": ""}, "visitor"),
        ({"visitor": None}, "visitor"),
        ({"email": "ann"}, "email"),
        ({"email": ""}, "email"),
        ({"email": [ANN]}, "email"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"userId": "7"}, "userId"),
        ({"email": ANN, "dry_run": "true"}, "dry_run"),
        ({"email": ANN, "key": "test"}, "key"),
    ]
    for body, parameter in whom:
        reply = await ask(stack, "POST", "/erase", body)
        assert (reply.status, reply.json.get("parameter")) == (400, parameter), body
        assert ANN not in reply.json["error"]
    reply = await ask(stack, "POST", "/erase", {"email": ANN}, key="pk_test")
    assert (reply.status, reply.json.get("parameter")) == (400, "key"), "whom to erase stands in the body"
    assert (await stack.ledger())["held"] == 1


async def test_a_body_of_any_size_is_refused_not_read(stack: Stack) -> None:
    reply = await ask(stack, "POST", "/erase", b'{"email": "' + b"a" * 2_000_000)
    assert reply.status == 413
    assert "error" in reply.json


# -- where a delivery, or the buffer, stands in the way ----------------------------------------------------


class Operations:
    """The operations of a buffer without a flusher: what is leased is what the test claims."""

    def __init__(self, buffer: Buffer, http: TestClient[Any, Any]) -> None:
        self.buffer = buffer
        self._http = http

    async def hold(self, key: str, body: bytes) -> None:
        """Accept a client's request."""
        ingest = Ingest(self.buffer, Metrics(), max_events=100, unknown="forward")
        answer = await ingest.take(PublicKey(key), body, Sender(None, None, None))
        assert answer.status == 200

    async def erase(self, body: bytes) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {OPS_TOKEN}"}
        async with self._http.post("/erase", data=io.BytesIO(body), headers=headers) as response:
            return response.status, await response.json()

    async def metrics(self) -> Samples:
        async with self._http.get("/metrics", headers={"Accept": "text/plain"}) as response:
            return Samples(await response.text())


@asynccontextmanager
async def operations(folder: Path, lease_s: float) -> AsyncIterator[Operations]:
    terms = Terms(linger_s=0.0, lease_s=60.0)
    buffer = await SqliteBuffer.opened(folder / "buffer.db", terms, sync_every_commit=False)
    metrics = Metrics()
    books, health = Bookkeeper(buffer, metrics, retention_s=60.0), Health(started=True)
    status = Status(buffer, books, metrics, health, Reloads(), Settings(), started_at_ms=0)
    app = make_app(buffer, books, metrics, health, OPS_TOKEN, status=status, lease_s=lease_s)
    async with TestClient(TestServer(app)) as http:
        yield Operations(buffer, http)
    await buffer.close()


BODY = (
    b'{"source":"client","visitorId":"%s","events":[{"type":"pageview","url":"https://a/","path":"/"}]}'
    % VISITOR.encode()
)
WHOM = b'{"visitor":"%s"}' % VISITOR.encode()


async def test_a_delivery_that_does_not_end_is_waited_for_no_longer_than_a_lease(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("proxy.ops.erasure._MARGIN_S", 0.0)
    async with operations(tmp_path, lease_s=0.3) as ops:
        await ops.hold("pk_a", BODY)
        await ops.hold("pk_b", BODY)
        assert isinstance(await ops.buffer.claim(PublicKey("pk_a"), b"t" * 12), Lease)
        started = asyncio.get_running_loop().time()
        assert await ops.erase(WHOM) == (200, {"erased": {"held": 1, "dead": 0}, "leased": 1})
        assert 0.3 <= asyncio.get_running_loop().time() - started < PATIENCE_S
        assert (await ops.metrics())("events_dropped_total", reason="erased") == 1


async def test_a_delivery_that_failed_leaves_its_events_to_be_erased(tmp_path: Path) -> None:
    async with operations(tmp_path, lease_s=PATIENCE_S) as ops:
        await ops.hold("pk_a", BODY)
        lease = await ops.buffer.claim(PublicKey("pk_a"), b"t" * 12)
        assert isinstance(lease, Lease)
        erasing = asyncio.create_task(ops.erase(WHOM))
        await ops.buffer.settle(lease, Settlement(1, again=frozenset({0}), wait_s=60.0, failed=True))
        assert await erasing == (200, erased(held=1))


async def test_an_erasure_that_the_buffer_stops_says_how_far_it_came(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    times = itertools.count()

    async def away_the_second_time(_self: SqliteBuffer, _is_theirs: object, **_: object) -> Erased:
        if next(times):
            raise BufferUnavailable("the file is away")
        return Erased(held=2, dead=1, leased=1)

    monkeypatch.setattr(SqliteBuffer, "erase", away_the_second_time)
    async with operations(tmp_path, lease_s=60.0) as ops:
        status, answer = await ops.erase(WHOM)
        assert status == 503
        assert answer == {
            "error": "the file is away; what is counted here is erased: ask again for the rest",
            "erased": {"held": 2, "dead": 1},
            "leased": 1,
        }
        assert (await ops.metrics())("events_dropped_total", reason="erased") == 3
