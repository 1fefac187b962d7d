"""The promises of the design, kept through two hundred runs of everything below HTTP. See `simulation`."""

import os
import subprocess
import sys
from hashlib import sha256

import pytest

from tests.simulation.evidence import Met
from tests.simulation.report import failure
from tests.simulation.simulation import simulate

SEEDS = 200
"""Always the same ones: whether a change is good must not depend on luck. `make simulate` draws on."""

OF_SCRIPTS = {Met.RESENT, Met.BELATED, Met.LOST_SCRIPT, Met.RECOUNT}
"""What only a store behind a link can meet."""

SHARED = (("redis", 40), ("cluster", 10), ("valkey", 10))
"""How many seeds of each store that several processes share."""

_FINGERPRINT = (
    "from tests.simulation.test_simulation import fingerprint; print(fingerprint({seed}, {engine!r}))"
)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_promise_is_kept(seed: int) -> None:
    run = simulate(seed)
    assert run.broken is None, failure(run)


@pytest.mark.parametrize(
    ("engine", "seed"), [(each, seed) for each, seeds in SHARED for seed in range(seeds)]
)
def test_every_promise_is_kept_by_several_processes_on_a_shared_store(engine: str, seed: int) -> None:
    run = simulate(seed, engine)
    assert run.broken is None, failure(run)


def test_the_runs_meet_every_kind_of_trouble() -> None:
    for engine, seeds, unmet in (
        ("sqlite", SEEDS, set(Met) - OF_SCRIPTS),
        (*SHARED[0], set(OF_SCRIPTS)),
    ):
        unmet -= {Met.WINDOW}  # that one is for the gate to avoid
        for seed in range(seeds):
            unmet -= set(+simulate(seed, engine).evidence.met)
            if not unmet:
                break
        assert not unmet, engine


def fingerprint(seed: int, engine: str) -> str:
    """A run, down to the order of its callbacks."""
    trace = "\n".join(simulate(seed, engine).evidence.lines(1_000_000))
    return sha256(trace.encode()).hexdigest()


@pytest.mark.parametrize("engine", ["sqlite", "redis"])
def test_a_seed_is_the_same_run_in_every_process(engine: str) -> None:
    seed = 8
    here = fingerprint(seed, engine)
    for hash_seed in ("1", "2"):
        there = subprocess.run(
            [sys.executable, "-c", _FINGERPRINT.format(seed=seed, engine=engine)],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert there.stdout.strip() == here


def test_a_broken_run_is_shown_with_its_seed_and_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.simulation.simulation.DRAINED_S", 0.0)
    run = simulate(1)
    assert run.broken is not None
    shown = failure(run, 5)
    assert "seed 1, on sqlite:" in shown
    assert "not everything is delivered" in shown
    assert 'make simulate ARGS="--engine sqlite --from 1 --seeds 1' in shown
