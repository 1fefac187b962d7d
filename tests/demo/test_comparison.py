"""The comparison must see every way in which the promise can break, and believe no excuse that is none."""

from dataclasses import replace

import pytest

from proxy.demo.comparison import Arrival, Evidence, Posted, Sender, Verdict, compare

ANN = Sender('{"visitorId":"ann"}', "192.0.2.1", "Firefox", "https://shop.example")
BOB = Sender('{"visitorId":"bob"}', "192.0.2.2", "Safari", "https://shop.example")


def posted(marker: str, number: int, sender: Sender = ANN, uuid: str | None = None) -> Posted:
    return Posted(marker, sender.envelope, number, uuid, f'{{"title":"{marker}"}}', sender)


def arrival(event: Posted, request: int, **changes: str) -> Arrival:
    whole = Arrival(
        event.marker, request, event.uuid or f"made-for-{event.marker}", event.content, event.sender
    )
    return replace(whole, **changes)  # type: ignore[arg-type]  # the sender is passed apart


A1, A2, A3 = posted("a1", 1), posted("a2", 2, uuid="u2"), posted("a3", 3)
B1, B2 = posted("b1", 1, BOB), posted("b2", 2, BOB)
EVERYTHING = (A1, B1, A2, B2, A3)


def judged(
    *arrivals: Arrival,
    acknowledged: tuple[Posted, ...] = EVERYTHING,
    unacknowledged: tuple[Posted, ...] = (),
    refused: frozenset[str] = frozenset(),
    unanswered: frozenset[int] = frozenset(),
    ambiguous: int = 0,
    dead: int = 0,
) -> Verdict:
    return compare(
        acknowledged,
        unacknowledged,
        Evidence(arrivals, refused, unanswered),
        ambiguous=ambiguous,
        dead=dead,
    )


def all_in(request: int) -> list[Arrival]:
    return [arrival(event, request) for event in EVERYTHING]


def test_all_that_was_acknowledged_arrived_once():
    verdict = judged(*all_in(1))
    assert (verdict.kept, verdict.acknowledged, verdict.announced) == (5, 5, 0)
    assert not verdict.findings


def test_an_acknowledged_event_that_never_arrived_is_lost():
    verdict = judged(*all_in(1)[:-1])
    assert list(verdict.findings) == ["lost"]
    assert verdict.lost == ("a3 was acknowledged and never arrived",)
    assert verdict.kept == 4


def test_an_unacknowledged_event_may_be_missing_or_arrive_but_not_twice():
    without = judged(arrival(A1, 1), acknowledged=(A1,), unacknowledged=(A2,))
    once = judged(arrival(A1, 1), arrival(A2, 2), acknowledged=(A1,), unacknowledged=(A2,))
    twice = judged(arrival(A1, 1), arrival(A2, 2), arrival(A2, 3), acknowledged=(A1,), unacknowledged=(A2,))
    assert not without.findings
    assert not once.findings
    assert list(twice.findings) == ["doubled without saying so"]


def test_a_refused_event_is_kept_as_the_dead_letter_that_the_proxy_reports():
    arrivals = all_in(1)[:-1]
    kept = judged(*arrivals, refused=frozenset({"a3"}), dead=1)
    thrown_away = judged(*arrivals, refused=frozenset({"a3"}), dead=0)
    another = judged(*arrivals, refused=frozenset({"zz"}), dead=1)
    assert (kept.kept, kept.dead, kept.lost) == (5, 1, ())
    assert len(thrown_away.lost) == len(another.lost) == 1


def test_twice_without_a_word_is_doubled():
    verdict = judged(*all_in(1), arrival(A3, 2))
    assert verdict.doubled == ("a3 arrived 2 times, in requests 1, 2",)
    assert verdict.kept == 5


def test_twice_after_an_announced_ambiguous_delivery_is_announced():
    verdict = judged(*all_in(1), *all_in(2), unanswered=frozenset({1}), ambiguous=1)
    assert verdict.announced == 5
    assert not verdict.findings


def test_an_answer_that_came_too_late_explains_one_repeated_request():
    # Upstream answered request 1 and the proxy had given up: upstream's record alone does not show it.
    assert not judged(*all_in(1), *all_in(2), ambiguous=1).findings
    twice = judged(*all_in(1), *all_in(2), *all_in(3), ambiguous=1)
    assert len(twice.doubled) == 5


def test_an_unanswered_request_that_the_proxy_does_not_report_explains_nothing():
    verdict = judged(*all_in(1), *all_in(2), unanswered=frozenset({1}), ambiguous=0)
    assert len(verdict.doubled) == 5


def test_an_ambiguous_delivery_of_others_is_no_excuse():
    # Request 7 is the one that was reported; it brought nothing of ours twice.
    verdict = judged(*all_in(1), arrival(A3, 2), unanswered=frozenset({7}), ambiguous=1)
    assert len(verdict.doubled) == 1


def test_twice_in_one_request_is_never_announced():
    verdict = judged(*all_in(1), arrival(A3, 1), unanswered=frozenset({1}), ambiguous=5)
    assert len(verdict.doubled) == 1


def test_a_repetition_under_another_uuid_cannot_be_recognised():
    again = arrival(A1, 2, uuid="another")
    verdict = judged(*all_in(1), again, unanswered=frozenset({1}), ambiguous=1)
    assert len(verdict.doubled) == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("envelope", '{"visitorId":"bob"}'),
        ("client_ip", "192.0.2.2"),
        ("client_ip", None),
        ("user_agent", "Safari"),
        ("origin", None),
    ],
)
def test_anything_else_that_applies_to_the_request_is_misattributed(field, value):
    wrong = replace(arrival(A1, 1), sender=replace(ANN, **{field: value}))
    verdict = judged(wrong, *all_in(1)[1:])
    assert list(verdict.findings) == ["misattributed"]
    assert verdict.misattributed == (
        f"a1 arrived in request 1 with {field} {value} instead of {getattr(ANN, field)}",
    )


def test_the_second_arrival_is_looked_at_too():
    wrong = replace(arrival(A1, 2), sender=BOB)
    verdict = judged(*all_in(1), wrong, unanswered=frozenset({1}), ambiguous=1)
    assert list(verdict.findings) == ["misattributed"]


def test_order_is_that_of_each_stream_and_of_first_arrivals():
    # Bob's events before Ann's are no disorder, nor is the repetition of an earlier one.
    mixed = judged(
        *(arrival(event, 1) for event in (B1, B2)),
        *(arrival(event, 2) for event in (A1, A2)),
        *(arrival(event, 3) for event in (A1, A2, A3)),
        unanswered=frozenset({2}),
        ambiguous=1,
    )
    turned = judged(*(arrival(event, 1) for event in (A1, A3, A2, B1, B2)))
    assert not mixed.findings
    assert turned.out_of_order == ("a2 arrived after a3",)


def test_one_that_is_far_too_late_is_one_finding():
    verdict = judged(*(arrival(event, 1) for event in (A2, A3, B1, B2, A1)))
    assert verdict.out_of_order == ("a1 arrived after a3",)


def test_content_and_a_uuid_of_the_clients_own_arrive_as_posted():
    changed = judged(arrival(A1, 1, content="{}"), *all_in(1)[1:])
    renamed = judged(*all_in(1)[:2], arrival(A2, 1, uuid="another"), *all_in(1)[3:])
    assert list(changed.findings) == list(renamed.findings) == ["altered on the way"]


def test_what_others_posted_is_left_out():
    stranger = arrival(posted("stranger", 1, BOB), 1)
    verdict = judged(*all_in(1), stranger, stranger)
    assert not verdict.findings
    assert verdict.acknowledged == 5
