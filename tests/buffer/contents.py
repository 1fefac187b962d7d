"""What tests put into a buffer, and how they take it out again."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import count

from proxy.buffer import Buffer, BufferFull, Death, Event, Head, Idle, Lease, Portion, Settled, Settlement
from proxy.lanes import Lane, QueueId, lane_id
from proxy.ledger import Books, Dead
from proxy.wire.limits import PublicKey

KEY = PublicKey("pk_one")
OTHER_KEY = PublicKey("pk_other")
REFUSED = Death(Dead.REFUSED, "Invalid event type")

_tokens = count(1)


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
    text += "x" * max(0, size - len(text) - 2) + '"}'
    seed = blake2b(text.encode(), digest_size=16).digest()
    return Event(seed, int.from_bytes(seed[:8], "big", signed=True), text.encode())


def events(first: int, last: int, *, size: int = 0) -> list[Event]:
    """`first` and `last` and all between."""
    return [event(number, size=size) for number in range(first, last + 1)]


def portion(held: Sequence[Event], queue_name: str = "q", lane: str = "a") -> Portion:
    text = header(lane)
    return Portion(queue(queue_name), lane_id(text), text, held)


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
    return [held.text for held in (await head(buffer, lease, max_events)).events]


async def settled(
    buffer: Buffer,
    lease: Lease,
    taken: int,
    *,
    dead: Mapping[int, Death] | None = None,
    again: Sequence[int] = (),
    wait_s: float | None = None,
    failed: bool = False,
) -> Settled:
    outcome = await buffer.settle(lease, Settlement(taken, dead or {}, frozenset(again), wait_s, failed))
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


def texts(held: Sequence[Event]) -> list[bytes]:
    return [each.text for each in held]


async def books(buffer: Buffer, key: PublicKey = KEY) -> Books:
    """The key's books, after the recount has found no difference."""
    figures = await buffer.figures(recount=True)
    found = figures[key].books if key in figures else Books()
    assert found.difference == 0
    assert found.accepted == found.held + found.delivered + found.dead + found.dropped
    return found
