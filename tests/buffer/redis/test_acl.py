"""The user that `deploy/redis/README.md` gives: it can do all that the proxy does, and nothing else."""

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from proxy.buffer import BufferFault, Quota, QuotaExceeded, Settlement, Terms, Which
from proxy.buffer.redis import RedisBuffer, figures, rights
from proxy.buffer.redis.keys import LAYOUT
from proxy.buffer.redis.link import Durability, Link, open_link
from proxy.buffer.redis.store import RedisClock
from proxy.buffer.redis.survey import Survey
from proxy.ledger import Answered
from proxy.settings.redis_url import parse_target
from tests.buffer.contents import (
    KEY,
    OTHER_KEY,
    REFUSED,
    event,
    events,
    head,
    leased,
    portion,
    queue,
    settled,
)
from tests.redis_servers import VALKEY, Cluster, Deployment, RedisServer, Sentinels

README = Path(__file__).parents[3] / "deploy" / "redis" / "README.md"
USER = "outlit-proxy"
LINES = re.findall(r"^    ACL SETUSER outlit-proxy (.*)$", README.read_text(encoding="utf-8"), re.MULTILINE)
RULES = [rule for line in LINES for rule in line.split()]
COMMANDS = [rule.removeprefix("+") for rule in RULES if rule.startswith("+")]
MORE = {
    case: re.findall(r"`\+([a-z|]+)`", rights)
    for case, rights in re.findall(
        r"^\| ([^|]*) \| ((?:`\+[a-z|]+` ?)+) \|$", README.read_text(encoding="utf-8"), re.MULTILINE
    )
}
"""Rights beside those, by the case that needs them."""

TERMS = Terms(limit_per_s=1e6, dead_max_bytes=5_000, quota=Quota(queues=1000, keys=1))


class _Clock:
    def __init__(self) -> None:
        self.now_ms = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now_ms


def _url(deployment: Deployment) -> str:
    scheme, _, rest = deployment.url.partition("://")
    return f"{scheme}://{USER}:PASSWORD@{rest}"


def _let_in(servers: Sequence[RedisServer], *more: str, without: str = "") -> None:
    rules = [rule for rule in RULES if rule != f"+{without}"]
    for server in servers:
        server.command("ACL", "SETUSER", USER, *rules, *(f"+{command}" for command in more))


def _denied(server: RedisServer) -> list[str]:
    """What the user was refused."""
    entries = server.client.acl_log()
    return [str(entry["object"]) for entry in entries if entry["username"] == USER]


async def _life(deployment: Deployment, durability: Durability = "everysec") -> None:
    """All that the proxy ever does with a Redis."""
    target = parse_target(_url(deployment))
    survey = Survey(
        target, TERMS, durability, 0, note_unsafe=lambda _reason, _is_so: None, note_loss=lambda: None
    )
    link = await open_link(target, durability=durability, replicas=0, greet=survey.greet)
    try:
        await survey.begin(link)
        await _work(link)
    finally:
        await link.close()


async def _work(link: Link) -> None:
    clock = _Clock()
    buffer = await RedisBuffer.opened(link, TERMS, clock=RedisClock(clock), background=False)
    await buffer.check()
    await buffer.append(KEY, [portion(events(1, 6)), portion(events(11, 14), "other", "b")])
    await buffer.append(KEY, [portion(events(7, 8), lane="b"), portion(events(1, 2))])
    with pytest.raises(QuotaExceeded):
        await buffer.append(OTHER_KEY, [portion(events(1, 1))])

    clock.now_ms += 1_500
    for _ in range(2):
        lease = await leased(buffer)
        assert len((await head(buffer, lease)).texts) >= 4
        dead = {0: REFUSED, 1: REFUSED}
        await settled(buffer, lease, 4, dead=dead, again=(2,), wait_s=10.0, answered=Answered.REFUSED)
    clock.now_ms -= 100_000
    assert not isinstance(await buffer.claim(KEY, b"t" * 12), BufferFault)
    clock.now_ms += 200_000
    lease = await leased(buffer)
    clock.now_ms += 60_000  # it ends by itself, and another gets the queue
    await leased(buffer)
    await leased(buffer)
    await buffer.settle(lease, Settlement(1, answered=Answered.UNANSWERED, ambiguous=True))
    await buffer._look()
    await buffer._exchange()
    await buffer._sweep()
    await buffer.claim(KEY, b"u" * 12)  # and a hint is corrected
    await _operate(buffer, clock, link)


async def _operate(buffer: RedisBuffer, clock: _Clock, link: Link) -> None:
    await buffer.pause(KEY)
    await buffer.retry(KEY)
    await buffer.resume(KEY)
    await buffer.claim(KEY, b"v" * 12, early=True)

    clock.now_ms += 60_000
    letters = await buffer.dead_letters()
    assert letters
    assert await buffer.count_dead() == len(letters)
    assert await buffer.count_dead(Which(key=KEY, reason=letters[0].reason)) == len(letters)
    await buffer.replay(Which(id=letters[-1].id))
    await buffer.purge(Which(id=letters[0].id))
    await buffer.trace(event(3).uuid)
    await buffer.ambiguous()
    await buffer.figures()
    await buffer.figures(recount=True)
    await buffer.append(KEY, [portion([event(f"long {n}", size=900) for n in range(20)], "long")])
    clock.now_ms += 60_000
    while (lease := await leased(buffer)).queue != queue("long"):
        await settled(buffer, lease, 0, wait_s=600.0)
    await head(buffer, lease)
    await settled(buffer, lease, 20, dead=dict.fromkeys(range(20), REFUSED))  # some make room for others

    await buffer.append(KEY, [portion(events(30, 33), "theirs"), portion(events(34, 36), "theirs", "b")])
    await buffer.append(KEY, [portion(events(40, 41), "theirs", "b")])
    await buffer.append(KEY, [portion([event(100 + n)], f"one of many: {n}") for n in range(12)])
    await buffer.figures(recount=True)
    await RedisBuffer.opened(link, TERMS, background=False)  # by the clock of Redis
    for some in ((b'"31"',), (b'"34"', b'"35"', b'"36"'), (b'"3', b'"4')):
        await buffer.erase(partial(_names_one, some), key=KEY)


def _names_one(some: Sequence[bytes], _lane: bytes, text: bytes) -> bool:
    return any(part in text for part in some)


@pytest.fixture(autouse=True)
def _few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what is done with many queues is done with these."""
    monkeypatch.setattr(figures, "_MOST_RECORDS", 10)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as started:
        yield started


def _used(server: RedisServer) -> set[str]:
    stats = server.client.info("commandstats")
    return {name.removeprefix("cmdstat_") for name in stats}


async def test_the_user_can_do_all_that_the_proxy_does_and_nothing_else(server: RedisServer):
    _let_in([server])
    server.command("CONFIG", "RESETSTAT")
    await _life(server)
    used = _used(server)
    assert not _denied(server), "allow these in deploy/redis/README.md"
    assert used - set(COMMANDS) <= {"auth", "config|resetstat"}, "anybody may do the one, the test the other"
    assert set(COMMANDS) <= used, "what is not used is not to be allowed"


def test_what_check_asks_for_is_what_the_user_needs():
    """`client|setname`, `info` and the running of scripts show by themselves."""
    assert {*rights.COMMANDS} == {*COMMANDS} - {"client|setname", "info", "eval", "evalsha"}


@pytest.mark.parametrize("command", COMMANDS)
async def test_with_one_command_less_something_is_refused(redis_server: RedisServer, command: str):
    redis_server.command("ACL", "LOG", "RESET")
    redis_server.command("SCRIPT", "FLUSH")
    _let_in([redis_server], without=command)
    try:
        with suppress(BufferFault):  # what is of use only goes on without it
            await _life(redis_server)
        assert command in _denied(redis_server)
    finally:
        redis_server.command("ACL", "DELUSER", USER)


def test_the_user_reaches_no_keys_but_the_proxys_and_no_command_of_an_administrator(server: RedisServer):
    _let_in([server])
    for allowed in (("GET", LAYOUT), ("HSET", b"outlit:{pk_a}:books", "accepted", "1")):
        assert server.command("ACL", "DRYRUN", USER, *allowed) == b"OK"
    for denied in (
        ("GET", "others"),
        ("FLUSHALL",),
        ("CONFIG", "GET", "requirepass"),
        ("KEYS", "*"),
        ("DEL", LAYOUT),
        ("SCRIPT", "FLUSH"),
        ("DEBUG", "SLEEP", "1"),
        ("PUBLISH", "channel", "text"),
        ("EVAL", "return 1", "1", "others"),
    ):
        assert b"has no permissions" in server.command("ACL", "DRYRUN", USER, *denied), denied


async def test_a_write_that_waits_for_replicas_needs_one_more(server: RedisServer):
    more = MORE['`buffer.durability = "replica"`']
    assert more == ["wait"]
    _let_in([server], *more)
    await _life(server, "replica")
    assert not _denied(server)
    assert "wait" in _used(server)


async def test_a_write_that_waits_for_the_disk_needs_two_more_where_redis_can_be_waited_for(tmp_path: Path):
    of_always = MORE['`buffer.durability = "always"`']
    of_new = MORE["the same, from Redis 7.2 on and on Valkey"]
    assert (of_always, of_new) == (["config|get"], ["waitaof"])
    options = {"appendfsync": "always"}
    with RedisServer(tmp_path / "redis", options=options) as old:
        _let_in([old], *of_always)
        await _life(old, "always")
        assert not _denied(old)
    with RedisServer(tmp_path / "valkey", options=options, program=VALKEY) as new:
        _let_in([new], *of_always, *of_new)
        await _life(new, "always")
        assert not _denied(new)
        assert {"config|get", "waitaof"} <= _used(new)


async def test_under_sentinels_and_in_a_cluster_it_needs_what_the_readme_says(
    sentinels: Sentinels, cluster: Cluster
):
    of_cluster = MORE["Cluster"]
    assert (MORE["Sentinel"], of_cluster) == (["role"], ["cluster|slots", "asking"])
    for deployment, servers, more in (
        (sentinels, sentinels.servers, MORE["Sentinel"]),
        (cluster, cluster.nodes, of_cluster),
    ):
        for server in servers:
            server.command("ACL", "LOG", "RESET")
        _let_in(servers, *more)
        try:
            await _life(deployment)
            assert not [_denied(server) for server in servers if _denied(server)]
            if deployment is cluster:
                assert cluster.nodes[0].command("ACL", "DRYRUN", USER, "ASKING") == b"OK"
        finally:
            for server in servers:
                server.command("ACL", "DELUSER", USER)


def test_the_readme_names_the_rest():
    assert MORE["a database other than 0"] == ["select"]
    assert MORE["`outlit-proxy demo --buffer`, `outlit-proxy bench`"] == ["del"]
