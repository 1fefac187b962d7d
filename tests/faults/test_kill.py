"""SIGKILL of the running program under load: nothing that it acknowledged is missing afterwards."""

import asyncio
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from tests.programs import Proxy, Sandbox, running_proxy, running_sandbox

KEY = "pk_faults"
VISITORS = 16
KILLS = 5
# A killed process leaves leases behind; they end sooner here than by default, so that the test does.
SHORT_LEASE = {"OUTLIT_PROXY_DELIVERY_TIMEOUT": "1s", "OUTLIT_PROXY_DELIVERY_LEASE": "6500ms"}


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with running_sandbox(tmp_path) as running:
        yield running


@pytest.fixture
def proxy(tmp_path: Path, sandbox: Sandbox) -> Iterator[Proxy]:
    with running_proxy(tmp_path, sandbox, **SHORT_LEASE) as running:
        yield running


@dataclass(slots=True)
class Visitor:
    """Posts numbered events, and a post again, unchanged, until it is answered with a 2xx."""

    with_uuids: bool
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    acknowledged: list[int] = field(default_factory=list)
    posted_again: int = 0

    async def browse(self, http: aiohttp.ClientSession, url: str, until: asyncio.Event) -> None:
        number = 0
        while not until.is_set():
            numbers = list(range(number, number + random.randint(1, 5)))
            number = numbers[-1] + 1
            body = {
                "source": "client",
                "visitorId": self.id,
                "events": [self._event(n) for n in numbers],
            }
            while not await self._is_taken(http, url, body):
                self.posted_again += 1
                await asyncio.sleep(0.05)  # as a client backs off
            self.acknowledged += numbers

    def _event(self, number: int) -> dict[str, object]:
        event: dict[str, object] = {
            "type": "custom",
            "eventName": "step",
            "timestamp": 1_795_000_000_000 + number,
            "url": "https://www.example.com/",
            "path": "/",
            "properties": {"n": number},
        }
        return event | ({"uuid": str(uuid.uuid4())} if self.with_uuids else {})

    async def _is_taken(self, http: aiohttp.ClientSession, url: str, body: object) -> bool:
        try:
            async with http.post(url, json=body) as answer:
                await answer.read()
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False


async def _browse_through_kills(proxy: Proxy, kills: int) -> list[Visitor]:
    visitors = [Visitor(with_uuids=number % 2 == 0) for number in range(VISITORS)]
    enough = asyncio.Event()
    url = f"{proxy.url}/api/i/v1/{KEY}/events"
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http,
        asyncio.TaskGroup() as tasks,
    ):
        for visitor in visitors:
            tasks.create_task(visitor.browse(http, url, enough))
        for _ in range(kills):
            before = (await asyncio.to_thread(proxy.ledger))["accepted"]
            # Under load, with deliveries under way: a while after the first of this life was accepted.
            await asyncio.to_thread(proxy.wait_until_accepted, before + 200)
            await asyncio.sleep(random.uniform(0.5, 1.5))
            proxy.program.kill()
            proxy.program.start()
            await asyncio.to_thread(proxy.wait_until_ready)
        enough.set()
    return visitors


def test_kill_under_load_loses_nothing_acknowledged(proxy: Proxy, sandbox: Sandbox) -> None:
    visitors = asyncio.run(_browse_through_kills(proxy, KILLS))
    proxy.wait_until_empty(60)

    arrived: dict[str, list[int]] = defaultdict(list)
    for taken in sandbox.taken():
        arrived[taken.envelope["visitorId"]].append(taken.event["properties"]["n"])
    assert sum(visitor.posted_again for visitor in visitors), "no kill met a post: nothing was tested"
    for visitor in visitors:
        missing = set(visitor.acknowledged) - set(arrived[visitor.id])
        assert not missing, f"acknowledged and lost: {sorted(missing)[:10]}"
        first_arrivals = list(dict.fromkeys(arrived[visitor.id]))
        assert first_arrivals == sorted(first_arrivals), "out of order"
    ledger = proxy.ledger()
    assert ledger["difference"] == 0
    assert ledger["accepted"] == ledger["delivered"] == sum(len(visitor.acknowledged) for visitor in visitors)

    # Twice upstream only what was in flight when the process died: whole batches, under equal uuids.
    twice = [
        uuid_
        for uuid_, times in Counter(taken.event["uuid"] for taken in sandbox.taken()).items()
        if times > 1
    ]
    assert len(twice) <= KILLS * VISITORS * 100
    assert len({taken.event["uuid"] for taken in sandbox.taken()}) == ledger["accepted"]
