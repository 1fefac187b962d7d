"""What the flusher counts and says of its deliveries: a call for each thing that happened."""

import asyncio
from collections import Counter
from math import inf

import structlog

from proxy.buffer import Lease, Settled, Settlement, Spent
from proxy.flusher.batch import Batch
from proxy.flusher.values import Verdict
from proxy.ledger import Answered, Dropped, Sampled
from proxy.log import short_key
from proxy.metrics import Metrics
from proxy.tap import Taps, events_of
from proxy.wire.answers import Answer, NoAnswer
from proxy.wire.limits import PublicKey

_SAY_AGAIN_S = 600.0
"""What concerns a key is said once in so long: it may happen a hundred times a second."""

_REMEMBERED = 3_000
"""Things that were said: three of each of a thousand keys. Beyond that they may be said again sooner."""

_REFUSED = {
    Answered.REFUSED: "upstream refuses events",
    Answered.FORBIDDEN: "upstream forbids a request, perhaps because of its Origin: that queue waits",
    Answered.KEY_REFUSED: "upstream refuses the key",
}


class Reports:
    """The flusher's metrics, log lines and samples."""

    def __init__(self, metrics: Metrics, taps: Taps) -> None:
        self._metrics = metrics
        self._taps = taps
        self._log = structlog.get_logger("flusher")
        self._upstream_well = True
        self._said_at: dict[tuple[PublicKey, str], float] = {}

    def leased(self, lease: Lease) -> None:
        """A claim brought a lease."""
        self._metrics.leases_expired.inc(bool(lease.expired))

    def stalled(self, key: PublicKey) -> None:
        """A queue was put off, because every lease of its head ends by itself."""
        self._metrics.queues_stalled.inc()
        if self._is_news(key, "stalled"):
            self._log.error(
                "the last ten deliveries of a queue's first event all ended without a word: perhaps a process"
                " crashes on it; it is tried once an hour from now on. Look for crashes and restarts",
                key=short_key(key),
            )

    def not_of_one_lane(self, lease: Lease) -> None:
        """A head failed the last check and was not sent."""
        self._metrics.lane_faults.inc()
        self._log.error("an event is not of its batch's lane; not sent", key=short_key(lease.key))

    def posted(self, lease: Lease, batch: Batch, answer: Answer | NoAnswer) -> None:
        """A request was made, and answered or not."""
        self._note_health(answer)
        self._metrics.batch_events.observe(batch.events)
        if batch.underfull is not None:
            self._metrics.underfull[batch.underfull].inc()
        taken = isinstance(answer, Answer) and 200 <= answer.status < 300
        label = self._metrics.key_label(lease.key, succeeded=taken)
        self._metrics.gate_requests.labels(label).inc()
        if isinstance(answer, Answer):
            self._metrics.rate_headers_malformed.inc(answer.rate.malformed)
            if answer.rate.remaining is not None:
                self._metrics.rate_limit_remaining.labels(label).set(answer.rate.remaining)

    def judged(self, lease: Lease, verdict: Verdict) -> None:
        """A verdict was reached."""
        self._metrics.upstream_requests[verdict.answered].inc()
        self._metrics.inconsistent.inc(verdict.inconsistent)
        if verdict.answered in _REFUSED and self._is_news(lease.key, verdict.answered):
            what = _REFUSED[verdict.answered]
            self._log.warning(what, key=short_key(lease.key), message=verdict.message)
        for reason, events in Counter(death.reason for death in verdict.dead.values()).items():
            self._log.warning(
                "events are given up: dead letters", key=short_key(lease.key), events=events, reason=reason
            )

    def settled(self, settlement: Settlement, outcome: Settled | Spent) -> None:
        """A batch's settlement was answered."""
        if isinstance(outcome, Spent):
            # The lease ended first: its next holder sends the batch again and, if it can know, counts that.
            self._metrics.ambiguous.inc(outcome.ambiguous)
            return
        self._metrics.ambiguous.inc(settlement.ambiguous)
        self._metrics.delivered.inc(settlement.delivered)
        if settlement.delivered:
            self._metrics.last_delivered.set_to_current_time()
        for death in settlement.dead.values():
            self._metrics.dead[death.reason].inc()
        self._metrics.dropped[Dropped.DEAD_EVICTED].inc(outcome.dropped)

    def sampled(self, lease: Lease, batch: Batch, verdict: Verdict) -> None:
        """What became of a batch's events is settled: show it to whoever looks."""
        if not self._taps.open:
            return
        texts = events_of(batch.body)
        for at, death in verdict.dead.items():
            self._taps.offer(lease.key, Sampled.DEAD, [texts[at]], reason=death.reason)
        again = [texts[at] for at in sorted(verdict.again)]
        self._taps.offer(lease.key, Sampled.DEFERRED, again, reason=verdict.answered)
        done = [text for at, text in enumerate(texts) if at not in verdict.dead and at not in verdict.again]
        self._taps.offer(lease.key, Sampled.DELIVERED, done)

    def _is_news(self, key: PublicKey, what: str) -> bool:
        now = asyncio.get_running_loop().time()
        if now - self._said_at.get((key, what), -inf) < _SAY_AGAIN_S:
            return False
        if len(self._said_at) >= _REMEMBERED:
            self._said_at.clear()
        self._said_at[key, what] = now
        return True

    def _note_health(self, answer: Answer | NoAnswer) -> None:
        """Say when upstream begins and ceases to fail; between the two the counters say how often."""
        well = isinstance(answer, Answer) and answer.status < 500  # server errors begin there
        if well != self._upstream_well:
            self._upstream_well = well
            if well:
                self._log.info("upstream answers again")
            else:
                what = answer.error if isinstance(answer, NoAnswer) else f"status {answer.status}"
                self._log.warning("upstream fails; events are held and tried again", error=what)
