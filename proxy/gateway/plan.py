"""What plans have used up, as Outlit's refusals said it: such calls would be refused until it is back.

Pure: it is told the time, Unix milliseconds. A refusal counts for one API key and one feature of its plan,
until the moment that it names. Which calls use a feature is not published but for one: calls of tools count
as `api_calls`, and so do all of a route of which one was refused for them. A refusal that names no feature is
about the account, and taken for the whole route. Of any other feature only calls like the one that was
refused are known to use it: to refuse what Outlit would have answered is worse than to ask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

from proxy.gateway.figures import Refused
from proxy.ledger import PlatformRoute
from proxy.wire.platform import Kept, PlanRefusal

KeyMark = bytes
"""Tells API keys apart, and does not tell what they are."""

_OF_ALL_TOOLS: Final = ("api_calls", "api_limit_exceeded", "plan_api_limit_exceeded")
"""The feature that all tools use; and, where no feature is named, the codes that say so."""

_DAY_MS: Final = 86_400_000
FARTHEST_MS: Final = 400 * _DAY_MS
"""A yearly plan begins anew within it. What is farther off is not believed."""
UNBELIEVED_MS: Final = 3_600_000
"""How long such a refusal is remembered all the same."""

MAX_REFUSALS: Final = 1_000


@dataclass(frozen=True, slots=True)
class CallKind:
    """A call, as far as plans can tell calls apart. `name`: of the tool, or the method and the last word."""

    route: PlatformRoute
    name: str


VALIDITY: Final = CallKind(PlatformRoute.VALIDATE, "valid?")
"""The question whether a key is valid, and nothing beside it."""


@dataclass(slots=True)
class _Entry:
    """A refusal; `kind`: of the call, or None for all of `routes`."""

    kind: CallKind | None
    routes: set[PlatformRoute]
    refusal: PlanRefusal
    answer: Kept
    since_ms: int
    until_ms: int
    answered: int = 0

    def concerns(self, kind: CallKind) -> bool:
        return kind.route in self.routes if self.kind is None else kind == self.kind


class PlanMemory:
    """The refusals that are in force; bounded, the one that ends first gives way."""

    def __init__(self) -> None:
        self._entries: dict[tuple[KeyMark, str, CallKind | None], _Entry] = {}

    def count(self, now_ms: int) -> int:
        """How many are in force."""
        self._forget_the_past(now_ms)
        return len(self._entries)

    def remember(self, key: KeyMark, kind: CallKind, refusal: PlanRefusal, answer: Kept, now_ms: int) -> bool:
        """Note that a call was refused. Says whether that is news that lasts: a moment to come is known."""
        until_ms = refusal.reset_at_ms
        if until_ms is None or until_ms <= now_ms:
            return False
        if until_ms > now_ms + FARTHEST_MS:
            until_ms = now_ms + UNBELIEVED_MS
        self._forget_the_past(now_ms)
        named = refusal.feature or refusal.code
        is_of_tools = named in _OF_ALL_TOOLS
        of_one = None if is_of_tools or refusal.feature is None else kind
        place = (key, named, of_one)
        before = self._entries.get(place)
        if before is None and len(self._entries) >= MAX_REFUSALS:
            del self._entries[min(self._entries, key=lambda at: self._entries[at].until_ms)]
        routes = {PlatformRoute.TOOLS, kind.route} if is_of_tools else {kind.route}
        entry = self._entries[place] = _Entry(of_one, routes, refusal, answer, now_ms, until_ms)
        if before is not None:
            entry.routes |= before.routes
            entry.since_ms, entry.answered = before.since_ms, before.answered
        return before is None

    def refuses(self, key: KeyMark, kind: CallKind, now_ms: int) -> bool:
        """Whether a call is known to be refused."""
        return self._concerning(key, kind, now_ms) is not None

    def recall(self, key: KeyMark, kind: CallKind, now_ms: int) -> tuple[Kept, int] | None:
        """What a call is answered here, and for how many whole seconds yet, at least 1; None: ask."""
        entry = self._concerning(key, kind, now_ms)
        if entry is None:
            return None
        entry.answered += 1
        return entry.answer, max(1, ceil((entry.until_ms - now_ms) / 1_000))

    def forget(self, now_ms: int) -> int:
        """Forget all of it. Returns how many were in force."""
        count = self.count(now_ms)
        self._entries.clear()
        return count

    def forget_key(self, key: KeyMark) -> None:
        """Forget all of one API key."""
        for place in [place for place in self._entries if place[0] == key]:
            del self._entries[place]

    def figures(self, own: KeyMark | None, now_ms: int) -> Sequence[Refused]:
        """What is in force, of the `own` key first, what lasts longest first."""
        self._forget_the_past(now_ms)
        found = [
            Refused(
                code=entry.refusal.code,
                feature=entry.refusal.feature,
                plan=entry.refusal.plan,
                status=entry.answer.status,
                is_own=key == own,
                since_ms=entry.since_ms,
                until_ms=entry.until_ms,
                answered=entry.answered,
            )
            for (key, *_), entry in self._entries.items()
        ]
        return sorted(found, key=lambda each: (not each.is_own, -each.until_ms))

    def _concerning(self, key: KeyMark, kind: CallKind, now_ms: int) -> _Entry | None:
        """Of those that concern a call the one that lasts longest."""
        self._forget_the_past(now_ms)
        found = [
            entry for (of_key, *_), entry in self._entries.items() if of_key == key and entry.concerns(kind)
        ]
        return max(found, key=lambda entry: entry.until_ms, default=None)

    def _forget_the_past(self, now_ms: int) -> None:
        past = [place for place, entry in self._entries.items() if entry.until_ms <= now_ms]
        for place in past:
            del self._entries[place]
