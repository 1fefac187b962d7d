"""What the processes know of the keys' bounds, and how they learn that Redis has gone back."""

from proxy.buffer.redis.facts import Fact, Facts
from proxy.wire.limits import PublicKey

ONE, OTHER = PublicKey("pk_one"), PublicKey("pk_other")


def fact(
    turn: int, *, born_ms: int = 1, stored: int = 0, queues: int = 0, ok: int = 0, accepted: int = 0
) -> Fact:
    return Fact(queues, stored, 0, ok, accepted, born_ms, turn)


def told(facts: Facts) -> dict[bytes, bytes]:
    news = facts.exchange({})
    return dict(zip(news[::2], news[1::2], strict=True))


def test_the_bytes_of_the_others_are_those_of_all_keys_but_one() -> None:
    facts = Facts()
    facts.learn(ONE, fact(1, stored=100), facts.of(ONE), wrote=True)
    facts.learn(OTHER, fact(1, stored=30), facts.of(OTHER), wrote=True)
    facts.learn(ONE, fact(2, stored=70), facts.of(ONE), wrote=True)
    assert facts.stored_bytes() == 100
    assert facts.others_bytes(ONE) == 30
    assert facts.others_bytes(PublicKey("pk_new")) == 100


def test_strangers_are_the_other_keys_that_hold_events_and_never_succeeded() -> None:
    facts = Facts()
    facts.learn(ONE, fact(1, queues=1), facts.of(ONE), wrote=True)
    facts.learn(OTHER, fact(1, queues=1), facts.of(OTHER), wrote=True)
    assert facts.other_strangers(ONE) == 1
    assert facts.other_strangers(PublicKey("pk_new")) == 2
    facts.learn(OTHER, fact(2, queues=1, ok=1), facts.of(OTHER), wrote=True)
    facts.learn(ONE, fact(2, queues=0), facts.of(ONE), wrote=True)
    assert facts.other_strangers(PublicKey("pk_new")) == 0


def test_an_answer_that_was_overtaken_changes_nothing() -> None:
    facts = Facts()
    before = facts.of(ONE)
    assert facts.learn(ONE, fact(2, stored=20), before, wrote=True) is None
    assert facts.learn(ONE, fact(1, stored=10), before, wrote=True) is None
    assert facts.of(ONE).stored_bytes == 20


def test_an_answer_from_before_what_was_known_when_it_was_asked_is_a_loss() -> None:
    facts = Facts()
    facts.learn(ONE, fact(9, accepted=50), facts.of(ONE), wrote=True)
    assert facts.learn(ONE, fact(9, accepted=41, stored=5), facts.of(ONE), wrote=True) == 9
    assert facts.of(ONE).stored_bytes == 5
    assert facts.learn(ONE, fact(10, accepted=42), facts.of(ONE), wrote=True) is None
    assert facts.learn(ONE, fact(10, accepted=42), facts.of(ONE), wrote=False) is None


def test_books_that_begin_anew_are_a_loss_however_often_they_were_written_since() -> None:
    facts = Facts()
    facts.learn(ONE, fact(3, accepted=50), facts.of(ONE), wrote=True)
    assert facts.learn(ONE, fact(8, born_ms=2, accepted=60), facts.of(ONE), wrote=True) == 50
    assert facts.learn(ONE, fact(0, born_ms=0), facts.of(ONE), wrote=True) == 60


def test_processes_tell_each_other_what_is_newer() -> None:
    one, other = Facts(), Facts()
    one.learn(ONE, fact(1, stored=100), one.of(ONE), wrote=True)
    other.learn(OTHER, fact(5, stored=40), other.of(OTHER), wrote=True)
    shared = told(one)
    news = other.exchange(shared)
    assert other.stored_bytes() == 140
    shared |= dict(zip(news[::2], news[1::2], strict=True))
    assert one.exchange(shared) == []
    assert one.stored_bytes() == 140
    one.learn(ONE, fact(2, stored=10), one.of(ONE), wrote=True)
    stale = dict(shared)
    assert one.exchange(stale)[::2] == [b"pk_one"]
    assert one.stored_bytes() == 50
