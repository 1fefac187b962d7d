"""What an open tap is told of a client's request. Nothing here is called while there is none."""

from collections.abc import Sequence

import msgspec

from proxy.buffer import Appended, Portion
from proxy.front.portions import UNKNOWN_FIELDS, UNKNOWN_TYPE
from proxy.ledger import Rejected, Sampled
from proxy.tap import Taps
from proxy.wire.answers import ClientAnswer, Code
from proxy.wire.events import KINDS, TOO_LARGE
from proxy.wire.fields import Flaw
from proxy.wire.limits import PublicKey

_UNREAD = (b"",)
"""Stands for an event, or a request, of which nothing is known but that it was refused."""

_REASONS = {
    Code.TOO_MANY_EVENTS: Rejected.TOO_MANY,
    Code.BODY_TOO_LARGE: Rejected.TOO_LARGE,
    Code.QUOTA_EXCEEDED: Rejected.QUOTA,
    Code.BUFFER_FULL: Rejected.BUFFER_FULL,
    Code.BUFFER_UNAVAILABLE: Rejected.BUFFER_UNAVAILABLE,
}
"""Of requests that were refused whole; the others had no usable envelope."""

_FIELDS = frozenset(field.encode_name for kind in KINDS for field in msgspec.structs.fields(kind)) | {"type"}
"""The names of the contract: any other in an event is the client's own, and not shown."""


def show_appended(
    taps: Taps, key: PublicKey, portions: Sequence[Portion], outcome: Appended | ClientAnswer
) -> None:
    """The buffer has taken a request, or has not."""
    texts = [text for portion in portions for text in portion.texts]
    if isinstance(outcome, ClientAnswer):
        show_refused(taps, key, outcome, texts)
    elif not outcome.stored:
        taps.offer(key, Sampled.DUPLICATE, texts)
    else:
        # Which of them were duplicates the buffer does not say.
        mixed = f"{outcome.duplicate} of the {len(texts)} in its request were duplicates"
        taps.offer(key, Sampled.ACCEPTED, texts, detail=mixed if outcome.duplicate else None)


def show_bad(taps: Taps, key: PublicKey, bad: Sequence[tuple[int, Flaw]]) -> None:
    """Events were refused one by one."""
    for _, flaw in bad:
        field = str(flaw.path[0]) if flaw.path else ""
        taps.offer(
            key, Sampled.REJECTED, _UNREAD, reason=_reason(flaw), detail=field if field in _FIELDS else None
        )


def show_refused(taps: Taps, key: PublicKey, answer: ClientAnswer, texts: Sequence[bytes]) -> None:
    """A request was refused whole; without `texts` it could not even be read."""
    reason = Rejected.ENVELOPE if answer.code is None else _REASONS.get(answer.code, Rejected.ENVELOPE)
    taps.offer(key, Sampled.REJECTED, texts or _UNREAD, reason=reason, detail=answer.code)


def _reason(flaw: Flaw) -> Rejected:
    if flaw is TOO_LARGE:
        return Rejected.TOO_LARGE
    return Rejected.UNKNOWN if flaw in (UNKNOWN_TYPE, UNKNOWN_FIELDS) else Rejected.INVALID
