from dataclasses import replace

import aiohttp
import pytest

from proxy.demo.figures import Figures, read_figures
from proxy.ledger import Answered, Books
from proxy.metrics import Metrics


def test_figures_are_read_from_what_the_metrics_say():
    metrics = Metrics()
    metrics.set_books(Books(accepted=9, held=2, delivered=4, dead=2, dropped=1))
    metrics.set_buffer(stored_bytes=1, queues=1, oldest_held_ms=1_500, drain_s=0.0, used_ratio=0.1)
    metrics.batch_events.observe(3)
    metrics.batch_events.observe(4)
    metrics.upstream_requests[Answered.RATE_LIMITED].inc()
    metrics.ambiguous.inc()
    metrics.duplicate.inc(5)
    text, _ = metrics.exposition("")
    assert read_figures(text.decode()) == Figures(
        accepted=9,
        held=2,
        delivered=4,
        dead=2,
        dropped=1,
        oldest_held_at=1.5,
        requests=2,
        sent=7,
        rate_limited=1,
        ambiguous=1,
        duplicate=5,
    )


def test_nothing_held_has_no_age():
    text, _ = Metrics().exposition("")
    assert read_figures(text.decode()) == Figures()


def test_of_a_buffer_that_does_not_answer_there_are_no_figures():
    metrics = Metrics()
    metrics.set_buffer_up(is_up=False)
    text, _ = metrics.exposition("")
    with pytest.raises(aiohttp.ClientError, match="does not answer"):
        read_figures(text.decode())


@pytest.mark.parametrize("name", ["accepted", "held", "delivered", "dead", "dropped", "difference"])
def test_books_balance_only_if_every_event_is_in_one_place(name):
    figures = Figures(accepted=10, held=1, delivered=6, dead=2, dropped=1)
    assert figures.balance
    assert not replace(figures, **{name: getattr(figures, name) + 1}).balance
