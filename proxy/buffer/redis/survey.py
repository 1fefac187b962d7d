"""Whether a Redis is fit to keep acknowledged events: looked at before the start, and from then on.

What is wrong is in `findings`; here is who looks, when, and who is told. Only INFO is asked, because managed
services refuse CONFIG. (CONFIG GET appendfsync is tried, for durability `always` alone.)

*The layout marker*, `LAYOUT`: `version id`, in the fleet's slot. Whoever finds none writes one, under a new
id. So a process that has seen one before and finds none, or another id, knows that Redis has lost what it
had (a FLUSHALL, a failover to an empty server, a restart without a file), and so does each other process. It
is looked at on every new connection, and with each look at INFO, for a FLUSHALL closes no connection. A
process that starts after such a loss knows of none: it cannot tell an emptied Redis from a new one.
"""

import asyncio
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace

import structlog

from proxy.buffer.contract import BufferBroken, BufferUnavailable
from proxy.buffer.redis.findings import NEAR_FULL, Demands, Finding, full, shown, used_part
from proxy.buffer.redis.keys import LAYOUT
from proxy.buffer.redis.link import Ask, Durability, Link, OutOfMemory
from proxy.buffer.values import Terms
from proxy.ledger import Unsafe
from proxy.settings.redis_url import Target

LAYOUT_VERSION = 2
"""Of what is stored, and how. A process that finds another one touches nothing."""

_VERSION_DIGITS = 9
"""A longer number is no version of ours, and may be longer than Python reads."""

_LOOK_S = 10.0
"""Between two looks: what an operator changes shows within a quarter of a minute."""

_NEAR_FULL_S = 1.0
"""The same while Redis is nearly full: in ten seconds 100 MB can come in."""


class Unfit(Exception):
    """A process must not start on this Redis. One line: where, what, what it costs, what to do."""


class Survey:
    """Looks at one deployment for one process.

    `note_unsafe(reason, is_so)` is called for each reason at the first look, then where it changes;
    `note_loss()` each time it shows that Redis has lost all that the marker stood for.
    """

    def __init__(
        self,
        target: Target,
        terms: Terms,
        durability: Durability,
        replicas: int,
        *,
        note_unsafe: Callable[[Unsafe, bool], None],
        note_loss: Callable[[], None],
    ) -> None:
        self._target = target
        self._demands = Demands(target, terms, durability, replicas)
        self._note_unsafe = note_unsafe
        self._note_loss = note_loss
        self._log = structlog.get_logger("survey")
        # What was seen last; each look replaces it between two awaits.
        self._store_id: bytes | None = None
        self._found: dict[Unsafe, Finding] = {}
        self._full: str | None = None
        self._is_near_full = False
        self._asks_config = durability == "always"
        self._cannot_look = False
        self._unseen: str | None = None
        self._shown: Mapping[str, str] = {}

    def set_terms(self, terms: Terms) -> None:
        """Ask for the memory that these need from the next look on."""
        self._demands = replace(self._demands, terms=terms)

    def full(self) -> str | None:
        """Why appends are to be refused now: Redis has hardly any room left. None where it has."""
        return self._full

    async def recognise(self, ask: Ask) -> None:
        """Look at the marker, and write none: a `Greet` for who only looks. Raises as `greet`."""
        marker = await ask("GET", LAYOUT)
        if marker is not None:
            self._take(marker)

    async def greet(self, ask: Ask) -> None:
        """Look at the marker by a new connection: a `Greet`.

        Raises BufferBroken where what is stored is not for this version, and BufferUnavailable.
        """
        marker = await ask("GET", LAYOUT)
        if marker is None:
            fresh = b"%d %s" % (LAYOUT_VERSION, secrets.token_hex(8).encode())
            try:
                was_written = await ask("SET", LAYOUT, fresh, "NX")
            except OutOfMemory:
                return  # others fill it; what is held must still drain, and the next look tries again
            marker = fresh if was_written else await ask("GET", LAYOUT)
        if marker is not None:
            self._take(marker)

    def unseen(self) -> str | None:
        """What could not be looked at, and what to do; None where everything could."""
        return self._unseen

    def shown(self) -> Mapping[str, str]:
        """What it is, as the first look found it: for the line at the start."""
        return self._shown

    async def begin(self, link: Link) -> None:
        """Look for the first time, and warn of what is wrong. Raises Unfit."""
        await self._look(link, is_first=True)

    async def run(self, link: Link) -> None:
        """Look again and again; to be cancelled. Raises BufferBroken where a newer version has taken over."""
        while True:
            await asyncio.sleep(_NEAR_FULL_S if self._is_near_full else _LOOK_S)
            await self._look(link)
            try:
                await self.greet(link.ask)
            except BufferBroken:
                raise
            except BufferUnavailable:
                pass  # the look has said so, or each call does

    # -- the marker ------------------------------------------------------------------------------------

    def _take(self, marker: bytes) -> None:
        """Take note of the marker that is there. Raises BufferBroken."""
        version, _, store_id = marker.partition(b" ")
        if not version.isdigit() or len(version) > _VERSION_DIGITS or not store_id:
            raise BufferBroken(
                f"Redis at {self._target} holds something else under {LAYOUT.decode()}: give the proxy"
                " a Redis, or a database, of its own"
            )
        if int(version) > LAYOUT_VERSION:
            raise BufferBroken(
                f"what Redis at {self._target} holds was written by a newer version (layout {int(version)};"
                f" this one knows {LAYOUT_VERSION}): start that version again, or use another Redis"
            )
        if int(version) < LAYOUT_VERSION:
            raise BufferBroken(
                f"what Redis at {self._target} holds was written before the first release (layout"
                f" {int(version)}; this version knows {LAYOUT_VERSION}): let the one that wrote it deliver"
                " it, then delete its keys (outlit:*); or use another Redis, or another database of this one"
            )
        before, self._store_id = self._store_id, store_id
        if before not in {None, store_id}:
            self._log.error(
                f"Redis at {self._target} has lost what it held (its layout marker was gone): events that"
                " were acknowledged and not yet delivered are lost, and what is posted again counts as new:"
                " find out whether it was emptied (FLUSHALL), restarted without its append-only file, or"
                " failed over to an empty server"
            )
            self._note_loss()

    # -- what INFO says --------------------------------------------------------------------------------

    async def findings(self, link: Link) -> dict[Unsafe, Finding]:
        """What is wrong now; nothing is logged or raised for it. Raises BufferUnavailable."""
        infos = await link.info()
        appendfsync = await self._appendfsync(link)
        self._shown = self._shown or shown(infos)
        self._full = full(infos, self._full, self._target)
        self._is_near_full = any((used_part(info) or 0.0) > NEAR_FULL for info in infos)
        found = self._demands.findings(infos, appendfsync)
        if self._full is not None:
            found.setdefault(Unsafe.MEMORY, Finding(self._full))
        return found

    async def _look(self, link: Link, *, is_first: bool = False) -> None:
        try:
            found = await self.findings(link)
        except BufferUnavailable as error:
            self._full = None  # not known; Redis itself refuses where it is
            if not self._cannot_look:
                self._cannot_look = True
                self._log.warning(f"cannot see whether Redis is safe: {error}")
            if is_first:
                self._tell(self._demands.findings(()), is_first=True)
            return
        if self._cannot_look:
            self._cannot_look = False
            self._log.info(f"Redis at {self._target} can be looked at again")
        if is_first and (fatal := [finding.text for finding in found.values() if finding.is_fatal]):
            raise Unfit(fatal[0])
        self._tell(found, is_first=is_first)

    async def _appendfsync(self, link: Link) -> str | None:
        """How often its file is synced; None where it does not matter, or may not be asked."""
        if not self._asks_config:
            return None
        try:
            answer = await link.ask("CONFIG GET", b"appendfsync")
        except BufferUnavailable as error:
            self._asks_config = False
            self._unseen = (
                f'buffer.durability is "always", and whether appendfsync is cannot be seen ({error}):'
                " see to it that it is, or allow +config|get"
            )
            self._log.warning(self._unseen)
            return None
        return str(answer[1].decode("ascii", "replace")) if answer else None

    def _tell(self, found: dict[Unsafe, Finding], *, is_first: bool) -> None:
        """Log and pass on what has changed."""
        before, self._found = self._found, found
        for reason in Unsafe:
            old, new = before.get(reason), found.get(reason)
            if is_first or (old is None) != (new is None):
                self._note_unsafe(reason, new is not None)
            if new is not None and (old is None or old.is_fatal != new.is_fatal):
                log = self._log.error if new.is_fatal else self._log.warning
                log(new.text, unsafe=reason.value)
            elif old is not None and new is None:
                self._log.info(f"no longer: {old.text.partition(': ')[0]}", unsafe=reason.value)
