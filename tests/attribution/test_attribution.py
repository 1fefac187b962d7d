"""Thousands of senders who are nearly one another, at once: each event arrives under its own sender alone."""

import io
from random import Random, SystemRandom

import pytest

from proxy.flusher import outlooks
from tests.attribution.browsing import browse, trouble
from tests.attribution.lookalikes import KEYS, TRUSTED_NETWORK
from tests.attribution.posts import tabs_of
from tests.attribution.reckoning import reckon, until_ended
from tests.redis_servers import RedisServer
from tests.stack import OPS_TOKEN, Stack, StartStack

SEED = 20_260_713
POSTS, POSTS_OF_LONG = 3_000, 50_000


@pytest.fixture(params=["sqlite", "redis"])
def buffer(request: pytest.FixtureRequest) -> dict[str, str | None]:
    """The table of settings."""
    if request.param == "sqlite":
        return {}
    server: RedisServer = request.getfixturevalue("redis_server")
    return {"url": server.url, "durability": None}


@pytest.mark.parametrize(
    "posts",
    [
        POSTS,
        pytest.param(POSTS_OF_LONG, marks=[pytest.mark.long, pytest.mark.timeout(1_800)]),
    ],
)
async def test_every_event_arrives_under_what_it_was_posted_with_alone(
    start_stack: StartStack,
    buffer: dict[str, str | None],
    logs: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
    posts: int,
) -> None:
    # Batches go again soon, so that each of many does.
    monkeypatch.setattr(outlooks, "BACK_OFF_S", 0.05)
    seed = SEED if posts == POSTS else SystemRandom().randrange(10**9)
    stack = await start_stack(front={"trusted_proxies": (TRUSTED_NETWORK,)}, buffer=buffer)
    tabs = tabs_of(seed, posts)
    async with trouble(stack, Random(seed)):
        posted = await browse(stack, tabs)
        await until_ended(stack, posted)
    found = reckon(posted, stack.entries)
    for what in ("misattributed", "changed", "missing", "out_of_order"):
        wrong = getattr(found, what)
        assert not wrong, f"seed {seed}, {len(wrong)} {what}: " + "\n".join(wrong[:10])
    assert found.repeated <= await announced(stack), f"seed {seed}: sent again without a word"
    assert (await stack.metrics())("lane_check_failed_total") == 0


async def announced(stack: Stack) -> set[tuple[str, str]]:
    """The events that upstream may have taken unseen, as the operator is told of them."""
    listed = [
        await stack.get(f"/ambiguous?key={key}&limit=1000", Authorization=f"Bearer {OPS_TOKEN}")
        for key in KEYS
    ]
    return {
        (batch["key"], uuid)
        for reply in listed
        for batch in reply.json["batches"]
        for uuid in batch["events"]
    }
