"""Whether a key may send: each rule of the pauses and probes by itself, then all of them in any order."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy import gate
from proxy.gate import Evidence, Feedback, Gate, Outcome, standing
from proxy.gate.standing import MAX_PAUSE_MS
from proxy.ledger import Pause
from proxy.wire.rate_headers import MAX_WAIT_S, RateHeaders

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
LEASE_MS = 30_000

NONE, TAKEN, REFUSED, FORBIDDEN, KEY_REFUSED, RATE_LIMITED, FAILED = Outcome

STEPS_S = [15, 30, 60, 120, 240, 300, 300]
STORM_STEPS_S = [5, 10, 20, 40, 60, 60]


@dataclass(frozen=True)
class Request:
    queue: bytes
    claimed_ms: int


class Key:
    """A key's standing, a clock, and requests."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.standing = standing.opened()

    @property
    def wait_ms(self) -> int:
        return standing.wait_ms(self.standing, self.now_ms)

    @property
    def paused(self) -> Pause | None:
        return standing.view(self.standing, 90.0, 100.0, self.now_ms).paused

    @property
    def evidence(self) -> Evidence:
        return standing.evidence(self.standing, queue(0))

    def later(self, ms: int) -> None:
        self.now_ms += ms

    def send(self, number: int = 0) -> Request:
        assert self.wait_ms == 0
        standing.granted(self.standing, self.now_ms, LEASE_MS)
        return Request(queue(number), self.now_ms)

    def answer(
        self,
        request: Request,
        outcome: Outcome,
        headers: RateHeaders | None = None,
        origin: str | None = None,
        *,
        given_up: bool = False,
    ) -> None:
        feedback = Feedback(outcome, headers, origin=origin, given_up=given_up)
        standing.settle(self.standing, feedback, request.queue, request.claimed_ms, self.now_ms)

    def ask(
        self, outcome: Outcome, number: int = 0, *, given_up: bool = False, origin: str | None = None
    ) -> None:
        """A request and its answer, 50 ms later."""
        request = self.send(number)
        self.later(50)
        self.answer(request, outcome, origin=origin, given_up=given_up)

    def wait(self) -> int:
        """Let pass what a claim is told to wait, and say how long that was."""
        waited_ms = self.wait_ms
        self.later(waited_ms)
        return waited_ms

    def pauses_s(self, outcome: Outcome, times: int) -> list[float]:
        """The pauses of a key whose probes are all answered so."""
        waited = []
        for _ in range(times):
            waited.append(self.wait() / 1000)
            self.ask(outcome)
        return waited


def queue(number: int) -> bytes:
    return (number + 1).to_bytes(4, "big") * 4


def key_refused(key: Key) -> None:
    key.ask(KEY_REFUSED)


def failing(key: Key) -> None:
    for _ in range(20):
        key.ask(FAILED)


def storm(key: Key) -> None:
    for number in range(20):
        key.ask(REFUSED, number % 5)


PROBING = [
    pytest.param(key_refused, Pause.KEY_REFUSED, id="key_refused"),
    pytest.param(failing, Pause.UPSTREAM_FAILING, id="failing"),
    pytest.param(storm, Pause.REFUSAL_STORM, id="storm"),
]
BEGINS = [key_refused, failing, storm]


@pytest.fixture
def key() -> Key:
    return Key()


# -- 429 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "pause_ms"),
    [
        (RateHeaders(retry_after_s=7.0), 7000),
        (RateHeaders(retry_after_s=7.0, reset_in_s=1.0), 7000),
        (RateHeaders(retry_after_s=0.0001), 1),
        (RateHeaders(retry_after_s=0.0, reset_in_s=7.0), 6000),
        (RateHeaders(reset_in_s=7.0), 6000),
        (RateHeaders(reset_in_s=1.5004), 501),
        (RateHeaders(reset_in_s=1.0), 250),
        (RateHeaders(reset_in_s=0.0), 250),
        (RateHeaders(), 250),
        (None, 250),
        (RateHeaders(retry_after_s=MAX_WAIT_S), MAX_PAUSE_MS),
        (RateHeaders(retry_after_s=10 * MAX_WAIT_S), MAX_PAUSE_MS),
        (RateHeaders(reset_in_s=10 * MAX_WAIT_S), MAX_PAUSE_MS),
    ],
)
def test_a_429_pauses_by_retry_after_else_by_the_reset_else_briefly(
    key: Key, headers: RateHeaders | None, pause_ms: int
) -> None:
    key.answer(key.send(), RATE_LIMITED, headers)
    assert key.paused is Pause.RATE_LIMITED
    assert key.wait_ms == pause_ms
    key.later(pause_ms - 1)
    assert key.wait_ms == 1
    key.later(1)
    assert key.wait_ms == 0
    assert key.paused is None


def test_after_a_429_nothing_is_a_probe(key: Key) -> None:
    key.answer(key.send(), RATE_LIMITED)
    key.wait()
    key.send()
    key.send()


@pytest.mark.parametrize(("first_s", "next_s"), [(30.0, 1.0), (1.0, 30.0)])
def test_the_longer_one_of_two_429s_counts(key: Key, first_s: float, next_s: float) -> None:
    requests = [key.send(), key.send()]
    for request, wait_s in zip(requests, (first_s, next_s), strict=True):
        key.answer(request, RATE_LIMITED, RateHeaders(retry_after_s=wait_s))
    assert key.wait_ms == 30_000


def test_a_429_neither_shortens_nor_ends_another_pause_and_counts_for_nothing(key: Key) -> None:
    late = key.send()
    key_refused(key)
    before = key.evidence
    key.answer(late, RATE_LIMITED, RateHeaders(retry_after_s=1.0))
    assert key.wait_ms == 15_000
    assert key.paused is Pause.KEY_REFUSED
    assert key.evidence == before


def test_a_429_outlasts_a_shorter_pause(key: Key) -> None:
    late = key.send()
    key_refused(key)
    key.answer(late, RATE_LIMITED, RateHeaders(retry_after_s=20.0))
    assert key.wait() == 20_000
    key.send()
    assert key.wait_ms == 1_000


# -- the key is refused --------------------------------------------------------------------------------


def test_a_refused_key_pauses_for_ever_longer(key: Key) -> None:
    key_refused(key)
    assert key.paused is Pause.KEY_REFUSED
    assert key.pauses_s(KEY_REFUSED, 7) == STEPS_S


def test_the_pause_is_short_where_the_refused_keys_events_are_given_up(key: Key) -> None:
    for _ in range(3):
        key.ask(KEY_REFUSED, given_up=True)
        assert key.wait() == 1_000
    key_refused(key)
    assert key.wait() == 120_000


def test_evidence_says_since_when_the_key_is_refused(key: Key) -> None:
    assert key.evidence.refused_since_ms == 0
    key_refused(key)
    since_ms = key.now_ms
    for outcome in (KEY_REFUSED, FAILED, RATE_LIMITED, KEY_REFUSED):
        key.wait()
        key.ask(outcome)
        assert key.evidence.refused_since_ms == since_ms
    key.wait()
    key.ask(FORBIDDEN)
    assert key.evidence.refused_since_ms == 0


# -- upstream fails ------------------------------------------------------------------------------------


def test_a_failing_upstream_pauses_for_ever_longer(key: Key) -> None:
    failing(key)
    assert key.paused is Pause.UPSTREAM_FAILING
    assert key.pauses_s(FAILED, 7) == STEPS_S


@pytest.mark.parametrize(
    ("failed", "others", "pauses"), [(19, 0, False), (14, 6, True), (13, 7, False), (69, 31, False)]
)
def test_seventy_of_a_hundred_requests_must_fail_and_twenty_be_made(
    key: Key, failed: int, others: int, *, pauses: bool
) -> None:
    kinds = [TAKEN, REFUSED, FORBIDDEN]
    for at in range(others):
        key.ask(kinds[at % 3])
    for _ in range(failed):
        key.ask(FAILED)
    assert (key.paused is Pause.UPSTREAM_FAILING) is pauses


@pytest.mark.parametrize(("after_ms", "pauses"), [(29_999, True), (30_000, False)])
def test_failures_of_thirty_seconds_before_are_forgotten(key: Key, after_ms: int, *, pauses: bool) -> None:
    key.ask(FAILED)
    first_ms = key.now_ms
    for _ in range(18):
        key.ask(FAILED)
    last = key.send()
    key.now_ms = first_ms + after_ms
    key.answer(last, FAILED)
    assert (key.paused is Pause.UPSTREAM_FAILING) is pauses


def test_failures_that_come_at_once_count_each(key: Key) -> None:
    requests = [key.send() for _ in range(20)]
    for request in requests:
        assert key.paused is None
        key.answer(request, FAILED)
    assert key.paused is Pause.UPSTREAM_FAILING


def test_after_a_pause_failures_are_counted_anew(key: Key) -> None:
    failing(key)
    key.wait()
    key.ask(TAKEN)
    for _ in range(18):
        key.ask(FAILED)
    assert key.paused is None
    key.ask(FAILED)
    assert key.wait_ms == 15_000


# -- a storm of refusals -------------------------------------------------------------------------------


def test_a_storm_pauses_for_ever_longer_and_looks_for_a_queue_that_is_taken(key: Key) -> None:
    assert not standing.wants_untroubled(key.standing)
    storm(key)
    assert key.paused is Pause.REFUSAL_STORM
    assert standing.wants_untroubled(key.standing)
    assert key.pauses_s(REFUSED, 6) == STORM_STEPS_S


@pytest.mark.parametrize(
    "of",
    [
        pytest.param([(REFUSED, number % 5) for number in range(19)], id="19 refusals"),
        pytest.param([(REFUSED, number % 4) for number in range(40)], id="of four queues"),
        pytest.param([(TAKEN, 9), *[(REFUSED, n % 5) for n in range(19)]], id="one of 20 taken"),
        pytest.param([(FORBIDDEN, number % 5) for number in range(40)], id="403"),
    ],
)
def test_it_is_no_storm_while(key: Key, of: list[tuple[Outcome, int]]) -> None:
    for outcome, number in of:
        key.ask(outcome, number)
    assert key.paused is None


def test_other_answers_between_the_refusals_do_not_hide_a_storm(key: Key) -> None:
    for number in range(20):
        key.ask(FAILED if number % 2 else FORBIDDEN, number % 5)
        key.ask(REFUSED, number % 5)
    assert key.paused is Pause.REFUSAL_STORM


def test_only_events_taken_end_a_storm(key: Key) -> None:
    storm(key)
    for outcome in (REFUSED, FORBIDDEN, FAILED, RATE_LIMITED, NONE):
        key.wait()
        key.ask(outcome)
        assert key.paused is Pause.REFUSAL_STORM
    key.wait()
    key.ask(TAKEN)
    assert key.paused is None
    assert key.wait_ms == 0
    assert not standing.wants_untroubled(key.standing)


# -- probes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("begin", "reason"), PROBING)
def test_after_a_pause_one_request_at_a_time_is_a_probe(
    key: Key, begin: Callable[[Key], None], reason: Pause
) -> None:
    begin(key)
    key.wait()
    assert key.paused is reason
    key.send()
    assert key.wait_ms == 1_000
    key.later(LEASE_MS - 300)
    assert key.wait_ms == 300
    assert key.paused is reason


@pytest.mark.parametrize("begin", BEGINS)
def test_a_probe_whose_worker_died_is_followed_by_another(key: Key, begin: Callable[[Key], None]) -> None:
    begin(key)
    key.wait()
    lost = key.send()
    assert key.wait_ms > 0
    key.later(LEASE_MS)
    probe = key.send()
    key.answer(lost, TAKEN)
    assert key.wait_ms == 1_000
    key.answer(probe, TAKEN)
    assert key.wait_ms == 0


@pytest.mark.parametrize("outcome", [TAKEN, REFUSED, FORBIDDEN])
@pytest.mark.parametrize("begin", [key_refused, failing])
def test_an_answer_about_events_or_their_origin_ends_the_pause(
    key: Key, begin: Callable[[Key], None], outcome: Outcome
) -> None:
    begin(key)
    for _ in range(3):
        key.wait()
        key.ask(FAILED)
    key.wait()
    key.ask(outcome)
    assert key.paused is None
    key.send()
    key.send()
    key_refused(key)
    assert key.wait_ms == 15_000


@pytest.mark.parametrize("begin", BEGINS)
def test_a_probe_that_no_request_came_of_is_given_back(key: Key, begin: Callable[[Key], None]) -> None:
    begin(key)
    key.wait()
    key.ask(NONE)
    assert key.wait_ms == 0
    key.send()
    assert key.wait_ms == 1_000


@pytest.mark.parametrize(("begin", "reason"), PROBING)
def test_a_probe_that_is_limited_is_given_back_when_its_pause_ends(
    key: Key, begin: Callable[[Key], None], reason: Pause
) -> None:
    begin(key)
    key.wait()
    key.answer(key.send(), RATE_LIMITED, RateHeaders(retry_after_s=2.0))
    assert key.paused is reason
    assert key.wait() == 2_000
    key.send()
    assert key.wait_ms == 1_000


@pytest.mark.parametrize(("begin", "reason"), PROBING)
def test_a_probe_without_an_answer_begins_the_next_pause_for_the_same_reason(
    key: Key, begin: Callable[[Key], None], reason: Pause
) -> None:
    begin(key)
    first_ms = key.wait()
    key.ask(FAILED)
    assert key.wait_ms == 2 * first_ms
    assert key.paused is reason


@pytest.mark.parametrize("begin", [failing, storm])
def test_a_probe_that_finds_the_key_refused_begins_the_first_pause_of_that(
    key: Key, begin: Callable[[Key], None]
) -> None:
    begin(key)
    for _ in range(3):
        key.wait()
        key.ask(FAILED)
    key.wait()
    key_refused(key)
    assert key.wait_ms == 15_000
    assert key.paused is Pause.KEY_REFUSED


def test_the_refusal_that_ends_one_pause_may_begin_a_storm(key: Key) -> None:
    for number in range(19):
        key.ask(REFUSED, number % 5)
    key_refused(key)
    key.wait()
    key.ask(REFUSED)
    assert key.paused is Pause.REFUSAL_STORM
    assert key.evidence.refused_since_ms == 0


@pytest.mark.parametrize("outcome", [NONE, TAKEN, REFUSED, FORBIDDEN, KEY_REFUSED, FAILED])
@pytest.mark.parametrize("begin", BEGINS)
def test_requests_of_before_a_pause_neither_lengthen_nor_end_it(
    key: Key, begin: Callable[[Key], None], outcome: Outcome
) -> None:
    late = [key.send(number) for number in range(3)]
    begin(key)
    reason, wait_ms = key.paused, key.wait_ms
    key.answer(late[0], outcome)
    assert (key.paused, key.wait_ms) == (reason, wait_ms)
    key.wait()
    probe = key.send()
    key.answer(late[1], outcome)
    assert (key.paused, key.wait_ms) == (reason, 1_000)
    key.later(50)
    key.answer(probe, TAKEN)
    assert key.paused is None
    key.answer(late[2], outcome)
    assert key.paused is None


def test_a_millisecond_tells_a_probe_from_requests_beside_it(key: Key) -> None:
    late = key.send()
    key_refused(key)
    key.wait()
    probe = key.send()
    key.answer(probe, TAKEN)
    key.answer(late, KEY_REFUSED)
    assert key.paused is None
    beside = [key.send(), key.send(), key.send()]
    key.answer(beside[0], KEY_REFUSED)
    assert key.wait_ms == 15_000
    key.answer(beside[1], KEY_REFUSED)
    key.answer(beside[2], TAKEN)
    assert key.wait_ms == 15_000


# -- the operator --------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", list(Outcome))
def test_no_answer_ends_the_operators_pause(key: Key, outcome: Outcome) -> None:
    requests = [key.send() for _ in range(3)]
    key.standing.by_operator = True
    for request in requests:
        key.answer(request, outcome)
    key.later(24 * HOUR_MS)
    standing.retry(key.standing)
    assert key.wait_ms == 60_000
    assert key.paused is Pause.OPERATOR


def test_the_end_of_the_operators_pause_ends_no_other(key: Key) -> None:
    its = gate.opened(100, 1.0)
    assert gate.claim(its, NOW_MS, LEASE_MS) == 0
    gate.settle(its, Feedback(KEY_REFUSED), queue(0), NOW_MS, NOW_MS)
    gate.pause(its)
    assert gate.view(its, NOW_MS).paused is Pause.OPERATOR
    gate.resume(its)
    assert gate.view(its, NOW_MS).paused is Pause.KEY_REFUSED
    assert gate.claim(its, NOW_MS + 1000, LEASE_MS) == 14_000


@pytest.mark.parametrize(("begin", "reason"), PROBING)
def test_retry_has_a_probe_go_at_once_and_pauses_begin_anew(
    key: Key, begin: Callable[[Key], None], reason: Pause
) -> None:
    begin(key)
    first_ms = key.wait()
    key.ask(FAILED)
    evidence = key.evidence
    standing.retry(key.standing)
    assert key.paused is reason
    assert key.evidence == evidence
    key.ask(FAILED)
    assert key.wait_ms == first_ms


def test_retry_waits_for_no_probe_and_no_429(key: Key) -> None:
    late = key.send()
    key_refused(key)
    key.wait()
    key.send()
    key.answer(late, RATE_LIMITED, RateHeaders(retry_after_s=100.0))
    standing.retry(key.standing)
    assert key.wait_ms == 0


# -- evidence ------------------------------------------------------------------------------------------


def test_evidence_counts_every_request_but_the_limited_ones(key: Key) -> None:
    requests = [key.send() for _ in Outcome]
    for request, outcome in zip(requests, Outcome, strict=True):
        key.answer(request, outcome)
    assert (key.evidence.requests, key.evidence.successes) == (len(Outcome) - 2, 1)


def test_proven_is_when_the_latest_request_was_claimed_of_which_something_was_taken(key: Key) -> None:
    assert key.evidence.proven_ms == 0
    first = key.send()
    key.later(1)
    second = key.send()
    key.later(1)
    third = key.send()
    for request, proven_ms in ((second, second), (first, second), (third, third)):
        key.answer(request, TAKEN)
        assert key.evidence.proven_ms == proven_ms.claimed_ms


def test_evidence_sees_the_latest_twenty_answers_about_events(key: Key) -> None:
    for _ in range(15):
        key.ask(TAKEN)
    for _ in range(9):
        key.ask(REFUSED)
        key.ask(FORBIDDEN)
    assert (key.evidence.judged, key.evidence.taken) == (20, 11)


@pytest.mark.parametrize(
    ("answers", "elsewhere"),
    [
        ([], False),
        ([(REFUSED, 0)], False),
        ([(REFUSED, 1)], True),
        ([(REFUSED, 1), (REFUSED, 0)], True),
        ([(REFUSED, 1), (TAKEN, 0)], False),
        ([(REFUSED, 1), (TAKEN, 2), (REFUSED, 0)], False),
        ([(TAKEN, 1), (REFUSED, 0), (REFUSED, 1)], True),
    ],
)
def test_refused_elsewhere_is_since_the_last_success_and_of_another_queue(
    key: Key, answers: list[tuple[Outcome, int]], *, elsewhere: bool
) -> None:
    for outcome, number in answers:
        key.ask(outcome, number)
    assert key.evidence.refused_elsewhere is elsewhere


# -- forbidden origins ---------------------------------------------------------------------------------


def origins(key: Key) -> list[str]:
    return list(standing.view(key.standing, 90.0, 100.0, key.now_ms).forbidden_origins)


def test_forbidden_origins_are_shown_until_one_is_taken(key: Key) -> None:
    for origin in ("https://a.example", "https://b.example", None, "https://a.example"):
        key.ask(FORBIDDEN, origin=origin)
    assert origins(key) == ["https://a.example", "", "https://b.example"]
    assert key.paused is None
    key.ask(TAKEN, origin="https://b.example")
    key.ask(REFUSED, origin="https://a.example")
    assert origins(key) == ["https://a.example", ""]


def test_twenty_forbidden_origins_are_shown(key: Key) -> None:
    for number in range(25):
        key.ask(FORBIDDEN, origin=f"https://{number}.example")
    assert origins(key) == [f"https://{number}.example" for number in range(24, 4, -1)]


@pytest.mark.parametrize(
    ("origin", "shown"),
    [
        ("https://\udcff.example", "https://?.example"),
        ("https://" + "ö" * 5_000, "https://" + "ö" * 262),
        ("null", "null"),
    ],
)
def test_an_origin_that_is_none_is_made_storable(key: Key, origin: str, shown: str) -> None:
    key.ask(FORBIDDEN, origin=origin)
    assert origins(key) == [shown]
    assert (
        msgspec.msgpack.decode(msgspec.msgpack.encode(key.standing), type=standing.Standing) == key.standing
    )
    key.ask(TAKEN, origin=origin)
    assert origins(key) == []


# -- the view ------------------------------------------------------------------------------------------


def test_the_view_says_how_long_a_pause_lasts_and_that_probes_follow(key: Key) -> None:
    def view() -> tuple[Pause | None, float, bool]:
        seen = standing.view(key.standing, 90.0, 100.0, key.now_ms)
        return seen.paused, seen.paused_for_s, seen.by_operator

    assert view() == (None, 0.0, False)
    key_refused(key)
    assert view() == (Pause.KEY_REFUSED, 15.0, False)
    key.later(14_500)
    assert view() == (Pause.KEY_REFUSED, 0.5, False)
    key.later(500)
    assert view() == (Pause.KEY_REFUSED, 0.0, False)
    key.send()
    assert view() == (Pause.KEY_REFUSED, 0.0, False)
    key.standing.by_operator = True
    assert view() == (Pause.OPERATOR, 0.0, True)


# -- jumps of the clock --------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", BEGINS)
def test_a_jump_back_during_a_pause_has_the_next_probe_go(key: Key, begin: Callable[[Key], None]) -> None:
    begin(key)
    key.later(-HOUR_MS)
    assert key.wait_ms == 0
    key.send()
    assert key.wait_ms == 1_000


@pytest.mark.parametrize("begin", BEGINS)
def test_a_jump_back_during_a_probe_has_another_go_and_its_answer_count(
    key: Key, begin: Callable[[Key], None]
) -> None:
    begin(key)
    key.wait()
    key.send()
    key.later(-HOUR_MS)
    key.ask(TAKEN)
    assert key.paused is None


def test_a_jump_back_during_the_pause_of_a_429_ends_it(key: Key) -> None:
    key.answer(key.send(), RATE_LIMITED, RateHeaders(retry_after_s=30.0))
    key.later(-HOUR_MS)
    assert key.wait_ms == 0
    key.answer(key.send(), RATE_LIMITED, RateHeaders(retry_after_s=2.0))
    assert key.wait_ms == 2_000


@pytest.mark.parametrize("begin", BEGINS)
def test_the_pause_that_a_probe_ended_is_over_although_the_clock_went_back_a_little(
    key: Key, begin: Callable[[Key], None]
) -> None:
    begin(key)
    key.wait()
    probe = key.send()
    key.later(-3_000)
    key.answer(probe, TAKEN)
    assert key.wait_ms == 0


def limited(key: Key) -> None:
    key.answer(key.send(), RATE_LIMITED, RateHeaders(retry_after_s=30.0))


@pytest.mark.parametrize("begin", [*BEGINS, limited])
def test_a_pause_that_a_jump_back_ended_does_not_come_again(key: Key, begin: Callable[[Key], None]) -> None:
    begin(key)
    key.later(-HOUR_MS)
    key.ask(TAKEN)
    for _ in range(60):
        key.later(60_000)
        assert key.wait_ms == 0


@pytest.mark.parametrize("jump_ms", [-HOUR_MS, HOUR_MS])
@pytest.mark.parametrize(("begin", "reason"), PROBING)
def test_after_a_jump_pauses_begin_as_ever(
    key: Key, begin: Callable[[Key], None], reason: Pause, jump_ms: int
) -> None:
    begin(key)
    key.wait()
    key.ask(TAKEN)
    key.later(jump_ms)
    begin(key)
    assert key.paused is reason


def test_after_a_jump_back_nothing_is_proven_by_what_came_before_it(key: Key) -> None:
    late = key.send()
    key.ask(TAKEN)
    key.later(-HOUR_MS)
    key.answer(late, TAKEN)
    assert key.evidence.proven_ms == 0
    key.ask(TAKEN)
    assert key.evidence.proven_ms == key.now_ms - 50
    key.later(-HOUR_MS)
    key.send()
    assert key.evidence.proven_ms == 0


def test_after_a_jump_back_the_key_is_refused_since_then(key: Key) -> None:
    key_refused(key)
    key.later(-HOUR_MS)
    key.send()
    assert key.evidence.refused_since_ms == key.now_ms


# -- in any order --------------------------------------------------------------------------------------

BOUND_MS = MAX_PAUSE_MS + LEASE_MS + 1_000
"""Pause, probe and pace: by then a claim is granted, whatever came before."""

_headers = st.none() | st.builds(
    RateHeaders,
    limit=st.none() | st.sampled_from([10, 100]),
    remaining=st.none() | st.integers(0, 100),
    retry_after_s=st.none() | st.sampled_from([0.0, 1.0, 17.0, MAX_WAIT_S]),
    reset_in_s=st.none() | st.sampled_from([0.0, 0.3, 1.0]),
)
_origins = st.none() | st.integers(0, 30).map("https://{}.example".format)


class WholeGate(RuleBasedStateMachine):
    """The gate of a key, with requests that are answered in any order, lost, and a clock that jumps."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = gate.opened(100.0, 1.0)
        self.now_ms = NOW_MS
        self.requests: list[Request] = []
        self.probe: Request | None = None
        """The one of which the answer is awaited."""
        self.is_steady = True
        """Since the probe went neither has the clock gone back nor the operator asked for another one."""

    @property
    def is_probing(self) -> bool:
        return self.gate.standing.reason != ""

    def copy(self) -> Gate:
        return gate.load(gate.dump(self.gate), 100.0, 1.0)

    def held(self) -> tuple[str, int]:
        """Why requests are held back, and how long."""
        return self.gate.standing.reason, standing.wait_ms(self.gate.standing, self.now_ms)

    @rule(number=st.integers(0, 7))
    def claim(self, number: int) -> None:
        its = self.copy()
        wait_ms = gate.claim(its, self.now_ms, LEASE_MS)
        assert 0 <= wait_ms <= MAX_PAUSE_MS
        if wait_ms > 0:
            return
        self.gate = its
        assert not self.gate.standing.by_operator
        request = Request(queue(number), self.now_ms)
        self.requests.append(request)
        if self.is_probing:
            if self.probe is not None and self.is_steady:
                assert self.now_ms >= self.probe.claimed_ms + LEASE_MS
            self.probe, self.is_steady = request, True

    @rule(number=st.integers(0, 7))
    def claim_when_told(self, number: int) -> None:
        for _ in range(3):
            self.claim(number)
            self.now_ms += gate.claim(self.copy(), self.now_ms, LEASE_MS)

    @precondition(lambda self: self.requests)
    @rule(
        at=st.integers(0, 99),
        outcome=st.sampled_from(Outcome),
        headers=_headers,
        origin=_origins,
        given_up=st.booleans(),
    )
    def answer(
        self, at: int, outcome: Outcome, headers: RateHeaders | None, origin: str | None, *, given_up: bool
    ) -> None:
        request = self.requests.pop(at % len(self.requests))
        feedback = Feedback(outcome, headers, self.now_ms - 40.0, origin, given_up)
        was_by_operator, was_probing = self.gate.standing.by_operator, self.is_probing
        was = self.held()
        gate.settle(self.gate, feedback, request.queue, request.claimed_ms, self.now_ms)
        assert self.gate.standing.by_operator is was_by_operator
        if was_probing and request is not self.probe and outcome is not RATE_LIMITED:
            assert self.held() == was
        if request is self.probe:
            self.probe = None
        if not self.is_probing:
            self.probe = None

    @rule(times=st.integers(1, 25), outcome=st.sampled_from([TAKEN, REFUSED, FORBIDDEN, KEY_REFUSED, FAILED]))
    def several(self, times: int, outcome: Outcome) -> None:
        for number in range(times):
            self.claim(number % 8)
            if self.requests and self.requests[-1].claimed_ms == self.now_ms:
                self.now_ms += 20
                self.answer(-1, outcome, None, None, given_up=False)

    @rule(ms=st.integers(1, 2_000) | st.sampled_from([15_000, LEASE_MS, MAX_PAUSE_MS]))
    def let_pass(self, ms: int) -> None:
        self.now_ms += ms

    @rule(ms=st.sampled_from([-HOUR_MS, -20_000, -1_000, -1, HOUR_MS]))
    def jump(self, ms: int) -> None:
        self.now_ms += ms
        self.is_steady = self.is_steady and ms > 0

    @rule(verb=st.sampled_from(["pause", "resume", "resume", "retry"]))
    def ask(self, verb: str) -> None:
        getattr(gate, verb)(self.gate)
        self.is_steady = self.is_steady and verb != "retry"

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.gate.standing.recent) <= 20
        assert len(self.gate.standing.forbidden_origins) <= 20
        evidence = gate.evidence(self.gate, queue(0))
        assert evidence.taken <= evidence.judged <= 20
        assert evidence.successes <= evidence.requests
        view = gate.view(self.gate, self.now_ms)
        assert 0 <= view.paused_for_s <= MAX_WAIT_S
        assert (view.paused is Pause.OPERATOR) is view.by_operator

    @invariant()
    def what_is_stored_is_the_same_gate(self) -> None:
        assert self.copy() == self.gate

    @invariant()
    def time_alone_lets_a_request_through_and_its_success_the_others(self) -> None:
        its, now_ms = self.copy(), self.now_ms
        if its.standing.by_operator:
            return
        while wait_ms := gate.claim(its, now_ms, LEASE_MS):
            now_ms += wait_ms
            assert now_ms - self.now_ms <= BOUND_MS
            its = self.copy()  # a claim that waits need not be stored
        gate.settle(its, Feedback(TAKEN), queue(0), now_ms, now_ms)
        assert its.standing.reason == ""
        assert gate.claim(its, now_ms, LEASE_MS) <= 1_000


TestWholeGate = WholeGate.TestCase


# -- as it is stored -----------------------------------------------------------------------------------


def test_what_is_no_gate_is_refused() -> None:
    stored = msgspec.msgpack.decode(gate.dump(gate.opened(100.0, 1.0)))
    fields = [(part, name) for part, its in stored.items() for name in its]
    assert len(fields) > 15
    broken = [b"", b"{}", b"\xc0", b"\x80", gate.dump(gate.opened(100.0, 1.0))[:-1]]
    for part, name in fields:
        its = dict(stored[part])
        del its[name]
        broken.append(msgspec.msgpack.encode({**stored, part: its}))
        broken.append(msgspec.msgpack.encode({**stored, part: {**its, name: {"a": None}}}))
    for text in broken:
        with pytest.raises(msgspec.MsgspecError):
            gate.load(text, 100.0, 1.0)


def test_a_text_that_is_not_utf_8_is_no_gate() -> None:
    text = gate.dump(gate.opened(100.0, 1.0)).replace(b"\xa6reason\xa0", b"\xa6reason\xa1\xff")
    with pytest.raises(msgspec.MsgspecError):
        gate.load(text, 100.0, 1.0)
