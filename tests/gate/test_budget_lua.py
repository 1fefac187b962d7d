"""The budget in Lua and the budget in Python are one: the same calls, the same answers, the same state.

Redis runs each sequence at once, and packs and unpacks the state between its calls, as the engine's scripts
do.
"""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gate import Feedback, Outcome, budget, window
from proxy.gate.budget import Budget
from proxy.wire.rate_headers import RateHeaders
from tests.gate.cases import HOUR_S, limit_to, sometimes, store_jump, upstream_jump
from tests.gate.virtual import KINDS, Change, Setting, World
from tests.redis_servers import RedisServer, shared

START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000

DRIVER = """
local calls, said, states = cmsgpack.unpack(ARGV[1]), {}, {}
local budget = budget_opened(tonumber(ARGV[2]), tonumber(ARGV[3]))
for at, call in ipairs(calls) do
  local verb = call[1]
  said[at] = 0
  if verb == "claim" then said[at] = budget_claim(budget, call[2])
  elseif verb == "settle" then budget_settle(budget, call[2], call[3])
  else budget_tune(budget, call[2], call[3]) end
  local text = cmsgpack.pack(budget)
  budget, states[at] = cmsgpack.unpack(text), text
end
return { cmsgpack.pack(said), ARGV[4] == "1" and states or { states[#states] } }
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """Ask for a token."""

    now_ms: int

    def apply(self, of: Budget) -> int:
        return budget.claim(of, self.now_ms)

    @property
    def call(self) -> tuple[Any, ...]:
        return ("claim", self.now_ms)


@dataclass(frozen=True, slots=True)
class Settle:
    """Learn from a request."""

    feedback: Feedback
    now_ms: int

    def apply(self, of: Budget) -> int:
        budget.settle(of, self.feedback, self.now_ms)
        return 0

    @property
    def call(self) -> tuple[Any, ...]:
        return ("settle", self.feedback, self.now_ms)


@dataclass(frozen=True, slots=True)
class Tune:
    """Follow the operator."""

    most_per_s: float
    share: float

    def apply(self, of: Budget) -> int:
        budget.tune(of, self.most_per_s, self.share)
        return 0

    @property
    def call(self) -> tuple[Any, ...]:
        return ("tune", self.most_per_s, self.share)


Call = Claim | Settle | Tune


@cache
def script() -> bytes:
    return (files("proxy.buffer.redis") / "lua" / "budget.lua").read_bytes() + DRIVER.encode()


def in_lua(
    calls: list[Call], most_per_s: float, share: float, *, all_states: bool
) -> tuple[list[int], list[Budget]]:
    """What Redis answers to each call, and the budget after each, or after the last alone."""
    server = shared("redis")
    assert isinstance(server, RedisServer)
    packed = msgspec.msgpack.encode([call.call for call in calls])
    said, states = server.command("EVAL", script(), 0, packed, repr(most_per_s), repr(share), int(all_states))
    return (
        msgspec.msgpack.decode(said, type=list[int]),
        [msgspec.msgpack.decode(state, type=Budget) for state in states],
    )


# -- random calls --------------------------------------------------------------------------------------

_limits = st.sampled_from([0.07, 0.5, 1.0, 3.3, 20.0, 100.0, 333.333]) | st.floats(0.01, 10_000)
_shares = st.sampled_from([1.0, 1.0, 0.5, 1 / 3])
_headers = st.builds(
    RateHeaders,
    limit=st.none() | st.sampled_from([100, 100, 100, 10, 1_000_000]),
    remaining=st.none() | st.integers(0, 100),
    reset_at=st.none() | st.integers(-3, 6) | st.sampled_from([-3600, 3600]),
)


@st.composite
def sequences(draw: st.DrawFn) -> list[Call]:
    """Calls that follow each other as they may, and now and then as they should not."""
    now_ms, calls = START_MS, list[Call]()
    for _ in range(draw(st.integers(1, 30))):
        now_ms += draw(
            st.integers(0, 30) | st.sampled_from([250, 1000, 2500, 31_000, -50, HOUR_MS, -HOUR_MS])
        )
        match draw(st.sampled_from(["claim", "claim", "settle", "settle", "settle", "tune"])):
            case "claim":
                calls.append(Claim(now_ms))
            case "settle":
                headers = draw(st.none() | _headers)
                if headers is not None and headers.reset_at is not None:
                    headers = replace(headers, reset_at=now_ms // 1000 + headers.reset_at)
                sent_ms = now_ms - draw(st.integers(0, 3000) | st.floats(0, 300))
                calls.append(
                    Settle(Feedback(draw(st.sampled_from(Outcome)), headers, float(sent_ms)), now_ms)
                )
            case _:
                calls.append(Tune(draw(_limits), draw(_shares)))
    return calls


@given(_limits, _shares, sequences())
def test_whatever_is_asked_both_say_and_keep_the_same(
    most_per_s: float, share: float, calls: list[Call]
) -> None:
    of = budget.opened(most_per_s, share)
    said, states = in_lua(calls, most_per_s, share, all_states=True)
    for at, call in enumerate(calls):
        assert said[at] == call.apply(of), (at, call)
        assert states[at] == of, (at, call)


# -- whole lives ---------------------------------------------------------------------------------------

LIVES = [
    ("fixed", ()),
    ("fixed", ((8.3, partial(store_jump, HOUR_S)),)),
    ("fixed", ((8.3, partial(store_jump, -HOUR_S)),)),
    ("fixed", ((8.3, partial(upstream_jump, HOUR_S)),)),
    ("fixed", ((8.0, partial(limit_to, 10)),)),
    ("sliding log", ((8.3, partial(upstream_jump, -HOUR_S)),)),
]


def lived(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """What a simulated sender asks of its budget."""
    calls = list[Call]()
    claim, settle = budget.claim, budget.settle

    def noting_claim(of: Budget, now_ms: int) -> int:
        calls.append(Claim(now_ms))
        return claim(of, now_ms)

    def noting_settle(of: Budget, feedback: Feedback, now_ms: int) -> None:
        calls.append(Settle(feedback, now_ms))
        settle(of, feedback, now_ms)

    with monkeypatch.context() as patch:
        patch.setattr(budget, "claim", noting_claim)
        patch.setattr(budget, "settle", noting_settle)
        World(setting, 1).run()
    return calls


@pytest.mark.parametrize(("kind", "changes"), LIVES)
def test_through_a_whole_life_both_say_and_keep_the_same(
    kind: str, changes: Sequence[Change], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random calls hardly ever come to spend windows; a sender with a backlog soon does."""
    setting = Setting(KINDS[kind], headers=sometimes, stranger_per_s=10.0, changes=changes, to_s=13.0)
    calls = lived(setting, monkeypatch)
    of = budget.opened(100.0, 1.0)
    said, (state,) = in_lua(calls, 100.0, 1.0, all_states=False)
    spent = 0
    for at, call in enumerate(calls):
        assert said[at] == call.apply(of), (at, call)
        spent += window.is_on(of.window)
    assert state == of
    assert bool(spent) == (kind == "fixed")


# -- constants -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("table", "module"), [("BUDGET", budget), ("WINDOW", window)])
def test_the_constants_are_the_same(table: str, module: ModuleType) -> None:
    found = re.search(rf"^local {table} = {{(.*?)^}}", script().decode(), re.DOTALL | re.MULTILINE)
    assert found is not None
    in_lua = {name: float(value) for name, value in re.findall(r"(\w+) = ([^,\s]+)", found[1])}
    own = ast.parse(Path(module.__file__ or "").read_text(encoding="utf-8")).body
    names = [
        node.targets[0].id
        for node in own
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]
    assert in_lua == {name: getattr(module, name) for name in names}
