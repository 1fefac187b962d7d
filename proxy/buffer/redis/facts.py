"""What the bounds over all keys need to know.

In Redis each key lives in a slot of its own, and no script sees two of them. So each process remembers what
every script told it of the key it wrote to, passes that of the *other* keys to the next one, and exchanges it
with the other processes every few seconds. With one process the bounds are exact; with several they can be
passed by what the others store in between.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from proxy.wire.limits import PublicKey


class Fact(NamedTuple):
    """What the scripts answer of a key: `facts` in shared.lua. `age` orders what was said of it."""

    queues: int = 0
    stored_bytes: int = 0
    dead_bytes: int = 0
    succeeded: int = 0
    accepted: int = 0
    born_ms: int = 0
    turn: int = 0

    @property
    def age(self) -> tuple[int, int]:
        """The greater, the newer."""
        return self.born_ms, self.turn

    def follows(self, before: "Fact", *, wrote: bool) -> bool:
        """Whether it is of the same books, as they were then or later. `wrote`: its script took a turn."""
        return self.born_ms == before.born_ms and self.turn >= before.turn + wrote


class Facts:
    """The newest fact of each key that this process has heard of."""

    def __init__(self) -> None:
        self._of: dict[PublicKey, Fact] = {}
        self._stored_bytes = self._dead_bytes = self._strangers = 0

    def learn(self, key: PublicKey, answer: Sequence[int], before: Fact, *, wrote: bool) -> int | None:
        """Note what a script answered that was asked when `before` was what was known, and `wrote` or not.

        Returns how many accepted events Redis no longer knows, at least, where it has gone back behind that:
        it lost a primary and what that had not passed on, or somebody emptied it. None where it has not.
        """
        fact, known = Fact(*answer), self.of(key)
        has_gone_back = before.turn > 0 and not fact.follows(before, wrote=wrote)
        if not has_gone_back:
            if fact.age > known.age:  # else it was overtaken on the way
                self._replace(key, fact)
            return None
        if not known.follows(before, wrote=False):  # another answer has shown it already
            return None
        self._replace(key, fact)
        return max(0, before.accepted - (fact.accepted if fact.born_ms == before.born_ms else 0))

    def exchange(self, told: Mapping[bytes, bytes]) -> list[bytes]:
        """Hear what the processes have told each other; names and texts of what is newer here."""
        news: list[bytes] = []
        for name, text in told.items():
            key, fact = PublicKey(name.decode("ascii")), Fact(*map(int, text.split()))
            if fact.age > self.of(key).age:
                self._replace(key, fact)
        for key, fact in self._of.items():
            name = key.encode("ascii")
            text = b"%d %d %d %d %d %d %d" % fact
            if text != told.get(name):
                news += (name, text)
        return news

    def of(self, key: PublicKey) -> Fact:
        """What is known of a key."""
        return self._of.get(key, _NOTHING)

    def known(self) -> Sequence[PublicKey]:
        """The keys of which anything is known."""
        return list(self._of)

    def stored_bytes(self) -> int:
        """Of all keys."""
        return self._stored_bytes

    def others_bytes(self, key: PublicKey) -> int:
        """Stored bytes of all keys but this one."""
        return self._stored_bytes - self.of(key).stored_bytes

    def dead_bytes(self) -> int:
        """Of all keys."""
        return self._dead_bytes

    def other_strangers(self, key: PublicKey) -> int:
        """How many other keys hold events and never had a success."""
        return self._strangers - _is_stranger(self.of(key))

    def _replace(self, key: PublicKey, fact: Fact) -> None:
        before = self.of(key)
        self._stored_bytes += fact.stored_bytes - before.stored_bytes
        self._dead_bytes += fact.dead_bytes - before.dead_bytes
        self._strangers += _is_stranger(fact) - _is_stranger(before)
        self._of[key] = fact


_NOTHING = Fact()


def _is_stranger(fact: Fact) -> bool:
    return fact.queues > 0 and not fact.succeeded
