"""What tests put into a buffer, and how they take it out again."""

from array import array
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, shake_128
from itertools import count

from proxy.buffer import (
    ALL_LETTERS,
    MAX_LETTERS,
    Buffer,
    BufferFull,
    Death,
    Head,
    Idle,
    Lease,
    Outlook,
    Portion,
    Settled,
    Settlement,
    Trouble,
    Which,
)
from proxy.buffer.contract import (
    FULL_BATCH,
    MAX_IDLE_S,
)
from proxy.gate import NO_FEEDBACK, Feedback, Outcome
from proxy.lanes import Lane, QueueId, lane_id
from proxy.ledger import Answered, Books, Dead
from proxy.wire.limits import PublicKey
from proxy.wire.rate_headers import RateHeaders
from tests.buffer.conftest import TERMS, Engine

KEY = PublicKey("pk_one")
OTHER_KEY = PublicKey("pk_other")
REFUSED = Death(Dead.REFUSED, "Invalid event type")
RATE_LIMITED = Feedback(Outcome.RATE_LIMITED, RateHeaders(retry_after_s=20.0))
TROUBLE = Trouble(
    since_ms=1_799_999_999_999,
    requests=5_000_000_000,
    successes=7,
    suspects=40,
    forbidden=3,
    refused_ms=1_799_999_999_998,
)

_tokens = count(1)


@dataclass(frozen=True, slots=True)
class Event:
    """One event; a `Portion` holds many of them in columns."""

    uuid: bytes
    dedup_id: int
    text: bytes


def token() -> bytes:
    """One that was never used before."""
    return next(_tokens).to_bytes(12, "big")


def queue(name: str) -> QueueId:
    return QueueId(blake2b(name.encode(), digest_size=16).digest())


def header(lane: str) -> bytes:
    return Lane(b'{"source":"server","lane":"%s"}' % lane.encode()).header()


def event(name: int | str, *, size: int = 0) -> Event:
    """The event of this name, the same each time; of `size` bytes where that is more than its name needs."""
    text = f'{{"n":"{name}","pad":"'
    pad_bytes = max(0, size - len(text) - 2)
    # Random, as an engine may compress.
    text += b64encode(shake_128(text.encode()).digest(pad_bytes)).decode()[:pad_bytes] + '"}'
    seed = blake2b(text.encode(), digest_size=16).digest()
    return Event(seed, int.from_bytes(seed[:8], "big", signed=True), text.encode())


def events(first: int, last: int, *, size: int = 0) -> list[Event]:
    """`first` and `last` and all between."""
    return [event(number, size=size) for number in range(first, last + 1)]


def portion(request: Sequence[Event], queue_name: str = "q", lane: str = "a") -> Portion:
    text = header(lane)
    return Portion(
        queue(queue_name),
        lane_id(text),
        text,
        b"".join(each.uuid for each in request),
        array("q", [each.dedup_id for each in request]),
        texts(request),
    )


def texts(request: Sequence[Event]) -> list[bytes]:
    return [each.text for each in request]


def uuids(column: bytes) -> list[bytes]:
    """The uuids of a column, one by one."""
    return [column[at : at + 16] for at in range(0, len(column), 16)]


async def leased(buffer: Buffer, key: PublicKey = KEY) -> Lease:
    claimed = await buffer.claim(key, token())
    assert isinstance(claimed, Lease), claimed
    return claimed


async def idle(buffer: Buffer, key: PublicKey = KEY) -> Idle:
    claimed = await buffer.claim(key, token())
    assert isinstance(claimed, Idle), claimed
    return claimed


async def head(buffer: Buffer, lease: Lease, max_events: int = 100, max_bytes: int = 1_000_000) -> Head:
    read = await buffer.read(lease, max_events, max_bytes)
    assert isinstance(read, Head), read
    return read


async def head_texts(buffer: Buffer, lease: Lease, max_events: int = 100) -> list[bytes]:
    return list((await head(buffer, lease, max_events)).texts)


async def settled(
    buffer: Buffer,
    lease: Lease,
    taken: int,
    *,
    dead: Mapping[int, Death] | None = None,
    again: Sequence[int] = (),
    wait_s: float | None = None,
    failed: bool = False,
    outlook: Outlook | None = None,
    feedback: Feedback = NO_FEEDBACK,
    answered: Answered | None = None,
    ambiguous: bool = False,
) -> Settled:
    settlement = Settlement(
        taken, dead or {}, frozenset(again), wait_s, failed, outlook, feedback, answered, ambiguous
    )
    outcome = await buffer.settle(lease, settlement)
    assert isinstance(outcome, Settled), outcome
    return outcome


async def filled(buffer: Buffer, *, size: int = 0) -> int:
    """Append requests over two queues each until one is refused; how many were taken."""
    for number in count():
        one, other = (
            portion([event(number, size=size)], f"{size} {number}"),
            portion([event(number)], f"{size}"),
        )
        try:
            await buffer.append(KEY, [one, other])
        except BufferFull:
            return number
    raise AssertionError


async def books(buffer: Buffer, key: PublicKey = KEY) -> Books:
    """The key's books, which are the same written and counted."""
    figures = await buffer.figures(recount=True)
    assert await buffer.figures() == figures
    found = figures[key].books if key in figures else Books()
    assert found.difference == 0
    assert found.accepted == found.held + found.delivered + found.dead + found.dropped
    return found


async def due(buffer: Buffer, engine: Engine, key: PublicKey = KEY) -> Lease:
    """A lease of the first queue that becomes due, however long the clock must be moved for it."""
    while isinstance(claimed := await buffer.claim(key, token()), Idle):
        assert not claimed.empty
        engine.advance(claimed.wait_s)
    return claimed


async def lapsed(buffer: Buffer, engine: Engine, times: int) -> None:
    """Lease the first queue that becomes due so often, and let each lease end by itself."""
    for _ in range(times):
        await due(buffer, engine)
        engine.advance(TERMS.lease_s)


async def tried(
    buffer: Buffer, engine: Engine, outcome: Outcome, *, key: PublicKey = KEY, origin: str | None = None
) -> Lease:
    """Have the next queue that is due sent and answered so; what is not taken stays. Returns its lease."""
    lease = await due(buffer, engine, key)
    taken = len((await head(buffer, lease)).texts)
    again = () if outcome is Outcome.TAKEN else range(taken)
    await settled(buffer, lease, taken, again=again, feedback=Feedback(outcome, origin=origin))
    return lease


async def drained(buffer: Buffer, engine: Engine, key: PublicKey = KEY) -> list[bytes]:
    """Deliver all that the key holds; the texts in the order in which they left."""
    out: list[bytes] = []
    while (claimed := await buffer.claim(key, token())) != Idle(MAX_IDLE_S, empty=True):
        if isinstance(claimed, Idle):
            engine.advance(claimed.wait_s)
            continue
        batch = await head_texts(buffer, claimed)
        out += batch
        await settled(buffer, claimed, len(batch))
    return out


async def buried(
    buffer: Buffer,
    engine: Engine,
    request: Sequence[Event],
    queue_name: str = "q",
    lane: str = "a",
    *,
    key: PublicKey = KEY,
    death: Death = REFUSED,
) -> None:
    """Append events and have them all die, in their order, where the key holds no others that come first."""
    await buffer.append(key, [portion(request, queue_name, lane)])
    left = len(request)
    while left:
        lease = await due(buffer, engine, key)
        assert lease.queue == queue(queue_name)
        taken = min(left, FULL_BATCH)
        left = (await settled(buffer, lease, taken, dead=dict.fromkeys(range(taken), death))).left


async def letters(buffer: Buffer, which: Which = ALL_LETTERS) -> list[bytes]:
    """The texts of the dead letters, oldest first."""
    return [letter.text for letter in reversed(await buffer.dead_letters(which, limit=MAX_LETTERS))]
