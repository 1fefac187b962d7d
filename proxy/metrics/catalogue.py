"""Every metric, defined once: name, meaning, unit, and the closed list of its label values.

"Something happened" is one call here that counts it. Names and label values are what operators' alerts
stand on; every known label value is there from the start at 0. No visitor, address, URL or error text is
ever a label, and public keys only as the first few that Outlit confirmed (the rest are `other`). Beside ours
stand the `process_…` metrics (processor time, memory, descriptors, start) that every exporter has.
"""

import os
import platform
from collections.abc import Collection
from math import nan
from pathlib import Path

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import choose_encoder

from proxy import __version__
from proxy.ledger import (
    Answered,
    Books,
    Dead,
    Dropped,
    Pause,
    Rejected,
    Underfull,
    Unsafe,
)
from proxy.metrics.families import Makers, WhileKnown
from proxy.metrics.gateway import GatewayMetrics
from proxy.wire.answers import STATUS, Code

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SKEW_SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 3600.0, 86_400.0)
_BATCH_EVENTS = (1, 2, 3, 5, 10, 20, 50, 99, 100)

LEDGER = ("accepted", "held", "delivered", "dead", "dropped")
OTHER_KEYS = "other"
"""The label of all keys that have none of their own."""

OPS_CLOSED = ("at_the_bound", "no_request", "no_http")

REPAIRED = ("source", "sessionId", "fingerprint", "userIdentity", "customerIdentity", "other")


def _disk(folder: Path) -> tuple[float, float]:
    """Free and all bytes of the disk that a folder is on, without what is kept for root, as `df` counts.

    NaN where it is gone: a scrape must not fail.
    """
    try:
        disk = os.statvfs(folder)
    except OSError:
        return nan, nan
    free = disk.f_bavail * disk.f_frsize
    return float(free), float(free + (disk.f_blocks - disk.f_bfree) * disk.f_frsize)


class Metrics:
    """The process's metrics: `metrics.rejected[Rejected.QUOTA].inc(3)`.

    Children are made once, here: looking one up by its labels costs four times the counting. Count per
    request or batch, not per event.
    """

    def __init__(self, max_key_labels: int = 20) -> None:
        self.registry = CollectorRegistry()
        self._buffers = WhileKnown()
        self.registry.register(self._buffers)
        ProcessCollector(registry=self.registry)
        self._make = Makers(self.registry)
        self.max_key_labels = max_key_labels
        self._key_labels: set[str] = set()
        self._of_the_door()
        self._of_delivery()
        self.gateway = GatewayMetrics(self._make)
        self._of_operations()
        self._of_the_log()
        self._of_the_settings()
        self._of_the_buffer()
        self._show_build()

    def _of_the_settings(self) -> None:
        self.reload_successful = self._make.gauge(
            "config_last_reload_successful", "1 if the settings that were read last are in force, 0 if not."
        )
        self.reload_successful.set(1)
        self.reload_success_time = self._make.gauge(
            "config_last_reload_success_timestamp_seconds",
            "When the settings were last read and taken: at the start, or by a reload.",
        )
        self.reload_success_time.set_to_current_time()

    def _of_the_door(self) -> None:
        make = self._make
        counter, counters, gauge, histogram = make.counter, make.counters, make.gauge, make.histogram
        self.received = counter(
            "events_received", "Events that clients posted in requests that could be read."
        )
        self.accepted = counter("events_accepted", "Events stored in the buffer by this process.")
        self.last_accepted = gauge(
            "last_accepted_timestamp_seconds",
            "When this process last stored an event, 0 if it has not since its start.",
        )
        self.duplicate = counter("events_duplicate", "Events that the buffer held or had seen already.")
        self.rejected = counters("events_rejected", "Events refused at the door.", "reason", Rejected)
        self.unknown_types = counter("events_unknown_type", "Events forwarded though their type is unknown.")
        self.unknown_fields = counter("fields_unknown", "Fields forwarded though they are unknown.")
        self.repaired = counters("envelope_repaired", "Envelope fields taken out.", "field", REPAIRED)
        self.event_age = histogram(
            "event_age_seconds",
            "Time of receipt less the timestamp of a request's last event.",
            _SKEW_SECONDS,
        )
        self.refused = counters("requests_refused", "Client requests refused whole.", "code", Code)
        statuses = sorted({200, 204, 207, *STATUS.values()})
        self.http_requests = counters(
            "http_requests", "Client requests answered.", "code", map(str, statuses)
        )
        self.http_seconds = histogram(
            "http_request_seconds", "Time from a request's headers to its answer.", _SECONDS
        )
        self.append_seconds = histogram(
            "append_seconds", "Time that an append took, with its retries.", _SECONDS
        )
        self.untrusted = counter(
            "forwarding_headers_untrusted",
            "Requests with forwarding headers from a peer that is not trusted.",
        )
        self.junk = counter("forwarding_headers_junk", "Requests whose forwarding headers hold junk.")
        self.connections = gauge("connections", "Client connections that are open.")
        self.connections_limit = gauge("connections_limit", "The most that may be: front.max_connections.")
        self.connections_refused = counter(
            "connections_refused", "Connections closed at front.max_connections."
        )
        self.pending_bytes = gauge("pending_body_bytes", "Client bodies in memory, in bytes.")
        self.pending_limit_bytes = gauge(
            "pending_body_limit_bytes", "The most that may be: front.max_pending_bytes."
        )

    def _of_delivery(self) -> None:
        make = self._make
        counter, counters, gauge, histogram = make.counter, make.counters, make.gauge, make.histogram
        self.delivered = counter("events_delivered", "Events that upstream took from this process.")
        self.last_delivered = gauge(
            "last_delivered_timestamp_seconds",
            "When upstream last took an event from this process, 0 if it has not since its start.",
        )
        self.dead = counters("events_dead", "Events that became dead letters.", "reason", Dead)
        self.dropped = counters(
            "events_dropped", "Events given up by a choice of the operator's.", "reason", Dropped
        )
        self.dead_replayed = counter("dead_replayed", "Dead letters put back into their queues.")
        self.upstream_requests = counters(
            "upstream_requests", "Upstream requests by what their answer meant.", "verdict", Answered
        )
        self.upstream_seconds = histogram("upstream_request_seconds", "Time to an upstream answer.", _SECONDS)
        self.batch_events = histogram("batch_events", "Events in an upstream request.", _BATCH_EVENTS)
        self.underfull = counters(
            "batch_underfull",
            "Upstream requests of fewer than 100 events, by what ended them.",
            "reason",
            Underfull,
        )
        self.ambiguous = counter("deliveries_ambiguous", "Upstream requests that may have been taken unseen.")
        self.inconsistent = counter("answers_inconsistent", "Upstream answers that contradict themselves.")
        self.settle_spent = counter("settle_spent", "Leases that had ended before their batch was settled.")
        self.leases_expired = counter(
            "leases_expired", "Leases found to have ended unsettled: their process died, or stood still."
        )
        self.queues_stalled = counter(
            "queues_stalled", "Times that a queue was put off for an hour because all its leases end so."
        )
        self.lane_faults = counter(
            "lane_check_failed", "Batches not sent because an entry was of another lane."
        )
        self.rate_headers_malformed = counter(
            "rate_headers_malformed", "Rate headers that were absurd and ignored."
        )
        self.buffer_retries = counter(
            "buffer_retries", "Buffer operations repeated because the buffer did not answer."
        )
        self.buffer_lost = counter(
            "buffer_lost", "Times that this process found its Redis to have lost what it had acknowledged."
        )
        self.buffer_lost_events = counter(
            "buffer_lost_events", "Accepted events that Redis no longer knew then; the undelivered are lost."
        )
        self.in_flight = gauge("upstream_in_flight", "Leases being delivered.")
        self.in_flight_limit = gauge("upstream_in_flight_limit", "The most that may be: delivery.in_flight.")
        self.gate_requests = make.counter_by(
            "gate_requests", "Upstream requests by the key whose budget they used.", "key"
        )
        self.gate_requests.labels(OTHER_KEYS)
        self.rate_limit_remaining = make.gauge_by(
            "rate_limit_remaining", "Requests left in the window, as upstream's last answer said.", "key"
        )

    def _of_operations(self) -> None:
        self.ops_connections_closed = self._make.counters(
            "ops_connections_closed",
            "Connections closed by the operations listener: idle ones at its bound, those that asked nothing,"
            " and those that spoke no HTTP.",
            "reason",
            OPS_CLOSED,
        )
        self.ops_hosts_refused = self._make.counter(
            "ops_hosts_refused", "Requests to the operations listener under a host that is not allowed."
        )

    def _of_the_log(self) -> None:
        self.log_lines = self._make.counters(
            "log_lines", "Warnings and errors that log.level lets through.", "level", ("warning", "error")
        )
        self.log_lines_left_out = self._make.counter(
            "log_lines_left_out", "Those of them that were not written, because the same had just been said."
        )
        self.log_lines_unwritten = self._make.counter(
            "log_lines_unwritten", "Lines of any level that stderr did not take: no room, or no reader."
        )

    def _of_the_buffer(self) -> None:
        """With a shared buffer these are the same from every replica: take max, not sum.

        They are left out while the buffer does not answer: of several replicas one that is cut off would hold
        up old figures against what the others know. What this process finds of the buffer is always there.
        """
        gauge, gauges = self._make.gauge, self._make.gauges
        self.buffer_up = gauge(
            "buffer_up", "1 while the buffer answers this process, 0 when it did not at the last look."
        )
        self.set_buffer_up(is_up=True)
        self._buffer_info = self._make.gauge_by(
            "buffer_info",
            "Always 1; replicas on one Redis share their buffer, a SQLite file is of one process.",
            "engine",
            "durability",
        )
        self.disk_free_bytes = gauge(
            "buffer_disk_free_bytes",
            "What may still be written on the disk that holds the buffer's file; NaN with a Redis.",
        )
        self.disk_bytes = gauge("buffer_disk_bytes", "How large that disk is; NaN with a Redis.")
        self.disk_free_bytes.set(nan)
        self.disk_bytes.set(nan)
        self.buffer_unsafe = gauges(
            "buffer_unsafe",
            "1 while this endangers what Redis holds; the log says what to do.",
            "reason",
            Unsafe,
        )

        make = Makers(self._buffers.registry)
        gauge, gauges, by = make.gauge, make.gauges, make.gauge_by
        self.ledger = gauges("ledger_events", "Events by where they are; of the buffer.", "outcome", LEDGER)
        self.difference = gauge(
            "ledger_difference", "Books less the last recount of the data: not 0 is a defect; of the buffer."
        )
        self.oldest_held = gauge(
            "oldest_held_timestamp_seconds",
            "When the oldest held event was accepted, 0 if none; of the buffer.",
        )
        self.time_to_drain = gauge(
            "time_to_drain_seconds",
            "How long the held events take at their key's rate, after its pause; of the buffer.",
        )
        self.buffer_bytes = gauge("buffer_bytes", "Stored bytes of held events with overhead; of the buffer.")
        self.buffer_used_ratio = gauge(
            "buffer_used_ratio",
            "Stored bytes by their bound, buffer.max_bytes or a key's, whichever is nearer; 1: posts get 503;"
            " of the buffer.",
        )
        self.queues = gauge("queues", "Queues that hold events; of the buffer.")
        self.held = by("held_events", "Events held, by key; of the buffer.", "key")
        self.gate_limit = by(
            "gate_limit_requests_per_second",
            "Upstream requests a second that upstream allows a key, as far as is known; of the buffer.",
            "key",
        )
        self.gate_rate = by(
            "gate_rate_requests_per_second",
            "Upstream requests a second that a key's gate allows; of the buffer.",
            "key",
        )
        self.gate_paused = by(
            "gate_paused",
            "1 while a key's gate is paused or probes, or one of `other` is or does; of the buffer.",
            "key",
            "reason",
        )
        self.forbidden_origins = by(
            "forbidden_origins",
            "Origins whose requests upstream forbids, 20 of a key at most; of the buffer.",
            "key",
        )
        self._shown_gates: set[str] = set()
        self.forget_gates(but=())

    # -- keys ------------------------------------------------------------------------------------------

    def key_label(self, key: str, *, succeeded: bool) -> str:
        """The label for a key: its own for the first few that upstream took something of, else `other`."""
        if key in self._key_labels:
            return key
        if succeeded and len(self._key_labels) < self.max_key_labels:
            self._key_labels.add(key)
            return key
        return OTHER_KEYS

    def count_line(self, level: str, is_written: bool) -> None:  # noqa: FBT001  # as `log.count_lines` calls it
        """A warning or an error is logged, or left out."""
        self.log_lines[level].inc()
        self.log_lines_left_out.inc(not is_written)

    def set_limits(self, *, connections: int, body_bytes: int, in_flight: int) -> None:
        """Show this process's bounds: the most connections, bytes of bodies in memory, and deliveries."""
        self.connections_limit.set(connections)
        self.pending_limit_bytes.set(body_bytes)
        self.in_flight_limit.set(in_flight)

    # -- of the buffer ---------------------------------------------------------------------------------

    def set_books(self, books: Books) -> None:
        """Show the buffer's account of events, all keys together."""
        for outcome, value in zip(
            LEDGER, (books.accepted, books.held, books.delivered, books.dead, books.dropped), strict=True
        ):
            self.ledger[outcome].set(value)
        self.difference.set(books.difference)

    def set_buffer(
        self,
        *,
        stored_bytes: int,
        queues: int,
        oldest_held_ms: int | None,
        drain_s: float,
        used_ratio: float,
    ) -> None:
        """Show how full the buffer is, all keys together."""
        self.buffer_bytes.set(stored_bytes)
        self.buffer_used_ratio.set(used_ratio)
        self.queues.set(queues)
        self.oldest_held.set(0 if oldest_held_ms is None else oldest_held_ms / 1000)
        self.time_to_drain.set(drain_s)

    def set_gate(
        self,
        label: str,
        *,
        held: int,
        rate_per_s: float,
        limit_per_s: float,
        paused: Collection[Pause],
        forbidden_origins: int,
    ) -> None:
        """Show the gate of a key and what waits there, or what is to be shown of all that have this label."""
        self._shown_gates.add(label)
        self.held.labels(label).set(held)
        self.gate_rate.labels(label).set(rate_per_s)
        self.gate_limit.labels(label).set(limit_per_s)
        self.forbidden_origins.labels(label).set(forbidden_origins)
        for reason in Pause:
            self.gate_paused.labels(label, reason).set(reason in paused)

    def forget_gates(self, *, but: Collection[str]) -> None:
        """Take away what is shown of labels that no key has any more: it got one of its own, or is gone."""
        for label in self._shown_gates.difference(but):
            for gauge in (self.held, self.gate_rate, self.gate_limit, self.forbidden_origins):
                gauge.remove(label)
            for reason in Pause:
                self.gate_paused.remove(label, reason)
            self._shown_gates.remove(label)
        if OTHER_KEYS not in self._shown_gates:
            for reason in Pause:
                self.gate_paused.labels(OTHER_KEYS, reason).set(0)

    def set_buffer_up(self, *, is_up: bool) -> None:
        """Show whether the buffer answered the last look; while it does not, nothing of it is shown."""
        self.buffer_up.set(is_up)
        self._buffers.is_known = is_up

    def show_engine(self, engine: str, durability: str, folder: Path | None = None) -> None:
        """Show what the buffer is. `engine`: sqlite or redis. `folder`: where its file is, if it is one."""
        self._buffer_info.labels(engine, durability).set(1)
        if folder is not None:
            self.disk_free_bytes.set_function(lambda: _disk(folder)[0])
            self.disk_bytes.set_function(lambda: _disk(folder)[1])

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """All of it as text, in the format that an `Accept` header asks for, and its content type.

        Where it asks for none that can be understood, in the plain one.
        """
        try:
            encoder, content_type = choose_encoder(accept if accept.isascii() else "")
        except TypeError:  # a version that is none, such as "abc"
            encoder, content_type = choose_encoder("")
        return encoder(self.registry), content_type

    def _show_build(self) -> None:
        build = self._make.gauge_by("build_info", "Always 1.", "version", "python")
        build.labels(__version__, platform.python_version()).set(1)
