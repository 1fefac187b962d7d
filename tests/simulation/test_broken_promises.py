"""Each promise broken on purpose: the simulation sees it within a few seeds, or it would prove nothing."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha1
from typing import Any

import pytest

from proxy import lanes
from proxy.buffer import Lease
from proxy.buffer.redis import appends, deliveries
from proxy.buffer.sqlite import SqliteBuffer
from proxy.buffer.sqlite.deliveries import Deliveries
from proxy.buffer.sqlite.queues import Queues, Tail
from proxy.buffer.sqlite.records import Records
from proxy.buffer.sqlite.runs import Run, Runs
from proxy.buffer.sqlite.seen import Seen
from proxy.buffer.sqlite.store import Store
from proxy.buffer.sqlite.tries import COLUMNS
from proxy.flusher import refusals, verdict, worker
from proxy.flusher.alarm import Alarm
from proxy.flusher.values import Case, Verdict
from proxy.gate import budget, standing
from proxy.lanes import Lane, LaneId
from proxy.ledger import Answered
from tests.simulation.simulation import simulate

SEEDS = 30

Break = Callable[[pytest.MonkeyPatch], None]


def _spent_tokens_settle(patch: pytest.MonkeyPatch) -> None:
    def leased(self: Deliveries, lease: Any) -> Any:
        return self._store.execute(
            f"SELECT queue.id, held, {COLUMNS} FROM queue JOIN key ON key.id = key_id"
            " WHERE public_key = ? AND name = ? AND held > 0",
            (lease.key, lease.queue),
        ).fetchone()

    patch.setattr(Deliveries, "_leased", leased)


def _partly_delivered_is_sent_again(patch: pytest.MonkeyPatch) -> None:
    def judge(answer: Any, case: Case, jitter: float) -> Verdict:
        judged = verdict.judge(answer, case, jitter)
        if judged.answered is not Answered.PARTLY_DELIVERED:
            return judged
        return replace(judged, again=case.everything - judged.dead.keys())

    patch.setattr(worker, "judge", judge)


def _lanes_are(lane_id: Callable[[bytes], LaneId], patch: pytest.MonkeyPatch) -> None:
    for user in ("front.ingest", "flusher.batch", "buffer.sqlite.dead_letters"):
        patch.setattr(f"proxy.{user}.lane_id", lane_id)


def _lanes_without(field: str) -> Break:
    none: dict[str, Any] = {field: None}

    def break_it(patch: pytest.MonkeyPatch) -> None:
        def lane_id(header: bytes) -> LaneId:
            return lanes.lane_id(replace(Lane.of_header(header), **none).header())

        _lanes_are(lane_id, patch)

    return break_it


def _lanes_without_member(name: str) -> Break:
    def break_it(patch: pytest.MonkeyPatch) -> None:
        def lane_id(header: bytes) -> LaneId:
            lane = Lane.of_header(header)
            envelope = json.loads(lane.envelope)
            envelope.pop(name, None)
            return lanes.lane_id(replace(lane, envelope=json.dumps(envelope).encode()).header())

        _lanes_are(lane_id, patch)

    return break_it


def _ambiguous_batches_are_not_recorded(patch: pytest.MonkeyPatch) -> None:
    write = Records.write

    def forget(self: Records, key_id: int, settlement: Any, uuids: bytes, now_ms: int) -> None:
        write(self, key_id, replace(settlement, ambiguous=False), uuids, now_ms)

    patch.setattr(Records, "write", forget)


def _what_is_sent_again_goes_to_the_tail(patch: pytest.MonkeyPatch) -> None:
    keep = Runs.keep

    def keep_at_the_tail(self: Runs, run: Run, kept: Sequence[int]) -> int:
        freed_bytes = keep(self, run, kept)
        last = (
            self._store.number("SELECT max(id) FROM run WHERE queue_id = ?", run.queue_id) if kept else run.id
        )
        for id_, was in ((-1, run.id), (run.id, last), (last, -1)):
            self._store.execute("UPDATE run SET id = ? WHERE id = ?", (id_, was))
        return freed_bytes

    patch.setattr(Runs, "keep", keep_at_the_tail)


def _every_lane_is_a_queue(patch: pytest.MonkeyPatch) -> None:
    init = lanes.QueueOf.__init__

    def init_as_lane(self: lanes.QueueOf, envelope: Any, lane: LaneId) -> None:
        init(self, envelope, lane)
        self.whole = lanes.QueueId(lane)

    patch.setattr(lanes.QueueOf, "__init__", init_as_lane)


def _users_are_spread_over_queues(patch: pytest.MonkeyPatch) -> None:
    def spread(self: lanes.QueueOf, _identity: str | None, canonical: bytes) -> lanes.QueueId:
        return self._bucket(canonical)

    patch.setattr(lanes.QueueOf, "_of_sender", spread)


def _an_append_ends_a_lease(patch: pytest.MonkeyPatch) -> None:
    def moved_due_ms(self: Queues, _tail: Tail, _held: int, now_ms: int) -> int:
        return now_ms + self._store.terms.linger_ms

    patch.setattr(Queues, "_moved_due_ms", moved_due_ms)


def _nothing_is_a_duplicate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Seen, "unseen", lambda _self, _queue_id, ids, _now_ms: range(len(ids)))


def _the_books_miss_a_line(patch: pytest.MonkeyPatch) -> None:
    accepted = Store.accepted

    def miss(self: Store, key: Any, events: int, bytes_: int) -> None:
        accepted(self, key, events - (events == 3), bytes_)

    patch.setattr(Store, "accepted", miss)


def _an_answer_that_did_not_come_counts_as_a_delivery(patch: pytest.MonkeyPatch) -> None:
    def judge(answer: Any, case: Case, jitter: float) -> Verdict:
        judged = verdict.judge(answer, case, jitter)
        return replace(judged, again=frozenset()) if judged.ambiguous else judged

    patch.setattr(worker, "judge", judge)


def _nothing_waits_for_the_rate(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(budget, "claim", lambda _budget, _now_ms: 0)


def _a_pause_is_not_kept(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(standing, "_limited_ms", lambda _headers: 1)


def _whoever_is_refused_is_guilty(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(refusals, "_proven", lambda _case, accused: accused)


def _what_leases_left_unsettled_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    claim = SqliteBuffer.claim

    async def forget(self: SqliteBuffer, key: Any, token: bytes, *, early: bool = False) -> Any:
        claimed = await claim(self, key, token, early=early)
        return replace(claimed, unsettled=0) if isinstance(claimed, Lease) else claimed

    patch.setattr(SqliteBuffer, "claim", forget)


def _the_operators_pause_is_not_ended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("proxy.gate.resume", lambda _gate: None)


def _a_wake_up_is_lost(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Alarm, "is_quiet", True)


@pytest.mark.parametrize(
    ("break_it", "seen"),
    [
        (_spent_tokens_settle, "fencing"),
        (_partly_delivered_is_sent_again, "twice upstream and not on the record"),
        (_lanes_without("client_ip"), "misattributed"),
        (_lanes_without("origin"), "misattributed"),
        (_lanes_without("user_agent"), "misattributed"),
        (_lanes_without_member("sessionId"), "misattributed"),
        (_lanes_without_member("userIdentity"), "misattributed"),
        (_lanes_without_member("visitorId"), "misattributed"),
        (_ambiguous_batches_are_not_recorded, "twice upstream and not on the record"),
        (_what_is_sent_again_goes_to_the_tail, "out of order"),
        (_every_lane_is_a_queue, "out of order"),
        (_users_are_spread_over_queues, "out of order"),
        (_an_append_ends_a_lease, "two workers on one queue"),
        (_nothing_is_a_duplicate, "but upstream has|dead letters of"),
        (_the_books_miss_a_line, "do not balance"),
        (_an_answer_that_did_not_come_counts_as_a_delivery, "acknowledged and lost"),
        (_nothing_waits_for_the_rate, "the rate"),
        (_a_pause_is_not_kept, "a pause"),
        (_whoever_is_refused_is_guilty, "dead without a cause"),
        (_what_leases_left_unsettled_is_forgotten, "twice upstream and not on the record"),
        (_the_operators_pause_is_not_ended, "still paused"),
        (_a_wake_up_is_lost, "not prompt"),
    ],
)
def test_a_broken_promise_is_seen(break_it: Break, seen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    _assert_is_seen(seen, "sqlite")


@pytest.mark.parametrize(
    ("room", "script", "right", "wrong", "seen"),
    [
        (appends, "APPEND", b"tonumber(score) > since_ms", b"false", "upstream and dead|dead letters of"),
        (appends, "APPEND", b'"accepted", accepted', b'"accepted", accepted % 3', "do not balance"),
        (appends, "APPEND", b'and record.token == ""', b"", "two workers on one queue"),
        (deliveries, "CLAIM", b"if now_ms < budget.tat_ms then", b"if false then", "the rate"),
        (deliveries, "SETTLE", b"headers.retry_after_s ~= 0", b"false", "a pause"),
        (deliveries, "SETTLE", b"record.token ~= token", b"false", "fencing"),
        (
            deliveries,
            "SETTLE",
            b"at = RUNS + put_back, RUNS + 1, -1",
            b"at = RUNS + 1, RUNS + put_back",
            "out of order",
        ),
        (deliveries, "CLAIM", b"math.max(record.unsettled, record.max_events)", b"0", "not on the record"),
    ],
    ids=["dedup", "books", "lease", "rate", "pause", "fence", "order", "unsettled"],
)
def test_a_script_that_breaks_a_promise_is_seen(
    room: Any, script: str, right: bytes, wrong: bytes, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = getattr(room, script)
    assert right in of.text
    text = of.text.replace(right, wrong)
    monkeypatch.setattr(room, script, replace(of, text=text, sha=sha1(text).hexdigest()))
    _assert_is_seen(seen, "redis")


def _assert_is_seen(seen: str, engine: str) -> None:
    for seed in range(SEEDS):
        broken = simulate(seed, engine).broken
        if broken is not None:
            break
    assert re.search(seen, str(broken)), f"seed {seed}"
    print(f"seed {seed}: {broken}")
