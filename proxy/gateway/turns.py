"""Which of several calls goes first, where the first may find out that the others need not go.

A plan is found to be used up by being refused. Calls that come together would all find it out; so one goes,
and the others wait for what it hears. Where it succeeds one more goes, then two, then four: a plan that ends
in their midst refuses few. Some answers take long, so with time more may go, too: two, four, eight.
"""

import asyncio
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from cachetools import TTLCache

DOUBTING_S: Final = 2.0
"""After so long without a word twice as many may be on their way, where no call has succeeded lately."""
TRUSTING_S: Final = 0.5
"""The same where one has, for a few times: refusals are quick, and so is what the wait costs."""

_TRUSTED_FOR_S: Final = 60.0
_MAX_TRUSTED: Final = 1_000
_QUICK_DOUBLINGS: Final = 3
_MOST_DOUBLINGS: Final = 10


@dataclass(slots=True)
class _Line:
    """Calls that are told apart from all others. `taken`: how many succeeded since it began.

    `silent_since_s`: of the event loop, when one succeeded last, or the first went.
    """

    asking: int = 0
    waiting: int = 0
    taken: int = 0
    silent_since_s: float = 0.0
    heard: asyncio.Event = field(default_factory=asyncio.Event)


class Turns:
    """Lines of calls. What is told apart by `name` waits for nobody else."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, _Line] = {}
        self._trusted: TTLCache[Hashable, bool] = TTLCache(_MAX_TRUSTED, _TRUSTED_FOR_S)

    async def wait(self, name: Hashable, is_settled: Callable[[], bool], deadline_s: float) -> None:
        """Return when a call may go, or need not: `is_settled`. Begin it at once then, without awaiting.

        Not later than `deadline_s` of the event loop.
        """
        clock = asyncio.get_running_loop().time
        line = self._lines.setdefault(name, _Line())
        line.waiting += 1
        try:
            while line.asking and not is_settled() and (now_s := clock()) < deadline_s:
                doublings, next_s = self._doublings(name, now_s - line.silent_since_s)
                if line.asking < max(1, line.taken, 2**doublings):
                    return
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(deadline_s, line.silent_since_s + next_s)):
                        await line.heard.wait()
        finally:
            line.waiting -= 1
            self._forget_an_empty(name, line)

    def begin(self, name: Hashable) -> None:
        """A call goes."""
        line = self._lines.setdefault(name, _Line())
        if not line.asking:
            line.silent_since_s = asyncio.get_running_loop().time()
        line.asking += 1

    def end(self, name: Hashable, *, was_taken: bool) -> None:
        """It is answered, or never will be. `was_taken`: its answer was not that a plan forbids it."""
        line = self._lines[name]
        line.asking -= 1
        if was_taken:
            line.taken += 1
            line.silent_since_s = asyncio.get_running_loop().time()
            self._trusted[name] = True
        line.heard.set()
        line.heard = asyncio.Event()
        self._forget_an_empty(name, line)

    def doubt(self, name: Hashable) -> None:
        """Such calls were refused: what is known of their success is past."""
        self._trusted.pop(name, None)
        if name in self._lines:
            self._lines[name].taken = 0

    def _doublings(self, name: Hashable, silent_s: float) -> tuple[int, float]:
        """How often the window has doubled in a silence; and how long that is when it does so next."""
        quick = _QUICK_DOUBLINGS if name in self._trusted else 0
        quick_s = quick * TRUSTING_S
        if silent_s < quick_s:
            done = int(silent_s / TRUSTING_S)
            return done, (done + 1) * TRUSTING_S
        slow = int((silent_s - quick_s) / DOUBTING_S)
        return min(quick + slow, _MOST_DOUBLINGS), quick_s + (slow + 1) * DOUBTING_S

    def _forget_an_empty(self, name: Hashable, line: _Line) -> None:
        if not line.asking and not line.waiting:
            self._lines.pop(name, None)
