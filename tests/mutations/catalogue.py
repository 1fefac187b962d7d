"""The mutations: what each takes away, where, and who should notice."""

from dataclasses import dataclass

CONTRACT = ("tests/buffer", "tests/model")


@dataclass(frozen=True, slots=True)
class Mutation:
    """In `file`, `new` stands for `old`. `tests` are paths, one of whose tests must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


# What is hashed in place of the header, so that lanes which differ in this field alone are one.
LANE_FIELDS = {
    "the client's address": "_encode_header((_decode_header(header)[0], None, *_decode_header(header)[2:]))",
    "the User-Agent": "_encode_header((*_decode_header(header)[:2], None, _decode_header(header)[3]))",
    "the Origin": "_encode_header((*_decode_header(header)[:3], None))",
    **{
        f"the envelope's {name}": "_encode_header((__import__('re')"
        f".sub(rb'\"{name}\":{value},?', b'', _decode_header(header)[0]), *_decode_header(header)[1:]))"
        for name, value in {
            "source": '"[^"]*"',
            "sessionId": '"[^"]*"',
            "fingerprint": '"[^"]*"',
            "email": '"[^"]*"',
            "userId": '"[^"]*"',
            "customerId": '"[^"]*"',
            "traits": "[{][^{}]*[}]",
        }.items()
    },
}


def without_in_lane(field: str, hashed: str) -> Mutation:
    return Mutation(
        f"lane: {field} left out of its identity",
        "proxy/lanes.py",
        "hasher.update(header)",
        f"hasher.update({hashed})",
        ("tests/lanes", "tests/attribution"),
    )


MUTATIONS = [
    Mutation(
        "settle: fencing removed",
        "proxy/buffer/sqlite/deliveries.py",
        "WHERE key_id = ? AND name = ? AND token = ?",
        "WHERE key_id = ? AND name = ? AND ? NOTNULL",
        CONTRACT,
    ),
    Mutation(
        "verdict: a 207 is sent again",
        "proxy/flusher/verdict.py",
        "return Verdict(Answered.PARTLY_DELIVERED, dead, inconsistent=not consistent, feedback=feedback)",
        "return Verdict(Answered.PARTLY_DELIVERED, again=frozenset(range(events)), feedback=feedback)",
        ("tests/flusher",),
    ),
    Mutation(
        "batch: the last lane check removed",
        "proxy/flusher/batch.py",
        "if set(head.lanes) != {lane_id(head.header)}:",
        "if not head.lanes:",
        ("tests/flusher",),
    ),
    Mutation(
        "read: a batch of two lanes",
        "proxy/buffer/sqlite/deliveries.py",
        "if lanes and lane != lanes[0]:",
        "if lanes and lane == b'':",
        CONTRACT,
    ),
    *(without_in_lane(field, kept) for field, kept in LANE_FIELDS.items()),
    Mutation(
        "append: a line of the ledger left out of its transaction",
        "proxy/buffer/sqlite/appends.py",
        "self._store.accepted(row, stored, added_bytes)",
        "self._store.stored(row, added_bytes)",
        CONTRACT,
    ),
    Mutation(
        "settle: a line of the ledger left out of its transaction",
        "proxy/buffer/sqlite/deliveries.py",
        '"UPDATE key SET delivered = delivered + ?, dead = dead + ?,',
        '"UPDATE key SET delivered = delivered + ? * 0, dead = dead + ?,',
        CONTRACT,
    ),
    Mutation(
        "dedup: by uuid alone",
        "proxy/front/portions.py",
        "ids = _dedup_ids(events.canonical)",
        "ids = _dedup_ids([events.uuids[at : at + 16] for at in range(0, len(events.uuids), 16)])",
        ("tests/front/test_portions.py", "tests/attribution"),
    ),
    Mutation(
        "append: the hundredth event ends a lease",
        "proxy/buffer/sqlite/queues.py",
        "if held >= FULL_BATCH > tail.held and tail.idle:",
        "if held >= FULL_BATCH > tail.held:",
        CONTRACT,
    ),
    Mutation(
        "append: an event shortens a back-off",
        "proxy/buffer/sqlite/queues.py",
        "token IS NULL AND NOT backing_off FROM queue",
        "token IS NULL FROM queue",
        CONTRACT,
    ),
    Mutation(
        "append: acknowledged before it is committed",
        "proxy/buffer/sqlite/writer.py",
        "await self._off_loop(self._commit)",
        "for work in group:\n                    _answer(work)\n                await self._off_loop(self._commit)",
        ("tests/faults/test_syscalls.py",),
    ),
    Mutation(
        "durability: commits are not synced",
        "proxy/buffer/sqlite/files.py",
        '"full" if sync_every_commit else "normal"',
        '"normal"',
        ("tests/faults/test_power_loss.py",),
    ),
    Mutation(
        "settle: what is sent again goes behind the others",
        "proxy/buffer/sqlite/deliveries.py",
        "kept = [at - position for at in batch if at in settlement.again]\n            kept += range(len(batch), run.events)",
        "kept = [*range(len(batch), run.events)]\n            kept += [at - position for at in batch if at in settlement.again]",
        CONTRACT,
    ),
    Mutation(
        "settle: what may have arrived twice is not listed",
        "proxy/buffer/sqlite/records.py",
        "if not left and not settlement.ambiguous:",
        "if settlement.ambiguous:",
        (*CONTRACT, "tests/flusher"),
    ),
    Mutation(
        "claim: a lease that ended by itself is forgotten",
        "proxy/buffer/sqlite/deliveries.py",
        "unsettled |= expired",
        "unsettled = 0",
        CONTRACT,
    ),
]
