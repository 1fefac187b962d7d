"""A Redis that is away, hung, full, or closed to us: what the caller hears, and how soon."""

import asyncio
import random
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.buffer import BufferUnavailable
from proxy.buffer.redis.link import Link, Misconfigured, OutOfMemory, open_link
from proxy.settings.redis_url import parse_target
from tests.buffer.redis.relay import relay_to
from tests.buffer.redis.small_scripts import COUNT, DRAIN, ECHO, FILL
from tests.redis_servers import VALKEY, RedisServer, free_port, shared, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "server") as made:
        yield made


@asynccontextmanager
async def opened(url: str, **how: Any) -> AsyncIterator[Link]:
    link = await open_link(parse_target(url), **how)
    try:
        yield link
    finally:
        await link.close()


async def until_it_answers(link: Link) -> bytes:
    """Ask until somebody answers: how an engine waits for a Redis that is away."""
    async with asyncio.timeout(15):
        while True:
            try:
                return bytes(await link.run(ECHO, (b"k",), ("back",)))
            except BufferUnavailable:
                await asyncio.sleep(0.02)


# -- nobody there --------------------------------------------------------------------------------------


async def test_nobody_at_the_address_is_said_with_the_address() -> None:
    port = free_port()
    with pytest.raises(BufferUnavailable) as raised:
        await open_link(parse_target(f"redis://127.0.0.1:{port}"))
    assert str(raised.value) == (
        f"Redis at 127.0.0.1:{port} cannot be reached (Connection refused):"
        " is it running, and is buffer.url right?"
    )
    assert raised.value.__cause__ is not None


async def test_a_socket_file_that_is_not_there_is_said_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(BufferUnavailable, match=r"nobody\.sock cannot be reached \(No such file"):
        await open_link(parse_target(f"unix://{tmp_path}/nobody.sock"))


async def test_a_host_that_has_no_address_is_said() -> None:
    with pytest.raises(BufferUnavailable, match=r"nobody\.invalid:6379 cannot be found"):
        await open_link(parse_target("redis://nobody.invalid"))


async def test_somebody_who_never_answers_is_given_up_after_two_seconds() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    try:
        before = time.monotonic()
        with pytest.raises(BufferUnavailable, match="did not answer in time"):
            await open_link(parse_target(f"redis://127.0.0.1:{silent.sockets[0].getsockname()[1]}"))
        assert 1.5 < time.monotonic() - before < 3.5
    finally:
        silent.close()


async def test_a_connection_that_does_not_come_about_holds_up_no_close(server: RedisServer) -> None:
    greeted = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        greeted.set()
        await reader.read()
        writer.close()

    link = await open_link(parse_target(server.url))
    server.kill()
    with pytest.raises(BufferUnavailable):
        await link.ask("GET", b"k")
    silent = await asyncio.start_server(say_nothing, "127.0.0.1", server.port)
    asking = asyncio.create_task(link.ask("GET", b"k"))
    async with asyncio.timeout(1):
        await greeted.wait()
        await link.close()
        with pytest.raises(BufferUnavailable, match="the buffer is closed"):
            await asking
    silent.close()


async def test_somebody_who_speaks_another_protocol_is_said() -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    web = await asyncio.start_server(greet, "127.0.0.1", 0)
    try:
        with pytest.raises(BufferUnavailable, match="let no connection come about"):
            await open_link(parse_target(f"redis://127.0.0.1:{web.sockets[0].getsockname()[1]}"))
    finally:
        web.close()


# -- gone and back -------------------------------------------------------------------------------------


async def test_a_restarted_server_is_found_again_and_nothing_is_counted_twice(server: RedisServer) -> None:
    async with opened(server.url) as link:
        answered, unknown = Counter[bytes](), Counter[bytes]()

        async def load() -> None:
            while not stop.is_set():
                try:
                    await link.run(COUNT, (b"n",), (), kept=True)
                    answered[b"n"] += 1
                except BufferUnavailable as error:
                    unknown[b"n"] += "cannot be reached" not in str(error)
                    await asyncio.sleep(0.01)

        stop = asyncio.Event()
        server.command("CONFIG", "SET", "appendfsync", "always")
        tasks = [asyncio.create_task(load()) for _ in range(20)]
        for _ in range(3):
            await asyncio.sleep(0.1)
            server.kill()
            await asyncio.sleep(0.1)
            server.start()  # on this thread: it dies with the one that started it
            await until_it_answers(link)
        stop.set()
        await asyncio.gather(*tasks)
        counted = int(await link.ask("GET", b"n"))
        assert answered[b"n"] <= counted <= answered[b"n"] + unknown[b"n"]


async def test_connections_that_the_server_closed_while_idle_fail_nobody(server: RedisServer) -> None:
    async with opened(server.url) as link:
        for n in range(20):
            assert await link.run(ECHO, (b"k",), (n,)) == b"%d" % n
            server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0.01)


async def test_while_it_is_away_callers_fail_at_once_and_share_one_try(server: RedisServer) -> None:
    async with relay_to(server.port) as relay, opened(relay.url) as link:
        server.kill()
        await asyncio.sleep(0.05)
        before, made = time.monotonic(), relay.connections
        ended = await asyncio.gather(
            *(link.run(ECHO, (b"k",), (n,)) for n in range(500)), return_exceptions=True
        )
        assert all(isinstance(each, BufferUnavailable) for each in ended)
        assert time.monotonic() - before < 1.0
        assert relay.connections - made <= 2


async def test_a_hung_server_is_noticed_in_two_seconds_by_everybody_at_once(server: RedisServer) -> None:
    async with opened(server.url) as link:
        await asyncio.gather(*(link.run(ECHO, (b"k",), (n,)) for n in range(100)))
        server.pause()
        before = time.monotonic()
        ended = await asyncio.gather(
            *(link.run(ECHO, (b"k",), (n,)) for n in range(100)), return_exceptions=True
        )
        assert {type(each) for each in ended} == {BufferUnavailable}
        assert 1.8 < time.monotonic() - before < 3.5  # about 2.0 on a machine that is not busy
        before = time.monotonic()
        with pytest.raises(BufferUnavailable, match="did not answer in time"):  # the login does not come
            await link.run(ECHO, (b"k",), ("x",))
        assert time.monotonic() - before < 3.5
        server.resume()
        assert await until_it_answers(link) == b"back"


async def test_an_answer_that_is_lost_is_not_asked_for_again(server: RedisServer) -> None:
    async with relay_to(server.port) as relay, opened(relay.url) as link:
        await link.run(COUNT, (b"n",), ())
        relay.loses_answers = True
        with pytest.raises(BufferUnavailable, match="did not answer in time"):
            await link.run(COUNT, (b"n",), (), kept=True)
        relay.loses_answers = False
        assert await until_it_answers(link) == b"back"
        assert server.command("GET", "n") == b"2"


async def test_a_reset_connection_is_replaced(server: RedisServer) -> None:
    async with relay_to(server.port) as relay, opened(relay.url) as link:
        for _ in range(10):
            calls = [asyncio.create_task(link.run(COUNT, (b"n",), ())) for _ in range(20)]
            await asyncio.sleep(random.random() * 0.005)
            relay.cut()
            for ended in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(ended, int | BufferUnavailable)
            assert await until_it_answers(link) == b"back"


async def test_while_it_loads_its_data_that_is_said(tmp_path: Path) -> None:
    options = {"appendonly": "no", "key-load-delay": "1000", "loading-process-events-interval-bytes": "1024"}
    with RedisServer(tmp_path / "slow", options=options) as slow:
        for n in range(2_000):
            slow.client.set(f"k{n}", "x" * 2_000)
        slow.command("SAVE")
        slow.kill()
        slow.start(until_it_answers=False)
        seen = set()
        deadline = time.monotonic() + 15
        while time.monotonic() < deadline:
            try:
                async with opened(slow.url) as link:
                    assert await link.run(ECHO, (b"k",), ("x",)) == b"x"
                break
            except BufferUnavailable as error:
                seen.add(str(error))
                await asyncio.sleep(0.02)
        assert any("is still loading its data: wait until it has" in message for message in seen), seen


# -- not permitted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("login", ["", ":wrong@", "nobody:wrong@"])
async def test_a_wrong_login_is_said_without_repeating_it(tmp_path: Path, login: str) -> None:
    with RedisServer(tmp_path, options={"requirepass": "right"}) as server:
        with pytest.raises(Misconfigured) as raised:
            await open_link(parse_target(f"redis://{login}{server.address}"))
        assert str(raised.value) == (
            f"Redis at {server.address} refuses the login:"
            " give the right user and password (buffer.url, buffer.password)"
        )
        async with opened(f"redis://{server.address}".replace("//", "//:right@")) as link:
            assert await link.run(ECHO, (b"k",), ("x",)) == b"x"


async def test_a_user_is_taken_away_and_given_back_while_it_runs(server: RedisServer) -> None:
    server.command("ACL", "SETUSER", "proxy", "on", ">secret", "~outlit:*", "+@all")
    async with opened(f"redis://proxy:secret@{server.address}") as link:
        assert await link.run(ECHO, (b"outlit:k",), ("x",)) == b"x"
        server.command("ACL", "DELUSER", "proxy")
        await asyncio.sleep(0.02)
        with pytest.raises(BufferUnavailable, match="refuses the login"):
            await link.run(ECHO, (b"outlit:k",), ("x",))
        server.command("ACL", "SETUSER", "proxy", "on", ">secret", "~outlit:*", "+@all")
        assert await link.run(ECHO, (b"outlit:k",), ("x",)) == b"x"


async def test_a_command_that_the_user_may_not_run_is_named(server: RedisServer) -> None:
    server.command(
        "ACL", "SETUSER", "proxy", "on", ">secret", "~outlit:*", "+@all", "-hgetall", "-@scripting"
    )
    async with opened(f"redis://proxy:secret@{server.address}") as link:
        with pytest.raises(
            BufferUnavailable, match=r"does not let this user run HGETALL \(.*\): widen its ACL"
        ):
            await link.ask("HGETALL", b"outlit:k")
        with pytest.raises(Misconfigured, match=r"does not let this user run small .*evalsha"):
            await link.run(ECHO, (b"outlit:k",), ("x",))
        with pytest.raises(Misconfigured, match=r"does not let this user run GET .*keys"):
            await link.ask("GET", b"other")


@pytest.mark.parametrize("program", ["redis-server", VALKEY])
async def test_these_commands_are_enough_for_the_link_itself(tmp_path: Path, program: str) -> None:
    with RedisServer(tmp_path, program=program) as server:
        permitted = ["+client|setname", "+select", "+eval", "+evalsha", "+info", "+wait"]
        if program == VALKEY:
            permitted.append("+waitaof")
        server.command("ACL", "SETUSER", "proxy", "on", ">secret", "~outlit:*", *permitted)
        url = f"redis://proxy:secret@{server.address}/2"
        async with opened(url) as link:
            assert await link.run(ECHO, (b"outlit:k",), ("x",)) == b"x"
            assert await link.info()
        for durability in ("always", "replica"):
            async with opened(url, durability=durability, replicas=0) as link:
                assert await link.run(ECHO, (b"outlit:k",), ("x",), kept=True) == b"x"


# -- full, read-only -----------------------------------------------------------------------------------


async def test_a_full_redis_refuses_what_adds_and_does_what_drains(server: RedisServer) -> None:
    async with opened(server.url) as link:
        await link.run(FILL, (b"k",), ("x" * 100_000,))
        server.command("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(OutOfMemory, match="has reached its maxmemory: raise that, or let it drain"):
            await link.run(FILL, (b"k",), ("x",), kept=True)
        with pytest.raises(OutOfMemory):
            await link.ask("SET", b"k", "x")
        assert await link.run(DRAIN, (b"k",), ()) == 1
        server.command("CONFIG", "SET", "maxmemory", "0")
        assert await link.run(FILL, (b"k",), ("x",)) == 1


def status(server: RedisServer) -> str:
    return str(server.client.info("persistence")["rdb_last_bgsave_status"])


async def test_a_redis_that_cannot_save_says_so(tmp_path: Path) -> None:
    options = {"save": "3600 1", "appendonly": "no", "enable-protected-configs": "yes"}
    with RedisServer(tmp_path / "server", options=options) as server:
        gone = tmp_path / "gone"
        gone.mkdir()
        server.command("CONFIG", "SET", "dir", str(gone))
        shutil.rmtree(gone)
        async with opened(server.url) as link:
            await link.run(COUNT, (b"n",), ())
            server.command("BGSAVE")
            wait_for("a save that failed", lambda: status(server) == "err")
            with pytest.raises(BufferUnavailable, match="cannot save them: see to its disk"):
                await link.run(COUNT, (b"n",), (), kept=True)
            with pytest.raises(BufferUnavailable, match="cannot save"):
                await link.run(DRAIN, (b"n",), ())
            server.command("CONFIG", "SET", "dir", str(tmp_path))
            server.command("BGSAVE")
            wait_for("a save that succeeded", lambda: status(server) == "ok")
            assert await link.run(COUNT, (b"n",), ()) == 2


async def test_a_primary_that_was_made_a_replica_says_so_until_it_is_one_no_more(server: RedisServer) -> None:
    async with opened(server.url) as link:
        await link.run(COUNT, (b"n",), ())
        server.command("REPLICAOF", "127.0.0.1", free_port())
        for _ in range(2):
            with pytest.raises(BufferUnavailable, match="is a replica: name the primary"):
                await link.run(COUNT, (b"n",), (), kept=True)
        with pytest.raises(BufferUnavailable, match="is a replica"):
            await link.ask("SET", b"k", 1)
        server.command("REPLICAOF", "NO", "ONE")
        assert await link.run(COUNT, (b"n",), (), kept=True) == 2


async def test_a_read_only_primary_is_asked_for_anew_and_the_call_is_sent_there(tmp_path: Path) -> None:
    """As behind a name that leads to another server after a managed failover."""
    with RedisServer(tmp_path / "old") as old, RedisServer(tmp_path / "new") as new:
        async with relay_to(old.port) as relay, opened(relay.url) as link:
            assert await link.run(COUNT, (b"n",), ()) == 1
            relay._to_port = new.port
            old.command("REPLICAOF", "127.0.0.1", free_port())
            assert await link.run(COUNT, (b"n",), (), kept=True) == 1
            assert new.command("GET", "n") == b"1"


async def test_a_node_of_a_cluster_is_recognised(tmp_path: Path) -> None:
    node = shared("cluster").primaries[0]
    async with opened(f"redis://{node.address}") as link:
        ended = await asyncio.gather(
            *(link.run(COUNT, (b"{%d}n" % n,), ()) for n in range(20)), return_exceptions=True
        )
    assert any("is a node of a cluster: write redis+cluster://" in str(each) for each in ended)


# -- cancelled callers ---------------------------------------------------------------------------------


async def test_ten_thousand_cancelled_calls_leave_no_answer_and_nothing_else_behind(
    server: RedisServer,
) -> None:
    chance = random.Random(5)
    before = asyncio.all_tasks()
    outcomes = Counter[str]()
    async with relay_to(server.port) as relay, opened(relay.url) as link:
        relay.delay_s = lambda: chance.random() * 0.004

        async def caller(number: int) -> None:
            turn = 0
            while outcomes["cancelled"] < 10_000:
                turn += 1
                text = b"%d of %d" % (turn, number)
                try:
                    async with asyncio.timeout(chance.random() ** 3 * 0.05):  # short ones, and some long ones
                        if turn % 3:
                            assert await link.run(ECHO, (b"k",), (text,), kept=turn % 2 == 0) == text
                        else:
                            assert await link.ask_each([("ECHO", text), ("ECHO", b"2")]) == [text, b"2"]
                except TimeoutError:
                    outcomes["cancelled"] += 1
                else:
                    outcomes["answered"] += 1

        await asyncio.gather(*(caller(number) for number in range(100)))
        assert outcomes["answered"] > 500
        assert relay.connections <= 2
        assert await link.run(ECHO, (b"k",), ("last",)) == b"last"
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() == before


async def test_cancelled_calls_to_a_cluster_leave_no_answer_behind() -> None:
    chance = random.Random(6)
    before = asyncio.all_tasks()
    outcomes = Counter[str]()
    async with opened(shared("cluster").url) as link:

        async def caller(number: int) -> None:
            key = b"{%d}k" % number
            for turn in range(200):
                text = b"%d of %d" % (turn, number)
                try:
                    async with asyncio.timeout(chance.random() * 0.01):
                        assert await link.run(ECHO, (key,), (text,)) == text
                except TimeoutError:
                    outcomes["cancelled"] += 1
                else:
                    outcomes["answered"] += 1

        await asyncio.gather(*(caller(number) for number in range(100)))
        assert min(outcomes["cancelled"], outcomes["answered"]) > 500
    assert asyncio.all_tasks() == before


async def test_a_caller_that_is_cancelled_while_a_connection_opens_does_not_stop_it(
    server: RedisServer,
) -> None:
    async with relay_to(server.port) as relay, opened(relay.url) as link:
        relay.cut()
        await asyncio.sleep(0.02)
        relay.delay_s = lambda: 0.1
        first = asyncio.create_task(link.run(ECHO, (b"k",), ("first",)))
        second = asyncio.create_task(link.run(ECHO, (b"k",), ("second",)))
        await asyncio.sleep(0.05)
        first.cancel()
        assert await second == b"second"
        assert first.cancelled()
