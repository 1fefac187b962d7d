"""Whether a Redis is fit: what is found, when it is refused, who is told, and what a lost marker does."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.buffer import BufferUnavailable, Terms
from proxy.buffer.contract import BufferBroken
from proxy.buffer.redis import survey as survey_module
from proxy.buffer.redis.findings import Demands, Finding, full
from proxy.buffer.redis.keys import LAYOUT
from proxy.buffer.redis.link import Durability, Link, open_link
from proxy.buffer.redis.survey import LAYOUT_VERSION, Survey, Unfit
from proxy.ledger import Unsafe
from proxy.settings.redis_url import Target, parse_target
from tests.buffer.redis.links import LinkAround
from tests.redis_servers import VALKEY, Cluster, RedisServer, Sentinels

LOCAL = parse_target("redis://127.0.0.1:6379")
SMALL = Terms(max_bytes=1_000_000, dead_max_bytes=1_000_000)

SOUND: Mapping[str, str] = {
    "redis_version": "7.0.15",
    "tcp_port": "6379",
    "role": "master",
    "cluster_enabled": "0",
    "maxmemory": "100000000",
    "maxmemory_policy": "noeviction",
    "used_memory": "1000000",
    "mem_not_counted_for_evict": "0",
    "total_system_memory": "8000000000",
    "aof_enabled": "1",
    "aof_last_write_status": "ok",
    "aof_last_bgrewrite_status": "ok",
    "rdb_last_bgsave_status": "ok",
    "connected_slaves": "2",
}


def _found(
    *infos: Mapping[str, str],
    durability: Durability = "everysec",
    replicas: int = 1,
    terms: Terms = SMALL,
    target: Target = LOCAL,
    appendfsync: str | None = None,
) -> dict[Unsafe, Finding]:
    whole = [{**SOUND, **info} for info in infos or ({},)]
    return Demands(target, terms, durability, replicas).findings(whole, appendfsync)


# -- what is found -------------------------------------------------------------------------------------


def test_nothing_is_wrong_with_a_sound_redis_whatever_is_demanded():
    assert not _found()
    assert not _found(durability="always", appendfsync="always")
    assert not _found(durability="replica", replicas=2)


FATAL: Mapping[str, tuple[dict[str, str], Unsafe, str]] = {
    "old": ({"redis_version": "6.2.14"}, Unsafe.VERSION, "upgrade to Redis 7.0"),
    "replica": ({"role": "slave", "master_host": "one", "master_port": "1"}, Unsafe.ROLE, "of one:1"),
    "node": ({"cluster_enabled": "1"}, Unsafe.ROLE, "write redis+cluster://"),
    "lru": ({"maxmemory_policy": "allkeys-lru"}, Unsafe.EVICTION, "acknowledged events"),
    "random": ({"maxmemory_policy": "allkeys-random"}, Unsafe.EVICTION, "to noeviction"),
}


@pytest.mark.parametrize("case", FATAL)
def test_what_would_lose_or_not_work_is_fatal(case: str):
    info, reason, said = FATAL[case]
    [(found, finding)] = _found(info).items()
    assert (found, finding.is_fatal) == (reason, True)
    assert said in finding.text


WARNED: Mapping[str, tuple[dict[str, str], Unsafe, str]] = {
    "volatile": ({"maxmemory_policy": "volatile-ttl"}, Unsafe.EVICTION, "delivered twice"),
    "no file": ({"aof_enabled": "0"}, Unsafe.PERSISTENCE, "since its last snapshot is lost"),
    "aof": ({"aof_last_write_status": "err"}, Unsafe.SAVING, "refuses writes"),
    "rewrite": ({"aof_last_bgrewrite_status": "err"}, Unsafe.SAVING, "grows"),
    "rdb": ({"rdb_last_bgsave_status": "err"}, Unsafe.SAVING, "see to its disk"),
    "memory": ({"used_memory": "95100000"}, Unsafe.MEMORY, "answered 503"),
    "maxmemory": ({"maxmemory": "1900000"}, Unsafe.BOUNDS, "Redis is full first"),
    "no maxmemory": ({"maxmemory": "0", "total_system_memory": "1900000"}, Unsafe.BOUNDS, "kills"),
}


@pytest.mark.parametrize("case", WARNED)
def test_what_costs_something_is_warned_of(case: str):
    info, reason, said = WARNED[case]
    found = _found({"used_memory": "0", **info})
    assert list(found) == [reason]
    assert not found[reason].is_fatal
    assert said in found[reason].text


@pytest.mark.parametrize("case", [*FATAL, *WARNED])
def test_each_finding_is_one_line_that_says_where_and_what_to_do(case: str):
    info = (FATAL.get(case) or WARNED[case])[0]
    [finding] = _found({"used_memory": "0", **info}).values()
    assert finding.text.startswith("Redis at redis://127.0.0.1:6379 ")
    assert finding.text.count(": ") >= 1
    assert "\n" not in finding.text


def test_always_needs_a_file_and_before_7_2_one_that_is_synced_each_time():
    def persistence(version: str, appendfsync: str | None, aof: str = "1") -> Finding | None:
        info = {"redis_version": version, "aof_enabled": aof}
        return _found(info, durability="always", appendfsync=appendfsync).get(Unsafe.PERSISTENCE)

    without = persistence("7.2.4", "always", aof="0")
    assert without is not None
    assert without.is_fatal
    old, new = persistence("7.0.15", "everysec"), persistence("7.2.4", "everysec")
    assert old is not None
    assert old.is_fatal
    assert new is not None
    assert not new.is_fatal
    assert persistence("7.0.15", "always") is None
    assert persistence("7.0.15", None) is None, "it is said that it may not be seen"
    assert not _found(appendfsync="no"), "with everysec it is not asked for"


def test_replicas_count_only_while_they_are_online():
    def found(info: Mapping[str, str]) -> bool:
        return Unsafe.REPLICAS in _found(info, durability="replica", replicas=2)

    online = "ip=127.0.0.1,port=1,state=online,offset=1,lag=0"
    assert not found({"connected_slaves": "2", "slave0": online, "slave1": online})
    assert found(
        {"connected_slaves": "2", "slave0": online, "slave1": online.replace("online", "wait_bgsave")}
    )
    assert found({"connected_slaves": "1"})
    assert not _found({"connected_slaves": "0"}), "nobody waits for them"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://:secret@redis.example", "the password"),
        ("redis://redis.example", "no password"),
        ("redis+sentinel://10.0.0.1/main", "no password"),
        ("rediss://:secret@redis.example", None),
        ("redis://:secret@localhost", None),
        ("unix:///run/redis.sock", None),
    ],
)
def test_a_network_in_clear_is_warned_of_and_no_password_is_shown(url: str, said: str | None):
    found = _found(target=parse_target(url))
    assert list(found) == ([Unsafe.IN_CLEAR] if said else [])
    if said:
        assert said in found[Unsafe.IN_CLEAR].text
        assert "secret" not in found[Unsafe.IN_CLEAR].text


def test_of_a_cluster_the_node_is_named_and_its_memory_counts_together():
    target = parse_target("redis+cluster://127.0.0.1:7001")
    nodes = [{"cluster_enabled": "1", "tcp_port": str(7001 + n), "maxmemory": "800000"} for n in range(3)]
    nodes[2]["maxmemory_policy"] = "allkeys-lru"
    found = _found(*({**node, "used_memory": "0"} for node in nodes), target=target)
    assert list(found) == [Unsafe.EVICTION], "three times 0.8 MB is enough for 2 MB"
    assert "the node with port 7003" in found[Unsafe.EVICTION].text


def test_what_a_service_does_not_tell_is_not_judged():
    assert not Demands(LOCAL, SMALL, "everysec", 1).findings([{}])
    assert not Demands(LOCAL, SMALL, "everysec", 1).findings([{"redis_version": "odd", "maxmemory": "much"}])


def test_appends_stop_below_the_bound_and_are_taken_again_when_there_is_room_for_a_while():
    def used(percent: int) -> dict[str, str]:
        return {**SOUND, "used_memory": str(percent * 1_000_000)}

    assert full([used(95)], None, LOCAL) is None
    said = full([used(96)], None, LOCAL)
    assert said is not None
    assert full([used(94)], said, LOCAL) is not None
    assert full([used(92)], said, LOCAL) is None
    assert full([used(94)], None, LOCAL) is None
    assert full([{**SOUND, "maxmemory": "0"}], None, LOCAL) is None
    assert full([used(99), used(10)], None, LOCAL) is None, "a cluster's other node has room"
    assert full([used(99), used(99)], None, LOCAL) is not None
    assert full([{**used(99), "mem_not_counted_for_evict": "9000000"}], None, LOCAL) is None
    assert full([], None, LOCAL) is None


# -- who looks, and who is told ------------------------------------------------------------------------


class Told:
    """What a survey has told."""

    def __init__(self) -> None:
        self.unsafe: dict[Unsafe, bool] = {}
        self.losses = 0

    def note_unsafe(self, reason: Unsafe, is_so: bool) -> None:
        assert self.unsafe.get(reason) is not is_so, "a change is told once"
        self.unsafe[reason] = is_so

    def note_loss(self) -> None:
        self.losses += 1

    @property
    def reasons(self) -> set[Unsafe]:
        return {reason for reason, is_so in self.unsafe.items() if is_so}


def _survey(
    url: str, told: Told, *, durability: Durability = "everysec", replicas: int = 1, terms: Terms = SMALL
) -> Survey:
    return Survey(
        parse_target(url),
        terms,
        durability,
        replicas,
        note_unsafe=told.note_unsafe,
        note_loss=told.note_loss,
    )


@asynccontextmanager
async def _linked(url: str, survey: Survey) -> AsyncIterator[Link]:
    link = await open_link(parse_target(url), greet=survey.greet)
    try:
        yield link
    finally:
        await link.close()


@asynccontextmanager
async def _watched(survey: Survey, link: Link) -> AsyncIterator["asyncio.Task[None]"]:
    watching = asyncio.create_task(survey.run(link))
    yield watching
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that the test may configure and kill."""
    with RedisServer(tmp_path / "own") as server:
        yield server


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look more often than an operator's patience asks for."""
    monkeypatch.setattr(survey_module, "_LOOK_S", 0.02)
    monkeypatch.setattr(survey_module, "_NEAR_FULL_S", 0.02)


async def _until(fact: Any) -> None:
    async with asyncio.timeout(10):
        while not fact():  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.01)


def _lines(logs: io.StringIO, level: str) -> list[str]:
    lines = [json.loads(line) for line in logs.getvalue().splitlines()]
    return [line["event"] for line in lines if line["level"] == level]


async def test_a_sound_redis_begins_without_a_warning(redis_server: RedisServer, logs: io.StringIO):
    told = Told()
    survey = _survey(redis_server.url, told)
    async with _linked(redis_server.url, survey) as link:
        await survey.begin(link)
    assert told.unsafe == dict.fromkeys(Unsafe, False), "each reason is told at the start"
    assert told.losses == 0
    assert survey.full() is None
    assert not _lines(logs, "warning")


async def test_valkey_clusters_and_sentinels_are_sound_too(
    valkey_server: RedisServer, cluster: Cluster, sentinels: Sentinels
):
    for deployment in (valkey_server, cluster, sentinels):
        told = Told()
        survey = _survey(deployment.url, told)
        async with _linked(deployment.url, survey) as link:
            await survey.begin(link)
            assert (await link.ask("GET", LAYOUT)).startswith(b"%d " % LAYOUT_VERSION)
        assert not told.reasons


async def test_an_evicting_redis_is_unfit(own_server: RedisServer):
    own_server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")
    survey = _survey(own_server.url, Told())
    async with _linked(own_server.url, survey) as link:
        with pytest.raises(Unfit, match=r"evicts any key .* allkeys-lfu.* noeviction$"):
            await survey.begin(link)


async def test_a_replica_is_unfit(sentinels: Sentinels):
    master = sentinels.master()
    told = Told()
    writer = _survey(master.url, told)
    async with _linked(master.url, writer):
        pass  # so that there is a marker, and the replica need not write one
    replica = next(server for server in sentinels.servers if server is not master)
    master.command("WAIT", 2, 5000)
    survey = _survey(replica.url, told)
    async with _linked(replica.url, survey) as link:
        with pytest.raises(Unfit, match=r"is a replica of 127.0.0.1:\d+ and takes no writes"):
            await survey.begin(link)


@pytest.mark.parametrize("program", ["redis-server", VALKEY])
async def test_always_is_unfit_on_a_redis_that_does_not_sync_and_slow_on_one_that_can_be_waited_for(
    tmp_path: Path, program: str, logs: io.StringIO
):
    with RedisServer(tmp_path, program=program) as server:
        survey = _survey(server.url, told := Told(), durability="always")
        async with _linked(server.url, survey) as link:
            if program == VALKEY:
                await survey.begin(link)
                assert told.reasons == {Unsafe.PERSISTENCE}
                assert "up to a second" in _lines(logs, "warning")[0]
            else:
                with pytest.raises(Unfit, match="has appendfsync everysec"):
                    await survey.begin(link)
            server.command("CONFIG", "SET", "appendfsync", "always")
            survey = _survey(server.url, told := Told(), durability="always")
            await survey.begin(link)
            assert not told.reasons


async def test_config_that_may_not_be_asked_is_said_once_and_is_not_fatal(
    own_server: RedisServer, often: None, logs: io.StringIO
):
    own_server.command("ACL", "SETUSER", "default", "-config")
    survey = _survey(own_server.url, told := Told(), durability="always")
    async with _linked(own_server.url, survey) as link:
        await survey.begin(link)
        async with _watched(survey, link):
            own_server.command("ACL", "SETUSER", "default", "-info")
            await _until(lambda: len(_lines(logs, "warning")) > 1)
    assert not told.reasons
    first, second = _lines(logs, "warning")
    assert "appendfsync is cannot be seen" in first
    assert "+config|get" in first
    assert "cannot see whether Redis is safe" in second


async def test_what_changes_at_run_time_is_logged_once_and_told_and_so_is_its_end(
    own_server: RedisServer, often: None, logs: io.StringIO
):
    survey = _survey(own_server.url, told := Told())
    async with _linked(own_server.url, survey) as link:
        await survey.begin(link)
        async with _watched(survey, link):
            own_server.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
            await _until(lambda: told.reasons == {Unsafe.EVICTION})
            own_server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
            await _until(lambda: _lines(logs, "error"))
            own_server.command("CONFIG", "SET", "appendonly", "no")
            await _until(lambda: Unsafe.PERSISTENCE in told.reasons)
            own_server.command("CONFIG", "SET", "appendonly", "yes")
            own_server.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
            await _until(lambda: not told.reasons)
            await asyncio.sleep(0.2)
    volatile, without_file = _lines(logs, "warning")
    assert "volatile-lru" in volatile
    assert "append-only file" in without_file
    [allkeys] = _lines(logs, "error")
    assert "allkeys-lru" in allkeys
    assert sum(line.startswith("no longer: Redis at") for line in _lines(logs, "info")) == 2


async def test_a_primary_that_becomes_a_replica_is_an_alarm_and_not_the_end(
    own_server: RedisServer, redis_server: RedisServer, often: None, logs: io.StringIO
):
    survey = _survey(own_server.url, told := Told())
    async with _linked(own_server.url, survey) as link:
        await survey.begin(link)
        async with _watched(survey, link) as watching:
            own_server.command("REPLICAOF", "127.0.0.1", redis_server.port)
            await _until(lambda: told.reasons == {Unsafe.ROLE})
            own_server.command("REPLICAOF", "NO", "ONE")
            await _until(lambda: not told.reasons)
            assert not watching.done()


async def test_a_redis_that_is_away_is_said_once_and_looked_at_again(
    own_server: RedisServer, often: None, logs: io.StringIO
):
    survey = _survey(own_server.url, told := Told())
    async with _linked(own_server.url, survey) as link:
        await survey.begin(link)
        async with _watched(survey, link) as watching:
            own_server.kill()
            await _until(lambda: _lines(logs, "warning"))
            await asyncio.sleep(0.2)
            own_server.start()
            await _until(lambda: any("looked at again" in line for line in _lines(logs, "info")))
            assert not watching.done()
    assert len(_lines(logs, "warning")) == 1
    assert not told.reasons
    assert told.losses == 0, "its file was there"


async def test_a_redis_with_hardly_any_room_is_full_until_it_has_some(own_server: RedisServer, often: None):
    survey = _survey(own_server.url, told := Told())
    async with _linked(own_server.url, survey) as link:
        await survey.begin(link)
        assert survey.full() is None
        async with _watched(survey, link):
            own_server.command("SETRANGE", "somebody's", 20_000_000, "x")
            used = int(own_server.client.info("memory")["used_memory"])
            own_server.command("CONFIG", "SET", "maxmemory", int(used / 0.96))
            await _until(lambda: survey.full() is not None)
            assert told.reasons == {Unsafe.MEMORY}
            own_server.command("DEL", "somebody's")
            await _until(lambda: survey.full() is None and not told.reasons)


async def test_a_full_redis_whose_state_is_not_known_any_more_is_left_to_refuse_by_itself(
    own_server: RedisServer, often: None
):
    used = int(own_server.client.info("memory")["used_memory"])
    own_server.command("CONFIG", "SET", "maxmemory", int(used * 1.01))
    survey = _survey(own_server.url, Told())
    async with _linked(own_server.url, survey) as link:
        await survey.begin(link)
        assert survey.full() is not None
        async with _watched(survey, link):
            own_server.command("ACL", "SETUSER", "default", "-info")
            await _until(lambda: survey.full() is None)


# -- the layout marker ---------------------------------------------------------------------------------

NEWER = b"%d 0123456789abcdef" % (LAYOUT_VERSION + 1)


async def test_the_first_start_writes_the_marker_and_others_find_it(redis_server: RedisServer):
    first, second = _survey(redis_server.url, told := Told()), _survey(redis_server.url, told)
    async with _linked(redis_server.url, first), _linked(redis_server.url, second):
        marker = redis_server.command("GET", LAYOUT)
    assert marker.startswith(b"%d " % LAYOUT_VERSION)
    assert len(marker) == 18
    async with _linked(redis_server.url, _survey(redis_server.url, told)):
        assert redis_server.command("GET", LAYOUT) == marker
    assert told.losses == 0


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        (NEWER, rf"newer version \(layout {LAYOUT_VERSION + 1}; this one knows {LAYOUT_VERSION}\)"),
        (
            b"1 0123456789abcdef",
            r"before the first release \(layout 1; .*: let the one that wrote it deliver",
        ),
        (b"mine", "something else"),
        (b"%s 0123456789abcdef" % (b"9" * 5_000), "something else"),
    ],
)
async def test_a_marker_that_is_not_for_this_version_is_refused_and_left_alone(
    redis_server: RedisServer, marker: bytes, said: str
):
    redis_server.command("SET", LAYOUT, marker)
    with pytest.raises(BufferBroken, match=said):
        async with _linked(redis_server.url, _survey(redis_server.url, Told())):
            pass
    assert redis_server.command("GET", LAYOUT) == marker


async def test_a_newer_version_that_takes_over_ends_the_watch(redis_server: RedisServer, often: None):
    survey = _survey(redis_server.url, Told())
    async with _linked(redis_server.url, survey) as link, _watched(survey, link) as watching:
        redis_server.command("SET", LAYOUT, NEWER)
        with pytest.raises(BufferBroken, match="newer version"):
            await watching


async def test_an_emptied_redis_is_shouted_once_by_each_process_and_marked_anew(
    redis_server: RedisServer, often: None, logs: io.StringIO
):
    tolds = [Told(), Told()]
    surveys = [_survey(redis_server.url, told) for told in tolds]
    async with _linked(redis_server.url, surveys[0]) as one, _linked(redis_server.url, surveys[1]) as two:
        before = redis_server.command("GET", LAYOUT)
        async with _watched(surveys[0], one), _watched(surveys[1], two):
            redis_server.command("FLUSHALL")  # which closes no connection
            await _until(lambda: all(told.losses for told in tolds))
            await asyncio.sleep(0.2)
    assert [told.losses for told in tolds] == [1, 1]
    assert redis_server.command("GET", LAYOUT) not in {None, before}
    assert len(_lines(logs, "error")) == 2
    assert all("has lost what it held" in line for line in _lines(logs, "error"))


async def test_a_redis_that_comes_back_empty_is_noticed_by_the_first_new_connection(tmp_path: Path):
    with RedisServer(tmp_path, options={"appendonly": "no"}) as server:
        survey = _survey(server.url, told := Told())
        async with _linked(server.url, survey) as link:
            server.restart()
            for _ in range(100):
                try:
                    await link.ask("GET", b"anything")
                    break
                except BufferUnavailable:
                    await asyncio.sleep(0.05)
            assert told.losses == 1


async def test_several_connections_at_once_shout_of_one_loss_once(redis_server: RedisServer):
    survey = _survey(redis_server.url, told := Told())
    async with _linked(redis_server.url, survey) as link:
        for losses in (1, 2, 3):
            redis_server.command("FLUSHALL")
            await asyncio.gather(*(survey.greet(link.ask) for _ in range(10)))
            assert told.losses == losses


async def test_without_room_for_the_marker_a_connection_is_used_all_the_same(own_server: RedisServer):
    own_server.command("CONFIG", "SET", "maxmemory", "1")
    survey = _survey(own_server.url, told := Told())
    async with _linked(own_server.url, survey) as link:
        assert await link.ask("GET", LAYOUT) is None
        own_server.command("CONFIG", "SET", "maxmemory", "0")
        await survey.greet(link.ask)
        assert await link.ask("GET", LAYOUT) is not None
    assert told.losses == 0


class _Unanswered(LinkAround):
    """A service that does not let INFO be asked."""

    async def info(self) -> list[dict[str, str]]:
        raise BufferUnavailable("Redis at managed.example does not let this user run INFO: widen its ACL")


async def test_a_redis_that_may_not_be_looked_at_is_begun_on_and_warned_of(
    redis_server: RedisServer, logs: io.StringIO
):
    survey = _survey(redis_server.url, told := Told())
    async with _linked(redis_server.url, survey) as link:
        await survey.begin(_Unanswered(link))
    assert told.unsafe == dict.fromkeys(Unsafe, False)
    [said] = _lines(logs, "warning")
    assert said.startswith("cannot see whether Redis is safe: Redis at managed.example")
