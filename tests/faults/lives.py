"""Lives of the embedded buffer on a disk that remembers: verbs of all kinds, each beside the model of them.

A life says for every moment of its disk what had been asked and what had been acknowledged by then.
"""

import asyncio
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from random import Random

from proxy.buffer import MAX_LETTERS, Buffer, Death, Lease, Settled, Settlement, Terms, Which
from proxy.buffer.sqlite import SqliteBuffer
from proxy.clock import StoreClock
from proxy.ledger import Answered, Dead
from proxy.wire.limits import PublicKey
from tests.buffer.contents import KEY, OTHER_KEY, Event, event, portion, token
from tests.faults.disk import Disk
from tests.model.model import Asked, Held, Model

KEYS = (KEY, OTHER_KEY)
TERMS = Terms(limit_per_s=1_000_000.0, dead_max_bytes=6_000)
"""As by default, but for a rate that nobody meets by accident, and room for a few dead letters only."""

_QUEUES = ("q", "r", "s", "t")
_LANES = ("a", "b")
_MANY = 130  # more than a run holds
_LARGE_BYTES = 3_000
_REFUSED = Death(Dead.REFUSED, "Invalid event type")

Request = tuple[PublicKey, list[Asked]]
"""A public key, and the portions of what a client posts under it."""


@dataclass(frozen=True, slots=True)
class Done:
    """A verb: when it was asked and when acknowledged, as moments of the disk, and the state it led to."""

    asked_at: int
    acknowledged_at: int
    after: Model


def store_clock(now_ms: int) -> StoreClock:
    """A clock that stands still but for its offset."""
    return StoreClock(wall=lambda: now_ms / 1000, monotonic=lambda: 0.0)


class Life:
    """One process's use of the database, from its opening until it is closed."""

    def __init__(self, disk: Disk, before: Model, random: Random, numbers: "count[int]") -> None:
        """`before`: what the disk holds. `numbers`: those of the events that are to come."""
        self.history = [Done(0, 0, before)]
        self.requests: list[Request] = []
        self.opened_at = 0
        self._model = deepcopy(before)
        self._disk = disk
        self._random = random
        self._numbers = numbers
        self._clock = store_clock(before.now_ms)
        self._buffer: Buffer

    async def spend(self, database: Path, steps: int, *, synchronous: str) -> None:
        """Do so many things. `synchronous`: SQLite's word for when it syncs."""
        buffer = self._buffer = await SqliteBuffer.opened(
            database, TERMS, sync_every_commit=synchronous == "full", clock=self._clock, inline=True
        )
        self.opened_at = len(self._disk.told)
        if synchronous == "off":  # which no setting can make it
            buffer._verbs.store.execute("PRAGMA synchronous = off")
        things = (*[self._append] * 5, *[self._deliver] * 4, self._wait, self._operate)
        for _ in range(steps):
            await self._random.choice(things)()
        await buffer.close()

    # -- what is done ----------------------------------------------------------------------------------

    async def _append(self) -> None:
        """Some at once, which share a commit; now and then one that was appended before."""
        requests = [self._request() for _ in range(self._random.choice((1, 1, 2, 3)))]
        self.requests += requests
        done = self._asking()
        said = await asyncio.gather(
            *(self._buffer.append(key, [portion(*each) for each in asked]) for key, asked in requests)
        )
        for (key, asked), appended in zip(requests, said, strict=True):
            assert appended == self._model.append(key, asked)
            done()

    def _request(self) -> Request:
        random = self._random
        if self.requests and random.random() < 0.15:
            return random.choice(self.requests)
        names = random.sample(_QUEUES, random.choice((1, 1, 2, 3)))
        return random.choice(KEYS), [(self._events(), name, random.choice(_LANES)) for name in names]

    def _events(self) -> list[Event]:
        kinds = ((self._random.randint(1, 4), 0), (1, _LARGE_BYTES), (_MANY, 0))
        events, size = self._random.choices(kinds, (90, 8, 2))[0]
        return [event(next(self._numbers), size=size) for _ in range(events)]

    async def _deliver(self) -> None:
        lease = await self._lease(self._random.choice(KEYS))
        if lease is None or self._random.random() < 0.1:
            return  # nothing is there, or its worker died
        settlement = self._settlement(self._model.queues[lease.key, lease.queue].waiting)
        done = self._asking()
        settled = await self._buffer.settle(lease, settlement)
        assert isinstance(settled, Settled)
        self._model.settle(lease, settlement)
        self._model.evict(settled.dropped)
        letters = await self._buffer.dead_letters(limit=MAX_LETTERS)
        for letter, told in zip(self._model.letters, reversed(letters), strict=True):
            letter.id = told.id
        done()

    async def _lease(self, key: PublicKey) -> Lease | None:
        while (idle := self._model.idle(key)) is not None:
            if idle.empty:
                return None
            self._advance(round(idle.wait_s * 1000))
        done = self._asking()
        lease = await self._buffer.claim(key, token())
        assert isinstance(lease, Lease)
        self._model.lease(lease, early=False)
        done()
        return lease

    def _settlement(self, waiting: Sequence[Held]) -> Settlement:
        random = self._random
        most = random.choice((0, 1, 3, 100, 100))
        head = [held for held in waiting[:most] if held.header == waiting[0].header]
        weights = random.choice(((1, 0, 0), (8, 1, 1), (0, 1, 1)))
        fates = random.choices("dxa", weights, k=len(head))
        return Settlement(
            len(head),
            {at: _REFUSED for at, fate in enumerate(fates) if fate == "x"},
            frozenset(at for at, fate in enumerate(fates) if fate == "a"),
            wait_s=random.choice((None, None, 2.0)),
            failed=random.random() < 0.5,
            answered=random.choice((None, Answered.DELIVERED)),
            ambiguous=random.random() < 0.3,
        )

    async def _operate(self) -> None:
        """What an operator asks for."""
        letters = self._model.letters
        what = self._random.choice(("replay", "purge", "erase", "check"))
        done = self._asking()
        if what == "replay" and letters:
            which = Which(key=self._random.choice(letters).queue.key)
            [replayed] = self._model.to_replay(which).values()
            assert await self._buffer.replay(which) == len(replayed)
            self._model.replay(replayed)
        elif what == "purge" and letters:
            which = Which(id=self._random.choice(letters).id)
            assert await self._buffer.purge(which) == self._model.purge(which)
        elif what == "erase" and any(map(self._model.of, KEYS)):
            await self._erase()
        else:
            await self._buffer.check()
        done()

    async def _erase(self) -> None:
        """An event from its queue: more than one thing to take out would be more than one transaction."""
        queues = [of for key in KEYS for of in self._model.of(key)]
        of = self._random.choice(queues)
        text = self._random.choice(of.waiting).event.text
        if any(letter.held.event.text == text for letter in self._model.letters):
            return

        def is_theirs(_header: bytes, held: bytes) -> bool:
            return held == text

        erased = await self._buffer.erase(is_theirs, key=of.key, queue=of.name)
        assert erased == self._model.erase(is_theirs, of.key, of.name)

    async def _wait(self) -> None:
        self._advance(self._random.choice((1, 1_000, 30_000, 200_000, 600_000)))

    def _advance(self, ms: int) -> None:
        self._clock.offset_ms += ms
        self._model.advance(ms)

    def _asking(self) -> Callable[[], None]:
        """Gives what is to be called when the verb asked now was acknowledged, and the model has it."""
        asked_at = len(self._disk.told)

        def done() -> None:
            self.history.append(Done(asked_at, len(self._disk.told), deepcopy(self._model)))

        return done
