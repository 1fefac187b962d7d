"""The mutations: what each takes away, where, and who should notice."""

from dataclasses import dataclass

CONTRACT = ("tests/buffer", "tests/model")
ON_REDIS = ("tests/buffer/redis/test_engine.py", "tests/buffer", "tests/model")
LUA = "proxy/buffer/redis/lua"


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
    Mutation(
        "Redis, settle: fencing removed",
        f"{LUA}/settle.lua",
        "if not record or record.token ~= token then",
        "if not record then",
        ON_REDIS,
    ),
    Mutation(
        "Redis, settle: its answer is not remembered",
        f"{LUA}/settle.lua",
        "if before then",
        "if false then",
        ON_REDIS,
    ),
    Mutation(
        "Redis, settle: a lane's header is taken off with its first batch",
        f"{LUA}/settle.lua",
        'if head and string.sub(head, 1, 1) == "R" then',
        "if false then",
        ON_REDIS,
    ),
    Mutation(
        "Redis, settle: a line of the ledger left out",
        f"{LUA}/settle.lua",
        'redis.call("HINCRBY", KEYS[1], "delivered", ARGV[9])',
        'redis.call("HINCRBY", KEYS[1], "delivered", 0)',
        ON_REDIS,
    ),
    Mutation(
        "Redis, settle: a batch whose lease was lost with a primary is not listed",
        f"{LUA}/settle.lua",
        'if ARGV[16] == "" or redis.call("ZSCORE", KEYS[13], token) then',
        "if true then",
        ON_REDIS,
    ),
    Mutation(
        "Redis, settle: what is sent again goes behind the others",
        "proxy/buffer/redis/deliveries.py",
        "kept = [at - position for at in batch if at in settlement.again]\n        kept += range(len(batch), run.events)",
        "kept = [*range(len(batch), run.events)]\n        kept += [at - position for at in batch if at in settlement.again]",
        ON_REDIS,
    ),
    Mutation(
        "Redis, append: a line of the ledger left out",
        f"{LUA}/append.lua",
        'redis.call("HINCRBY", KEYS[1], "accepted", accepted)',
        'redis.call("HINCRBY", KEYS[1], "accepted", 0)',
        ON_REDIS,
    ),
    Mutation(
        "Redis, append: dedup removed",
        f"{LUA}/append.lua",
        "if #seen > 0 then",
        "if false then",
        ON_REDIS,
    ),
    Mutation(
        "Redis, append: the hundredth event ends a lease",
        f"{LUA}/shared.lua",
        'and tail.before < FULL_BATCH and record.token == ""',
        "and tail.before < FULL_BATCH",
        ON_REDIS,
    ),
    Mutation(
        "Redis, append: an event shortens a back-off",
        f"{LUA}/shared.lua",
        "and record.backs_off == 0 then",
        "then",
        ON_REDIS,
    ),
    Mutation(
        "Redis, append: acknowledged before it is kept",
        "proxy/buffer/redis/appends.py",
        "                kept=True,",
        "                kept=False,",
        ON_REDIS,
    ),
    Mutation(
        "Redis, append: the bytes of other keys do not count",
        "proxy/buffer/redis/appends.py",
        "store.facts.others_bytes(key),",
        "0,",
        ON_REDIS,
    ),
    Mutation(
        "Redis, claim: takes no token of the gate",
        f"{LUA}/claim.lua",
        '"tat", string.format("%.17g", tat_ms)',
        '"tat", 0',
        ON_REDIS,
    ),
    Mutation(
        "Redis, claim: a lease that ended by itself is forgotten",
        f"{LUA}/claim.lua",
        "record.attempts, record.unsettled = record.attempts + 1, 1",
        "record.attempts = record.attempts + 1",
        ON_REDIS,
    ),
    Mutation(
        "Redis, claim: due times are not pulled back after the clock",
        f"{LUA}/pull_back.lua",
        "if tonumber(due_ms) > now_ms + reach_ms then",
        "if false then",
        ON_REDIS,
    ),
    Mutation(
        "Redis, read: whose lease it is is not looked at",
        "proxy/buffer/redis/deliveries.py",
        "if record is None or read_record(record).token != lease.token:",
        "if record is None:",
        ON_REDIS,
    ),
    Mutation(
        "Redis, read: a batch of two lanes",
        "proxy/buffer/redis/deliveries.py",
        "if first_header is not None and entry != first_header:",
        "if first_header is not None and entry.lane == b'':",
        ON_REDIS,
    ),
    Mutation(
        "Redis, erase: the last header goes although an append may rely on it",
        f"{LUA}/erase.lua",
        'if next_entry and string.sub(next_entry, 1, 1) == "R" then',
        "if false then",
        ON_REDIS,
    ),
    Mutation(
        "Redis: that it has gone back is not noticed",
        "proxy/buffer/redis/facts.py",
        "has_gone_back = before.turn > 0 and not fact.follows(before, wrote=wrote)",
        "has_gone_back = False",
        ON_REDIS,
    ),
    Mutation(
        "Redis: a key is not enrolled before something of it is stored",
        "proxy/buffer/redis/roster.py",
        '(("SADD", KNOWN, key), ("ZADD", ACTIVE, due_ms, key))',
        '(("ZADD", ACTIVE, due_ms, key),)',
        ON_REDIS,
    ),
]
