"""How fast things move: told from the process's counters, on a clock of the test's."""

import pytest

from proxy.ledger import Answered, Dead, Rejected
from proxy.metrics import Metrics
from proxy.ops.rates import Rates
from proxy.ops.symptoms import answers_nothing
from proxy.ops.window import Window

LIMIT = 100.0


class Lives:
    """A process of which something is counted each second, and that is looked at each second."""

    def __init__(self, max_key_labels: int = 20) -> None:
        self.metrics = Metrics(max_key_labels)
        self.rates = Rates(self.metrics)
        self.now_s = 1_000.0
        self.rates.look(self.now_s)

    def second(self, *answers: Answered, look: bool = True, **counted: int) -> None:
        for answer in answers:
            self.metrics.upstream_requests[answer].inc()
        for name, events in counted.items():
            getattr(self.metrics, name).inc(events)
        self.now_s += 1.0
        if look:
            self.rates.look(self.now_s)

    @property
    def window(self) -> Window:
        return self.rates.window(self.now_s, LIMIT)


def test_rates_are_means_over_the_last_ten_seconds():
    lives = Lives()
    for _ in range(30):
        lives.second(Answered.DELIVERED, accepted=1_000, delivered=700)
    for _ in range(10):
        lives.second(Answered.DELIVERED, Answered.FAILED, accepted=30, delivered=20)
    window = lives.window
    assert window.window_s == pytest.approx(10.0)
    assert window.accepted_per_s == pytest.approx(30.0)
    assert window.delivered_per_s == pytest.approx(20.0)
    assert window.requests_per_s == pytest.approx(2.0)
    assert window.failed_per_s == pytest.approx(1.0)


def test_what_was_counted_since_the_last_look_counts():
    lives = Lives()
    lives.second(accepted=5)
    lives.second(look=False, accepted=95)
    assert lives.window.accepted_per_s == pytest.approx(50.0)


def test_a_young_process_has_rates_too():
    lives = Lives()
    lives.second(accepted=40)
    assert lives.window.window_s == pytest.approx(1.0)
    assert lives.window.accepted_per_s == pytest.approx(40.0)


def test_before_the_first_look_nothing_is_made_up():
    assert Rates(Metrics()).window(5.0, LIMIT) == Window()


def test_refused_events_of_every_reason_are_one_rate():
    lives = Lives()
    for reason in Rejected:
        lives.metrics.rejected[reason].inc(10)
    lives.second()
    assert lives.window.rejected_per_s == pytest.approx(10.0 * len(Rejected))


def test_events_a_request_are_of_the_window():
    lives = Lives()
    for _ in range(20):
        lives.metrics.batch_events.observe(1)
        lives.second()
    assert lives.window.events_per_request == pytest.approx(1.0)
    for _ in range(10):
        lives.metrics.batch_events.observe(100)
        lives.second()
    assert lives.window.events_per_request == pytest.approx(100.0)


def test_the_budget_is_that_of_the_key_that_sends_most():
    lives = Lives()
    for _ in range(10):
        lives.metrics.gate_requests.labels("pk_busy").inc(80)
        lives.metrics.gate_requests.labels("pk_calm").inc(5)
        lives.metrics.gate_requests.labels("other").inc(200)
        lives.second()
    assert lives.window.budget_used == pytest.approx(0.8)


def test_the_budget_of_keys_without_a_name_is_not_forgotten():
    lives = Lives()
    lives.metrics.gate_requests.labels("other").inc(40)
    lives.second()
    assert lives.window.budget_used == pytest.approx(0.4)


@pytest.mark.parametrize("failure", [Answered.FAILED, Answered.UNANSWERED, Answered.UNREACHED])
def test_an_outage_at_full_traffic_shows_within_five_seconds(failure: Answered):
    lives = Lives()
    for _ in range(60):
        lives.second(*[Answered.DELIVERED] * 50)
    assert not answers_nothing(lives.window)
    seconds = 0
    while not answers_nothing(lives.window):
        lives.second(*[failure] * 50)
        seconds += 1
    assert seconds <= 5
    assert lives.window.failed_in_a_row == {failure: 50 * seconds}


def test_an_outage_at_one_request_a_second_shows_within_five_seconds():
    lives = Lives()
    for _ in range(60):
        lives.second(Answered.DELIVERED)
    for _ in range(5):
        lives.second(Answered.FAILED)
    assert answers_nothing(lives.window)


def test_one_failed_request_and_then_waiting_is_an_outage_until_something_is_answered():
    lives = Lives()
    lives.second(Answered.DELIVERED)
    lives.second(Answered.FAILED)
    for _ in range(4):
        lives.second()
    assert answers_nothing(lives.window)
    for _ in range(300):
        lives.second()
    assert answers_nothing(lives.window), "the queue backs off for minutes: no news is no good news"
    lives.second(Answered.DELIVERED, look=False)
    assert not answers_nothing(lives.window), "also before the next look"
    lives.second()
    assert not answers_nothing(lives.window)


def test_upstream_that_takes_requests_and_is_silent_answers_nothing_within_five_seconds():
    lives = Lives()
    for _ in range(20):
        lives.second(Answered.DELIVERED)
    lives.metrics.in_flight.set(3)
    for _ in range(4):
        lives.second()
    assert answers_nothing(lives.window)
    lives.second(Answered.DELIVERED)
    assert not answers_nothing(lives.window)
    lives.metrics.in_flight.set(0)
    for _ in range(10):
        lives.second()
    assert not answers_nothing(lives.window), "nothing is asked"


def test_a_time_out_ends_no_silence():
    lives = Lives()
    lives.second(Answered.DELIVERED)
    lives.metrics.in_flight.set(1)
    for _ in range(10):
        lives.second()
    lives.second(Answered.UNANSWERED)
    assert answers_nothing(lives.window)
    lives.second(Answered.DELIVERED)
    assert not answers_nothing(lives.window)


@pytest.mark.parametrize(
    "answer", [Answered.REFUSED, Answered.RATE_LIMITED, Answered.KEY_REFUSED, Answered.FORBIDDEN]
)
def test_an_answer_that_refuses_is_an_answer(answer: Answered):
    lives = Lives()
    for _ in range(30):
        lives.second(answer)
    assert not answers_nothing(lives.window)


def test_what_is_rare_is_recent_for_a_minute():
    lives = Lives()
    lives.metrics.dead[Dead.POISON].inc(3)
    lives.second()
    for _ in range(55):
        lives.second()
        assert lives.window.recent["dead_poison"] == 3
    for _ in range(10):
        lives.second()
    assert "dead_poison" not in lives.window.recent
    assert lives.window.ago_s["dead_poison"] == pytest.approx(65.0)
