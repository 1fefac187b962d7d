"""Answers of Redis that do not come, come late, or come to somebody who has gone."""

from collections.abc import Iterator
from random import Random

import pytest

from tests.faults.between import CUT, PASSED, SWALLOWED, Between, Treatment, between
from tests.faults.load import clients, under_load
from tests.faults.promises import assert_promises_kept
from tests.programs import Proxy, Sandbox, wait_for
from tests.redis_servers import RedisServer


@pytest.fixture
def wire(server: RedisServer) -> Iterator[Between]:
    with between(server.port) as wire:
        yield wire


@pytest.fixture
def engine(wire: Between) -> dict[str, str]:
    """That wire is all that the proxy has to Redis."""
    return {"BUFFER_URL": f"redis://127.0.0.1:{wire.port}"}


class Strikes:
    """Loses every so many answers to one question, in either way, until there were so many of them."""

    def __init__(self, what: str, *, every: int, times: int) -> None:
        self._what = what
        self._every = every
        self._seen = 0
        self.left = times

    def __call__(self, what: str) -> Treatment:
        if what != self._what or not self.left:
            return PASSED
        self._seen += 1
        if self._seen % self._every:
            return PASSED
        self.left -= 1
        return SWALLOWED if self.left % 2 else CUT


@pytest.mark.parametrize("what", ["append", "settle"])
def test_an_answer_that_never_came_is_asked_for_again_and_nothing_is_done_twice(
    proxy: Proxy, sandbox: Sandbox, wire: Between, what: str
) -> None:
    posting = clients(browsers=6, servers=3, seed=210)
    strikes = Strikes(what, every=7, times=4)
    with under_load(proxy, posting):
        proxy.wait_until_delivered(20)
        wire.treat = strikes
        wait_for("answers to be lost", lambda: not strikes.left)
        proxy.wait_until_more_delivered(100)
    assert not any(client.posted_again for client in posting)
    proxy.wait_until_empty(60)
    assert not assert_promises_kept(proxy, sandbox, posting)
    assert proxy.metrics()["outlit_proxy_buffer_retries_total"] >= 4


def test_a_lease_whose_claim_was_never_answered_ends_by_itself_and_nothing_is_sent_twice(
    proxy: Proxy, sandbox: Sandbox, wire: Between
) -> None:
    posting = clients(browsers=6, servers=3, seed=211)
    # Every other: a key's claims are asked one after another, and few of them are of use.
    strikes = Strikes("claim", every=2, times=4)
    with under_load(proxy, posting):
        proxy.wait_until_delivered(20)
        wire.treat = strikes
        wait_for("answers to be lost", lambda: not strikes.left)
    assert not any(client.posted_again for client in posting)
    proxy.wait_until_empty(60)
    assert not assert_promises_kept(proxy, sandbox, posting)


def _answers_come_late(proxy: Proxy, sandbox: Sandbox, wire: Between, *, events: int, seed: int) -> None:
    """So late that some find nobody who waits for them; clients hang up as well."""
    rng = Random(seed)
    late: list[float] = []

    def treat(_what: str) -> Treatment:
        luck = rng.random()
        if luck < 0.9:
            return PASSED
        if luck < 0.98:
            return Treatment(delay_s=rng.uniform(0, 0.1))
        late.append(rng.uniform(2, 6))  # nobody waits so long
        return Treatment(delay_s=late[-1])

    posting = clients(browsers=16, servers=6, seed=seed)
    with under_load(proxy, posting, hangs_up_within_s=0.05):
        proxy.wait_until_delivered(20)
        wire.treat = treat
        before = sum(len(client.acknowledged) for client in posting)  # the books would have to be asked for
        wait_for(
            f"{events} more to be acknowledged",
            lambda: len(late) >= 5 and sum(len(client.acknowledged) for client in posting) >= before + events,
            300,
        )
        wire.treat = lambda _what: PASSED
    proxy.wait_until_empty(60)
    assert_promises_kept(proxy, sandbox, posting)
    assert len(late) >= 5, "hardly any was late: nothing was tested"
    assert sum(client.posted_again for client in posting) > 20


def test_answers_that_come_when_nobody_waits_any_more_reach_nobody_else(
    proxy: Proxy, sandbox: Sandbox, wire: Between
) -> None:
    _answers_come_late(proxy, sandbox, wire, events=300, seed=212)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_thousands_of_answers_that_come_when_nobody_waits_any_more_reach_nobody_else(
    proxy: Proxy, sandbox: Sandbox, wire: Between
) -> None:
    _answers_come_late(proxy, sandbox, wire, events=20_000, seed=213)
