"""The configuration that we give: real servers start with it, and the survey has nothing to say of them."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from proxy.buffer import Terms
from proxy.buffer.redis.link import Durability, open_link
from proxy.buffer.redis.survey import Survey
from proxy.ledger import Unsafe
from proxy.settings import Settings
from proxy.settings.redis_url import parse_target
from tests.redis_servers import HOST, REDIS, VALKEY, RedisServer

CONFIGURATION = Path(__file__).parents[3] / "config" / "redis.conf"
TEXT = CONFIGURATION.read_text(encoding="utf-8")
PLACES_AND_SIZES = {"bind", "port", "maxmemory", "auto-aof-rewrite-min-size", "repl-backlog-size"}
DIRECTIVE = re.compile(r"^([a-z][a-z0-9-]+) (.*)$", re.MULTILINE)


def _server(folder: Path, program: str, text: str, **more: str) -> RedisServer:
    """A server with that configuration; only its place is the test's."""
    server = RedisServer(folder, program=program)
    (folder / "redis.conf").write_text(text, encoding="utf-8")
    places: Mapping[str, str] = {
        "include": str(folder / "redis.conf"),
        "bind": HOST,
        "port": str(server.port),
        "dir": str(folder),
        "logfile": str(server.log_file),
        **{name.replace("_", "-"): value for name, value in more.items()},
    }
    lines = (f"{name} {value}\n" for name, value in places.items())
    server._configuration.write_text("".join(lines), encoding="utf-8")
    return server


async def _found(server: RedisServer, durability: Durability = "everysec") -> dict[Unsafe, bool]:
    settings = Settings()
    terms = Terms(max_bytes=settings.buffer.max_bytes, dead_max_bytes=settings.dead.max_bytes)
    target, unsafe = parse_target(server.url), dict[Unsafe, bool]()
    survey = Survey(
        target, terms, durability, 1, note_unsafe=unsafe.__setitem__, note_loss=lambda: pytest.fail("lost")
    )
    link = await open_link(target, greet=survey.greet)
    try:
        await survey.begin(link)
    finally:
        await link.close()
    return {reason: is_so for reason, is_so in unsafe.items() if is_so}


@pytest.mark.parametrize("program", [REDIS, VALKEY])
async def test_nothing_is_wrong_with_a_server_of_this_configuration(tmp_path: Path, program: str):
    with _server(tmp_path, program, TEXT) as server:
        assert not await _found(server)
        for name, value in DIRECTIVE.findall(TEXT):
            if name not in PLACES_AND_SIZES:
                assert server.client.config_get(name)[name] == value.strip('"'), name
        server.restart()
        assert not await _found(server), "and after a crash"


@pytest.mark.parametrize("program", [REDIS, VALKEY])
async def test_what_it_says_of_always_is_enough_for_always(tmp_path: Path, program: str):
    with _server(tmp_path, program, TEXT, appendfsync="always") as server:
        assert not await _found(server, "always")


def test_its_suggestions_are_directives_too(tmp_path: Path):
    users = tmp_path / "users.acl"
    users.write_text("user default on nopass ~* &* +@all\n", encoding="utf-8")
    suggested = re.sub(r"^#(?=[a-z])", "", TEXT, flags=re.MULTILINE)
    assert suggested.count("\nmin-replicas-to-write ") == suggested.count("\naclfile ") == 1
    with _server(tmp_path, REDIS, suggested.replace("/etc/redis/users.acl", str(users))) as server:
        assert server.client.config_get("min-replicas-to-write") == {"min-replicas-to-write": "1"}


def test_a_reason_stands_above_each_of_its_directives():
    for name, _ in DIRECTIVE.findall(TEXT):
        above = TEXT.partition(f"\n{name} ")[0].rpartition("\n\n")[2]
        assert "# " in above, name


def test_it_is_readable_in_a_terminal():
    assert max(map(len, TEXT.splitlines())) <= 120
