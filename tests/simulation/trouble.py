"""The way to the buffer, made unreliable: slow, now and then deaf, and sometimes it loses the answer."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

from proxy.buffer import (
    Appended,
    AppendRefused,
    Buffer,
    BufferUnavailable,
    Head,
    Idle,
    KeyFigures,
    Lease,
    Portion,
    Settled,
    Settlement,
    Spent,
)
from proxy.wire.limits import PublicKey
from tests.around import BufferAround
from tests.simulation.evidence import Broken, Evidence, Met, named

T = TypeVar("T")


@dataclass(slots=True)
class Trouble:
    """How unreliable the way is: shares of the calls, and how long the slow and the late ones are at most."""

    deaf: float = 0.0
    """Not done, and no answer."""
    lost: float = 0.0
    """Done, and no answer."""
    slow: float = 0.0
    late: float = 0.0
    quick_s: float = 0.002
    slow_s: float = 3.0
    late_s: float = 60.0
    away_until_s: float = 0.0
    """Until then no call is done or answered."""
    resent: float = 0.0
    """Of a script: done, and done again when its answer did not come."""
    belated: float = 0.0
    """Of a script: no answer, and done some time later, even where its sender is gone by then."""

    def end(self) -> None:
        """From now on every call is done and answered at once."""
        self.deaf = self.lost = self.slow = self.late = self.away_until_s = self.resent = self.belated = 0.0


class UnreliableBuffer(BufferAround):
    """The buffer as one of its users sees it: the front, or one flusher."""

    def __init__(self, inner: Buffer, trouble: Trouble, chance: Random, evidence: Evidence) -> None:
        super().__init__(inner)
        self._trouble = trouble
        self._chance = chance
        self._evidence = evidence
        self._owed: set[bytes] = set()  # tokens of leases whose settle was not answered

    async def append(self, key: PublicKey, portions: Sequence[Portion]) -> Appended:
        events = sum(len(portion.texts) for portion in portions)
        appended = await self._asked(
            f"append {events} of {key} in {len(portions)} queues",
            lambda: self.inner.append(key, portions),
            Met.LOST_APPEND,
        )
        self._evidence.met[Met.DUPLICATE] += appended.duplicate > 0
        return appended

    async def claim(self, key: PublicKey, token: bytes, *, early: bool = False) -> Lease | Idle:
        if self._owed:
            raise Broken(f"{key} is claimed while a settle is owed")
        return await self._asked(
            f"claim of {key}", lambda: self.inner.claim(key, token, early=early), Met.LOST_CLAIM
        )

    async def read(self, lease: Lease, max_events: int, max_bytes: int) -> Head | Spent:
        what = f"read {named(lease.queue)} of {lease.key}"
        return await self._asked(what, lambda: self.inner.read(lease, max_events, max_bytes))

    async def settle(self, lease: Lease, settlement: Settlement) -> Settled | Spent:
        what = (
            f"settle {named(lease.queue)} of {lease.key}: {settlement.delivered} delivered,"
            f" {len(settlement.dead)} dead, {len(settlement.again)} again"
        )
        try:
            outcome = await self._asked(what, lambda: self.inner.settle(lease, settlement), Met.LOST_SETTLE)
        except BufferUnavailable:
            self._owed.add(lease.token)
            raise
        self._owed.discard(lease.token)
        return outcome

    async def keys_with_work(self) -> Sequence[PublicKey]:
        return await self._asked("keys with work", self.inner.keys_with_work)

    async def figures(self, *, recount: bool = False) -> Mapping[PublicKey, KeyFigures]:
        return await self._asked("figures", lambda: self.inner.figures(recount=recount))

    async def _asked(self, what: str, ask: Callable[[], Awaitable[T]], lost: Met | None = None) -> T:
        """Have it done, or not, and told, or not. `lost` is met where it may have been done untold."""
        note = self._evidence.note
        await self._travel()
        if self._fails(self._trouble.deaf):
            note(f"buffer: {what}: not done")
            raise BufferUnavailable("simulated: it was not done")
        try:
            answer = await ask()
            note(f"buffer: {what}: {_said(answer)}")
            await self._travel()
            if self._fails(self._trouble.lost):
                note(f"buffer: {what}: its answer is lost")
                raise BufferUnavailable("simulated: the answer is lost")  # noqa: TRY301  # counted below
        except AppendRefused as error:
            note(f"buffer: {what}: {error}")
            self._evidence.met[Met.FULL] += 1
            raise
        except BaseException:
            if lost is not None:
                self._evidence.met[lost] += 1
            raise
        return answer

    def _fails(self, share: float) -> bool:
        return self._evidence.world.now_s < self._trouble.away_until_s or self._chance.random() < share

    async def _travel(self) -> None:
        draw = self._chance.random()
        most_s = self._trouble.quick_s
        if draw < self._trouble.late:
            most_s = self._trouble.late_s
        elif draw < self._trouble.late + self._trouble.slow:
            most_s = self._trouble.slow_s
        await asyncio.sleep(self._chance.uniform(0, most_s))


def _said(answer: object) -> str:
    match answer:
        case Appended(stored, duplicate):
            return f"{stored} stored, {duplicate} duplicate"
        case Lease():
            return (
                f"leased {named(answer.queue)}, {answer.attempts} failed tries, {answer.unsettled} unsettled,"
                f" {answer.outlook}"
            )
        case Idle(wait_s, empty, stalled):
            return "empty" if empty else "stalled" if stalled else f"idle for {wait_s} s"
        case Head():
            return f"{len(answer.texts)} events, more: {answer.more}"
        case Settled(left, due_s):
            return f"settled, {left} left, due in {due_s} s"
        case Spent():
            return "spent"
        case _:
            return "done"
