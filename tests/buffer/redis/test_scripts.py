"""That the scripts' manuals are true: their keys in order, the number of arguments, the constants."""

import re
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import pytest

from proxy.buffer import Death, Terms, Which
from proxy.buffer.contract import (
    FULL_BATCH,
    HALVING_EXPIRIES,
    LOOKED_THROUGH,
    STALLED_EXPIRIES,
    STALLED_WAIT_S,
)
from proxy.buffer.redis import entries, rights
from proxy.buffer.redis.engine import RedisBuffer
from proxy.buffer.redis.keys import names
from proxy.buffer.redis.link import Argument, Link
from proxy.buffer.redis.scripts import SHARED, Script, load, used
from proxy.buffer.redis.store import RedisClock
from proxy.ledger import Dead
from tests.buffer.contents import KEY, events, head, leased, letters, portion, settled
from tests.buffer.redis.links import LinkAround, linked
from tests.redis_servers import RedisServer

LUA = files("proxy.buffer.redis") / "lua"
OPERATIONS = sorted({file.name.removesuffix(".lua") for file in LUA.iterdir()} - set(SHARED))
ENDINGS = {"list": ":q:", "seen": ":seen:", "settled": ":settled:"}
"""Of keys whose names end in a queue or token."""


def manual(operation: str) -> str:
    text = (LUA / f"{operation}.lua").read_text()
    return "\n".join(line.removeprefix("--").strip() for line in text.splitlines() if line.startswith("--"))


def named_keys(operation: str) -> list[str]:
    """The names of the manual's numbered KEYS, in order."""
    found = re.search(
        r"^KEYS\s+(.*?)(?:;|^ARGV|\s{3,}ARGV|^Answers)", manual(operation), re.DOTALL | re.MULTILINE
    )
    return re.findall(r"\b\d+ (\w+)", found[1]) if found else []


def numbered_arguments(operation: str) -> int:
    """The highest number of the manual's ARGV."""
    found = re.search(r"ARGV\s+(.*?)^Answers", manual(operation), re.DOTALL | re.MULTILINE)
    numbers = (
        [int(number) for number in re.findall(r"(?:^|\s\s)(\d+) ", found[1], re.MULTILINE)] if found else []
    )
    return max(numbers, default=0)


class Listener(LinkAround):
    """Notes what every script is called with."""

    def __init__(self, inner: Link) -> None:
        super().__init__(inner)
        self.calls: dict[str, tuple[Sequence[bytes], Sequence[Argument]]] = {}

    async def run(
        self, script: Script, keys: Sequence[bytes], args: Sequence[Argument], *, kept: bool = False
    ) -> Any:
        self.calls[script.name] = keys, args
        return await self.inner.run(script, keys, args, kept=kept)

    async def run_everywhere(self, script: Script, args: Sequence[Argument]) -> list[Any]:
        self.calls[script.name] = (), args
        return await self.inner.run_everywhere(script, args)


@pytest.fixture
async def calls(redis_server: RedisServer) -> dict[str, tuple[Sequence[bytes], Sequence[Argument]]]:
    """What every script is called with in a life in which all verbs are asked."""
    listener = Listener(await linked(redis_server))
    now_ms = [1_800_000_000_000]
    buffer = await RedisBuffer.opened(
        listener, Terms(linger_s=0), clock=RedisClock(lambda: now_ms[0]), background=False
    )
    await buffer.append(KEY, [portion(events(1, 5)), portion(events(6, 9), "p", "b")])
    lease = await leased(buffer)
    await head(buffer, lease)
    await settled(buffer, lease, 2, dead={0: Death(Dead.REFUSED, "no")}, again=[1])
    assert len(await letters(buffer)) == 1
    await buffer.replay(Which(key=KEY))
    now_ms[0] -= 10_000
    await buffer.claim(KEY, b"t" * 12)
    now_ms[0] += 100_000
    lease = await leased(buffer)
    await settled(buffer, lease, 1, dead={0: Death(Dead.REFUSED, "no")})
    await buffer.purge(Which(key=KEY))
    await buffer.pause(KEY)
    await buffer.retry(KEY)
    redis_server.command("HSET", names(KEY).books, "held_difference", 1)  # as an earlier recount found
    await buffer.figures(recount=True)
    await buffer.erase(lambda _header, _text: True)
    await buffer.check()
    await buffer.may_recount(60)
    assert not await rights.missing(listener)
    for waker in await buffer._roster.due():
        await buffer._roster.correct(waker, None)
    await buffer.close()
    return listener.calls


async def test_every_script_has_a_manual_that_its_caller_follows(calls) -> None:
    assert sorted(calls) == OPERATIONS
    for operation, (keys, args) in calls.items():
        named = named_keys(operation)
        assert len(keys) >= len(named), operation
        for key, name in zip(keys, named, strict=False):
            if name == "any":
                continue
            ending = ENDINGS.get(name, ":" + name.replace("dead_", "dead:"))
            assert ending in key.decode() or name == "batches", f"{operation}: {name} is {key!r}"
        assert len(args) >= numbered_arguments(operation), operation


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_script_opens_with_its_flags_and_its_manual(operation: str) -> None:
    lines = (LUA / f"{operation}.lua").read_text().splitlines()
    assert re.fullmatch(r"#!lua( flags=[a-z,-]+)?", lines[0])
    assert lines[1].startswith(f"-- {operation}: ")
    assert "Answers" in manual(operation)
    if "allow-oom" in lines[0] and "no-writes" not in lines[0]:
        assert "allow-oom: " in manual(operation), "why may it write when Redis is full?"


DEFINITIONS = """\
-- What one() says, two() does not.

local FOUR, FIVE = 4, 5

local function one() return FOUR end

-- Never by itself.
local function two()
  return one() + three  -- and not five()
end

local function five() return FIVE end
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("return 1", []),
        ("return one()", ["FOUR", "one"]),
        ("return two()", ["FOUR", "one", "two"]),
        ("return five() + two()", ["FOUR", "one", "two", "five"]),
        ("return one  -- two", ["FOUR", "one"]),
    ],
)
def test_of_what_is_shared_a_script_gets_what_it_uses(text: str, wanted: list[str]) -> None:
    found = [re.match(r"local (?:function )?(\w+)", definition) for definition in used(DEFINITIONS, text)]
    assert [match and match[1] for match in found] == wanted


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_every_script_compiles_and_defines_nothing_for_nothing(
    operation: str, redis_server: RedisServer
) -> None:
    text = load(operation).text.decode()
    redis_server.command("SCRIPT", "LOAD", text)
    code = re.sub(r"--.*", "", text)
    for name in re.findall(r"^local function (\w+)", code, re.MULTILINE):
        assert len(re.findall(rf"\b{name}\b", code)) > 1, name


def test_the_constants_of_the_scripts_are_those_of_the_package() -> None:
    shared, claim = ((LUA / f"{name}.lua").read_text() for name in ("shared", "claim"))

    def number(text: str, name: str) -> float:
        found = re.search(rf"\b{name}\b(?:, \w+)? = ([\d.]+)", text)
        assert found, name
        return float(found[1])

    assert number(shared, "FULL_BATCH") == FULL_BATCH
    assert number(shared, "QUEUE_OVERHEAD") == entries.QUEUE_OVERHEAD
    assert number(shared, "HALVING_EXPIRIES") == HALVING_EXPIRIES
    assert number(claim, "LOOKED_THROUGH") == LOOKED_THROUGH
    assert number(claim, "STALLED_EXPIRIES") == STALLED_EXPIRIES
    assert number(claim, "STALLED_WAIT_MS") == STALLED_WAIT_S * 1000
