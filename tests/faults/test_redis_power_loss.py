"""The machine under Redis dies: what each durability says that it keeps, it keeps."""

from pathlib import Path

import pytest

from tests.faults import losses

TRIALS = 10
SYNC_S = 1.0
"""`everysec`: from one sync to the next."""
LATE_S = 1.5
"""A sync may begin late, and last: on a busy disk Redis itself waits for it up to 2 s."""


@pytest.mark.parametrize("trial", [losses.power_lost_always, losses.machine_lost_confirmed])
def test_what_was_acknowledged_survives_the_machine(tmp_path: Path, trial: losses.Trial) -> None:
    loss = trial(tmp_path, 1)
    assert loss.acknowledged > 100
    assert not loss.lost


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("trial", [losses.power_lost_always, losses.machine_lost_confirmed])
def test_what_was_acknowledged_survives_the_machine_each_time(tmp_path: Path, trial: losses.Trial) -> None:
    for seed in range(TRIALS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        assert not trial(folder, seed).lost, seed


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_what_everysec_loses_with_the_machine_was_acknowledged_within_the_last_second_or_little_more(
    tmp_path: Path,
) -> None:
    found = []
    for seed in range(TRIALS):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found.append(losses.power_lost_everysec(folder, seed))
    assert max(loss.oldest_s for loss in found) < SYNC_S + LATE_S
    assert any(loss.lost for loss in found), "it lost nothing: nothing was tested"
