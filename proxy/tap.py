"""Samples of events for whoever looks at a running proxy: what happened to one, hardly what it holds.

Front and flusher tell `Taps` what they do, and only while somebody looks: they ask `open`, which is an empty
set as a rule, and do nothing else then. An open `Tap` takes every n-th of the events that fit it, at most
`PER_S` of them a second, and keeps no more than `MAX_WAITING`; what is beyond is counted and never waited
for, so a slow reader slows down nobody. Of an event three fields are read: properties, addresses and
identities never leave the proxy this way.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from proxy.clock import wall_ms
from proxy.ledger import Sampled
from proxy.wire import jsontext
from proxy.wire.limits import PublicKey

MAX_TAPS = 8
"""That are open at one time."""

MAX_EVERY = 1_000_000
"""The rarest that can be asked for: one event of so many. Also the most samples that a limit can name."""

PER_S = 50
"""Samples that a tap takes in a second."""

MAX_WAITING = 200
"""Samples that wait for a tap's reader."""

_SHOWN_CHARS = 100


class TooManyTaps(Exception):
    """`MAX_TAPS` are open: one must be closed first."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One event, or a request that could not be read (then nothing of an event is known).

    `reason` is of a closed list; `detail` says more, in words of the proxy's own. `kind` is the event's type.
    """

    at_ms: int
    outcome: Sampled
    key: PublicKey
    reason: str | None
    detail: str | None
    kind: str | None
    event_name: str | None
    uuid: str | None


class Tap:
    """One that is open. `fits`: the outcomes that it is about; `key`: the only key, None for all."""

    def __init__(
        self, fits: Collection[Sampled], key: PublicKey | None, every: int, now_s: Callable[[], float]
    ) -> None:
        self._fits = fits
        self._key = key
        self._every = every
        self._now_s = now_s
        self._since_last = every - 1  # so that the first one is taken
        self._second = 0  # the whole second in which …
        self._taken = 0  # … so many were taken
        self._waiting: deque[Sample] = deque()
        self._left_out = 0
        self._news = asyncio.Event()

    def offer(
        self, key: PublicKey, outcome: Sampled, texts: Sequence[bytes], reason: str | None, detail: str | None
    ) -> None:
        """Take every n-th of these events, as far as there is room."""
        if outcome not in self._fits or self._key not in (None, key):
            return
        picked = range(self._every - 1 - self._since_last, len(texts), self._every)
        self._since_last = (self._since_last + len(texts)) % self._every
        room = min(len(picked), self._room())
        self._left_out += len(picked) - room
        for at in picked[:room]:
            self._waiting.append(_sample(key, outcome, texts[at], reason, detail))
        self._taken += room
        if room:
            self._news.set()

    async def take(self, within_s: float) -> tuple[list[Sample], int]:
        """What has come, once there is something or the time is over; and how many had no room meanwhile."""
        try:
            async with asyncio.timeout(within_s):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()
        taken, left_out = [*self._waiting], self._left_out
        self._waiting.clear()
        self._left_out = 0
        return taken, left_out

    def end(self) -> None:
        """Let whoever waits in `take` go at once."""
        self._news.set()

    def _room(self) -> int:
        second = int(self._now_s())
        if second != self._second:
            self._second, self._taken = second, 0
        return min(PER_S - self._taken, MAX_WAITING - len(self._waiting))


class Taps:
    """All that are open."""

    def __init__(self) -> None:
        self.open: set[Tap] = set()

    def add(self, fits: Collection[Sampled], key: PublicKey | None, every: int) -> Tap:
        """Open one, for every n-th event. Raises TooManyTaps."""
        if len(self.open) >= MAX_TAPS:
            raise TooManyTaps
        tap = Tap(fits, key, every, asyncio.get_running_loop().time)
        self.open.add(tap)
        return tap

    def remove(self, tap: Tap) -> None:
        """Close one."""
        self.open.discard(tap)

    def offer(
        self,
        key: PublicKey,
        outcome: Sampled,
        texts: Sequence[bytes],
        *,
        reason: str | None = None,
        detail: str | None = None,
    ) -> None:
        """Tell all of them what happened to these events; a text is empty where it could not be read."""
        for tap in self.open:
            tap.offer(key, outcome, texts, reason, detail)


def events_of(body: bytes) -> Sequence[bytes]:
    """The texts of the events in the body of an upstream request."""
    try:
        return _decode_body(body).events
    except msgspec.DecodeError:
        return [jsontext.encode(event) for event in jsontext.decode(body)["events"]]


class _Body(msgspec.Struct):
    events: list[msgspec.Raw]


class _Fields(msgspec.Struct):
    """All that is read of an event."""

    type: Any = None
    eventName: Any = None  # noqa: N815  # the wire's own name
    uuid: Any = None


# What these refuse holds a lone surrogate (a cut emoji), which the slower decoder takes.
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_fields = msgspec.json.Decoder(_Fields).decode
_NOTHING = _Fields()


def _sample(key: PublicKey, outcome: Sampled, text: bytes, reason: str | None, detail: str | None) -> Sample:
    fields = _fields(text) if text else _NOTHING
    return Sample(
        wall_ms(),
        outcome,
        key,
        reason,
        detail,
        _shown(fields.type),
        _shown(fields.eventName),
        _shown(fields.uuid),
    )


def _fields(text: bytes) -> _Fields:
    try:
        return _decode_fields(text)
    except msgspec.DecodeError:
        event = jsontext.decode(text)
        return _Fields(event.get("type"), event.get("eventName"), event.get("uuid"))


def _shown(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    return value[:_SHOWN_CHARS].encode(errors="backslashreplace").decode()
