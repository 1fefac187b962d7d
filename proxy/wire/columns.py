"""The events of an ordinary request, in columns: what is done to each is done to all of them at once.

Nearly every request holds nothing odd, and then an object and some dozen calls for each event cost ten times
what the work itself does. Here each step is one pass over a column of values, which for the most part never
leaves C. A step that meets anything odd says so and no more: the request is then read event by event, which
finds out what is wrong with which. So the steps may be stricter than the contract (a nil UUID is odd, and so
is a hundred kilobytes of form), but never laxer; and an event is the same reading whichever way it went.
"""

from collections.abc import Iterator, Sequence
from operator import attrgetter

import msgspec
from msgspec import UNSET

from proxy.wire import jsontext, loose
from proxy.wire.events import Billing, Custom, Event, Form, Identify, Reading, flaw, identity_of
from proxy.wire.redact import may_hold_secrets

_MOST_SEARCHED = 100_000
"""Characters of addresses, and bytes of forms, that are searched for secrets: 15 ms at worst."""

_NESTING = {loose.TWINS[Custom], loose.TWINS[Identify]}
"""The only types with a field in which anything may nest."""

_RULED = {loose.TWINS[Identify], loose.TWINS[Billing]}
"""The types of which the structs do not say all."""

_PLAIN = {*loose.TWINS.values()} - _NESTING - _RULED

_FORM = loose.TWINS[Form]

_LEAST_DEEP_BYTES = 2 * jsontext.MAX_DEPTH
"""A shorter text cannot nest too deep."""

_UUID_BYTES = 16

_fields = attrgetter("url", "path", "referrer", "timestamp", "customerTraits", "uuid")
_encode = msgspec.json.Encoder().encode


class Columns(msgspec.Struct):
    """The events of a request that holds nothing odd: of each column the n-th value is the n-th event's.

    `canonical` is as in `Reading`, `redacted` the text without secrets (the same list where there are none).
    `uuids` has 16 bytes for each, any where the client sent none. `incomplete` are the positions of those
    without a uuid or a timestamp. For whoever looks at single events it is a sequence of readings.
    """

    events: Sequence[Event]
    canonical: list[bytes]
    redacted: list[bytes]
    uuids: bytes
    incomplete: list[int]
    _identities: list[str | None] | None = None

    def __len__(self) -> int:
        return len(self.events)

    def __getitem__(self, at: int) -> Reading:
        return Reading(self.events[at], self.canonical[at])

    def __iter__(self) -> Iterator[Reading]:
        return map(Reading, self.events, self.canonical)

    def identities(self) -> list[str | None]:
        """Whom each event names by itself, as in `Reading.identity`; found out when first asked."""
        if self._identities is None:
            self._identities = [*map(identity_of, self.events)]
        return self._identities


def columns_of(events: Sequence[Event], own_uuids: Sequence[str] = ()) -> Columns | None:
    """The columns of one or more events, decoded by `loose`; None if there is anything odd among them.

    `own_uuids` are those of their envelope, which are checked along with theirs.
    """
    urls, paths, referrers, timestamps, traits, posted = zip(*map(_fields, events))  # noqa: B905
    kinds = {*map(type, events)}
    if not loose.shared_fields_fit(urls, timestamps, traits):
        return None
    for kind in kinds:
        if not loose.own_fields_fit(kind, events):
            return None
    incomplete: list[int] = []
    if UNSET in posted or UNSET in timestamps:
        incomplete = [at for at, pair in enumerate(zip(posted, timestamps, strict=True)) if UNSET in pair]
        posted = tuple(_IN_PLACE if uuid is UNSET else uuid for uuid in posted)
    uuids = _packed((*own_uuids, *posted))
    if uuids is None:
        return None
    canonical = [*map(_encode, events)]
    if not (kinds <= _PLAIN or _keep_the_rules(events, canonical)):
        return None
    addresses = "\n".join({*urls, *paths, *filter(None, referrers)})
    redacted = _redacted(events, canonical, addresses, forms=_FORM in kinds)
    if redacted is None:
        return None
    return Columns(events, canonical, redacted, uuids[_UUID_BYTES * len(own_uuids) :], incomplete)


_SHAPE = b"00000000-0000-0000-0000-000000000000\n"
_TO_SHAPE = bytes.maketrans(b"0123456789abcdefABCDEF", b"0" * 22)

_IN_PLACE = "00000000-0000-8000-8000-000000000000"
"""Stands for a missing uuid."""


def _packed(uuids: Sequence[str]) -> bytes | None:
    """The 16 bytes of each UUID, or None unless all are such as somebody may have made."""
    # Line by line, or two texts of 35 and 37 characters would pass for two UUIDs.
    lines = "\n".join(uuids) + "\n"
    if not lines.isascii() or lines.encode("ascii").translate(_TO_SHAPE) != _SHAPE * len(uuids):
        return None
    versions, variants = lines[14::37], lines[19::37]
    if versions.strip("12345678") or variants.strip("89abAB"):
        return None
    return bytes.fromhex(lines.replace("-", ""))


def _keep_the_rules(events: Sequence[Event], canonical: Sequence[bytes]) -> bool:
    """Whether no event can nest too deep, and each has what its struct alone cannot ask of it."""
    for event, text in zip(events, canonical, strict=True):
        kind = type(event)
        if kind in _NESTING and len(text) > _LEAST_DEEP_BYTES and _brackets(text) > jsontext.MAX_DEPTH:
            return False
        if kind in _RULED and flaw(event) is not None:
            return False
    return True


def _brackets(text: bytes) -> int:
    return text.count(b"{") + text.count(b"[")


def _redacted(
    events: Sequence[Event], canonical: list[bytes], addresses: str, *, forms: bool
) -> list[bytes] | None:
    """The texts without secrets; None where too much would have to be searched for any.

    `addresses`: all that the events hold, a line each. `forms`: some are forms.
    """
    in_addresses = "=" in addresses
    if not forms and not in_addresses:
        return canonical
    searched = len(addresses)
    if forms:
        searched += sum(
            len(text) for event, text in zip(events, canonical, strict=True) if type(event) is _FORM
        )
    if searched > _MOST_SEARCHED:
        return None
    in_addresses = in_addresses and may_hold_secrets(addresses)
    if not forms and not in_addresses:
        return canonical
    return [
        Reading(event, text).redacted() if in_addresses or type(event) is _FORM else text
        for event, text in zip(events, canonical, strict=True)
    ]
