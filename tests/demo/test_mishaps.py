import pytest

from proxy.demo.mishaps import LATENCY, SABOTAGE, is_waiting, mishaps, strike
from proxy.sandbox import Fault, Programme, What

NOW = 1_700_000_000.0


@pytest.mark.parametrize("run_s", [1.0, 4.0, 20.0, 600.0])
def test_mishaps_come_one_after_the_other_and_well_before_the_end(run_s):
    planned = mishaps(run_s, "drop")
    ends = [mishap.at_s + (mishap.fault.seconds or 0) for mishap in planned]
    assert all(end <= later.at_s for end, later in zip(ends, planned[1:], strict=False))
    assert ends[-1] < run_s


def test_sabotage_is_ordered_only_on_request():
    ordinary = {mishap.fault.what for mishap in mishaps(20, None)}
    assert not any(what.is_sabotage for what in ordinary)
    for word, what in SABOTAGE.items():
        assert mishaps(20, word)[0].fault.what is what


def test_a_fault_strikes_ahead_of_the_latency_that_meets_everyone():
    programme = Programme()
    strike(programme, LATENCY, NOW)
    strike(programme, Fault(what=What.RESET, requests=1), NOW)
    found = [programme.next("pk_demo", NOW) for _ in range(3)]
    assert [fault.what for fault in found if fault] == [What.RESET, What.LATENCY, What.LATENCY]


def test_what_was_left_of_a_fault_is_left_after_another_was_switched_on():
    programme = Programme()
    strike(programme, Fault(what=What.STATUS, status=503, seconds=3.0), NOW)
    strike(programme, Fault(what=What.RESET, requests=2), NOW)
    programme.next("pk_demo", NOW)
    strike(programme, Fault(what=What.DROP, requests=1), NOW + 1)
    drop, reset, outage = programme.running(NOW + 1)
    assert (drop.fault.what, reset.left, outage.until) == (What.DROP, 1, NOW + 3)


def test_sabotage_waits_until_it_has_struck():
    programme = Programme()
    strike(programme, Fault(what=What.SWAP, requests=1), NOW)
    assert is_waiting(programme, "swap", NOW)
    programme.next("pk_demo", NOW)
    assert not is_waiting(programme, "swap", NOW)
