"""What a seed's run is made of, drawn at its start."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

from proxy.buffer import Terms
from proxy.sandbox.window import Kind, Limit
from proxy.settings import SETTLE_S
from tests.simulation.clients import HEAVY, ORDINARY, SMALL, Posting, Sowing
from tests.simulation.process import Build
from tests.simulation.trouble import Trouble

T = TypeVar("T")

BOUND_BYTES = 15_000
"""A small bound on stored bytes: every small post fits, and some of them fill it."""


SHARED_BOUND_BYTES = 40_000
"""The same where a queue counts more."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a seed's run is made of."""

    troubled_s: float
    keys: int
    visitors: int
    servers: int
    posting: Posting
    sowing: Sowing
    limit: Limit
    build: Build
    trouble: Trouble
    kill_steps: int
    """Steps that a process lives on average until it is killed; 0: none is."""
    freezes: int
    stops: int
    buffer_outages: int
    replays: int
    purges: int
    pauses: int
    retries: int
    skews: bool
    slow_upstream: bool
    replicas: int = 1
    background: bool = False
    """Whether the engine's own tasks run: needed where an append may be done and nobody hears of it."""

    def shared(self, chance: Random) -> "Plan":
        """The same on a store that several processes share, over a way that loses and repeats scripts."""
        terms = self.build.terms
        if terms.max_bytes_per_key == BOUND_BYTES:
            terms = replace(terms, max_bytes_per_key=SHARED_BOUND_BYTES)
        trouble = replace(
            self.trouble,
            resent=chance.choice((0.0, 0.02, 0.1)),
            belated=chance.choice((0.0, 0.0, 0.02, 0.05)),
        )
        loses = self.buffer_outages or trouble.lost or trouble.resent or trouble.belated
        return replace(
            self,
            build=replace(self.build, terms=terms),
            replicas=chance.choice((1, 2, 3)),
            background=bool(loses) or chance.random() < 0.5,
            trouble=trouble,
        )

    @classmethod
    def drawn(cls, chance: Random) -> "Plan":
        """A plan: mostly small trouble of every kind, now and then none of one kind, or a lot."""

        def sometimes(share: float, value: Callable[[], T], otherwise: T) -> T:
            return value() if chance.random() < share else otherwise

        kind = chance.choice((Kind.FIXED, Kind.FIXED, Kind.BUCKET))
        limit = Limit(chance.choice((5, 20, 100)), kind)
        timeout_s = chance.choice((1.0, 4.0, 10.0))
        is_bounded = chance.random() < 0.15
        terms = Terms(
            linger_s=chance.choice((0.0, 0.2, 1.0, 1.0)),
            lease_s=timeout_s + SETTLE_S + chance.choice((0.5, 5.0, 15.0)),
            limit_per_s=limit.limit,
            max_bytes_per_key=BOUND_BYTES if is_bounded else 2_000_000_000,
            dead_max_bytes=sometimes(0.1, lambda: 4_000, 500_000_000),
        )
        return cls(
            troubled_s=chance.uniform(10, 120),
            keys=chance.choice((1, 2, 3)),
            visitors=chance.randint(1, 6),
            servers=chance.randint(0, 3),
            posting=SMALL if is_bounded else sometimes(0.08, lambda: HEAVY, ORDINARY),
            sowing=Sowing(unnamed=sometimes(0.4, lambda: 0.01, 0.0)),
            limit=limit,
            build=Build(
                terms,
                timeout_s,
                in_flight=chance.choice((1, 4, 64)),
                flushers=chance.choice((1, 1, 2)),
                grace_s=chance.choice((2.0, 15.0, 25.0)),
                drains=chance.random() < 0.1,
            ),
            trouble=Trouble(
                deaf=sometimes(0.6, lambda: chance.uniform(0, 0.15), 0.0),
                lost=sometimes(0.6, lambda: chance.uniform(0, 0.15), 0.0),
                slow=sometimes(0.5, lambda: chance.uniform(0, 0.1), 0.0),
                late=sometimes(0.4, lambda: chance.choice((0.01, 0.1)), 0.0),
                quick_s=chance.choice((0.002, 0.002, 0.05)),
            ),
            kill_steps=sometimes(0.75, lambda: chance.choice((30, 300, 1_000, 3_000)), 0),
            freezes=sometimes(0.5, lambda: chance.randint(1, 4), 0),
            stops=sometimes(0.4, lambda: chance.randint(1, 3), 0),
            buffer_outages=sometimes(0.3, lambda: chance.randint(1, 2), 0),
            replays=sometimes(0.3, lambda: chance.randint(1, 4), 0),
            purges=sometimes(0.1, lambda: 1, 0),
            pauses=sometimes(0.2, lambda: chance.randint(1, 3), 0),
            retries=sometimes(0.2, lambda: chance.randint(1, 3), 0),
            # With a clock that jumps, a full buffer may refuse for as long as a queue can wait.
            skews=chance.random() < 0.2 and not is_bounded,
            slow_upstream=chance.random() < 0.2,
        )
