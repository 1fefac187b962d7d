"""What those outside of the proxy write down during a run: the promises are checked on it."""

import asyncio
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum, unique
from typing import Any

from proxy.front.ingest import Sender
from proxy.lanes import QueueId
from proxy.wire.limits import PublicKey
from tests.simulation.loop import World

TRACED = 20_000
"""Lines of the trace that are kept: the last of them, of even the longest run."""


class Broken(Exception):
    """A promise was broken; the message says which, and how."""


@unique
class Met(StrEnum):
    """A kind of trouble that a run may meet. One that no run meets is not tested."""

    KILL = "process killed"
    FREEZE = "process frozen"
    STOP = "process stopped"
    GRACE_OVER = "grace over before all was done"
    OUTAGE = "buffer away"
    LOST_APPEND = "append's answer lost"
    LOST_CLAIM = "claim's answer lost"
    LOST_SETTLE = "settle's answer lost"
    RESENT = "script sent and done again"
    BELATED = "script done after it was given up"
    LOST_SCRIPT = "script's answer lost"
    RECOUNT = "books recounted between two scripts"
    FULL = "buffer full"
    DUPLICATE = "duplicate appended"
    UNSETTLED = "lease ended by itself"
    SPENT = "token spent"
    AMBIGUOUS = "ambiguous batch settled"
    LATE_ANSWER = "upstream's answer too late"
    WINDOW = "429 by the window"
    SLIP = "refused by a schema slip"
    SHRUNK = "too many events for now"
    KEY_REFUSED = "key refused"
    FORBIDDEN = "Origin forbidden"
    NONSENSE = "207 that names nobody"
    SEARCH = "batch halved in a search"
    FOUND = "bad event found that nobody named"
    PAUSE = "operator's pause"
    DOUBLE = "event upstream twice"
    DEAD = "dead letter"
    DROPPED = "dead letter dropped"
    REPLAY = "dead letters replayed"
    PURGE = "dead letters purged"


@dataclass(slots=True, eq=False)
class Post:
    """What a client posts: the events that are to arrive, and the indices of the `flawed` ones beside them.

    `orders` names for each event the sequence in which it must arrive: its visitor, or its user and sender.
    `asked_at` and `accepted_at` are steps of the world: of the first attempt, and of the first 2xx.
    """

    number: int
    key: PublicKey
    sender: Sender
    envelope: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    orders: Sequence[object]
    flawed: frozenset[int]
    body: bytes
    asked_at: int | None = None
    accepted_at: int | None = None
    answered_s: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A lease that the buffer gave, at some moment between the two. `clock` numbers the clocks that it had.

    In milliseconds of the store's clock, and in the world's seconds. `others`: as in the lease.
    """

    key: PublicKey
    clock: int
    others: bool
    asked_ms: int
    given_ms: int
    asked_s: float
    given_s: float

    @property
    def clock_s(self) -> float:
        """By how much the store's clock is ahead of the world's."""
        return self.given_ms / 1000 - self.given_s


@dataclass(frozen=True, slots=True)
class Pause:
    """A 429 that said for how long, settled at some moment between the two."""

    key: PublicKey
    clock: int
    asked_ms: int
    given_ms: int
    wait_ms: int
    asked_s: float


@dataclass(slots=True, eq=False)
class Request:
    """An upstream request, as it was sent, at the step `sent_at`."""

    number: int
    key: PublicKey
    client_ip: str | None
    user_agent: str | None
    origin: str | None
    body_bytes: int
    envelope: Mapping[str, Any]
    events: Sequence[Mapping[str, Any]]
    claim: Claim
    sent_at: int
    sent_s: float
    arrived_s: float | None = None
    status: int | None = None
    """What upstream answered, when it did."""
    slip: int = 0
    """Which slip of upstream's schema was the reason, of those that refused all events; 0: none."""


@dataclass(slots=True, eq=False)
class Arrival:
    """An event that upstream took, and the request that brought it."""

    event: Mapping[str, Any]
    request: Request
    at_s: float


@dataclass(slots=True)
class Evidence:
    """All of it, in the order in which it happened."""

    world: World
    posts: list[Post] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    retries: list[tuple[PublicKey, float]] = field(default_factory=list)
    """Which key the operator had tried again, and when that was asked for."""
    settled_at: dict[str, int] = field(default_factory=dict)
    """Of each event, by its mark, that was settled as delivered or dead: the step."""
    refused_by_window: list[Request] = field(default_factory=list)
    accepted_at_doors: int = 0
    """Events that the processes counted as accepted, all lives together."""
    lives: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set with each of them."""
    met: "Counter[Met]" = field(default_factory=Counter)
    trace: deque[tuple[float, int, str]] = field(default_factory=lambda: deque(maxlen=TRACED))

    def note(self, line: str) -> None:
        """Write a line into the trace."""
        self.trace.append((self.world.now_s, self.world.steps, line))

    def lines(self, last: int) -> list[str]:
        """The last lines of the trace, as they are shown."""
        shown = list(self.trace)[-last:] if last else []
        return [f"{now_s:11.4f} s  {step:>7}  {line}" for now_s, step, line in shown]


def named(queue: QueueId) -> str:
    """A queue in the trace."""
    return queue.hex()[:6]
