"""What the power left, opened by the real engine and held to what had been acknowledged."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import apsw

from proxy.buffer import MAX_BATCHES, MAX_LETTERS, Buffer, Head, HeldEvent, Idle, Settled, Settlement
from proxy.buffer.contract import MAX_IDLE_S
from proxy.buffer.sqlite import SqliteBuffer
from proxy.clock import StoreClock
from proxy.wire.limits import PublicKey
from tests.buffer.contents import portion, token, uuids
from tests.faults.lives import KEYS, TERMS, Request, store_clock
from tests.model.model import Model


def put(files: Mapping[str, bytes], database: Path) -> None:
    """Put the files where the database is to be."""
    database.parent.mkdir()
    for name, content in files.items():
        database.with_name(name).write_bytes(content)


async def recovered(
    database: Path, states: Sequence[Model], requests: Sequence[Request], *, sync_every_commit: bool
) -> int:
    """Open it, find which of `states` it is in (the newest that fits), and go on from there to its end.

    Everything is looked at through the engine: the books recounted, what is held and in which order, the dead
    letters, the record of ambiguous batches. `requests` are posted once more, as clients do that saw no
    answer: of each the whole must be known, or none of it.
    """
    clock = store_clock(max(state.now_ms for state in states))
    buffer = await SqliteBuffer.opened(
        database, TERMS, sync_every_commit=sync_every_commit, clock=clock, inline=True
    )
    try:
        _check_integrity(database)
        at = await _found(buffer, states, clock.now_ms())
        model = deepcopy(states[at])
        model.advance(clock.now_ms() - model.now_ms)
        for key, asked in requests:
            appended = await buffer.append(key, [portion(*each) for each in asked])
            assert appended == model.append(key, asked)
        for key in KEYS:
            await _drain(buffer, key, model, clock)
        for found in (await buffer.figures(recount=True)).values():
            assert (found.books.held, found.books.difference) == (0, 0)
    finally:
        await buffer.close()
    return at


async def _drain(buffer: Buffer, key: PublicKey, model: Model, clock: StoreClock) -> None:
    """Deliver all that the key holds: that of the model, in its order."""
    while (claimed := await buffer.claim(key, token())) != Idle(MAX_IDLE_S, empty=True):
        if isinstance(claimed, Idle):
            clock.offset_ms += round(claimed.wait_s * 1000)
            continue
        waiting = model.queues[key, claimed.queue].waiting
        head = await buffer.read(claimed, 100, 1_000_000)
        assert isinstance(head, Head)
        batch = [(head.header, *event) for event in zip(uuids(head.uuids), head.texts, strict=True)]
        assert batch == [(held.header, held.event.uuid, held.event.text) for held in waiting[: len(batch)]]
        assert isinstance(await buffer.settle(claimed, Settlement(len(batch))), Settled)
        del waiting[: len(batch)]
    assert not model.of(key), "held, and never given out"


def _check_integrity(database: Path) -> None:
    connection = apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        assert connection.pragma("integrity_check") == "ok"
    finally:
        connection.close()


async def _found(buffer: Buffer, states: Sequence[Model], now_ms: int) -> int:
    """Which of the states the buffer is in: the newest, where several look the same."""
    look = await _look(buffer)
    alike = [at for at, state in enumerate(states) if _look_of(state) == look]
    assert alike, f"{look} is none of the states that may be; the newest is {_look_of(states[-1])}"
    for at in reversed(alike):
        if await _has_queues(buffer, states[at], now_ms):
            return at
    raise AssertionError("what is leased, or backs off, is in none of the states that may be")


async def _look(buffer: Buffer) -> dict[str, Any]:
    figures = await buffer.figures(recount=True)
    return {
        "figures": {
            key: (found.books, found.queues, found.ambiguous, found.succeeded)
            for key, found in figures.items()
        },
        "letters": [*reversed(await buffer.dead_letters(limit=MAX_LETTERS))],
        "ambiguous": sorted(map(repr, await buffer.ambiguous(limit=MAX_BATCHES))),
    }


def _look_of(state: Model) -> dict[str, Any]:
    ambiguous = [batch for batch in state.batches if batch.ambiguous]
    return {
        "figures": {
            key: (
                books,
                len(state.of(key)),
                sum(batch.key == key for batch in ambiguous),
                key in state.succeeded,
            )
            for key, books in state.books.items()
        },
        "letters": [letter.told() for letter in state.letters],
        "ambiguous": sorted(map(repr, ambiguous)),
    }


async def _has_queues(buffer: Buffer, state: Model, now_ms: int) -> bool:
    """Whether each queue is due when the state says, after as many tries, and leased or not."""
    for key in KEYS:
        for of in state.of(key):
            head = of.waiting[0]
            traces = await buffer.trace(head.event.uuid, key=key, queue=of.name)
            due_in_s, is_leased = (of.due_ms - now_ms) / 1000, of.lease is not None and of.due_ms > now_ms
            told = HeldEvent(key, of.name, head.accepted_ms, of.attempts, is_leased, due_in_s)
            if told not in traces.held:
                return False
    return True
