"""What became of an event, and which batches upstream may have taken without anybody having seen it."""

from typing import Literal

from aiohttp import web

from proxy.buffer import MAX_BATCHES, Batch, Buffer, DeadLetter, HeldEvent, Traces
from proxy.ops.answers import as_json, moment
from proxy.ops.parameters import Parameters, read_key, read_uuid, read_visitor, up_to

Fate = Literal["held", "dead", "delivered", "dropped", "unknown"]

_UNKNOWN = (
    "not known: no such event is held or a dead letter, and none is in a batch that is still remembered"
    " (so many of each key). It never came here, or was delivered too long ago to tell"
)

# The buffer's letters.
_FATES = {"d": "delivered", "x": "dead", "a": "again"}


class Fates:
    """Answers `/events/{uuid}` and `/ambiguous`."""

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer

    async def event(self, request: web.Request) -> web.Response:
        """Everything that is known of the events with one uuid; 404 where that is nothing."""
        uuid = Parameters(request.match_info).need("uuid", read_uuid)
        given = Parameters.of_query(request)
        key, queue = given.take("key", read_key), given.take("visitor", read_visitor)
        given.refuse_others()
        traces = await self._buffer.trace(uuid, key=key, queue=queue)
        fate = fate_of(uuid, traces)
        known = {
            "uuid": text_of(uuid),
            "fate": fate,
            "ambiguous": any(batch.ambiguous for batch in traces.batches),
            "held": [_held(event) for event in traces.held],
            "dead": [_dead(letter) for letter in traces.dead],
            "batches": [_batch_of(uuid, batch) for batch in traces.batches],
        }
        return as_json({"error": _UNKNOWN, **known}, status=404) if fate == "unknown" else as_json(known)

    async def ambiguous(self, request: web.Request) -> web.Response:
        """The newest batches that upstream may have taken unseen, and how many there ever were."""
        given = Parameters.of_query(request)
        key, limit = given.take("key", read_key), given.take("limit", up_to(MAX_BATCHES))
        given.refuse_others()
        batches = await self._buffer.ambiguous(key, limit=limit or 100)
        figures = await self._buffer.figures()
        return as_json(
            {
                "total": sum(of.ambiguous for name, of in figures.items() if key in (None, name)),
                "batches": [
                    {
                        "key": batch.key,
                        "settled_at": moment(batch.settled_at_ms),
                        "answered": batch.answered,
                        "events": _uuids(batch),
                    }
                    for batch in batches
                ],
            }
        )


def fate_of(uuid: bytes, traces: Traces) -> Fate:
    """Where the event is now, or how it ended.

    Where several events have the uuid, that of the one that is least done: held before dead before delivered.
    *Dropped*: it was in a batch that did not deliver it, and is nowhere any more: erased, or its dead letter
    purged or evicted.
    """
    if traces.held:
        return "held"
    if traces.dead:
        return "dead"
    fates = {batch.fate(uuid) for batch in traces.batches}
    if "d" in fates:
        return "delivered"
    return "dropped" if fates else "unknown"


def text_of(uuid: bytes) -> str:
    """16 bytes as a UUID is written."""
    digits = uuid.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _uuids(batch: Batch) -> list[str]:
    return [text_of(batch.uuids[at : at + 16]) for at in range(0, len(batch.uuids), 16)]


def _held(event: HeldEvent) -> dict[str, object]:
    return {
        "key": event.key,
        "accepted_at": moment(event.accepted_at_ms),
        "attempts": event.attempts,
        "leased": event.leased,
        "due_in_s": round(event.due_in_s, 3),
    }


def _dead(letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "key": letter.key,
        "reason": letter.reason,
        "message": letter.message,
        "died_at": moment(letter.died_at_ms),
    }


def _batch_of(uuid: bytes, batch: Batch) -> dict[str, object]:
    return {
        "key": batch.key,
        "settled_at": moment(batch.settled_at_ms),
        "answered": batch.answered,
        "ambiguous": batch.ambiguous,
        "fate": _FATES.get(batch.fate(uuid) or ""),
    }
