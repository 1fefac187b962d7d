"""How a backlog moves, from look to look."""

from collections.abc import Iterable

from proxy.buffer import KeyFigures
from proxy.gate import View
from proxy.ledger import Books
from proxy.ops.trends import STANDS_S, Trend, Trends
from proxy.wire.limits import PublicKey

KEY = PublicKey("pk_one")


def after(*looks: tuple[float, int, int], oldest_ms: Iterable[int] = ()) -> Trend:
    """The trend after looks at these times, at so many queues that waited and events that were delivered."""
    trends, oldest = Trends(), iter(oldest_ms)
    for now_s, queues, delivered in looks:
        books = Books(accepted=queues + delivered, held=queues, delivered=delivered)
        gate = View(rate_per_s=90.0, limit_per_s=100.0)
        of = KeyFigures(books, queues, 0, next(oldest, None), gate, succeeded=True)
        trends.look(now_s, {KEY: of})
    return trends.of(KEY)


def test_of_a_key_that_was_never_or_once_looked_at_nothing_is_known():
    assert Trends().of(KEY) == after((0.0, 500, 0)) == Trend()


def test_growth_is_what_came_more_than_went():
    trend = after((0.0, 0, 0), (1.0, 60, 90), (2.0, 130, 180), (3.0, 200, 270))
    assert trend == Trend(70.0, is_going=True, stays_s=3.0)
    assert after((0.0, 0, 0), (1.0, 300, 90), (2.0, 210, 180), (3.0, 120, 270)).growth_per_s == -90.0


def test_what_gathered_while_the_key_stood_is_no_growth_once_it_goes():
    standing = [(float(at), 80 * at, 10) for at in range(21)]
    assert after(*standing) == Trend(80.0, is_going=False, stays_s=20.0)
    assert after(*standing, (21.0, 1_590, 100)) == Trend(None, is_going=True, stays_s=21.0)
    going = [(21.0, 1_590, 100), (22.0, 1_580, 190), (23.0, 1_570, 280)]
    assert after(*standing, *going).growth_per_s == -10.0


def test_a_short_standstill_changes_nothing_and_a_longer_one_does():
    looks = [(0.0, 0, 0), (1.0, 10, 10), (1.0 + STANDS_S - 0.1, 20, 10)]
    assert after(*looks).is_going
    assert not after(*looks, (1.5 + STANDS_S, 20, 10)).is_going


def test_looks_that_are_too_near_to_each_other_are_passed_over():
    assert after((0.0, 0, 0), (0.4, 900, 10)) == Trend()


def test_growth_is_of_the_last_ten_seconds():
    looks = [(float(at), 1_000 - 90 * min(at, 5) + 10 * max(0, at - 5), 90 * at) for at in range(17)]
    assert after(*looks).growth_per_s == 10.0


def test_how_long_the_oldest_event_has_been_the_same():
    looks = [(float(at), 10, 5 * at) for at in range(8)]
    assert after(*looks, oldest_ms=[1, 2, 3, 3, 3, 3, 3, 3]).stays_s == 5.0
    assert after(*looks, oldest_ms=range(8)).stays_s == 0.0
