import pytest

from proxy.demo.marks import is_poison
from proxy.demo.mishaps import FORBIDDEN_ORIGIN, SABOTAGE, THROUGHOUT, calm, is_waiting, mishaps
from proxy.demo.traffic import _ORIGINS
from proxy.sandbox import Fault, Programme, Seen, What

NOW = 1_700_000_000.0
SEEN = Seen(public_key="pk_demo", events=({"eventName": "added_to_cart"},))


@pytest.mark.parametrize("run_s", [1.0, 4.0, 20.0, 600.0])
def test_mishaps_come_one_after_the_other_and_well_before_the_end(run_s):
    planned = mishaps(run_s, "drop")
    ends = [mishap.at_s + mishap.lasts_s for mishap in planned]
    assert all(end <= later.at_s for end, later in zip(ends, planned[1:], strict=False))
    assert ends[-1] < run_s


def test_each_mishap_is_one_thing():
    for mishap in mishaps(20, "swap"):
        done = (mishap.fault, mishap.limit, mishap.planted, mishap.retried or None)
        assert sum(each is not None for each in done) == 1, mishap.said


def test_sabotage_is_ordered_only_on_request_and_before_the_reset():
    assert not any(mishap.fault.what.is_sabotage for mishap in mishaps(20, None) if mishap.fault)
    for word, what in SABOTAGE.items():
        faults = [mishap.fault.what for mishap in mishaps(20, word) if mishap.fault]
        assert faults[0] is what
        assert What.RESET in faults


def test_every_event_that_is_planted_is_refused_from_the_beginning():
    programme = Programme()
    programme.add(*THROUGHOUT.faults, now=NOW)
    planted = [mishap.planted for mishap in mishaps(20, None) if mishap.planted]
    found = []
    for name in planted:
        event = {"eventName": name}
        assert is_poison(event)
        fault = programme.next(Seen(public_key="pk_demo", events=({}, event)), NOW)
        assert fault is not None
        found.append((fault.what, fault.names is not None))
    assert found == [(What.REFUSE, True), (What.REFUSE, False)]
    assert programme.next(SEEN, NOW) is None


def test_visitors_come_from_the_forbidden_origin_and_from_another():
    assert FORBIDDEN_ORIGIN in _ORIGINS
    assert len(_ORIGINS) > 1


def test_calm_ends_what_would_end_by_itself_and_nothing_else():
    programme = Programme()
    programme.add(*THROUGHOUT.faults, Fault(what=What.STATUS, status=403, seconds=3.0), now=NOW)
    programme.add(Fault(what=What.SWAP, requests=1), now=NOW)
    assert calm(programme, NOW + 1)
    assert not calm(programme, NOW + 1)
    left = [running.order.what for running in programme.running(NOW + 1)]
    assert left == [What.REFUSE, What.REFUSE, What.SWAP]


def test_sabotage_waits_until_it_has_struck():
    programme = Programme()
    programme.add(Fault(what=What.SWAP, requests=1), now=NOW)
    assert is_waiting(programme, "swap", NOW)
    programme.next(SEEN, NOW)
    assert not is_waiting(programme, "swap", NOW)
