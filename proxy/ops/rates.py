"""How fast things move in this process: its own counters, looked at once a second.

`Rates` remembers a minute of looks. What is asked is answered from the last ten seconds of them; of what is
rare (an event that died, an answer that was lost) the whole minute counts, or it would be gone before
anybody looked. Whether upstream answers is told by the last answers, however long ago they came: an outage
with little traffic is one failed request, and then minutes of waiting.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from proxy.ledger import Answered, PlatformOutcome, PlatformRoute, Rejected
from proxy.metrics import OTHER_KEYS, Metrics
from proxy.ops.window import UNANSWERED, WINDOW_S, Window
from proxy.wire.answers import Code

LOOK_S = 1.0
RECENT_S = 60.0
"""So long something rare is called recent."""


@dataclass(frozen=True, slots=True)
class _Look:
    """The counters as they stood at `at_s` of the event loop's clock."""

    at_s: float
    counts: Mapping[str, float]
    answers: Mapping[Answered, float]
    by_key: Mapping[str, float]
    in_flight: int

    @property
    def answered(self) -> float:
        return sum(count for name, count in self.answers.items() if name not in UNANSWERED)

    @property
    def failed(self) -> float:
        return sum(self.answers[name] for name in UNANSWERED)


class Rates:
    """Looks at the counters of `metrics`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._platform = {
            outcome: [metrics.gateway.requests.labels(route, outcome) for route in PlatformRoute]
            for outcome in PlatformOutcome
        }
        self._looks: deque[_Look] = deque(maxlen=int(RECENT_S / LOOK_S) + 1)
        self._well: _Look | None = None  # the last look that found a new answer
        self._failing_from_s: float | None = None  # the first look after it that found a failure
        self._silent_from_s = 0.0
        self._moved_at_s: dict[str, float] = {}

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        while True:
            self.look(asyncio.get_running_loop().time())
            await asyncio.sleep(LOOK_S)

    def look(self, now_s: float) -> None:
        """Remember how the counters stand now. `now_s`: of a clock that never goes back."""
        look = self._now(now_s)
        before = self._looks[-1] if self._looks else None
        self._looks.append(look)
        if self._well is None or look.answered > self._well.answered:
            self._well, self._failing_from_s = look, None
        elif look.failed > self._well.failed and self._failing_from_s is None:
            # A time-out says that it was so from when the request was made.
            self._failing_from_s = self._silent_from_s if before and before.in_flight else now_s
        if before is None or not look.in_flight or look.answers != before.answers:
            self._silent_from_s = now_s
        if before is not None:
            self._moved_at_s.update(
                {name: now_s for name, count in look.counts.items() if count > before.counts[name]}
            )

    def window(self, now_s: float, limit_per_s: float) -> Window:
        """How things move. `limit_per_s`: how many requests a second a key may send."""
        now = self._now(now_s)
        if not self._looks or self._well is None:
            return Window(in_flight=now.in_flight)
        then = next(look for look in self._looks if look.at_s >= now_s - WINDOW_S or look is self._looks[-1])
        oldest = self._looks[0]
        window_s = max(now_s - then.at_s, LOOK_S)

        def per_s(name: str) -> float:
            return (now.counts[name] - then.counts[name]) / window_s

        requests = sum(now.answers.values()) - sum(then.answers.values())
        batches = now.counts["batches"] - then.counts["batches"]
        posted = now.counts["posted"] - then.counts["posted"]
        answered_since = now.answered > self._well.answered
        failed = {
            name: int(now.answers[name] - self._well.answers[name])
            for name in UNANSWERED
            if now.answers[name] > self._well.answers[name] and not answered_since
        }
        return Window(
            window_s=window_s,
            accepted_per_s=per_s("accepted"),
            rejected_per_s=per_s("rejected"),
            delivered_per_s=per_s("delivered"),
            requests_per_s=requests / window_s,
            failed_per_s=(now.failed - then.failed) / window_s,
            events_per_request=posted / batches if batches else 0.0,
            budget_used=_most(now, then) / window_s / limit_per_s,
            failed_in_a_row=failed,
            failing_s=now_s - (now_s if self._failing_from_s is None else self._failing_from_s),
            silent_s=now_s - self._silent_from_s if now.in_flight else 0.0,
            in_flight=now.in_flight,
            recent={
                name: int(count - oldest.counts[name])
                for name, count in now.counts.items()
                if count > oldest.counts[name]
            },
            ago_s={name: now_s - at_s for name, at_s in self._moved_at_s.items()},
        )

    def _now(self, now_s: float) -> _Look:
        metrics = self._metrics
        rejected = {reason: value_of(metrics.rejected[reason]) for reason in Rejected}
        batches, posted = _observed(metrics.batch_events)
        counts = {
            "accepted": value_of(metrics.accepted),
            "delivered": value_of(metrics.delivered),
            "rejected": sum(rejected.values()),
            **{f"rejected_{reason}": count for reason, count in rejected.items()},
            **{f"dead_{reason}": value_of(counter) for reason, counter in metrics.dead.items()},
            "ambiguous": value_of(metrics.ambiguous),
            "stalled": value_of(metrics.queues_stalled),
            "lane_faults": value_of(metrics.lane_faults),
            "lost": value_of(metrics.buffer_lost),
            "untrusted": value_of(metrics.untrusted),
            "internal": value_of(metrics.refused[Code.INTERNAL]),
            "batches": batches,
            "posted": posted,
            **{
                f"platform_{outcome}": sum(map(value_of, counters))
                for outcome, counters in self._platform.items()
            },
        }
        answers = {name: value_of(metrics.upstream_requests[name]) for name in Answered}
        by_key = {
            sample.labels["key"]: sample.value
            for family in metrics.gate_requests.collect()
            for sample in family.samples
        }
        return _Look(now_s, counts, answers, by_key, int(value_of(metrics.in_flight)))


def _most(now: _Look, then: _Look) -> float:
    """Requests of the key that sent most. Those of `other` are of several: only where there are no others."""
    sent = {key: count - then.by_key.get(key, 0.0) for key, count in now.by_key.items()}
    others = sent.pop(OTHER_KEYS, 0.0)
    return max(sent.values(), default=others) or others


def value_of(metric: Counter | Gauge) -> float:
    """What the one sample of a metric says now."""
    return next(sample.value for family in metric.collect() for sample in family.samples)


def _observed(histogram: Histogram) -> tuple[float, float]:
    """How often something was observed, and the sum of it all."""
    values = {sample.name: sample.value for family in histogram.collect() for sample in family.samples}
    (count,) = (value for name, value in values.items() if name.endswith("_count"))
    (total,) = (value for name, value in values.items() if name.endswith("_sum"))
    return count, total
