"""What a drain says of the events that it had to leave."""

import pytest

from proxy.buffer import KeyFigures
from proxy.gate import View
from proxy.ledger import Books, Left, Pause
from proxy.service.leftovers import Leftover, leftovers
from proxy.wire.limits import PublicKey

KEY, OTHER = PublicKey("pk_one"), PublicKey("pk_other")


def figures(
    held: int, *, paused: Pause | None = None, for_s: float = 0.0, by_operator: bool = False
) -> KeyFigures:
    gate = View(90.0, 100.0, paused, for_s, by_operator)
    return KeyFigures(Books(accepted=held, held=held), 1, 100 * held, 1, gate, succeeded=True)


@pytest.mark.parametrize(
    ("of", "waits_s", "left"),
    [
        (figures(3), 0.0, Leftover(KEY, 3, Left.GRACE_OVER)),
        (figures(3), 40.0, Leftover(KEY, 3, Left.WAITS, None, 40.0)),
        (
            figures(3, paused=Pause.UPSTREAM_FAILING, for_s=12.0),
            12.0,
            Leftover(KEY, 3, Left.PAUSED, Pause.UPSTREAM_FAILING, 12.0),
        ),
        (
            figures(3, paused=Pause.OPERATOR, by_operator=True),
            60.0,
            Leftover(KEY, 3, Left.PAUSED, Pause.OPERATOR),
        ),
        (
            figures(3, paused=Pause.KEY_REFUSED, for_s=12.0, by_operator=True),
            12.0,
            Leftover(KEY, 3, Left.PAUSED, Pause.OPERATOR),
        ),
    ],
    ids=["time", "back-off", "pause", "operator", "both pauses"],
)
def test_why_a_key_still_holds_events(of: KeyFigures, waits_s: float, left: Leftover) -> None:
    assert leftovers({KEY: of}, {}, lambda _: waits_s) == [left]


def test_what_was_on_its_way_is_said_beside_the_reason() -> None:
    [left] = leftovers({KEY: figures(5)}, {KEY: 2}, lambda _: 0.0)
    assert (left.held, left.in_flight, left.why) == (5, 2, Left.GRACE_OVER)


def test_each_key_that_holds_anything_is_named_the_fullest_first() -> None:
    held = {PublicKey("pk_empty"): figures(0), KEY: figures(2), OTHER: figures(7)}
    left = leftovers(held, {}, lambda _: 0.0)
    assert [(of.key, of.held) for of in left] == [(OTHER, 7), (KEY, 2)]
