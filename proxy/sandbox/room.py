"""What the sandbox is made of while it runs: how it is played, what was ordered of it, what it received."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from aiohttp import web

from proxy.sandbox import delivery
from proxy.sandbox.answers import Answer
from proxy.sandbox.circumstances import Link
from proxy.sandbox.limiter import Limiter
from proxy.sandbox.manner import Manner
from proxy.sandbox.orders import Script
from proxy.sandbox.outcome import Rules
from proxy.sandbox.platform import PlatformState
from proxy.sandbox.programme import Programme
from proxy.sandbox.record import Record
from proxy.sandbox.schedule import Schedule
from proxy.sandbox.strike import Strike


@dataclass(frozen=True, slots=True)
class Room:
    """Built once, used by every request and every control."""

    rules: Rules
    limiter: Limiter
    links: Schedule[Link]
    programme: Programme
    record: Record
    platform: PlatformState
    clock: Callable[[], float]
    """Unix seconds."""
    chance: Random
    """Of latencies, and of what headers say by chance."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set from a stop to the next start: every request that waits for a fault or on its way is dropped."""

    def follow(self, script: Script) -> None:
        """Order all of `script` as of now. Raises OrderError for too many of one sort."""
        now = self.clock()
        self.programme.add(*script.faults, now=now)
        self.platform.incidents.add(*script.platform, now=now)
        self.limiter.changes.add(*script.limits, now=now)
        self.limiter.strangers.add(*script.strangers, now=now)
        self.links.add(*script.links, now=now)

    async def travels(self) -> bool:
        """Go half of the way. Says whether the sandbox stopped meanwhile."""
        links = self.links.begun(self.clock())
        if not links:
            return False
        link = links[-1].order
        return await delivery.travels(
            link.latency_ms, link.latency_to_ms, self.chance, self.stopping, share=0.5
        )

    async def send(self, request: web.Request, answer: Answer, strike: Strike | None) -> web.StreamResponse:
        """Send `answer` over the other half of the way, as it is or as what struck the request has it."""
        told, manner = ({}, Manner()) if strike is None else (strike.headers, strike.manner)
        reply = delivery.composed(answer, told, self.clock(), self.chance)
        if await self.travels():
            return delivery.cut(request)
        return await delivery.deliver(request, reply, manner, self.chance, self.stopping)
