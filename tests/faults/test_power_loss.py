"""The power fails at any moment: what is found then is what was acknowledged, whole, with sound books."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from random import Random, SystemRandom

import pytest

from proxy.buffer.sqlite import files, lock
from proxy.ledger import Books
from tests.faults.disk import Disk, Loss, Name, Truncate
from tests.faults.lives import TERMS, Done, Life
from tests.faults.recovery import put, recovered
from tests.model.model import Model, Overheads

LIVES, STEPS = 5, 40
"""Each life begins with what the power left of the one before; so many things are done in it."""

CUTS = 15
"""In each life, where not every moment is tried."""

SEED = 1

_DATABASE = "buffer.db"
_OVERHEADS = Overheads(queue=0, event=300, letter=300)
_START_MS = 1_800_000_000_000
_FEW_PAGES = 12
_REQUESTS_AGAIN = 4


@dataclass(slots=True)
class Tally:
    """What was found: after how many cuts something acknowledged was gone, and what was wrong after others.

    `most_lost` and `most_again`: the most events that were accepted and gone after one cut, and the most that
    were delivered and held again.
    """

    cuts: int = 0
    lossy: int = 0
    most_lost: int = 0
    most_again: int = 0
    broken: list[str] = field(default_factory=list)

    def found(self, state: Model, acknowledged: Model) -> None:
        """Note the state that was found where another, newer one had been acknowledged."""
        self.lossy += 1
        found, wanted = (sum(of.books.values(), Books()) for of in (state, acknowledged))
        self.most_lost = max(self.most_lost, wanted.accepted - found.accepted)
        self.most_again = max(self.most_again, wanted.delivered - found.delivered)


@dataclass(frozen=True, slots=True)
class Cut:
    """Where the power fails. `seed`: of what becomes of that which was not synced."""

    moment: int
    loss: Loss
    seed: int


@pytest.fixture
def folder() -> Iterator[Path]:
    # In memory, where there is such a place: the disk that these tests are about is another one.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as made:
        yield Path(made)


@pytest.fixture(params=["few pages", "as many pages as ever"])
def log_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much log there is between two checkpoints: so little that each life has several, or all of it."""
    if request.param == "few pages":
        monkeypatch.setattr(files, "_MAX_WAL_PAGES", _FEW_PAGES)


class Trial:
    """Lives on one disk, and what is left of each at its cuts."""

    def __init__(self, folder: Path, seed: int, synchronous: str) -> None:
        self._folder = folder
        self._seed = seed
        self._synchronous = synchronous
        self._random = Random(seed)
        self._boot = 0
        self.tally = Tally()

    async def run(self, *, lives: int = LIVES, every_moment: bool = False) -> Tally:
        """Try `CUTS` cuts of each life, or several at every moment of it."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lock, "_boot_id", lambda: str(self._boot))
            await self._run(lives, every_moment=every_moment)
        return self.tally

    async def _run(self, lives: int, *, every_moment: bool) -> None:
        numbers, before = count(), Model(TERMS, _START_MS, _OVERHEADS)
        left: Mapping[str, bytes] = {}
        for number in range(lives):
            self._boot = number
            home = self._folder / f"life {number}"
            put(left, home / _DATABASE)
            disk = Disk(home)
            life = Life(disk, before, self._random, numbers)
            with disk.recording(files, lock):
                await life.spend(home / _DATABASE, STEPS, synchronous=self._synchronous)
            for cut in self._cuts(disk, life, every_moment=every_moment):
                state = await self._try(number, disk, life, cut)
                if state is not None:
                    before, left = state, disk.left_at(cut.moment, cut.loss, Random(cut.seed))

    def _cuts(self, disk: Disk, life: Life, *, every_moment: bool) -> Iterator[Cut]:
        moments = range(1, len(disk.told) + 1)
        losses = (Loss.NONE, Loss.INDEX, Loss.ALL, Loss.SOME, Loss.SOME)
        chosen = [(moment, loss) for moment in moments for loss in losses]
        if not every_moment:
            # When something was acknowledged just now nothing more may be needed for it. The opening is short
            # beside all else, and what happens to whole files is rare.
            acknowledged = [done.acknowledged_at for done in life.history[1:]]
            opening = range(1, life.opened_at + 1)
            rare = [at + 1 for at, told in enumerate(disk.told) if isinstance(told, Truncate | Name)]
            pools = self._random.choices((moments, acknowledged, opening, rare), (2, 4, 3, 2), k=CUTS)
            chosen = [
                (self._random.choice(pool), self._random.choices(losses, (1, 2, 4, 4, 4))[0])
                for pool in pools
            ]
        for moment, loss in chosen:
            yield Cut(moment, loss, self._random.getrandbits(32))

    async def _try(self, number: int, disk: Disk, life: Life, cut: Cut) -> Model | None:
        """The state that was found, None where it was none."""
        must, may = _bounds(life.history, cut.moment)
        first = must if self._synchronous == "full" else 0
        states = [done.after for done in life.history[first : may + 1]]
        home = self._folder / "cut"
        shutil.rmtree(home, ignore_errors=True)
        put(disk.left_at(cut.moment, cut.loss, Random(cut.seed)), home / _DATABASE)
        self.tally.cuts += 1
        again = self._random.choices(life.requests, k=_REQUESTS_AGAIN) + life.requests[-1:]
        self._boot = number if cut.loss is Loss.NONE else number + 1
        try:
            found = first + await recovered(
                home / _DATABASE, states, again, sync_every_commit=self._synchronous == "full"
            )
        except Exception as error:  # noqa: BLE001  # whatever it is, it is what became of this cut
            self.tally.broken.append(f"seed {self._seed}, life {number}, {cut}: {error!r}")
            return None
        if found < must:
            self.tally.found(life.history[found].after, life.history[must].after)
        return life.history[found].after


def _bounds(history: Sequence[Done], moment: int) -> tuple[int, int]:
    """What had been acknowledged at a moment, and what had been asked: the last of each in `history`."""
    acknowledged = [at for at, done in enumerate(history) if done.acknowledged_at <= moment]
    asked = [at for at, done in enumerate(history) if done.asked_at < moment]
    return acknowledged[-1], max(acknowledged[-1], asked[-1])


@pytest.mark.usefixtures("log_of")
async def test_at_always_a_power_loss_takes_nothing_acknowledged(folder: Path) -> None:
    tally = await Trial(folder, SEED, "full").run()
    assert not tally.broken, tally.broken[0]
    assert tally.lossy == 0


@pytest.mark.usefixtures("log_of")
async def test_at_normal_a_power_loss_takes_the_newest_alone_and_leaves_all_sound(folder: Path) -> None:
    tally = await Trial(folder, SEED, "normal").run()
    assert not tally.broken, tally.broken[0]
    assert tally.lossy, "it does lose something, so one would be seen at `always`"


@pytest.mark.usefixtures("log_of")
@pytest.mark.parametrize("log_of", ["few pages"], indirect=True)
async def test_without_any_sync_a_power_loss_leaves_ruins(folder: Path) -> None:
    """That what the tests above look for can be found."""
    tally = await Trial(folder, SEED, "off").run(lives=1)
    assert tally.broken


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.usefixtures("log_of")
@pytest.mark.parametrize("synchronous", ["full", "normal"])
async def test_there_is_no_moment_at_which_a_power_loss_takes_more(
    folder: Path, synchronous: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = SystemRandom().randrange(10**6)
    tally = await Trial(folder, seed, synchronous).run(lives=2, every_moment=True)
    with capsys.disabled():
        print(f"\nsynchronous={synchronous}, seed {seed}: {replace(tally, broken=[])}")
    assert not tally.broken, f"{len(tally.broken)}, {tally.broken[0]}"
    assert synchronous == "normal" or tally.lossy == 0
