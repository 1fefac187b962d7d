"""The cases that the budget is measured in, each for any kind of limit."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from random import Random

from proxy.sandbox.window import Allowance, Limit
from proxy.wire.rate_headers import RateHeaders
from tests.gate.virtual import FromFirstRequest, Headers, Setting, World, honest, silent, spiky, uniform

HOUR_S = 3600.0

Case = Callable[[Limit | FromFirstRequest], Setting]


def alone(limit: Limit | FromFirstRequest) -> Setting:
    """One process, nobody else on the key."""
    return Setting(limit)


def changed(**to: object) -> Case:
    """The case `alone`, with something else."""
    return lambda limit: replace(alone(limit), **to)  # type: ignore[arg-type]


def always(remaining: int) -> Headers:
    """A header that lies."""

    def headers(allowance: Allowance, now: float, chance: Random) -> RateHeaders:
        return replace(honest(allowance, now, chance), remaining=remaining)

    return headers


def sometimes(allowance: Allowance, now: float, chance: Random) -> RateHeaders | None:
    """Three answers in ten come without headers."""
    return None if chance.random() < 0.3 else honest(allowance, now, chance)


def random_reset(allowance: Allowance, now: float, chance: Random) -> RateHeaders:
    """Reset is up to 3 s off."""
    return replace(honest(allowance, now, chance), reset_at=allowance.reset_at + chance.randint(-3, 3))


def no_reset(allowance: Allowance, now: float, chance: Random) -> RateHeaders:
    """Reset is missing, or absurd and thus not read."""
    return replace(honest(allowance, now, chance), reset_at=None, reset_in_s=None)


def limit_to(limit: int, world: World) -> None:
    """Another limit."""
    world.change_limit(limit)


def store_jump(by_s: float, world: World) -> None:
    """The store's clock jumps."""
    world.store_ahead_s += by_s


def upstream_jump(by_s: float, world: World) -> None:
    """Upstream's clock jumps."""
    world.upstream_ahead_s += by_s


def jumps(jump: Callable[[float, World], None], by_s: float) -> Case:
    """Forth after 80 s, back after 130 s."""
    return changed(changes=((80.0, partial(jump, by_s)), (130.0, partial(jump, -by_s))))


LOWERED = ((60.0, partial(limit_to, 10)), (120.0, partial(limit_to, 100)))

CASES: Mapping[str, Case] = {
    "alone": alone,
    "alone, 50-70 ms": changed(latency=uniform(0.050, 0.070)),
    "alone, 4-6 ms": changed(latency=uniform(0.004, 0.006)),
    "alone, spiky": changed(latency=spiky),
    "alone, 20-600 ms": changed(latency=uniform(0.020, 0.600)),
    "16 in flight": changed(in_flight=16),
    "10 s on, 10 s off": changed(idle_s=10.0),
    "stranger 10": changed(stranger_per_s=10.0),
    "stranger 30": changed(stranger_per_s=30.0),
    "stranger 60": changed(stranger_per_s=60.0),
    "3 replicas": changed(senders=3),
    "3 replicas, stranger 30": changed(senders=3, stranger_per_s=30.0),
    "3 separate": changed(senders=3, is_shared=False, from_s=100.0, to_s=250.0),
    "3 separate, share 1/3": changed(senders=3, is_shared=False, share=1 / 3),
    "share 1/2": changed(share=0.5),
    "limit 100, 10, 100": changed(changes=LOWERED),
    "limit 10": lambda limit: replace(alone(replace(limit, limit=10)), most_per_s=100.0),
    "limit 1000": lambda limit: replace(alone(replace(limit, limit=1000)), most_per_s=100.0),
    "store +1 h, -1 h": jumps(store_jump, HOUR_S),
    "store -1 h, +1 h": jumps(store_jump, -HOUR_S),
    "store +0.3 s, -0.3 s": jumps(store_jump, 0.3),
    "upstream +1 h, -1 h": jumps(upstream_jump, HOUR_S),
    "upstream -1 h, +1 h": jumps(upstream_jump, -HOUR_S),
    "Remaining always 100": changed(headers=always(100)),
    "Remaining always 0": changed(headers=always(0)),
    "no headers": changed(headers=silent),
    "30 % without headers": changed(headers=sometimes),
    "Reset random": changed(headers=random_reset),
    "no Reset": changed(headers=no_reset),
}
