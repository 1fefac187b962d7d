"""A client that sends again what was not acknowledged, and writes down what was."""

import asyncio
import time
from dataclasses import dataclass, field
from random import Random

import aiohttp

from proxy.demo.comparison import Posted
from proxy.demo.marks import KEY
from proxy.demo.traffic import Backend, Post, Visitor

_TIMEOUT_S = 10.0
"""Of the Node client."""
_AGAIN_S = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Waits before a post is sent again; after the last it goes on with that."""
_ANSWERS_LOST = 0.02
"""Share of posts whose answer gets lost on its way back, as on a train into a tunnel."""


@dataclass(slots=True)
class Tally:
    """What became of all that was posted. Every event is in one of the lists once its post has ended."""

    acknowledged: list[Posted] = field(default_factory=list)
    unacknowledged: list[Posted] = field(default_factory=list)
    """Without any answer when the run ended: perhaps kept, perhaps not."""
    refused: list[Posted] = field(default_factory=list)
    sent_again: int = 0
    """Posts."""


class Client:
    """Posts to one front, and writes down in `tally` what it was told."""

    def __init__(self, session: aiohttp.ClientSession, front_url: str, rng: Random, tally: Tally) -> None:
        self._session = session
        self._url = f"{front_url}/api/i/v1/{KEY}/events"
        self._rng = rng
        self._tally = tally

    async def talk(self, who: Visitor | Backend, closing: asyncio.Event) -> None:
        """Post what `who` says until it has left or `closing` is set."""
        while not closing.is_set() and not (isinstance(who, Visitor) and who.has_left):
            await self._deliver(who.flush(time.time_ns() // 1_000_000))
            await rings_within(closing, who.pause_s())

    async def _deliver(self, post: Post) -> None:
        """Return when the front has answered for every event, however often that takes.

        Cancelled before, it leaves the events among the unacknowledged.
        """
        attempts = 0
        answered = False
        try:
            while not answered:
                if attempts:
                    self._tally.sent_again += 1
                    await asyncio.sleep(_AGAIN_S[min(attempts, len(_AGAIN_S)) - 1])
                attempts += 1
                answered = await self._attempt(
                    post, hears=attempts > 1 or self._rng.random() >= _ANSWERS_LOST
                )
        finally:
            if not answered:
                self._tally.unacknowledged += post.events

    async def _attempt(self, post: Post, *, hears: bool) -> bool:
        """Post once. Says whether the answer was one; `hears`: whether it reaches the client at all."""
        try:
            async with self._session.post(
                self._url,
                data=post.body,
                headers=post.headers,
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            ) as response:
                body = await response.json()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False
        if not hears or response.status == 429 or response.status >= 500:
            return False
        bad = {error["index"] for error in body.get("errors", ()) if "index" in error}
        if response.status >= 400:
            bad = set(range(len(post.events)))
        for index, event in enumerate(post.events):
            (self._tally.refused if index in bad else self._tally.acknowledged).append(event)
        return True


async def rings_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait for `event`, `seconds` at most. Says whether it is set."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return event.is_set()
    return True
