"""The mutations: what each takes away, where, and who should notice."""

from dataclasses import dataclass

CONTRACT = ("tests/buffer", "tests/model")
ON_REDIS = ("tests/buffer/redis/test_engine.py", "tests/buffer", "tests/model")
LUA = "proxy/buffer/redis/lua"
STANDING = ("tests/gate/test_standing.py",)
BUDGET = ("tests/gate/test_budget.py", "tests/gate/test_limits.py")
GATE_IN_LUA = ("tests/buffer/redis/test_gate_lua.py", "tests/gate/test_budget_lua.py")


def scenario(name: str) -> tuple[str, ...]:
    """A story of the simulation, on both engines."""
    return (f"tests/simulation/test_scenarios.py::test_{name}",)


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
        "        dead,\n        outlook=after_success(case),",
        "        again=case.everything,\n        outlook=after_success(case),",
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
        "proxy/buffer/sqlite/store.py",
        "delivered = delivered + ?,",
        "delivered = delivered + ? * 0,",
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
        "proxy/buffer/sqlite/tries.py",
        "unsettled=max(self.unsettled, self.max_events),",
        "unsettled=self.unsettled,",
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
        '"delivered", whole(books[1] + delivered)',
        '"delivered", whole(books[1])',
        ON_REDIS,
    ),
    Mutation(
        "Redis, settle: a batch whose lease was lost with a primary is not listed",
        f"{LUA}/settle.lua",
        'if ARGV[18] == "" or redis.call("ZSCORE", KEYS[13], token) then',
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
        'redis.call("SET", KEYS[4], stored_gate)',
        "",
        ON_REDIS,
    ),
    Mutation(
        "Redis, claim: a lease that ended by itself is forgotten",
        f"{LUA}/shared.lua",
        "record.unsettled = math.max(record.unsettled, record.max_events)",
        "",
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
    # -- verdicts --------------------------------------------------------------------------------------
    Mutation(
        "verdict: a 403 pauses its key",
        "proxy/flusher/verdict.py",
        "Verdict(Answered.FORBIDDEN, Outcome.FORBIDDEN, dead, again,",
        "Verdict(Answered.FORBIDDEN, Outcome.KEY_REFUSED, dead, again,",
        scenario("an_origin_forbidden_for_an_hour_stops_no_other_and_loses_nothing"),
    ),
    Mutation(
        "verdict: the waits after 403 do not grow",
        "proxy/flusher/verdict.py",
        "forbidden=trouble.forbidden + 1",
        "forbidden=0",
        ("tests/flusher",),
    ),
    Mutation(
        "verdict: a 401 is about the events",
        "proxy/flusher/verdict.py",
        "_ABOUT_THE_KEY = frozenset({401, 402, 404})",
        "_ABOUT_THE_KEY = frozenset({402, 404})",
        scenario("a_key_refused_for_an_hour_stops_no_other_and_loses_nothing"),
    ),
    Mutation(
        "verdict: a redirect is about the events",
        "proxy/flusher/verdict.py",
        "case status if 300 <= status < 400 or status in _ABOUT_THE_KEY:",
        "case status if status in _ABOUT_THE_KEY:",
        scenario("a_key_refused_for_an_hour_stops_no_other_and_loses_nothing"),
    ),
    Mutation(
        "verdict: a key that was never confirmed keeps its place for ever",
        "proxy/flusher/verdict.py",
        "if status == 401 and over and not case.confirmed:",
        "if False:",
        ("tests/flusher",),
    ),
    Mutation(
        "verdict: a confirmed key is given up",
        "proxy/flusher/verdict.py",
        "and over and not case.confirmed:",
        "and over:",
        ("tests/flusher",),
    ),
    Mutation(
        "verdict: an event is poison although nothing else succeeds",
        "proxy/flusher/verdict.py",
        "    if _others_succeed(case):",
        "    if True:",
        scenario("sixty_hours_without_upstream_lose_nothing_and_end_without_a_429"),
    ),
    Mutation(
        "verdict: poison is not looked for",
        "proxy/flusher/verdict.py",
        "elif case.tries >= SUSPECT_TRIES or trouble.suspects:",
        "elif False:",
        scenario("an_event_that_makes_upstream_fail_dies_alone"),
    ),
    Mutation(
        "verdict: a batch that is refused for nobody's sake stays whole",
        "proxy/flusher/outlooks.py",
        "return Outlook(max(1, case.events // 2), trouble)",
        "return Outlook(case.events, trouble)",
        scenario("one_bad_event_of_a_hundred_is_found_within_25_requests"),
    ),
    Mutation(
        "verdict: who are left of the suspects is forgotten",
        "proxy/flusher/outlooks.py",
        "return Outlook((left + 1) // 2, progressed(case, trouble, left, taken=True))",
        "return grown(case)",
        ("tests/flusher",),
    ),
    Mutation(
        "verdict: a refusal needs no proof",
        "proxy/flusher/refusals.py",
        "if trouble is None or not 0 < trouble.refused_ms < case.evidence.proven_ms:",
        "if trouble is None:",
        scenario("a_schema_slip_pauses_the_key_and_makes_no_dead_letters"),
    ),
    Mutation(
        "verdict: others are not waited for",
        "proxy/flusher/refusals.py",
        "if case.others and case.attempts < PATIENT_TRIES:",
        "if False:",
        scenario("a_schema_slip_pauses_the_key_and_makes_no_dead_letters"),
    ),
    Mutation(
        "verdict: events die of their age at the first try",
        "proxy/flusher/refusals.py",
        "if case.tries < LEAST_TRIES:",
        "if False:",
        ("tests/flusher",),
    ),
    Mutation(
        "worker: what an earlier lease may have brought upstream is not said",
        "proxy/flusher/worker.py",
        "ambiguous=verdict.ambiguous or lease.unsettled > 0,",
        "ambiguous=verdict.ambiguous,",
        ("tests/simulation/test_simulation.py::test_every_promise_is_kept",),
    ),
    # -- the gate --------------------------------------------------------------------------------------
    Mutation(
        "gate: one sender's refusals are a storm",
        "proxy/gate/standing.py",
        "len(set(standing.recent)) >= STORM_QUEUES",
        "len(set(standing.recent)) >= 1",
        STANDING,
    ),
    Mutation(
        "gate: a storm among successes",
        "proxy/gate/standing.py",
        "and all(answer % 2 == 0 for answer in standing.recent)",
        "and any(answer % 2 == 0 for answer in standing.recent)",
        scenario("one_bad_sender_beside_good_ones_pauses_nothing"),
    ),
    Mutation(
        "gate: a storm is not noticed",
        "proxy/gate/standing.py",
        "        if _storms(standing):",
        "        if False:",
        scenario("a_schema_slip_pauses_the_key_and_makes_no_dead_letters"),
    ),
    Mutation(
        "gate: as many probes as there are workers",
        "proxy/gate/standing.py",
        "left_ms = max(left_ms, min(standing.probe_until_ms - now_ms, PROBE_LOOK_MS))",
        "pass",
        scenario("after_an_outage_each_key_sends_one_probe_and_then_keeps_its_rate"),
    ),
    Mutation(
        "gate: pauses do not grow",
        "proxy/gate/standing.py",
        "min(2 * standing.pause_ms,",
        "min(standing.pause_ms,",
        scenario("a_key_refused_for_an_hour_stops_no_other_and_loses_nothing"),
    ),
    Mutation(
        "gate: a success ends the operator's pause",
        "proxy/gate/standing.py",
        "        standing.successes += 1",
        "        standing.successes += 1\n        standing.by_operator = False",
        STANDING,
    ),
    Mutation(
        "gate: a 429 pauses nothing",
        "proxy/gate/standing.py",
        "standing.limited_until_ms = now_ms + pause_ms",
        "standing.limited_until_ms = 0",
        STANDING,
    ),
    Mutation(
        "gate: a success of the future proves something",
        "proxy/gate/standing.py",
        "    if standing.proven_ms > now_ms:",
        "    if False:",
        STANDING,
    ),
    Mutation(
        "gate: the pace is not corrected downwards",
        "proxy/gate/budget.py",
        "        budget.rate_per_s += surplus",
        "        budget.rate_per_s += 0",
        BUDGET,
    ),
    Mutation(
        "gate: a clock that jumped back stops its key",
        "proxy/gate/budget.py",
        "if budget.tat_ms > now_ms + max(period_ms, MOST_AHEAD_MS):",
        "if False:",
        (*scenario("a_clock_that_jumps_by_an_hour_neither_freezes_nor_opens_a_key"), *BUDGET),
    ),
    Mutation(
        "gate: what an idle key did not use it may use later",
        "proxy/gate/budget.py",
        "max(budget.tat_ms, now_ms - CATCH_UP_MS)",
        "budget.tat_ms",
        BUDGET,
    ),
    Mutation(
        "gate: a window that was not answered stops its key for ever",
        "proxy/gate/budget.py",
        "return 0  # one goes, so that this is stored and an answer comes",
        "return HOLD_MS",
        BUDGET,
    ),
    Mutation(
        "gate: a window is spent to its very end",
        "proxy/gate/window.py",
        "if rest_ms <= window.gap_ms:",
        "if False:",
        ("tests/gate/test_window.py", *BUDGET),
    ),
    Mutation(
        "Redis, gate: one sender's refusals are a storm",
        f"{LUA}/standing.lua",
        "queues >= STORM_QUEUES",
        "queues >= 1",
        GATE_IN_LUA,
    ),
    Mutation(
        "Redis, gate: as many probes as there are workers",
        f"{LUA}/standing.lua",
        'if standing.reason ~= "" and standing.probed_ms <= now_ms then',
        "if false then",
        scenario("after_an_outage_each_key_sends_one_probe_and_then_keeps_its_rate"),
    ),
    Mutation(
        "Redis, gate: a success of the future proves something",
        f"{LUA}/standing.lua",
        "if standing.proven_ms > now_ms then standing.proven_ms = 0 end",
        "",
        GATE_IN_LUA,
    ),
    Mutation(
        "Redis, gate: the pace is not corrected downwards",
        f"{LUA}/budget.lua",
        "budget.rate_per_s = budget.rate_per_s + surplus",
        "budget.rate_per_s = budget.rate_per_s + 0",
        GATE_IN_LUA,
    ),
    Mutation(
        "Redis, gate: a clock that jumped back stops its key",
        f"{LUA}/budget.lua",
        "if budget.tat_ms > now_ms + math.max(period_ms, BUDGET.MOST_AHEAD_MS) then",
        "if false then",
        scenario("a_clock_that_jumps_by_an_hour_neither_freezes_nor_opens_a_key"),
    ),
    Mutation(
        "Redis, gate: retry ends the operator's pause",
        f"{LUA}/standing.lua",
        "  standing.limited_until_ms, standing.pause_until_ms, standing.probe_until_ms = 0, 0, 0",
        "  standing.by_operator = false",
        GATE_IN_LUA,
    ),
    # -- what a queue remembers ------------------------------------------------------------------------
    Mutation(
        "claim: leases that end by themselves halve nothing",
        "proxy/buffer/sqlite/tries.py",
        "if expired >= HALVING_EXPIRIES else",
        "if False else",
        CONTRACT,
    ),
    Mutation(
        "claim: a queue whose leases all end by themselves is claimed for ever",
        "proxy/buffer/sqlite/tries.py",
        "return self.expired + 1 >=",
        "return False and self.expired + 1 >=",
        (*CONTRACT, *scenario("an_event_that_kills_its_sender_is_put_off_alone_and_kept")),
    ),
    Mutation(
        "settle: of a smaller batch all is settled that a larger one may have brought",
        "proxy/buffer/sqlite/tries.py",
        "if settlement.taken < self.max_events:",
        "if True:",
        CONTRACT,
    ),
    Mutation(
        "settle: who goes again is not in front of those who are unsettled",
        "proxy/buffer/sqlite/tries.py",
        "return behind + len(settlement.again) if behind else 0",
        "return behind",
        CONTRACT,
    ),
    Mutation(
        "Redis, claim: leases that end by themselves halve nothing",
        f"{LUA}/shared.lua",
        "if record.expired >= HALVING_EXPIRIES then",
        "if false then",
        ON_REDIS,
    ),
    Mutation(
        "Redis, claim: a queue whose leases all end by themselves is claimed for ever",
        f"{LUA}/claim.lua",
        "if has_ended and record.expired + 1 >=",
        "if false and record.expired + 1 >=",
        ON_REDIS,
    ),
    Mutation(
        "Redis, settle: a smaller batch settles all that a larger one may have brought",
        f"{LUA}/settle.lua",
        "record.unsettled = math.max(0, record.unsettled - taken)",
        "record.unsettled = 0",
        ON_REDIS,
    ),
    Mutation(
        "retention: dead letters are given up at once",
        "proxy/ops/bookkeeper.py",
        "old = Which(died_before_ms=self._now_ms() - self._retention_ms)",
        "old = Which(died_before_ms=self._now_ms())",
        ("tests/ops/test_bookkeeper.py",),
    ),
    Mutation(
        "retention: dead letters are kept for ever",
        "proxy/ops/bookkeeper.py",
        "old = Which(died_before_ms=self._now_ms() - self._retention_ms)",
        "old = Which(died_before_ms=0)",
        ("tests/ops/test_bookkeeper.py",),
    ),
    # -- reload and drain ------------------------------------------------------------------------------
    Mutation(
        "reload: what only a start reads is taken over",
        "proxy/service/reload.py",
        "if not setting.reloads:",
        "if not setting.name:",
        ("tests/service/test_reload.py",),
    ),
    Mutation(
        "reload: a lease that became shorter is trusted as before",
        "proxy/flusher/worker.py",
        "min(lease_s, self._lease_s)",
        "lease_s",
        ("tests/flusher/test_drain.py",),
    ),
    Mutation(
        "reload: a gate that is in use keeps its limit",
        "proxy/buffer/sqlite/store.py",
        "key.gate = None  # read again",
        "pass  # read again",
        ("tests/buffer/test_set_terms.py",),
    ),
    Mutation(
        "drain: what cannot leave in time is waited for",
        "proxy/flusher/prospects.py",
        "max(of.gate.paused_for_s, self.waits_s(key)) <= within_s",
        "within_s >= 0",
        ("tests/flusher/test_drain.py",),
    ),
    Mutation(
        "drain: what comes meanwhile lingers",
        "proxy/flusher/worker.py",
        "self._wake(key, 0.0 if self._draining else in_s)",
        "self._wake(key, in_s)",
        ("tests/flusher/test_drain.py",),
    ),
    # -- the gateway -----------------------------------------------------------------------------------
    Mutation(
        "gateway: a call that may have run is sent again",
        "proxy/gateway/client.py",
        "return not outcome.may_have_run or (ask.is_safe and not outcome.is_late)",
        "return not outcome.is_late",
        ("tests/gateway/test_retries.py",),
    ),
    Mutation(
        "gateway: a 503 says that a key is not valid",
        "proxy/gateway/validity.py",
        "_LASTS_S: Final = {200: 60.0, 401: 10.0}",
        "_LASTS_S: Final = {200: 60.0, 401: 10.0, 503: 10.0}",
        ("tests/gateway/test_validate.py", "tests/gateway/test_plan_memory.py"),
    ),
    Mutation(
        "gateway: a plan's refusal is remembered for all keys",
        "proxy/gateway/plan.py",
        "if of_key == key and entry.concerns(kind)",
        "if entry.concerns(kind)",
        ("tests/gateway/test_plan.py", "tests/gateway/test_plan_memory.py"),
    ),
    Mutation(
        "gateway: a moment that is past is remembered",
        "proxy/gateway/plan.py",
        "if until_ms is None or until_ms <= now_ms:",
        "if until_ms is None:",
        ("tests/gateway/test_plan.py", "tests/gateway/test_plan_memory.py"),
    ),
    Mutation(
        "gateway: calls that come together all find the plan used up",
        "proxy/gateway/turns.py",
        "if line.asking < max(1, line.taken, 2**doublings):",
        "if line.asking < 100:",
        ("tests/gateway/test_plan.py",),
    ),
    Mutation(
        "gateway: any tool may be called",
        "proxy/gateway/admission.py",
        "    if tool not in settings.tools:",
        "    if not settings.tools:",
        ("tests/gateway/test_refusals.py",),
    ),
    Mutation(
        "gateway: a caller's cookies and addresses travel",
        "proxy/gateway/headers.py",
        "if name.lower() in _TOWARDS or name.lower().startswith(_TOWARDS_BEGINNING)",
        'if name.lower() not in ("host", "content-length", "transfer-encoding", "authorization")',
        ("tests/gateway/test_headers.py",),
    ),
    Mutation(
        "gateway: a traceback shows the key",
        "proxy/gateway/headers.py",
        "return \"'**********'\"",
        "return super().__repr__()",
        ("tests/gateway/test_canary.py",),
    ),
    Mutation(
        "gateway: half an answer ends like a whole one",
        "proxy/gateway/passing.py",
        "_cut_off(request)\n    return",
        "pass\n    return",
        ("tests/gateway/test_passing.py",),
    ),
    Mutation(
        "operations: any host is allowed",
        "proxy/ops/hosts.py",
        "return name == _NAMELESS or name in self.names or _is_address(name)",
        "return bool(name)",
        ("tests/ops/test_hosts.py",),
    ),
]
