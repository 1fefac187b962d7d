"""What is remembered of plans, told the time: held against a list of all that was ever said."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.gateway.plan import (
    FARTHEST_MS,
    MAX_REFUSALS,
    UNBELIEVED_MS,
    CallKind,
    PlanMemory,
)
from proxy.ledger import PlatformRoute
from proxy.wire.platform import Kept, PlanRefusal

NOW_MS = 1_776_000_000_000
KEY, OTHER_KEY = b"k" * 16, b"o" * 16
SEARCH = CallKind(PlatformRoute.TOOLS, "outlit_search")
QUERY = CallKind(PlatformRoute.TOOLS, "outlit_query")
CONNECT = CallKind(PlatformRoute.INTEGRATIONS, "POST connect")
LIST = CallKind(PlatformRoute.INTEGRATIONS, "GET integrations")
KINDS = (SEARCH, QUERY, CONNECT, LIST)


LIMIT, OTHER_CODE = "api_limit_exceeded", "plan_limit_exceeded"
CODES_OF_TOOLS = (LIMIT, "plan_api_limit_exceeded")


def refusal(reset_at_ms: int | None, feature: str | None = "api_calls", code: str = LIMIT) -> PlanRefusal:
    return PlanRefusal(code, feature, "free", reset_at_ms)


def answer(number: int = 0, status: int = 402) -> Kept:
    return Kept(status, "application/json", b"%d" % number)


# -- whatever is said, and whenever ------------------------------------------------------------------------


@dataclass(frozen=True)
class Said:
    """A refusal of `kind`; `in_ms`: how far ahead its end lies, or None where none was named."""

    after_ms: int
    key: bytes
    kind: CallKind
    code: str
    feature: str | None
    in_ms: int | None


SAID = st.builds(
    Said,
    after_ms=st.sampled_from([0, 1, 500, 1_000, 60_000, UNBELIEVED_MS, FARTHEST_MS]),
    key=st.sampled_from([KEY, OTHER_KEY]),
    kind=st.sampled_from(KINDS),
    code=st.sampled_from([*CODES_OF_TOOLS, OTHER_CODE]),
    feature=st.sampled_from(["api_calls", "connections", "search", None]),
    in_ms=st.one_of(
        st.none(),
        st.sampled_from([-1, 0, 1, 999, 1_000, 1_001, FARTHEST_MS, FARTHEST_MS + 1, 10**14]),
        st.integers(-10, 10**8),
    ),
)


class Remembered:
    """The slow way: a list of what was said, the newest of a key and feature last."""

    def __init__(self) -> None:
        self.said: list[tuple[Said, int, int, int]] = []  # with its number, when it was said, when it ends

    def hear(self, said: Said, number: int, now_ms: int) -> None:
        if said.in_ms is None or said.in_ms <= 0:
            return
        lasts_ms = said.in_ms if said.in_ms <= FARTHEST_MS else UNBELIEVED_MS
        self.said.append((said, number, now_ms, now_ms + lasts_ms))

    def expected(self, key: bytes, kind: CallKind, now_ms: int) -> set[tuple[int, int]]:
        """The answers that may be given, by their number, with how long they hold."""
        found: dict[tuple[str, CallKind | None], tuple[set[PlatformRoute], int, int]] = {}
        for said, number, said_ms, until_ms in self.said:
            if said.key == key:
                named = said.feature or said.code
                is_of_tools = named in {"api_calls", *CODES_OF_TOOLS}
                place = (named, said.kind if said.feature and not is_of_tools else None)
                routes, _, before_ms = found.get(place, (set(), 0, 0))
                # Of what had ended before this was said nothing is known any more.
                known = routes if before_ms > said_ms else set()
                of_tools = {PlatformRoute.TOOLS} if is_of_tools else set()
                found[place] = known | of_tools | {said.kind.route}, number, until_ms
        holding = [
            (until_ms, number)
            for (_, of_one), (routes, number, until_ms) in found.items()
            if until_ms > now_ms and (kind == of_one if of_one else kind.route in routes)
        ]
        longest = max((until_ms for until_ms, _ in holding), default=0)
        return {(number, until_ms) for until_ms, number in holding if until_ms == longest}


@given(said=st.lists(SAID, max_size=12), look_after_ms=st.integers(0, 2 * UNBELIEVED_MS))
def test_it_answers_what_was_said_last_as_long_as_that_holds(said: list[Said], look_after_ms: int) -> None:
    memory, remembered, now_ms = PlanMemory(), Remembered(), NOW_MS
    for number, each in enumerate(said):
        now_ms += each.after_ms
        until_ms = None if each.in_ms is None else now_ms + each.in_ms
        memory.remember(
            each.key, each.kind, refusal(until_ms, each.feature, each.code), answer(number), now_ms
        )
        remembered.hear(each, number, now_ms)
    for at_ms in (now_ms, now_ms + look_after_ms):
        for key in (KEY, OTHER_KEY):
            for kind in KINDS:
                known = memory.recall(key, kind, at_ms)
                assert memory.refuses(key, kind, at_ms) is (known is not None)
                expected = remembered.expected(key, kind, at_ms)
                if known is None:
                    assert not expected
                    continue
                kept, left_s = known
                until_ms = dict(expected)[int(kept.body)]
                # Whoever waits as long as is said does not come too early, nor a second too late.
                assert until_ms <= at_ms + left_s * 1_000 < until_ms + 1_000


@given(in_ms=st.integers(1, 2 * FARTHEST_MS))
def test_it_ends_to_the_millisecond_and_at_last_when_it_is_not_believed(in_ms: int) -> None:
    memory = PlanMemory()
    lasts_ms = in_ms if in_ms <= FARTHEST_MS else UNBELIEVED_MS
    assert memory.remember(KEY, SEARCH, refusal(NOW_MS + in_ms), answer(), NOW_MS)
    assert memory.recall(KEY, SEARCH, NOW_MS + lasts_ms - 1) is not None
    assert memory.recall(KEY, SEARCH, NOW_MS + lasts_ms) is None
    assert memory.count(NOW_MS + lasts_ms) == 0


@pytest.mark.parametrize("reset_at_ms", [None, NOW_MS, NOW_MS - 1, 1])
def test_no_moment_to_come_is_not_remembered(reset_at_ms: int | None) -> None:
    memory = PlanMemory()
    assert not memory.remember(KEY, SEARCH, refusal(reset_at_ms), answer(), NOW_MS)
    assert memory.recall(KEY, SEARCH, NOW_MS) is None


# -- what it concerns --------------------------------------------------------------------------------------


def test_api_calls_concern_every_tool_and_nothing_else() -> None:
    memory = PlanMemory()
    memory.remember(KEY, SEARCH, refusal(NOW_MS + 1), answer(), NOW_MS)
    assert [memory.refuses(KEY, kind, NOW_MS) for kind in KINDS] == [True, True, False, False]
    assert memory.recall(OTHER_KEY, SEARCH, NOW_MS) is None


def test_api_calls_of_another_route_concern_all_of_that_route_too() -> None:
    memory = PlanMemory()
    memory.remember(KEY, CONNECT, refusal(NOW_MS + 1), answer(), NOW_MS)
    assert all(memory.refuses(KEY, kind, NOW_MS) for kind in KINDS)
    other = CallKind(PlatformRoute.OTHER, "GET /api/else")
    assert not memory.refuses(KEY, other, NOW_MS)


@pytest.mark.parametrize("code", CODES_OF_TOOLS)
def test_so_does_a_limit_of_calls_that_names_no_feature(code: str) -> None:
    memory = PlanMemory()
    memory.remember(KEY, SEARCH, refusal(NOW_MS + 1, None, code), answer(), NOW_MS)
    assert [memory.refuses(KEY, kind, NOW_MS) for kind in KINDS] == [True, True, False, False]
    memory.remember(KEY, CONNECT, refusal(NOW_MS + 1, None, code), answer(), NOW_MS)
    assert all(memory.refuses(KEY, kind, NOW_MS) for kind in KINDS)


def test_another_limit_that_names_no_feature_concerns_all_of_the_route_and_nothing_else() -> None:
    for kind, concerned in ((SEARCH, [True, True, False, False]), (CONNECT, [False, False, True, True])):
        memory = PlanMemory()
        memory.remember(KEY, kind, refusal(NOW_MS + 1, None, OTHER_CODE), answer(), NOW_MS)
        assert [memory.refuses(KEY, each, NOW_MS) for each in KINDS] == concerned


@pytest.mark.parametrize("code", [LIMIT, OTHER_CODE])
def test_another_feature_concerns_the_calls_that_were_refused_for_it(code: str) -> None:
    memory = PlanMemory()
    memory.remember(KEY, CONNECT, refusal(NOW_MS + 1, "connections", code), answer(), NOW_MS)
    assert [memory.refuses(KEY, kind, NOW_MS) for kind in KINDS] == [False, False, True, False]
    memory.remember(KEY, SEARCH, refusal(NOW_MS + 1, "connections", code), answer(), NOW_MS)
    assert [memory.refuses(KEY, kind, NOW_MS) for kind in KINDS] == [True, False, True, False]


def test_what_is_answered_is_counted_and_what_is_only_looked_up_is_not() -> None:
    memory = PlanMemory()
    memory.remember(KEY, SEARCH, refusal(NOW_MS + 5_000), answer(), NOW_MS)
    for _ in range(3):
        assert memory.refuses(KEY, QUERY, NOW_MS)
        memory.recall(KEY, QUERY, NOW_MS)
    memory.recall(OTHER_KEY, QUERY, NOW_MS)
    memory.recall(KEY, LIST, NOW_MS)
    (shown,) = memory.figures(KEY, NOW_MS)
    assert (shown.answered, shown.is_own, shown.status) == (3, True, 402)
    assert (shown.since_ms, shown.until_ms) == (NOW_MS, NOW_MS + 5_000)
    assert not memory.figures(OTHER_KEY, NOW_MS)[0].is_own
    assert memory.figures(KEY, NOW_MS + 5_000) == []


def test_forgetting_says_how_much_that_was() -> None:
    memory = PlanMemory()
    memory.remember(KEY, SEARCH, refusal(NOW_MS + 1), answer(), NOW_MS)
    memory.remember(OTHER_KEY, CONNECT, refusal(NOW_MS + 1, "connections"), answer(), NOW_MS)
    assert (memory.forget(NOW_MS), memory.forget(NOW_MS)) == (2, 0)
    assert memory.recall(KEY, SEARCH, NOW_MS) is None


def test_it_is_bounded_and_what_ends_first_gives_way() -> None:
    memory = PlanMemory()
    for number in range(MAX_REFUSALS + 10):
        key = number.to_bytes(16, "big")
        memory.remember(key, SEARCH, refusal(NOW_MS + 1_000 + number), answer(), NOW_MS)
    assert memory.count(NOW_MS) == MAX_REFUSALS
    assert memory.recall((0).to_bytes(16, "big"), SEARCH, NOW_MS) is None
    assert memory.recall((MAX_REFUSALS + 9).to_bytes(16, "big"), SEARCH, NOW_MS) is not None
