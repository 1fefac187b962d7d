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


def without_in_lane(field: str, old: str, new: str) -> Mutation:
    return Mutation(
        f"lane: {field} left out of its identity",
        "proxy/lanes.py",
        old,
        new,
        ("tests/attribution", "tests/lanes"),
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
    without_in_lane(
        "the client's address",
        "_encode_header((self.envelope, self.client_ip, self.user_agent, self.origin))",
        "_encode_header((self.envelope, None, self.user_agent, self.origin))",
    ),
    without_in_lane(
        "the User-Agent",
        "_encode_header((self.envelope, self.client_ip, self.user_agent, self.origin))",
        "_encode_header((self.envelope, self.client_ip, None, self.origin))",
    ),
    without_in_lane(
        "the Origin",
        "_encode_header((self.envelope, self.client_ip, self.user_agent, self.origin))",
        "_encode_header((self.envelope, self.client_ip, self.user_agent, None))",
    ),
    without_in_lane(
        "the envelope",
        'digest_size=_ID_BYTES, person=b"lane")',
        'digest_size=_ID_BYTES, person=b"lane") if b"{" not in header else blake2b(header[header.index(b"}"):], digest_size=_ID_BYTES)',
    ),
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
        "proxy/buffer/sqlite/seen.py",
        "since_ms = now_ms - self._window_ms",
        "since_ms = now_ms - self._window_ms",
        CONTRACT,
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
