"""Numbered entries of what was received: kept up to a bound, read from a number on, waited for."""

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, Self, TypeVar


class Numbered(Protocol):
    """One request, as a record tells it."""

    @property
    def seq(self) -> int:
        """Give its number: 1 for the first ever; never used again, even when the record is cleared."""

    def line(self) -> str:
        """Give it as one line of JSON in ASCII, so that lone surrogates survive."""


EntryT = TypeVar("EntryT", bound=Numbered)


class Chronicle(Generic[EntryT]):
    """The entries, oldest first. Beyond the bound none is forgotten: whoever adds asks for room before."""

    def __init__(self, bound: int) -> None:
        """Keep at most `bound`, at least 1."""
        if bound < 1:
            raise ValueError(f"A record needs room for at least 1 entry, not {bound}")
        self._bound = bound
        self._entries: list[EntryT] = []
        self._room_taken = 0
        self._last_seq = 0
        self._changed = asyncio.Event()

    @property
    def entries(self) -> Sequence[EntryT]:
        """Give every entry, oldest first. A view: it grows while requests arrive."""
        return self._entries

    @property
    def last_seq(self) -> int:
        """Give the number of the newest entry, 0 before the first."""
        return self._last_seq

    def since(self, seq: int) -> list[EntryT]:
        """Give the entries numbered above `seq`."""
        return self._entries[bisect_right(self._entries, seq, key=lambda entry: entry.seq) :]

    def has_room(self, wanted: int = 1) -> bool:
        """Say whether an entry that takes the room of so many, at least 1, can still be kept."""
        return self._room_taken + max(1, wanted) <= self._bound

    def add(self, entry: EntryT) -> None:
        """Append an entry that was made with `last_seq` + 1, and wake who waits for it."""
        self._entries.append(entry)
        self._last_seq = entry.seq
        self._room_taken += max(1, self._room_of(entry))
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def until(self, holds: Callable[[Self], bool]) -> None:
        """Return as soon as `holds` is true of this record; asked again after every entry."""
        while not holds(self):
            await self._changed.wait()

    def clear(self) -> int:
        """Forget every entry, and say how many there were. Numbers go on from the last."""
        cleared = len(self._entries)
        self._entries = []
        self._room_taken = 0
        return cleared

    def _room_of(self, entry: EntryT) -> int:  # noqa: ARG002  # of the record of events alone
        return 1
